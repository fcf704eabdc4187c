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
        let sample = keys.take(SAMPLE_MAX).map(|s| KeySample { key: s.key, weight: s.weight });
        let load = RangeLoad { fast, slow, sample: sample.collect() };
        Self { load, middle: Some(said.middle).filter(fits) }
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
    pb::RangeLoad {
        range_id: range.get(),
        term: 0,
        fast: Some(rates(&load.fast)),
        slow: Some(rates(&load.slow)),
        sample: sample.map(|s| pb::KeySample { key: s.key.clone(), weight: s.weight }).collect(),
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
}

impl Loads {
    /// Who leads `range` in `term` says so. An older term says nothing.
    pub fn note(&mut self, range: RangeId, term: u64, load: Load) {
        if self.by_range.get(&range).is_none_or(|known| known.term <= term) {
            self.by_range.insert(range, Said { term, load, superseded: None });
        }
    }

    /// The load of `range`; what an earlier leader said counts until the new one speaks.
    pub fn of(&self, range: RangeId) -> Option<&Load> {
        self.by_range.get(&range).map(|said| &said.load)
    }

    /// Forgets what earlier leaders said of ranges whose leaders, in the terms that `led_in` knows,
    /// have had [`SPEAKS_WITHIN`] to say something: they had nothing to say.
    pub fn expire(&mut self, led_in: impl Fn(RangeId) -> Option<u64>, now: Instant) {
        self.by_range.retain(|range, said| {
            if led_in(*range).is_none_or(|term| term <= said.term) {
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
        self.by_range.retain(|range, _| exists(*range));
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
