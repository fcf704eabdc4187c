//! What ranges cost here, as it is reported: only what changed, and keys only of ranges that are
//! warm.

use crate::room::Room;
use isotherm_proto::internal as pb;
use isotherm_raftstore::{HeatMeter, HeatRates, RangeHeat, SampledKey, Store};
use isotherm_telemetry::{CpuMeter, cpu_capacity};
use isotherm_types::RangeId;
use isotherm_types::limits::{LOADS_BYTES_MAX, SAMPLE_BYTES_MAX};
use prost::Message;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Share of a core from which a range counts as hot here, and is reported more often.
const HOT_CORES: f64 = 0.2;
/// Share of that from which its keys are reported too.
const WARM: f64 = 0.2;
/// A change by less than this share, or by fewer cores, is not worth a word.
const CHANGE_SHARE: f64 = 0.1;
const CHANGE_CORES: f64 = 0.001;
/// The quota is read again after this long.
const CAPACITY_EVERY: Duration = Duration::from_secs(5);
/// A range is looked at for a middle key from this size on.
const LARGE_BYTES: u64 = 32 << 20;
/// The middle of a large range is looked up again after this long.
const MIDDLE_EVERY: Duration = Duration::from_secs(20);

/// What is known of ranges that are not here any more is dropped this often.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// How long all lookups of middle keys of one report may take: they wait behind the scans of clients,
/// and a report must not.
const MIDDLES_TIMEOUT: Duration = Duration::from_millis(100);

/// One measurement.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// CPU that the process uses and may use, in cores.
    pub cores: f64,
    pub capacity_cores: f64,
    /// The ranges whose load changed.
    pub loads: Vec<pb::RangeLoad>,
    /// Whether one of them is hot.
    pub is_hot: bool,
}

/// Measures, and knows what was reported.
#[derive(Debug)]
pub struct Loads {
    cpu: CpuMeter,
    meter: HeatMeter,
    capacity: (Instant, f64),
    reported: HashMap<RangeId, Reported>,
    middles: HashMap<RangeId, (Instant, bytes::Bytes)>,
    /// Averaged over about a second.
    cores: f64,
    last: Instant,
    pruned: Instant,
}

/// What meta was told last of a range.
#[derive(Debug, Clone, Copy)]
struct Reported {
    term: u64,
    cores: f64,
    at: Instant,
}

impl Default for Loads {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            cpu: CpuMeter::default(),
            meter: HeatMeter::default(),
            capacity: (now, cpu_capacity()),
            reported: HashMap::new(),
            middles: HashMap::new(),
            cores: 0.0,
            last: now,
            pruned: now,
        }
    }
}

fn rates(rates: &HeatRates) -> pb::Rates {
    pb::Rates {
        reads: rates.reads,
        writes: rates.writes,
        bytes: rates.bytes,
        appends: rates.appends,
        cores: rates.cores,
    }
}

impl Loads {
    /// Everything is to be reported again.
    pub fn forget_reports(&mut self) {
        self.reported.clear();
    }

    /// What changed since the last report that was acknowledged.
    pub async fn measure(&mut self, store: &Arc<Store>) -> Measured {
        let cores = self.cpu.cores();
        let share = 1.0 - (-self.last.elapsed().as_secs_f64()).exp();
        self.last = Instant::now();
        self.cores += (cores - self.cores) * share;
        if self.capacity.0.elapsed() > CAPACITY_EVERY {
            self.capacity = (Instant::now(), cpu_capacity());
            // Of ranges that are not here any more.
            self.reported.retain(|range, _| store.replica(*range).is_some());
            self.middles.retain(|range, _| store.replica(*range).is_some());
        }
        let capacity_cores = self.capacity.1;
        let hot = HOT_CORES * capacity_cores.min(1.0);
        let heats = self.meter.measure(store, cores);
        let mut measured = Measured { cores: self.cores, capacity_cores, ..Measured::default() };
        let mut due = Vec::new();
        for heat in heats {
            measured.is_hot |= heat.fast.cores > hot;
            let is_warm = heat.fast.cores.max(heat.slow.cores) > hot * WARM;
            if is_warm || self.is_news(&heat) {
                due.push((self.reported.get(&heat.range).map(|known| known.at), heat, is_warm));
            }
        }
        // Those that have not been reported for the longest time first, or never.
        due.sort_by_key(|(at, heat, _)| (*at, heat.range));
        let middles_until = Instant::now() + MIDDLES_TIMEOUT;
        let mut fitting = Fitting::default();
        for (_, heat, is_warm) in due {
            let middle = self.middle(store, heat.range, middles_until).await;
            if !fitting.take(report(store, &heat, is_warm, middle)) {
                break;
            }
        }
        measured.loads = fitting.loads;
        if self.pruned.elapsed() > PRUNE_EVERY {
            self.pruned = Instant::now();
            let is_here = |range: &RangeId| store.replica(*range).is_some();
            self.reported.retain(|range, _| is_here(range));
            self.middles.retain(|range, _| is_here(range));
        }
        measured
    }

    fn is_news(&self, heat: &RangeHeat) -> bool {
        let Some(known) = self.reported.get(&heat.range) else { return true };
        let change = (heat.slow.cores - known.cores).abs();
        known.term != heat.term || change > CHANGE_CORES.max(CHANGE_SHARE * known.cores)
    }

