//! The run: truth, what is reported of it, and what orders do to it.

use super::demand::Demand;
use super::metrics::Metrics;
use super::plan::Plan;
use super::world::{Setup, key, numbers};
use crate::{Action, ClusterView, Decision, KeySample, Liveness, PendingMove, Rates, Scheduler};
use isotherm_types::{NodeId, RangeId};
use std::collections::{BTreeMap, HashMap};

/// How often loads are measured.
const TICK_MS: u64 = 100;
/// How often each node reports.
const REPORT_MS: u64 = 500;
/// How often the scheduler is asked.
const PASS_MS: u64 = 300;
/// Keys in a sample.
const SAMPLED: usize = 64;
/// Rows per second that cost a core to read, and to write.
const READS_PER_CORE: f64 = 200_000.0;
const WRITES_PER_CORE: f64 = 25_000.0;

/// What is true of a range, beside what is reported.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Truth {
    /// Cores that are asked of it, and of these the appends.
    pub(super) demand: (f64, f64),
    /// What its leader measures: fast, slow.
    pub(super) measured: (f64, f64),
    /// Whose measurements these are.
    pub(super) measured_by: Option<NodeId>,
}

/// What happens later.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// An order takes effect.
    Effect(Action),
    /// A range without a leader elects one.
    Elect(RangeId),
    /// All replicas have applied the last split.
    MaySplit(RangeId),
}

/// One run.
#[derive(Debug)]
pub struct Simulation {
    /// What the scheduler sees.
    pub view: ClusterView,
    /// What it did.
    pub metrics: Metrics,
    /// Every decision that had an action, with its time.
    pub log: Vec<(u64, Decision)>,
    /// What is asked of which keys.
    pub demand: Demand,
    pub(super) scheduler: Scheduler,
    pub(super) setup: Setup,
    pub(super) random: fastrand::Rng,
    pub(super) truth: Vec<Truth>,
    pub(super) index: HashMap<RangeId, usize>,
    pub(super) events: BTreeMap<(u64, u64), Event>,
    serial: u64,
    pub(super) next_range: u64,
    begun_ms: u64,
}

impl Simulation {
    /// Put up, and not begun.
    pub fn new(setup: Setup, demand: Demand, scheduler: Scheduler) -> Self {
        let begun_ms = 1_000_000;
        let view = ClusterView {
            now_ms: begun_ms,
            nodes: (1..=setup.nodes).map(|id| (NodeId(id), setup.node(id))).collect(),
            ranges: setup.ranges(),
            moves: Vec::new(),
            merges: Vec::new(),
            replicas_wanted: setup.replicas,
        };
        let mut run = Self {
            truth: vec![Truth::default(); view.ranges.len()],
            index: HashMap::new(),
            next_range: setup.ranges + 1,
            random: fastrand::Rng::with_seed(setup.seed),
            metrics: Metrics::default(),
            log: Vec::new(),
            events: BTreeMap::new(),
            serial: 0,
            view,
            demand,
            scheduler,
            setup,
            begun_ms,
        };
        run.number();
        run.warm_up();
        run
    }

    /// The ground load has been there for long: averages have settled, and are reported.
    fn warm_up(&mut self) {
        let asked = self.asked();
        for (range, truth) in self.view.ranges.iter_mut().zip(&mut self.truth) {
            let Some(leader) = range.leader else { continue };
            let capacity = self.view.nodes[&leader].capacity_cores;
            let cores = truth.demand.0 * (capacity / asked[&leader].max(capacity));
            truth.measured = (cores, cores);
            truth.measured_by = Some(leader);
            range.load.fast = rates(cores, 0.0);
            range.load.slow = rates(cores, 0.0);
        }
    }

    /// Milliseconds since it began.
    pub fn now_ms(&self) -> u64 {
        self.view.now_ms - self.begun_ms
    }

    /// Runs on for `ms`.
    pub fn run(&mut self, ms: u64) {
        self.run_until(ms, |_| false);
    }

    /// Runs on for `ms` at most, until `is_done`; when that was.
    pub fn run_until(&mut self, ms: u64, is_done: impl Fn(&Self) -> bool) -> Option<u64> {
        let end = self.now_ms() + ms;
        while self.now_ms() < end {
            self.step();
            if is_done(self) {
                return Some(self.now_ms());
            }
        }
        None
    }

    fn step(&mut self) {
        let before = self.now_ms();
        self.view.now_ms += TICK_MS;
        let now = self.now_ms();
        while let Some(due) = self.events.first_entry() {
            if due.key().0 > now {
                break;
            }
            let event = due.remove();
            self.happen(event);
        }
        if self.demand.changed(before, now) {
            self.number();
        }
        self.measure();
        if now.is_multiple_of(PASS_MS) {
            self.decide();
        }
    }

    /// Indexes, and demand, of all ranges.
    pub(super) fn number(&mut self) {
        let ranges = &self.view.ranges;
        self.index = ranges.iter().enumerate().map(|(i, r)| (r.descriptor.id, i)).collect();
        let now = self.now_ms();
        for (range, truth) in self.view.ranges.iter().zip(&mut self.truth) {
            truth.demand = self.demand.of(&numbers(&range.descriptor.span), now);
        }
    }

    /// What is asked of each node, in cores.
    pub fn asked(&self) -> BTreeMap<NodeId, f64> {
        let mut asked: BTreeMap<_, _> = self.view.nodes.keys().map(|&id| (id, 0.0)).collect();
        for (range, truth) in self.view.ranges.iter().zip(&self.truth) {
            if let Some(leader) = range.leader {
                *asked.entry(leader).or_default() += truth.demand.0;
            }
        }
        asked
    }

