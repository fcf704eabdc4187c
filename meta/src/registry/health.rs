//! How ranges are, from what nodes say and from which nodes are there.

use super::presence::{LeaderReport, NodeState, Registry};
use isotherm_types::{NodeId, RangeDescriptor, RangeId, RangeMap, ReplicaId};
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// Ids that a count names.
const EXAMPLES: usize = 5;

/// How one range is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeHealth<'a> {
    /// Who leads, if that node is there.
    pub leader: Option<&'a LeaderReport>,
    /// The replicas that count as alive.
    pub live: Vec<ReplicaId>,
    /// No leader, and too few replicas alive to elect one, or none elected in all that time.
    pub is_unavailable: bool,
    /// Fewer replicas alive than there should be.
    pub is_under_replicated: bool,
    /// So it is only because a replica on a node that is there has not answered its leader yet.
    pub is_unheard: bool,
}

impl<'a> RangeHealth<'a> {
    /// Of `d`, which should have `wanted` replicas.
    pub fn of(
        d: &RangeDescriptor,
        registry: &'a Registry,
        states: &HashMap<NodeId, NodeState>,
        wanted: usize,
    ) -> Self {
        let alive = |node| states.get(&node).is_some_and(|s: &NodeState| s.counts_as_alive());
        let leader = registry.leader(d.id).filter(|leader| alive(leader.node));
        let heard = |id: ReplicaId| leader.is_none_or(|leader| leader.live.contains(&id));
        let is_live = |node, id| alive(node) && (heard(id) || is_led_by(leader, node));
        let live: Vec<_> =
            d.replicas.iter().filter(|r| is_live(r.node, r.id)).map(|r| r.id).collect();
        let voters = d.voters().count();
        let are_there = voters >= wanted && d.voters().all(|r| alive(r.node));
        let live_voters = d.voters().filter(|r| live.contains(&r.id)).count();
        Self {
            is_unavailable: leader.is_none()
                && (live_voters < voters / 2 + 1 || registry.is_unled(d.id)),
            // A learner counts for nothing before it votes.
            is_under_replicated: live_voters < voters.max(wanted),
            is_unheard: are_there && live_voters < voters,
            leader,
            live,
        }
    }
}

/// A leader that says whom it hears from need not name itself.
fn is_led_by(leader: Option<&LeaderReport>, node: NodeId) -> bool {
    leader.is_some_and(|leader| leader.node == node)
}

/// How all ranges are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeCounts {
    /// All.
    pub total: u64,
    /// Those that serve nothing.
    pub unavailable: u64,
    /// Some of them.
    pub unavailable_ids: Vec<RangeId>,
    /// Those with fewer replicas than there should be.
    pub under_replicated: u64,
    /// Those of them that are a problem: that lasts, or has a node as its cause.
    pub lacking: u64,
    /// Some of them.
    pub lacking_ids: Vec<RangeId>,
}

impl RangeCounts {
    /// Of `map`, whose ranges should have `wanted` replicas.
    pub fn of(
        map: &RangeMap,
        registry: &Registry,
        states: &HashMap<NodeId, NodeState>,
        wanted: usize,
    ) -> Self {
        let mut counts = Self::default();
        for d in map.iter() {
            let health = RangeHealth::of(d, registry, states, wanted);
            counts.total += 1;
            if health.is_unavailable {
                counts.unavailable += 1;
                note(&mut counts.unavailable_ids, d.id);
            }
            if health.is_under_replicated {
                counts.under_replicated += 1;
                if !(health.is_unheard && registry.is_settling(d.id)) {
                    counts.lacking += 1;
                    note(&mut counts.lacking_ids, d.id);
                }
            }
        }
        counts
    }
}

fn note(examples: &mut Vec<RangeId>, id: RangeId) {
    if examples.len() < EXAMPLES {
        examples.push(id);
    }
}

