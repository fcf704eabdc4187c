//! Views as nobody would script them: whatever is known of a cluster, and however little of it fits
//! together, a decision is made without a panic and makes sense.

use crate::{
    Action, ClusterView, Decision, Intent, KeySample, Liveness, NodeView, PendingMerge,
    PendingMove, RangeLoad, RangeView, Rates, Scheduler, Settings,
};
use isotherm_types::{
    Key, KeyRange, NodeId, RangeDescriptor, RangeId, ReplicaDescriptor, ReplicaId, ReplicaRole,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Nodes of a view have ids up to this; what is said of ranges may name two more that it has not.
const NODES: u64 = 6;
const RANGES: usize = 14;

fn cores() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => Just(0.0),
        3 => 0.0..2.0f64,
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(-1.0), Just(1e300)],
    ]
}

fn bytes() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..(80u64 << 20), 3 => 0..(1u64 << 40), 1 => Just(u64::MAX)]
}

fn node(id: u64) -> impl Strategy<Value = NodeView> {
    let liveness = prop_oneof![
        8 => Just(Liveness::Up),
        2 => (0..2_000_000u64).prop_map(|since_ms| Liveness::Down { since_ms }),
        1 => Just(Liveness::Unknown),
    ];
    let intent = prop_oneof![
        8 => Just(Intent::Active),
        1 => Just(Intent::Draining),
        1 => Just(Intent::Decommissioning),
    ];
    let labels = prop::collection::btree_map("[zr]", "[abc]", 0..3);
    let disk = (bytes(), bytes(), prop::bool::weighted(0.1));
    (liveness, intent, labels, cores(), cores(), disk).prop_map(
        move |(liveness, intent, labels, capacity_cores, load_cores, disk)| NodeView {
            id: NodeId(id),
            liveness,
            intent,
            labels: Arc::new(labels),
            capacity_cores,
            load_cores,
            disk_total_bytes: disk.0,
            disk_free_bytes: disk.1,
            is_read_only: disk.2,
        },
    )
}

fn rates() -> impl Strategy<Value = Rates> {
    (cores(), cores(), cores(), cores(), cores()).prop_map(
        |(reads, writes, bytes, appends, cores)| Rates { reads, writes, bytes, appends, cores },
    )
}

fn role() -> impl Strategy<Value = ReplicaRole> {
    prop_oneof![
        12 => Just(ReplicaRole::Voter),
        1 => Just(ReplicaRole::Learner),
        1 => Just(ReplicaRole::Incoming),
        1 => Just(ReplicaRole::Outgoing),
    ]
}

type Part = (RangeView, u64);

/// A range without a span, and its weight in the key space.
fn range() -> impl Strategy<Value = Part> {
    let replicas = prop::collection::btree_map(1..=NODES + 2, role(), 0..5);
    let common = prop_oneof![
        2 => replicas,
        // Most neighbours share their nodes.
        2 => Just(BTreeMap::from([1u64, 2, 3].map(|n| (n, ReplicaRole::Voter)))),
        1 => Just(BTreeMap::from([1u64, 2, 4].map(|n| (n, ReplicaRole::Voter)))),
    ];
    let sample = prop::collection::vec(("[a-z]{1,2}", cores()), 0..6);
    let leader = prop_oneof![8 => (0..5usize).prop_map(Some), 1 => Just(None::<usize>)];
    let epoch = (1..3u64, prop::bool::weighted(0.9), prop::bool::weighted(0.9));
    let middle = prop::option::of("[a-z]{1,2}");
    (common, leader, rates(), rates(), sample, bytes(), epoch, middle, any::<u64>()).prop_map(
        |(replicas, leader, fast, slow, sample, size_bytes, epoch, middle, weight)| {
            let (version, is_whole, may_split) = epoch;
            let span = KeyRange::all();
            let mut descriptor = RangeDescriptor::first(RangeId(0), span, &[]);
            descriptor.epoch.version = version;
            let replica = |(id, (&node, &role)): (u64, (&u64, &ReplicaRole))| ReplicaDescriptor {
                id: ReplicaId(id),
                node: NodeId(node),
                role,
            };
            descriptor.replicas = (1..).zip(&replicas).map(replica).collect();
            descriptor.next_replica_id = ReplicaId(descriptor.replicas.len() as u64 + 1);
            let live = descriptor.replicas.iter().map(|r| r.id);
            let live = live.skip(usize::from(!is_whole)).collect();
            let leader = leader.and_then(|at| replicas.keys().nth(at)).map(|&n| NodeId(n));
            let sample = sample.into_iter();
            let sample = sample
                .map(|(key, weight)| KeySample {
                    is_scanned: key.len() > 1,
                    key: Key::from(key),
                    weight,
                })
                .collect();
            let range = RangeView {
                descriptor: Arc::new(descriptor),
                leader,
                live,
                load: RangeLoad { fast, slow, sample },
                size_bytes,
                may_split,
                middle: middle.map(Key::from),
            };
            (range, weight)
        },
    )
}

