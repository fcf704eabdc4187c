//! What ranges cost here, as it is reported: only what changed, and keys only of ranges that are
//! warm.

use isotherm_proto::internal as pb;
use isotherm_raftstore::{HeatMeter, HeatRates, RangeHeat, Store};
use isotherm_telemetry::{CpuMeter, cpu_capacity};
use isotherm_types::RangeId;
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
    reported: HashMap<RangeId, (u64, f64)>,
    middles: HashMap<RangeId, (Instant, bytes::Bytes)>,
    /// Averaged over about a second.
    cores: f64,
    last: Instant,
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
        for heat in heats {
            measured.is_hot |= heat.fast.cores > hot;
            let is_warm = heat.fast.cores.max(heat.slow.cores) > hot * WARM;
            if is_warm || self.is_news(&heat) {
                let middle = self.middle(store, heat.range).await;
                measured.loads.push(report(store, &heat, is_warm, middle));
            }
        }
        measured
    }

    fn is_news(&self, heat: &RangeHeat) -> bool {
        let (term, known) = self.reported.get(&heat.range).copied().unwrap_or_default();
        let cores = heat.slow.cores;
        let change = (cores - known).abs();
        term != heat.term || change > CHANGE_CORES.max(CHANGE_SHARE * known)
    }

    /// Meta knows this.
    pub fn acknowledge(&mut self, measured: Measured) {
        for load in measured.loads {
            let cores = load.slow.map_or(0.0, |slow| slow.cores);
            self.reported.insert(RangeId(load.range_id), (load.term, cores));
        }
    }

    /// A key that cuts a large range in halves.
    async fn middle(&mut self, store: &Arc<Store>, range: RangeId) -> bytes::Bytes {
        if let Some((at, known)) = self.middles.get(&range)
            && at.elapsed() < MIDDLE_EVERY
        {
            return known.clone();
        }
        let Some(replica) = store.replica(range) else { return bytes::Bytes::new() };
        let span = replica.descriptor().span.clone();
        let middle = store.middle(span, LARGE_BYTES).await.unwrap_or_default();
        self.middles.insert(range, (Instant::now(), middle.clone()));
        middle
    }
}

fn report(store: &Store, heat: &RangeHeat, is_warm: bool, middle: bytes::Bytes) -> pb::RangeLoad {
    let sample = if is_warm { store.sampled_keys(heat.range) } else { Vec::new() };
    let key = |s: isotherm_raftstore::SampledKey| pb::KeySample { key: s.key, weight: s.weight };
    pb::RangeLoad {
        range_id: heat.range.get(),
        term: heat.term,
        fast: Some(rates(&heat.fast)),
        slow: Some(rates(&heat.slow)),
        sample: sample.into_iter().map(key).collect(),
        middle,
    }
}
