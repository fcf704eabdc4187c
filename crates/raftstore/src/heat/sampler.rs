//! Which keys carry the heat: a sample over the last seconds, weighted by what operations cost.

use isotherm_types::Key;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Keys that are kept.
const KEPT_MAX: usize = 256;
/// Keys that are taken a second, about.
const PER_SECOND: f64 = 128.0;
/// Older ones say nothing about now.
const AGE_MAX: Duration = Duration::from_secs(4);

/// A key of the sample.
#[derive(Debug, Clone, PartialEq)]
pub struct SampledKey {
    /// The key.
    pub key: Key,
    /// What its operation cost, in units of a point read.
    pub weight: f64,
    /// Whether it is one of the rows that a scan or an aggregate came by.
    pub is_scanned: bool,
}

/// Each operation is taken with the same probability, which follows the rate of operations; so the
/// sample is fair over its window, and a hot range pays for it no more than a warm one.
#[derive(Debug)]
pub struct Sampler {
    /// The probability, as a share of 2^32.
    chance: AtomicU32,
    taken: Mutex<VecDeque<(Instant, SampledKey)>>,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { chance: AtomicU32::new(u32::MAX), taken: Mutex::default() }
    }
}

impl Sampler {
    /// Takes some of `keys`, each of which was read or written at a cost of `weight`.
    pub fn offer<'a>(&self, keys: impl Iterator<Item = &'a Key>, weight: f64) {
        self.take(keys, weight, false);
    }

    /// Takes some of the rows that a scan came by, each of which stands for a cost of `weight`.
    pub fn offer_scanned<'a>(&self, keys: impl Iterator<Item = &'a Key>, weight: f64) {
        self.take(keys, weight, true);
    }

    fn take<'a>(&self, keys: impl Iterator<Item = &'a Key>, weight: f64, is_scanned: bool) {
        let chance = self.chance.load(Ordering::Relaxed);
        for key in keys {
            if chance == u32::MAX || fastrand::u32(..) < chance {
                let mut taken = self.taken.lock();
                if taken.len() == KEPT_MAX {
                    taken.pop_front();
                }
                // A copy: what came with a request shares the memory of its whole message.
                let key = Key::copy_from_slice(key);
                taken.push_back((Instant::now(), SampledKey { key, weight, is_scanned }));
            }
        }
    }

    /// From now on about as many a second at this rate of operations.
    pub fn follow(&self, operations_per_second: f64) {
        let share = PER_SECOND / operations_per_second.max(PER_SECOND);
        self.chance.store((share * f64::from(u32::MAX)) as u32, Ordering::Relaxed);
    }

    /// Forgets what is too old to say anything; whoever is idle keeps nothing.
    pub fn expire(&self) {
        let mut taken = self.taken.lock();
        let is_old = |(at, _): &mut (Instant, SampledKey)| at.elapsed() >= AGE_MAX;
        while taken.pop_front_if(is_old).is_some() {}
        if taken.is_empty() {
            taken.shrink_to_fit();
        }
    }

    /// What was taken lately.
    pub fn sample(&self) -> Vec<SampledKey> {
        let taken = self.taken.lock();
        let recent = taken.iter().filter(|(at, _)| at.elapsed() < AGE_MAX);
        recent.map(|(_, sampled)| sampled.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sampled_key_does_not_keep_the_request_that_it_came_with() {
        let (request, sampler) = (bytes::Bytes::from(vec![7; 1 << 20]), Sampler::default());
        sampler.offer([&request.slice(..8)].into_iter(), 1.0);
        assert_eq!(sampler.sample()[0].key, request[..8]);
        assert!(request.is_unique(), "nobody else holds the megabyte");
    }

    #[test]
    fn a_hot_key_is_as_frequent_in_the_sample_as_in_the_load() {
        let sampler = Sampler::default();
        sampler.follow(100_000.0);
        let (hot, cold) = (Key::from_static(b"hot"), Key::from_static(b"cold"));
        for _ in 0..50_000 {
            sampler.offer([&hot, &cold, &hot, &hot].into_iter(), 1.0);
        }
        let sample = sampler.sample();
        let share = sample.iter().filter(|s| s.key == hot).count() as f64 / sample.len() as f64;
        assert!((100..=256).contains(&sample.len()), "{}", sample.len());
        assert!((0.6..0.9).contains(&share), "{share}");
    }
}
