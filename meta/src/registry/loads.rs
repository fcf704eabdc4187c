//! What ranges cost, as their leaders said.

use isotherm_proto::internal as pb;
use isotherm_scheduler::{KeySample, RangeLoad, Rates};
use isotherm_types::{Key, RangeId, limits};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A leader reports what is not stone cold within two heartbeats. This is time for a slow one.
const SPEAKS_WITHIN: Duration = Duration::from_secs(10);
/// Keys of one range that are kept.
const SAMPLE_MAX: usize = 512;
/// Bytes of the keys of all ranges together. What does not fit is not kept: the scheduler then cuts
/// such a range in the middle of its rows.
const KEYS_BYTES_MAX: usize = 64 << 20;
/// What a key in memory costs beside its bytes, about.
const KEY_BYTES: usize = 64;

/// The load of one range.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Load {
    /// What it costs.
    pub load: RangeLoad,
    /// A key in the middle of its rows, if it is large.
    pub middle: Option<Key>,
}

fn rates(rates: Option<&pb::Rates>) -> Rates {
    // A figure that is none is nothing: it would spread into everything that is added to it.
    let sane = |figure: f64| if figure.is_finite() && figure > 0.0 { figure } else { 0.0 };
    rates.map_or_else(Rates::default, |r| Rates {
        reads: sane(r.reads),
        writes: sane(r.writes),
        bytes: sane(r.bytes),
        appends: sane(r.appends),
        cores: sane(r.cores),
    })
}

impl From<pb::RangeLoad> for Load {
    fn from(said: pb::RangeLoad) -> Self {
        let (fast, slow) = (rates(said.fast.as_ref()), rates(said.slow.as_ref()));
        let fits = |key: &Key| !key.is_empty() && key.len() <= limits::KEY_BYTES_MAX;
        let keys = said.sample.into_iter().filter(|s| fits(&s.key) && s.weight > 0.0);
        // Copies: what came with the message shares all of its memory.
        let own = |key: Key| Key::copy_from_slice(&key);
        let mut bytes = 0;
        let within = |sampled: &pb::KeySample| {
            bytes += sampled.key.len();
            bytes <= limits::SAMPLE_BYTES_MAX
        };
        let keys = keys.take(SAMPLE_MAX).take_while(within);
        let sample =
            keys.map(|s| KeySample { key: own(s.key), weight: s.weight, is_scanned: s.is_scanned });
        let load = RangeLoad { fast, slow, sample: sample.collect() };
        Self { load, middle: Some(said.middle).filter(fits).map(own) }
    }
}

impl Load {
    fn keys_bytes(&self) -> usize {
        let keys = self.load.sample.iter().map(|s| &s.key).chain(&self.middle);
        keys.map(|key| key.len() + KEY_BYTES).sum()
    }
}

/// As a message; the keys only if they are wanted.
pub fn load_message(range: RangeId, load: &RangeLoad, with_sample: bool) -> pb::RangeLoad {
    let rates = |r: &Rates| pb::Rates {
        reads: r.reads,
        writes: r.writes,
        bytes: r.bytes,
        appends: r.appends,
        cores: r.cores,
    };
    let sample = load.sample.iter().filter(|_| with_sample);
    let key = |s: &KeySample| pb::KeySample {
        key: s.key.clone(),
        weight: s.weight,
        is_scanned: s.is_scanned,
    };
    pb::RangeLoad {
        range_id: range.get(),
        term: 0,
        fast: Some(rates(&load.fast)),
        slow: Some(rates(&load.slow)),
        sample: sample.map(key).collect(),
        middle: Key::new(),
    }
}

#[derive(Debug)]
struct Said {
    term: u64,
    load: Load,
    /// Since when somebody leads in a newer term, who has said nothing yet.
    superseded: Option<Instant>,
}

/// The loads of all ranges that are not stone cold.
#[derive(Debug, Default)]
pub struct Loads {
    by_range: HashMap<RangeId, Said>,
    /// Of the keys in it.
    keys_bytes: usize,
}

impl Loads {
    /// Who leads `range` in `term` says so. An older term says nothing.
    pub fn note(&mut self, range: RangeId, term: u64, mut load: Load) {
        let known = self.by_range.get(&range);
        if known.is_some_and(|known| known.term > term) {
            return;
        }
        self.keys_bytes -= known.map_or(0, |known| known.load.keys_bytes());
        if self.keys_bytes + load.keys_bytes() > KEYS_BYTES_MAX {
            load.load.sample = Vec::new();
            load.middle = None;
        }
        self.keys_bytes += load.keys_bytes();
        self.by_range.insert(range, Said { term, load, superseded: None });
    }

    /// Bytes of the keys that are kept.
    pub fn keys_bytes(&self) -> usize {
        self.keys_bytes
    }

    fn keep(&mut self, mut keeps: impl FnMut(RangeId, &mut Said) -> bool) {
        let keys_bytes = &mut self.keys_bytes;
        self.by_range.retain(|range, said| {
            let kept = keeps(*range, said);
            *keys_bytes -= if kept { 0 } else { said.load.keys_bytes() };
            kept
        });
    }

