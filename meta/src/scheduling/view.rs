//! What is known of the cluster, as the scheduler wants to see it.

use crate::machine::{MetaMachine, NodeIntent};
use crate::member::Meta;
use crate::operations::now_ms;
use crate::registry::{NodeState, RangeHealth, Registry};
use isotherm_scheduler::{
    ClusterView, Intent, Liveness, NodeView, PendingMerge, PendingMove, RangeView,
};
use isotherm_types::{NodeId, RangeDescriptor};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// A node that did not say how much CPU it may use.
const CAPACITY_DEFAULT: f64 = 1.0;

/// Makes views, all on one clock.
#[derive(Debug)]
pub(super) struct Views {
    began: Instant,
    /// Descriptors of the last view: those that did not change are shared with it.
    known: HashMap<isotherm_types::RangeId, Arc<RangeDescriptor>>,
}

impl Views {
    /// Whose clock begins now.
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, known: HashMap::new() }
    }

    /// `at` on the clock of the views.
    pub(super) fn clock(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// The cluster now; none while a new leader has not heard of its nodes yet.
    pub(super) fn view(&mut self, meta: &Meta, now: Instant) -> Option<ClusterView> {
        let machine = meta.group.machine().read();
        let registry = meta.registry.lock();
        if registry.is_in_grace(now) || !machine.is_bootstrapped() {
            return None;
        }
        let states = registry.states(machine.nodes(), now);
        let clock = self.clock(now);
        let nodes =
            machine.nodes().keys().filter(|id| machine.intent(**id) != NodeIntent::Decommissioned);
        let nodes = nodes.map(|id| (*id, self.node(*id, &machine, &registry, states[id], now)));
        let nodes = nodes.collect();
        let wanted = machine.replicas_wanted();
        let ranges = machine.ranges().iter();
        let ranges = ranges.map(|d| self.range(d, &registry, &states, wanted)).collect();
        if self.known.len() > machine.ranges().len() {
            self.known.retain(|range, _| machine.ranges().get(*range).is_some());
        }
        let wall = now_ms();
        let running = machine.operations().iter().filter(|o| !o.state.has_ended());
        let moves = running.map(|o| PendingMove {
            range: o.range,
            from: Some(o.from).filter(|from| from.get() != 0),
            to: o.to,
            started_ms: clock.saturating_sub(wall.saturating_sub(o.started_ms)),
        });
        let merges = machine.merges().running().map(|m| PendingMerge {
            left: m.left,
            right: m.right,
            started_ms: clock.saturating_sub(wall.saturating_sub(m.started_ms)),
        });
        let merges = merges.collect();
        Some(ClusterView {
            now_ms: clock,
            nodes,
            ranges,
            moves: moves.collect(),
            merges,
            replicas_wanted: wanted,
        })
    }

    fn node(
        &self,
        id: NodeId,
        machine: &MetaMachine,
        registry: &Registry,
        state: NodeState,
        now: Instant,
    ) -> NodeView {
        let said = registry.presence(id).and_then(|p| p.heartbeat).map(|(_, h)| h);
        let heartbeat = said.unwrap_or_default();
        let labels = &machine.nodes()[&id].details.labels;
        NodeView {
            id,
            liveness: match state {
                // One whose process is about to end is as good as one that is not known.
                NodeState::Up | NodeState::ReadOnly if heartbeat.draining => Liveness::Unknown,
                NodeState::Up | NodeState::ReadOnly => Liveness::Up,
                NodeState::Down => {
                    Liveness::Down { since_ms: self.clock(registry.silent_since(id, now)) }
                }
                NodeState::Joining | NodeState::Unknown => Liveness::Unknown,
            },
            intent: match machine.intent(id) {
                NodeIntent::Active => Intent::Active,
                NodeIntent::Draining => Intent::Draining,
                NodeIntent::Decommissioning | NodeIntent::Decommissioned => Intent::Decommissioning,
            },
            labels: Arc::new(labels.clone()),
            capacity_cores: match heartbeat.capacity_cores {
                cores if cores > 0.0 => cores,
                _ => CAPACITY_DEFAULT,
            },
            load_cores: heartbeat.load,
            disk_total_bytes: heartbeat.disk_total_bytes,
            disk_free_bytes: heartbeat.disk_free_bytes,
            is_read_only: heartbeat.read_only,
        }
    }

    fn range(
        &mut self,
        d: &RangeDescriptor,
        registry: &Registry,
        states: &HashMap<NodeId, NodeState>,
        wanted: usize,
    ) -> RangeView {
        let known = self.known.get(&d.id).filter(|known| known.epoch == d.epoch);
        let descriptor = match known {
            Some(known) => known.clone(),
            None => {
                let descriptor = Arc::new(d.clone());
                self.known.insert(d.id, descriptor.clone());
                descriptor
            }
        };
        let health = RangeHealth::of(d, registry, states, wanted);
        let load = registry.loads().of(d.id);
        RangeView {
            descriptor,
            leader: health.leader.map(|leader| leader.node),
            size_bytes: health.leader.map_or(0, |leader| leader.size_bytes),
            live: health.live,
            load: load.map(|said| said.load.clone()).unwrap_or_default(),
            middle: load.and_then(|said| said.middle.clone()),
            may_split: registry.is_applied_everywhere(d, states),
        }
    }
}