    /// Meta knows this.
    pub fn acknowledge(&mut self, measured: Measured) {
        let at = Instant::now();
        for load in measured.loads {
            let cores = load.slow.map_or(0.0, |slow| slow.cores);
            let reported = Reported { term: load.term, cores, at };
            self.reported.insert(RangeId(load.range_id), reported);
        }
    }

    /// A key that cuts a large range in halves; what was found last if there is no answer in time.
    async fn middle(&mut self, store: &Arc<Store>, range: RangeId, until: Instant) -> bytes::Bytes {
        let known = self.middles.get(&range);
        let last = known.map(|(_, known)| known.clone()).unwrap_or_default();
        if known.is_some_and(|(at, _)| at.elapsed() < MIDDLE_EVERY) || Instant::now() >= until {
            return last;
        }
        let Some(replica) = store.replica(range) else { return bytes::Bytes::new() };
        let span = replica.descriptor().span.clone();
        let looked_up = tokio::time::timeout_at(until.into(), store.middle(span, LARGE_BYTES));
        let Ok(middle) = looked_up.await else { return last };
        let middle = middle.unwrap_or_default();
        self.middles.insert(range, (Instant::now(), middle.clone()));
        middle
    }
}

/// The loads of one report.
struct Fitting {
    room: Room,
    loads: Vec<pb::RangeLoad>,
}

impl Default for Fitting {
    fn default() -> Self {
        Self { room: Room::new(LOADS_BYTES_MAX), loads: Vec::new() }
    }
}

impl Fitting {
    /// Takes one more if it fits.
    fn take(&mut self, load: pb::RangeLoad) -> bool {
        let fits = self.room.take(load.encoded_len());
        if fits {
            self.loads.push(load);
        }
        fits
    }
}

/// As many of `sample`, drawn at random, as have `bytes_max` bytes of keys together.
fn within_bytes(mut sample: Vec<SampledKey>, bytes_max: usize) -> Vec<SampledKey> {
    let all: usize = sample.iter().map(|taken| taken.key.len()).sum();
    if all > bytes_max {
        fastrand::shuffle(&mut sample);
        let mut bytes = 0;
        sample.retain(|taken| {
            bytes += taken.key.len();
            bytes <= bytes_max
        });
    }
    sample
}

fn report(store: &Store, heat: &RangeHeat, is_warm: bool, middle: bytes::Bytes) -> pb::RangeLoad {
    let sample = if is_warm { store.sampled_keys(heat.range) } else { Vec::new() };
    let sample = within_bytes(sample, SAMPLE_BYTES_MAX);
    let key =
        |s: SampledKey| pb::KeySample { key: s.key, weight: s.weight, is_scanned: s.is_scanned };
    pb::RangeLoad {
        range_id: heat.range.get(),
        term: heat.term,
        fast: Some(rates(&heat.fast)),
        slow: Some(rates(&heat.slow)),
        sample: sample.into_iter().map(key).collect(),
        middle,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isotherm_types::limits;

    #[test]
    fn a_sample_of_long_keys_is_cut_by_bytes_and_every_key_has_its_chance() {
        let key = |n: usize| bytes::Bytes::from(format!("{n:04}").repeat(1024));
        let sample: Vec<_> =
            (0..256).map(|n| SampledKey { key: key(n), weight: 1.0, is_scanned: false }).collect();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..500 {
            let kept = within_bytes(sample.clone(), SAMPLE_BYTES_MAX);
            let bytes: usize = kept.iter().map(|taken| taken.key.len()).sum();
            assert!(bytes <= SAMPLE_BYTES_MAX && kept.len() == SAMPLE_BYTES_MAX / 4096);
            seen.extend(kept.into_iter().map(|taken| taken.key));
        }
        assert_eq!(seen.len(), 256);
        let short = sample[..3].to_vec();
        assert_eq!(within_bytes(short, SAMPLE_BYTES_MAX).len(), 3);
    }

    /// Every one of thousands of ranges is warm, with keys as long as they may be.
    #[test]
    fn the_loads_of_one_report_leave_room_in_a_message() {
        let key = |n: usize| bytes::Bytes::from(format!("{n:04}").repeat(1024));
        let sample =
            (0..256).map(|n| SampledKey { key: key(n), weight: 1.0, is_scanned: false }).collect();
        let sample = within_bytes(sample, SAMPLE_BYTES_MAX).into_iter();
        let load = pb::RangeLoad {
            middle: key(0),
            sample: sample
                .map(|s| pb::KeySample { key: s.key, weight: s.weight, is_scanned: s.is_scanned })
                .collect(),
            ..pb::RangeLoad::default()
        };
        let mut fitting = Fitting::default();
        let taken = (0..5_000).filter(|_| fitting.take(load.clone())).count();
        assert!(taken > 20 && fitting.loads.len() == taken, "{taken}");
        let message = pb::HeartbeatRequest { loads: fitting.loads, ..Default::default() };
        let bytes = message.encoded_len();
        assert!(bytes < limits::MESSAGE_BYTES_MAX / 4, "{taken} loads have {bytes} bytes");
    }
}