impl Registry {
    /// How each of `nodes` is.
    pub fn states<T>(
        &self,
        nodes: &BTreeMap<NodeId, T>,
        now: Instant,
    ) -> HashMap<NodeId, NodeState> {
        nodes.keys().map(|node| (*node, self.state(*node, now))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::presence::UNHEARD_AFTER;
    use super::*;
    use isotherm_types::KeyRange;
    use std::time::Duration;

    fn states(down: &[u64]) -> HashMap<NodeId, NodeState> {
        let state = |n| if down.contains(&n) { NodeState::Down } else { NodeState::Up };
        (1..=3).map(|n| (NodeId(n), state(n))).collect()
    }

    fn descriptor() -> RangeDescriptor {
        RangeDescriptor::first(RangeId(1), KeyRange::all(), &[NodeId(1), NodeId(2), NodeId(3)])
    }

    fn led_by(node: u64, live: &[u64]) -> Registry {
        let mut registry = Registry::new(Instant::now());
        let live = live.iter().copied().map(ReplicaId).collect();
        let (node, replica) = (NodeId(node), ReplicaId(node));
        let report = LeaderReport { node, term: 1, replica, live, size_bytes: 0 };
        registry.report(node, RangeId(1), 1, Some(report));
        registry
    }

    #[test]
    fn one_lost_node_leaves_its_ranges_under_replicated() {
        let (d, registry) = (descriptor(), led_by(1, &[1, 2, 3]));
        let whole = RangeHealth::of(&d, &registry, &states(&[]), 3);
        assert!(!whole.is_unavailable && !whole.is_under_replicated);
        let states = states(&[3]);
        let wounded = RangeHealth::of(&d, &registry, &states, 3);
        assert!(!wounded.is_unavailable && wounded.is_under_replicated);
        assert_eq!(wounded.live, [ReplicaId(1), ReplicaId(2)]);
    }

    #[test]
    fn a_replica_that_its_leader_does_not_hear_from_is_not_alive() {
        let (d, registry) = (descriptor(), led_by(1, &[2]));
        let health = RangeHealth::of(&d, &registry, &states(&[]), 3);
        assert_eq!(health.live, [ReplicaId(1), ReplicaId(2)]);
        assert!(health.is_under_replicated);
    }

    #[test]
    fn a_replica_that_was_not_heard_of_yet_is_no_problem_before_a_grace_period() {
        let (d, mut registry) = (descriptor(), led_by(1, &[2]));
        let (all, without_one, begun) = (states(&[]), states(&[3]), Instant::now());
        let mut map = RangeMap::default();
        map.apply(std::slice::from_ref(&d)).expect("one range for all keys");
        let count = |registry: &Registry, states: &HashMap<NodeId, NodeState>| {
            let counts = RangeCounts::of(&map, registry, states, 3);
            assert_eq!(counts.under_replicated, 1, "it is so in any case");
            counts.lacking
        };
        assert_eq!(count(&registry, &all), 0, "a child that a node has yet to show");
        assert_eq!(count(&registry, &without_one), 1, "a node that is down is no such case");
        registry.look(std::iter::empty(), std::iter::once(d.id), begun);
        registry.look(std::iter::empty(), std::iter::once(d.id), begun + UNHEARD_AFTER / 2);
        assert_eq!(count(&registry, &all), 0);
        registry.look(std::iter::empty(), std::iter::once(d.id), begun + UNHEARD_AFTER);
        assert_eq!(count(&registry, &all), 1, "it is a problem if it lasts");
        registry.look(std::iter::empty(), std::iter::empty(), begun + UNHEARD_AFTER);
        assert_eq!(count(&registry, &all), 0, "and begins anew");
    }

    #[test]
    fn a_range_without_leader_and_quorum_is_unavailable() {
        let (d, registry) = (descriptor(), led_by(3, &[1, 2, 3]));
        let electing = RangeHealth::of(&d, &registry, &states(&[3]), 3);
        assert!(!electing.is_unavailable && electing.leader.is_none());
        let lost = RangeHealth::of(&d, &registry, &states(&[2, 3]), 3);
        assert!(lost.is_unavailable);
    }

    /// A quorum of nodes is there, and all the same nobody leads: an operator has to know.
    #[test]
    fn a_range_that_elects_nobody_for_long_is_unavailable() {
        let (d, begun) = (descriptor(), Instant::now());
        let mut registry = Registry::new(begun);
        let mut after = |seconds: f64, is_unled: bool| {
            let now = begun + Duration::from_secs_f64(seconds);
            registry.look(is_unled.then_some(d.id).into_iter(), std::iter::empty(), now);
            RangeHealth::of(&d, &registry, &states(&[]), 3).is_unavailable
        };
        assert!(!after(1.0, true) && !after(5.9, true));
        assert!(after(6.0, true) && after(60.0, true));
        assert!(!after(61.0, false) && !after(62.0, true) && !after(66.9, true));
        assert!(after(67.0, true), "counted from when it was seen to be led last");
        let led = led_by(1, &[1, 2, 3]);
        assert!(!RangeHealth::of(&d, &led, &states(&[]), 3).is_unavailable);
    }

    #[test]
    fn a_range_with_fewer_replicas_than_wanted_is_under_replicated() {
        let d = RangeDescriptor::first(RangeId(1), KeyRange::all(), &[NodeId(1)]);
        let registry = led_by(1, &[1]);
        assert!(RangeHealth::of(&d, &registry, &states(&[]), 3).is_under_replicated);
        assert!(!RangeHealth::of(&d, &registry, &states(&[]), 1).is_under_replicated);
    }
}