/// Ranges that tile the key space, ids by place in it and by version: a merge or a split between two
/// views of a row is a range that is gone or new.
fn tile(parts: Vec<Part>, ids: u64) -> Vec<RangeView> {
    let starts: BTreeSet<String> = parts
        .iter()
        .map(|(_, weight)| format!("{:c<2}", (b'a' + (weight % 26) as u8) as char))
        .collect();
    let starts: Vec<String> = Some(String::new()).into_iter().chain(starts).collect();
    let ends = starts.iter().skip(1).cloned().chain(Some(String::new()));
    let spans: Vec<_> = starts.iter().cloned().zip(ends).collect();
    let tiled = spans.into_iter().zip(parts).enumerate();
    let count = tiled.len();
    tiled
        .map(|(at, ((start, end), (mut range, weight)))| {
            let mut descriptor = (*range.descriptor).clone();
            let end = if at + 1 == count { String::new() } else { end };
            descriptor.span = KeyRange::new(start, end).expect("ascending");
            descriptor.id = RangeId(at as u64 + 1 + if weight % 8 == 0 { ids } else { 0 });
            range.descriptor = Arc::new(descriptor);
            range
        })
        .collect()
}

fn view() -> impl Strategy<Value = ClusterView> {
    let nodes = prop::collection::btree_map(1..=NODES, Just(()), 0..=NODES as usize)
        .prop_flat_map(|ids| ids.into_keys().map(node).collect::<Vec<_>>());
    let ranges = prop::collection::vec(range(), 0..RANGES);
    let id = 0..RANGES as u64 + 3;
    let moves = prop::collection::vec(
        (id.clone(), prop::option::of(1..=NODES + 2), 1..=NODES + 2, 0..2_000_000u64),
        0..3,
    );
    let merges = prop::collection::vec((id.clone(), id, 0..2_000_000u64), 0..2);
    let nodes = prop_oneof![
        1 => nodes.boxed(),
        // A cluster that is well.
        2 => (1..=NODES).map(node).collect::<Vec<_>>().prop_map(|mut nodes| {
            for node in &mut nodes {
                (node.liveness, node.intent) = (Liveness::Up, Intent::Active);
                (node.disk_total_bytes, node.disk_free_bytes) = (1 << 40, 1 << 39);
                (node.is_read_only, node.capacity_cores) = (false, 1.0);
            }
            nodes
        }).boxed(),
    ];
    (nodes, ranges, moves, merges, 0..7usize, 0..1000u64).prop_map(
        |(nodes, ranges, moves, merges, replicas_wanted, ids)| ClusterView {
            now_ms: 0,
            nodes: nodes.into_iter().map(|node| (node.id, node)).collect::<BTreeMap<_, _>>(),
            ranges: tile(ranges, 100 + ids),
            moves: moves
                .into_iter()
                .map(|(range, from, to, started_ms)| PendingMove {
                    range: RangeId(range),
                    from: from.map(NodeId),
                    to: NodeId(to),
                    started_ms,
                })
                .collect(),
            merges: merges
                .into_iter()
                .map(|(left, right, started_ms)| PendingMerge {
                    left: RangeId(left),
                    right: RangeId(right),
                    started_ms,
                })
                .collect(),
            replicas_wanted,
        },
    )
}