    /// How far the node that is farthest from the mean is from it, as a share of the mean; of what
    /// is really asked of nodes that are up.
    pub fn unevenness(&self) -> f64 {
        let is_up = |id: &NodeId| self.view.nodes[id].liveness == Liveness::Up;
        let asked: Vec<_> =
            self.asked().into_iter().filter(|(id, _)| is_up(id)).map(|(_, cores)| cores).collect();
        let mean = asked.iter().sum::<f64>() / asked.len() as f64;
        asked.iter().map(|cores| (cores - mean).abs() / mean).fold(0.0, f64::max)
    }

    fn measure(&mut self) {
        let (now, asked) = (self.now_ms(), self.asked());
        let follow = |ms: f64| 1.0 - (-(TICK_MS as f64) / ms).exp();
        let (fast, slow) = (follow(1000.0), follow(10_000.0));
        let hot = 0.02;
        let mut served = HashMap::new();
        for (&id, &cores) in &asked {
            let capacity = self.view.nodes[&id].capacity_cores;
            served.insert(id, if cores > capacity { capacity / cores } else { 1.0 });
            if let Some(node) = self.view.nodes.get_mut(&id) {
                node.load_cores = cores.min(capacity);
            }
        }
        for (range, truth) in self.view.ranges.iter_mut().zip(&mut self.truth) {
            let Some(leader) = range.leader else { continue };
            if truth.measured_by != Some(leader) {
                truth.measured = (0.0, 0.0);
                truth.measured_by = Some(leader);
            }
            let noise = 0.98 + 0.04 * self.random.f64();
            let cores = truth.demand.0 * served.get(&leader).copied().unwrap_or(0.0) * noise;
            truth.measured.0 += (cores - truth.measured.0) * fast;
            truth.measured.1 += (cores - truth.measured.1) * slow;
            if (now + leader.0 * 70) % REPORT_MS < TICK_MS {
                let part = if truth.demand.0 > 0.0 { truth.demand.1 / truth.demand.0 } else { 0.0 };
                range.load.fast = rates(truth.measured.0, part);
                range.load.slow = rates(truth.measured.1, part);
                range.load.sample.clear();
                if truth.measured.0 > hot {
                    let span = numbers(&range.descriptor.span);
                    let keys = self.demand.sample(&span, now, SAMPLED, &mut self.random);
                    let taken = keys.into_iter().map(|k| KeySample {
                        key: key(k),
                        weight: 1.0,
                        is_scanned: false,
                    });
                    range.load.sample = taken.collect();
                }
            }
        }
    }

    fn decide(&mut self) {
        let begun = std::time::Instant::now();
        let decisions = self.scheduler.decide(&self.view);
        let took = begun.elapsed();
        self.metrics.passes += 1;
        self.metrics.all_passes += took;
        self.metrics.slowest_pass = self.metrics.slowest_pass.max(took);
        let mut plan = Plan::of(self);
        for decision in decisions {
            let Some(action) = decision.action.clone() else { continue };
            self.metrics.note(decision.rule, &action);
            plan.judge(self, decision.rule, &action);
            self.begin(action);
            self.log.push((self.now_ms(), decision));
        }
    }

    fn begin(&mut self, action: Action) {
        let random = |run: &mut Self, low: u64, high: u64| run.random.u64(low..high);
        let delay = match &action {
            Action::Split { .. } => random(self, 50, 200),
            Action::Transfer { .. } => random(self, 100, 300),
            Action::Merge { .. } => random(self, 200, 500),
            Action::CancelMove { .. } => 50,
            Action::Move { range, to, .. } | Action::Add { range, to } => {
                let from = match &action {
                    Action::Move { from, .. } => Some(*from),
                    _ => None,
                };
                let (range, to, started_ms) = (*range, *to, self.view.now_ms);
                self.view.moves.push(PendingMove { range, from, to, started_ms });
                let bytes = self.index.get(&range).map_or(0, |&i| self.view.ranges[i].size_bytes);
                random(self, 200, 500) + bytes * 1000 / self.setup.bytes_per_second
            }
        };
        self.later(delay, Event::Effect(action));
    }

    pub(super) fn later(&mut self, delay_ms: u64, event: Event) {
        self.serial += 1;
        self.events.insert((self.now_ms() + delay_ms, self.serial), event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Effect(action) => {
                let result = self.carry_out(&action);
                if let Err(why) = result {
                    *self.metrics.failed.entry(why).or_default() += 1;
                }
                self.scheduler.note_result(&action, self.view.now_ms, result);
            }
            Event::Elect(range) => {
                let Some(&i) = self.index.get(&range) else { return };
                let range = &mut self.view.ranges[i];
                let quorum = range.descriptor.replicas.len() / 2 + 1;
                if range.leader.is_none() && range.live.len() >= quorum {
                    let chosen = range.live[self.random.usize(..range.live.len())];
                    range.leader = range.descriptor.replica(chosen).map(|replica| replica.node);
                }
            }
            Event::MaySplit(range) => {
                if let Some(&i) = self.index.get(&range) {
                    self.view.ranges[i].may_split = true;
                }
            }
        }
    }
}

fn rates(cores: f64, appends: f64) -> Rates {
    let writes = cores * appends * WRITES_PER_CORE;
    Rates {
        reads: cores * (1.0 - appends) * READS_PER_CORE,
        writes,
        bytes: writes * 100.0,
        appends: writes,
        cores,
    }
}
