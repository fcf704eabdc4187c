//! What is asked of which keys, in cores. Keys are eight bytes, so a key is a number.

use std::ops::Range;

/// Heat on a part of the key space, for a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Spot {
    /// Which keys; one only: one hot key.
    pub keys: Range<u64>,
    /// In all, in cores.
    pub cores: f64,
    /// When, in milliseconds of the run.
    pub time_ms: Range<u64>,
    /// Keys per second by which the spot walks upwards, each key written once: appends.
    pub appends: u64,
}

impl Spot {
    /// Where it is at `now_ms`, if it is.
    fn at(&self, now_ms: u64) -> Option<Range<u64>> {
        let age = now_ms.checked_sub(self.time_ms.start)?;
        let walked = self.appends / 1000 * age;
        let keys = self.keys.start.saturating_add(walked)..self.keys.end.saturating_add(walked);
        self.time_ms.contains(&now_ms).then_some(keys)
    }
}

/// A ground load that stays, and spots that come and go.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Demand {
    /// Where pieces of even ground load start, and the cores of all pieces before.
    ground: Vec<(u64, f64)>,
    /// Hot spots.
    pub spots: Vec<Spot>,
}

impl Demand {
    /// `weights.len()` pieces of the key space of equal width, with `cores` in all, shared out by
    /// `weights`.
    pub fn ground(weights: &[f64], cores: f64) -> Self {
        let all: f64 = weights.iter().sum();
        let width = u64::MAX / weights.len().max(1) as u64;
        let mut before = 0.0;
        let mut ground = Vec::with_capacity(weights.len() + 1);
        for (n, weight) in (0u64..).zip(weights) {
            ground.push((n * width, before));
            before += weight / all * cores;
        }
        ground.push((u64::MAX, before));
        Self { ground, spots: Vec::new() }
    }

    /// The same with one more spot.
    #[must_use]
    pub fn with(mut self, spot: Spot) -> Self {
        self.spots.push(spot);
        self
    }

    /// Whether some spot came, went or walked between two instants.
    pub(super) fn changed(&self, before_ms: u64, now_ms: u64) -> bool {
        self.spots.iter().any(|spot| spot.at(before_ms) != spot.at(now_ms))
    }

    /// Cores that are asked of the keys of a span, and of these the cores that appends cost.
    pub(super) fn of(&self, span: &Range<u64>, now_ms: u64) -> (f64, f64) {
        let mut cores = self.below(span.end) - self.below(span.start);
        let mut appends = 0.0;
        for spot in &self.spots {
            let Some(keys) = spot.at(now_ms) else { continue };
            let here = keys.end.min(span.end).saturating_sub(keys.start.max(span.start));
            let part = spot.cores * here as f64 / (keys.end - keys.start) as f64;
            cores += part;
            if spot.appends > 0 {
                appends += part;
            }
        }
        (cores.max(0.0), appends)
    }

    fn below(&self, key: u64) -> f64 {
        let at = self.ground.partition_point(|&(start, _)| start <= key);
        match (at.checked_sub(1).map(|at| self.ground[at]), self.ground.get(at)) {
            (Some((start, before)), Some(&(end, after))) => {
                before + (after - before) * ((key - start) as f64 / (end - start) as f64)
            }
            (Some((_, before)), None) => before,
            (None, _) => 0.0,
        }
    }

    /// `count` keys of a span as they would be met there.
    pub(super) fn sample(
        &self,
        span: &Range<u64>,
        now_ms: u64,
        count: usize,
        random: &mut fastrand::Rng,
    ) -> Vec<u64> {
        let (low, high) = (self.below(span.start), self.below(span.end));
        let mut parts = vec![(high - low, None)];
        for spot in &self.spots {
            let Some(keys) = spot.at(now_ms) else { continue };
            let keys = keys.start.max(span.start)..keys.end.min(span.end);
            if !keys.is_empty() {
                let all = spot.keys.end - spot.keys.start;
                let cores = spot.cores * (keys.end - keys.start) as f64 / all as f64;
                // What was appended within the last second is in the sample too.
                let from = keys.start.saturating_sub(spot.appends).max(span.start);
                parts.push((cores, Some(from..keys.end)));
            }
        }
        let all: f64 = parts.iter().map(|(cores, _)| cores).sum();
        if all <= 0.0 {
            return Vec::new();
        }
        let mut keys = Vec::with_capacity(count);
        for _ in 0..count {
            let mut at = random.f64() * all;
            let part = parts.iter().find(|(cores, _)| {
                at -= cores;
                at <= 0.0
            });
            keys.push(match part.and_then(|(_, keys)| keys.clone()) {
                Some(keys) => random.u64(keys),
                None => self.key_at(low + random.f64() * (high - low)),
            });
        }
        keys.retain(|key| span.contains(key));
        keys
    }

    fn key_at(&self, cores: f64) -> u64 {
        let at = self.ground.partition_point(|&(_, before)| before <= cores).max(1);
        let (start, before) = self.ground[at - 1];
        match self.ground.get(at) {
            Some(&(end, after)) if after > before => {
                let share = (cores - before) / (after - before);
                start + (share * (end - start) as f64) as u64
            }
            _ => start,
        }
    }
}