fn settings() -> impl Strategy<Value = Settings> {
    let times = (0..3u64, 0..3u64, prop_oneof![Just(0u64), Just(3000u64), Just(u64::MAX)]);
    let counts = (0..5usize, 0..4usize, 0..20usize, 0..3usize);
    (times, counts, bytes(), 0.0..1.0f64).prop_map(|(times, counts, merge_bytes, hot_cores)| {
        Settings {
            merge_after_ms: times.0 * 20_000,
            dead_after_ms: times.1 * 300_000,
            settle_ms: times.2,
            merges_at_once: counts.0,
            moves_per_node: counts.1,
            ranges_min: counts.2,
            splits_per_node: counts.3,
            merge_bytes,
            hot_cores,
            ..Settings::default()
        }
    })
}

/// What no decision may do, in whatever it was made of.
fn check(view: &ClusterView, settings: &Settings, decisions: &[Decision]) {
    let ranges: BTreeMap<_, _> =
        view.ranges.iter().map(|range| (range.descriptor.id, range)).collect();
    let mut changed = BTreeSet::new();
    let mut merges = 0;
    for decision in decisions {
        assert!(ranges.contains_key(&decision.range), "an unknown range: {decision:?}");
        assert!(!decision.reason.is_empty(), "{decision:?}");
        let Some(action) = &decision.action else { continue };
        let is_cancel = matches!(action, Action::CancelMove { .. });
        assert!(is_cancel || changed.insert(action.range()), "two actions: {decisions:?}");
        let d = &ranges[&action.range()].descriptor;
        let has = |node: &NodeId| d.replica_on(*node).is_some();
        let is_up =
            |node: &NodeId| view.nodes.get(node).is_some_and(|node| node.liveness == Liveness::Up);
        match action {
            Action::Split { keys, .. } => {
                assert!(!keys.is_empty() && keys.is_sorted_by(|a, b| a < b), "{decision:?}");
                let is_inside = |key: &Key| d.span.contains(key) && key != d.span.start();
                assert!(keys.iter().all(is_inside), "{decision:?} in {:?}", d.span);
            }
            Action::Merge { left, right } => {
                merges += 1;
                assert!(changed.insert(*right), "two actions: {decisions:?}");
                let other = &ranges.get(right).expect("a known range").descriptor;
                assert_eq!(d.span.end(), other.span.start(), "{left} and {right} are neighbours");
            }
            Action::Transfer { to, .. } => {
                let voter = d.replica_on(*to).filter(|replica| replica.role.may_lead());
                assert!(voter.is_some() && is_up(to), "{decision:?}");
            }
            Action::Move { from, to, .. } => {
                assert!(view.nodes.contains_key(from) && has(from), "{decision:?}");
                assert!(is_up(to) && !has(to), "{decision:?}");
            }
            Action::Add { to, .. } => assert!(is_up(to) && !has(to), "{decision:?}"),
            Action::CancelMove { range } => {
                assert!(view.moves.iter().any(|m| m.range == *range), "{decision:?}");
            }
        }
    }
    assert!(merges <= settings.merges_at_once, "{merges} merges: {decisions:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// One scheduler sees a row of views; of what it ordered some is carried out, some is refused and
    /// some is never heard of again.
    #[test]
    fn any_view_leads_to_decisions_that_make_sense(
        views in prop::collection::vec((view(), 0..60_000u64, any::<u8>()), 1..5),
        settings in settings(),
        repeats in 1..3usize,
    ) {
        let mut scheduler = Scheduler::new(settings.clone()).warmed();
        let mut now_ms = 1_000_000;
        for (mut view, wait, fate) in views {
            for _ in 0..repeats {
                now_ms += wait;
                view.now_ms = now_ms;
                let decisions = scheduler.decide(&view);
                check(&view, &settings, &decisions);
                for (n, decision) in decisions.iter().enumerate() {
                    let Some(action) = &decision.action else { continue };
                    if fate & (1 << (n % 8)) != 0 {
                        scheduler.note_result(action, now_ms, Err("refused"));
                    }
                }
                for range in &view.ranges {
                    scheduler.explain(&view, range.descriptor.id);
                }
            }
        }
    }
}
