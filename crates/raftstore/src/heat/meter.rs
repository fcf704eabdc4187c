//! Rates of all ranges, and the CPU of the process divided among them.
//!
//! What a range costs cannot be clocked operation by operation: most of it is spent in tasks that
//! serve many ranges at once. So the CPU that the whole process used is divided by what the ranges
//! did, in units of a point read. What was refused or waits is demand and is priced alike.

use super::ScannedRows;
use super::counters::Counted;
use super::sampler::SampledKey;
use crate::replica::Replica;
use crate::store::Store;
use isotherm_types::RangeId;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time constants of the two averages.
const FAST: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(10);
/// Below this many cores a rate counts as nothing.
const NOTHING_CORES: f64 = 1e-5;

/// Rates of one range on this node, averaged.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct HeatRates {
    /// Keys read per second: gets, and rows of scans and aggregates.
    pub reads: f64,
    /// Operations applied per second.
    pub writes: f64,
    /// Bytes per second, in and out.
    pub bytes: f64,
    /// Writes per second of a key above all that were written before.
    pub appends: f64,
    /// CPU in cores, including the demand that was queued or refused.
    pub cores: f64,
}

impl HeatRates {
    /// Moves towards `now`, which lasted for `lasted`.
    fn approach(&mut self, now: &Self, lasted: Duration, constant: Duration) {
        let share = 1.0 - (-lasted.as_secs_f64() / constant.as_secs_f64()).exp();
        let step = |average: &mut f64, now: f64| *average += (now - *average) * share;
        step(&mut self.reads, now.reads);
        step(&mut self.writes, now.writes);
        step(&mut self.bytes, now.bytes);
        step(&mut self.appends, now.appends);
        step(&mut self.cores, now.cores);
    }
}

impl HeatRates {
    /// An average that began at nothing so long ago, as if it had begun at what it is of: a range
    /// that was just cut is not cold for ten seconds.
    fn since_birth(&self, age: Duration, constant: Duration) -> Self {
        let share = 1.0 - (-age.as_secs_f64() / constant.as_secs_f64()).exp();
        let whole = |average: f64| average / share.max(0.02);
        Self {
            reads: whole(self.reads),
            writes: whole(self.writes),
            bytes: whole(self.bytes),
            appends: whole(self.appends),
            cores: whole(self.cores),
        }
    }
}

/// The heat of one range that this node leads.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeHeat {
    /// Which.
    pub range: RangeId,
    /// In which term the node leads it.
    pub term: u64,
    /// Averaged over about a second.
    pub fast: HeatRates,
    /// Averaged over about ten seconds.
    pub slow: HeatRates,
}

#[derive(Debug, Clone)]
struct Known {
    counted: Counted,
    was_leader: bool,
    version: u64,
    /// Since when the averages are about this role and span.
    since: Instant,
    fast: HeatRates,
    slow: HeatRates,
}

impl Known {
    fn new(was_leader: bool, version: u64, since: Instant) -> Self {
        let (counted, fast, slow) = <(Counted, HeatRates, HeatRates)>::default();
        Self { counted, was_leader, version, since, fast, slow }
    }
}

/// Measures all replicas of a store, from time to time.
#[derive(Debug)]
pub struct HeatMeter {
    measured: Instant,
    known: HashMap<RangeId, Known>,
}

impl Default for HeatMeter {
    fn default() -> Self {
        Self { measured: Instant::now(), known: HashMap::new() }
    }
}

impl HeatMeter {
    /// The heat of each range that is led here and is not stone cold. The process used `cores` since
    /// the last call.
    pub fn measure(&mut self, store: &Store, cores: f64) -> Vec<RangeHeat> {
        let now = Instant::now();
        let lasted = now.saturating_duration_since(self.measured);
        if lasted.is_zero() {
            return Vec::new();
        }
        self.measured = now;
        let replicas = store.all();
        let mut busy = Vec::new();
        let mut all_units = 0.0;
        for replica in &replicas {
            let counted = replica.heat.counted();
            let known = self.known.get(&replica.range);
            let delta = counted.since(&known.map(|k| k.counted).unwrap_or_default());
            let was_hot = known.is_some_and(|k| k.slow.cores > NOTHING_CORES);
            if delta == Counted::default() && !was_hot {
                replica.heat.sampler.expire();
                continue;
            }
            let leads = replica.leads();
            let units = delta.units(leads.is_some());
            all_units += units;
            busy.push((replica, counted, delta, units, leads));
        }
        // Without work, what the process uses is nobody's.
        let price = if all_units > 1.0 { cores / all_units } else { 0.0 };
        if self.known.len() > replicas.len() {
            self.known.retain(|range, _| store.replica(*range).is_some());
        }
        let mut heats = Vec::new();
        for (replica, counted, delta, units, leads) in busy {
            let version = replica.descriptor.load().epoch.version;
            let fresh = Known::new(leads.is_some(), version, replica.heat.born);
            let known = self.known.entry(replica.range).or_insert(fresh);
            if leads.is_some() != known.was_leader || version != known.version {
                // What it cost in the other role, or with the span that it had, says nothing now.
                *known = Known::new(leads.is_some(), version, now - lasted);
            }
            known.counted = counted;
            let queued = replica.queued_writes();
            let demand = units + delta.unserved_units(queued);
            let per_second = |count: u64| count as f64 / lasted.as_secs_f64();
            let rates = HeatRates {
                reads: per_second(delta.reads + delta.scanned),
                writes: per_second(delta.writes),
                bytes: per_second(delta.bytes),
                appends: per_second(delta.appends),
                cores: price * demand,
            };
            known.fast.approach(&rates, lasted, FAST);
            known.slow.approach(&rates, lasted, SLOW);
            replica.heat.sampler.follow(rates.writes + per_second(delta.reads + delta.drawn));
            let Some(term) = leads else { continue };
            let age = now.saturating_duration_since(known.since);
            let (fast, slow) =
                (known.fast.since_birth(age, FAST), known.slow.since_birth(age, SLOW));
            heats.push(RangeHeat { range: replica.range, term, fast, slow });
        }
        heats
    }
}

impl Replica {
    /// The term in which this replica leads; none: it follows.
    fn leads(self: &Arc<Self>) -> Option<u64> {
        let instance = self.instance.load();
        instance.as_ref().and_then(|i| i.leadership()).map(|leadership| leadership.term)
    }

    fn queued_writes(&self) -> u64 {
        (self.proposals.max_capacity() - self.proposals.capacity()) as u64
    }
}

impl Store {
    /// Keys that were read or written in `range` lately, by what they cost.
    pub fn sampled_keys(&self, range: RangeId) -> Vec<SampledKey> {
        self.replica(range).map(|replica| replica.heat.sampler.sample()).unwrap_or_default()
    }

    /// Notes a part of an aggregate: so many rows of `range` were examined, and `seen` are some of those
    /// that were there.
    pub fn note_scan(&self, range: RangeId, rows: u64, bytes: u64, seen: &ScannedRows) {
        if let Some(replica) = self.replica(range) {
            replica.heat.note_scan(rows, bytes, seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_young_average_is_as_high_as_what_it_is_of() {
        let now = HeatRates { cores: 0.5, ..HeatRates::default() };
        let (step, mut average) = (Duration::from_millis(250), HeatRates::default());
        for steps in 1..=40 {
            average.approach(&now, step, SLOW);
            let whole = average.since_birth(step * steps, SLOW);
            assert!((whole.cores - 0.5).abs() < 0.01, "{steps}: {}", whole.cores);
        }
    }
}