    /// The load of `range`; what an earlier leader said counts until the new one speaks.
    pub fn of(&self, range: RangeId) -> Option<&Load> {
        self.by_range.get(&range).map(|said| &said.load)
    }

    /// Forgets what earlier leaders said of ranges whose leaders, in the terms that `led_in` knows,
    /// have had [`SPEAKS_WITHIN`] to say something: they had nothing to say.
    pub fn expire(&mut self, led_in: impl Fn(RangeId) -> Option<u64>, now: Instant) {
        self.keep(|range, said| {
            if led_in(range).is_none_or(|term| term <= said.term) {
                said.superseded = None;
                return true;
            }
            let since = *said.superseded.get_or_insert(now);
            now.saturating_duration_since(since) < SPEAKS_WITHIN
        });
    }

    /// Whether a range costs more than so many cores.
    pub fn are_warm(&self, cores: f64) -> bool {
        self.by_range.values().any(|said| said.load.load.fast.cores > cores)
    }

    /// Forgets the ranges that are not there any more.
    pub fn retain(&mut self, exists: impl Fn(RangeId) -> bool) {
        self.keep(|range, _| exists(range));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const R: RangeId = RangeId(7);

    fn warm(cores: f64) -> Load {
        let fast = Rates { cores, ..Rates::default() };
        Load { load: RangeLoad { fast, ..RangeLoad::default() }, middle: None }
    }

    fn sampled(keys: impl IntoIterator<Item = Key>) -> pb::RangeLoad {
        let sample = keys
            .into_iter()
            .map(|key| pb::KeySample { key, weight: 1.0, ..Default::default() })
            .collect();
        pb::RangeLoad { range_id: R.get(), sample, ..pb::RangeLoad::default() }
    }

    #[test]
    fn a_load_does_not_keep_the_message_that_it_came_with() {
        let message = Key::from(vec![7; 1 << 20]);
        let said = pb::RangeLoad { middle: message.slice(9..20), ..sampled([message.slice(..8)]) };
        let load = Load::from(said);
        assert_eq!(load.load.sample[0].key, message[..8]);
        assert!(message.is_unique(), "nobody else holds the megabyte");
    }

    #[test]
    fn the_keys_of_all_ranges_are_bounded() {
        let mut loads = Loads::default();
        let large = || Load::from(sampled((0..512).map(|_| Key::from(vec![7; 4096]))));
        for range in 0..100 {
            loads.note(RangeId(range), 1, large());
            loads.note(RangeId(range), 2, large());
        }
        assert!(loads.keys_bytes() <= KEYS_BYTES_MAX, "{}", loads.keys_bytes());
        assert!(loads.of(RangeId(99)).is_some(), "its figures are kept");
        loads.retain(|range| range.get() % 2 == 0);
        loads.expire(|_| Some(3), Instant::now());
        loads.expire(|_| Some(3), Instant::now() + SPEAKS_WITHIN);
        assert_eq!(loads.keys_bytes(), 0);
    }

    #[test]
    fn the_keys_of_one_range_are_taken_up_to_their_limit() {
        let sample = |bytes: usize| pb::KeySample {
            key: vec![b'k'; bytes].into(),
            weight: 1.0,
            is_scanned: true,
        };
        let kept =
            |sample| Load::from(pb::RangeLoad { sample, ..Default::default() }).load.sample.len();
        let fits = limits::SAMPLE_BYTES_MAX / limits::KEY_BYTES_MAX;
        let mut largest = vec![sample(limits::KEY_BYTES_MAX); fits];
        assert_eq!(kept(largest.clone()), fits);
        largest.push(sample(1));
        assert_eq!(kept(largest), fits, "one byte more");
        assert_eq!(kept(vec![sample(limits::KEY_BYTES_MAX + 1)]), 0);
        assert_eq!(kept(vec![sample(1); SAMPLE_MAX + 1]), SAMPLE_MAX);
    }

    #[test]
    fn what_an_earlier_leader_said_counts_until_the_new_one_speaks_or_has_nothing_to_say() {
        let (mut loads, begun) = (Loads::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        loads.note(R, 4, warm(0.5));
        loads.expire(|_| Some(4), at(60));
        assert!(loads.are_warm(0.4), "its leader need not repeat it");
        loads.expire(|_| Some(5), at(60));
        loads.expire(|_| Some(5), at(69));
        assert!(loads.are_warm(0.4), "the new one may still be measuring");
        loads.note(R, 5, warm(0.3));
        loads.expire(|_| Some(5), at(90));
        assert_eq!(loads.of(R), Some(&warm(0.3)));
        loads.expire(|_| Some(6), at(100));
        loads.expire(|_| None, at(105));
        loads.expire(|_| Some(6), at(112));
        assert!(loads.of(R).is_some(), "nobody led in between: the time starts anew");
        loads.expire(|_| Some(6), at(122));
        assert_eq!(loads.of(R), None);
    }
}
