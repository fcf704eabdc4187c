#![allow(clippy::unwrap_used)]
use super::*;
use crate::bootstrap;
use isotherm_raftstore::Machine;
use isotherm_storage::codec;
use isotherm_types::{
    ClusterId, Incarnation, Key, NodeId, RaftTiming, RangeDescriptor, RangeId, Timestamp,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

const FOUNDING: Founding = Founding { nodes: 3, ranges: 4, replicas: 3 };

fn found(cluster: u64) -> Command {
    Command::Found { cluster: ClusterId(cluster), timing: RaftTiming::FAST, founding: FOUNDING }
}

fn node_at(address: &str) -> NodeDetails {
    NodeDetails { address: address.into(), ..Default::default() }
}

fn register(machine: &mut MetaMachine, node: Option<u64>, address: &str) -> Reply {
    let node = node.map(NodeId);
    machine.apply_command(1, Command::RegisterNode { node, details: node_at(address) })
}

/// Founded, with three nodes and four ranges.
fn bootstrapped() -> MetaMachine {
    let mut machine = MetaMachine::default();
    machine.apply_command(1, found(9));
    for n in 1..=3 {
        register(&mut machine, None, &format!("n{n}"));
    }
    let nodes: Vec<_> = machine.nodes().keys().map(|&id| (id, BTreeMap::new())).collect();
    let ranges = bootstrap::plan(&FOUNDING, &nodes);
    assert_eq!(machine.apply_command(1, Command::Bootstrap { ranges }), Reply::Done);
    machine
}

#[test]
fn nothing_happens_before_the_cluster_is_founded() {
    let mut machine = MetaMachine::default();
    let reply = register(&mut machine, None, "n1");
    assert!(matches!(reply, Reply::Refused(_)));
    assert_eq!(machine, MetaMachine::default());
}

#[test]
fn the_first_foundation_counts() {
    let mut machine = MetaMachine::default();
    machine.apply_command(1, found(9));
    machine.apply_command(2, found(10));
    assert_eq!(machine.cluster(), Some(ClusterId(9)));
}

#[test]
fn every_start_of_a_node_has_its_own_number_and_a_known_node_keeps_its_id() {
    let mut machine = MetaMachine::default();
    machine.apply_command(1, found(9));
    let reply =
        |id, incarnation| Reply::Node { id: NodeId(id), incarnation: Incarnation(incarnation) };
    assert_eq!(register(&mut machine, None, "a"), reply(1, 1));
    assert_eq!(register(&mut machine, None, "b"), reply(2, 2));
    assert_eq!(register(&mut machine, Some(1), "c"), reply(1, 3));
    assert_eq!(machine.nodes()[&NodeId(1)].details.address, "c");
    assert!(matches!(register(&mut machine, Some(7), "d"), Reply::Refused(_)));
}

#[test]
fn a_registration_whose_answer_was_lost_leaves_no_second_node() {
    let mut machine = MetaMachine::default();
    machine.apply_command(1, found(9));
    register(&mut machine, None, "a");
    register(&mut machine, None, "a");
    assert_eq!(machine.nodes().keys().collect::<Vec<_>>(), [&NodeId(2)]);
}

#[test]
fn a_node_that_holds_replicas_is_not_forgotten_for_a_new_one_at_its_address() {
    let mut machine = bootstrapped();
    register(&mut machine, None, "n1");
    assert_eq!(machine.nodes().len(), 4);
}

#[test]
fn the_bootstrap_happens_once_and_tiles() {
    let mut machine = bootstrapped();
    machine.ranges().check_tiling();
    assert_eq!(machine.ranges().len(), 4);
    assert_eq!(machine.seeds().len(), 4);
    let before = machine.clone();
    let ranges = bootstrap::plan(&FOUNDING, &[(NodeId(1), BTreeMap::new())]);
    let again = machine.apply_command(2, Command::Bootstrap { ranges });
    assert!(matches!(again, Reply::Refused(_)));
    assert_eq!(machine, before);
    assert_eq!(
        machine.apply_command(2, Command::AllocateIds { count: 3 }),
        Reply::Ids { first: RangeId(5) }
    );
    assert_eq!(
        machine.apply_command(2, Command::AllocateIds { count: 1 }),
        Reply::Ids { first: RangeId(8) }
    );
}

#[test]
fn seeds_stay_as_founded_while_ranges_change() {
    let mut machine = bootstrapped();
    let seeds = machine.seeds().to_vec();
    let old = machine.ranges().get(RangeId(4)).unwrap().clone();
    let spans = old.span.split_at(&[Key::from_static(b"zz")]).unwrap();
    let epoch = old.epoch.next_version();
    let parent = RangeDescriptor { span: spans[0].clone(), epoch, ..old.clone() };
    let child = RangeDescriptor { id: RangeId(5), span: spans[1].clone(), epoch, ..old };
    let changes = vec![vec![child.clone()], vec![parent, child]];
    let taken = machine.apply_command(1, Command::TakeDescriptors { changes });
    assert_eq!(taken, Reply::Taken { taken: 1 });
    assert_eq!(machine.ranges().len(), 5);
    assert_eq!(machine.seeds(), seeds);
    machine.apply_command(1, Command::SeedingDone);
    assert!(machine.seeds().is_empty());
}

#[test]
fn a_window_begins_behind_everything_that_earlier_terms_were_given() {
    let mut machine = MetaMachine::default();
    machine.apply_command(1, found(9));
    let extend = |to, by| Command::ExtendTimestamps { member: NodeId(1), to: Timestamp(to), by };
    machine.apply_command(3, extend(1000, 10));
    let first = machine.window();
    assert_eq!((first.reign.term, first.low, first.high), (3, Timestamp(1), Timestamp(1000)));
    machine.apply_command(3, extend(2000, 10));
    assert_eq!(machine.window(), Window { high: Timestamp(2000), ..first });
    // A leader whose clock is behind gets a window all the same.
    machine.apply_command(4, extend(5, 10));
    let second = machine.window();
    assert_eq!((second.reign.term, second.low, second.high), (4, Timestamp(2001), Timestamp(2010)));
    let end = machine.apply_command(4, extend(0, u64::MAX));
    assert!(matches!(end, Reply::Refused(_)));
    assert_eq!(machine.window(), second);
}

#[test]
fn two_leaders_of_one_term_have_windows_of_their_own() {
    let mut machine = MetaMachine::default();
    machine.apply_command(1, found(9));
    let extend =
        |member| Command::ExtendTimestamps { member: NodeId(member), to: Timestamp::ZERO, by: 100 };
    machine.apply_command(1, extend(1));
    machine.apply_command(1, extend(3));
    let window = machine.window();
    assert_eq!(window.reign, Reign { term: 1, member: NodeId(3) });
    assert_eq!((window.low, window.high), (Timestamp(101), Timestamp(200)));
}

#[test]
#[should_panic(expected = "cannot be read")]
fn an_unknown_command_stops_the_member() {
    let mut bytes = Command::SeedingDone.encode();
    bytes[1] = 200;
    MetaMachine::default().apply(1, 1, &bytes);
}

#[test]
fn a_snapshot_restores_the_same_state_and_a_foreign_one_changes_nothing() {
    let mut machine = bootstrapped();
    machine.apply_command(
        2,
        Command::SetSetting { name: "read.confirm".into(), value: "quorum".into() },
    );
    let snapshot = machine.snapshot();
    let mut other = MetaMachine::default();
    other.restore(&snapshot).unwrap();
    assert_eq!(other, machine);
    let mut newer = snapshot.clone();
    newer[0] = 9;
    assert!(other.restore(&newer).unwrap_err().contains("format 9"));
    assert!(other.restore(&snapshot[..snapshot.len() - 1]).is_err());
    assert!(other.restore(&[]).is_err());
    assert_eq!(other, machine);
}

#[test]
fn the_safe_point_only_rises_and_stays_below_what_was_issued() {
    let mut machine = bootstrapped();
    let raise = |to| Command::RaiseSafePoint { to: Timestamp(to) };
    assert!(matches!(machine.apply_command(1, raise(1)), Reply::Refused(_)), "no window yet");
    let member = NodeId(1);
    machine.apply_command(1, Command::ExtendTimestamps { member, to: Timestamp(100), by: 1 });
    for (to, then) in [(50, 50), (40, 50), (100, 100)] {
        assert_eq!(machine.apply_command(1, raise(to)), Reply::Done);
        assert_eq!(machine.safe_point(), Timestamp(then));
    }
    assert!(matches!(machine.apply_command(1, raise(101)), Reply::Refused(_)));
    let mut restored = MetaMachine::default();
    restored.restore(&machine.snapshot()).unwrap();
    assert_eq!(restored.safe_point(), Timestamp(100));
}

fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        (1..9u64).prop_map(found),
        (prop::option::of(1..4u64), "[ab]").prop_map(|(node, address)| Command::RegisterNode {
            node: node.map(NodeId),
            details: node_at(&address),
        }),
        (1..9u32).prop_map(|count| Command::AllocateIds { count }),
        (any::<u32>(), 0..99u64).prop_map(|(to, by)| Command::ExtendTimestamps {
            member: NodeId(by % 3),
            to: Timestamp(to.into()),
            by,
        }),
        Just(Command::Bootstrap {
            ranges: bootstrap::plan(&FOUNDING, &[(NodeId(1), BTreeMap::new())])
        }),
        Just(Command::SeedingDone),
        any::<u32>().prop_map(|to| Command::RaiseSafePoint { to: Timestamp(to.into()) }),
    ]
}

proptest! {
    #[test]
    fn a_restored_member_goes_on_like_the_others(
        commands in prop::collection::vec(any_command(), 1..30), cut in 0..30usize,
    ) {
        let mut machine = MetaMachine::default();
        let mut restored = MetaMachine::default();
        for (i, command) in commands.iter().enumerate() {
            if i == cut {
                restored.restore(&machine.snapshot()).unwrap();
            }
            let (bytes, i) = (command.encode(), i as u64);
            let reply = machine.apply(1 + i / 5, i, &bytes);
            let decoded = codec::decode::<Reply, _>(&reply);
            prop_assert!(decoded.is_ok());
            if i >= cut as u64 {
                prop_assert_eq!(restored.apply(1 + i / 5, i, &bytes), reply);
            }
        }
    }
}

fn order(machine: &mut MetaMachine, range: u64, from: u64, to: u64) -> Reply {
    let (range, from, to) = (RangeId(range), NodeId(from), NodeId(to));
    let command = OperationCommand::Move { range, from, to, now_ms: 5, limit_ms: 100 };
    machine.apply_command(1, Command::Operation(command))
}

fn end(machine: &mut MetaMachine, id: u64, state: OperationState) {
    let command = OperationCommand::End { id, state, now_ms: 9 };
    assert_eq!(machine.apply_command(1, Command::Operation(command)), Reply::Operation { id });
}

#[test]
fn a_move_is_ordered_once_with_a_replica_id_that_no_other_gets() {
    let mut machine = bootstrapped();
    register(&mut machine, None, "n4");
    for (range, from, to) in [(9, 1, 4), (1, 4, 4), (1, 1, 2), (1, 1, 9)] {
        assert!(matches!(order(&mut machine, range, from, to), Reply::Refused(_)));
    }
    assert_eq!(order(&mut machine, 1, 3, 4), Reply::Operation { id: 1 });
    assert!(matches!(order(&mut machine, 1, 2, 4), Reply::Refused(_)), "one at a time");
    assert_eq!(order(&mut machine, 2, 3, 4), Reply::Operation { id: 2 });
    let undo = OperationCommand::Undo { id: 1, why: Undo::Cancelled };
    machine.apply_command(1, Command::Operation(undo.clone()));
    let first = machine.operations().get(1).unwrap().clone();
    assert_eq!(first.state, OperationState::Undoing(Undo::Cancelled));
    assert_eq!((first.deadline_ms, first.added.get()), (105, 4));
    end(&mut machine, 1, OperationState::Cancelled);
    assert!(matches!(machine.apply_command(1, Command::Operation(undo)), Reply::Refused(_)));
    // The range's descriptor never heard of replica 4: it is not given again all the same.
    assert_eq!(order(&mut machine, 1, 3, 4), Reply::Operation { id: 3 });
    assert_eq!(machine.operations().get(3).unwrap().added.get(), 5);
    let mut back = MetaMachine::default();
    back.restore(&machine.snapshot()).unwrap();
    assert_eq!(back, machine);
}

fn merge(machine: &mut MetaMachine, left: u64, right: u64) -> Reply {
    let (left, right) = (RangeId(left), RangeId(right));
    let command = MergeCommand::Begin { left, right, now_ms: 5, limit_ms: 100 };
    machine.apply_command(1, Command::Merge(command))
}

#[test]
fn a_merge_is_ordered_of_neighbours_that_nothing_else_happens_to() {
    let mut machine = bootstrapped();
    register(&mut machine, None, "n4");
    let last = machine.ranges().len() as u64;
    for (left, right) in [(1, 9), (9, 1), (2, 1), (1, 1), (last, 1)] {
        assert!(matches!(merge(&mut machine, left, right), Reply::Refused(_)), "{left} {right}");
    }
    assert_eq!(order(&mut machine, 2, 3, 4), Reply::Operation { id: 1 });
    let Reply::Refused(why) = merge(&mut machine, 1, 2) else { panic!("r2 is moving") };
    assert!(why.contains("operation 1 moves a replica of r2"), "{why}");
    end(&mut machine, 1, OperationState::Cancelled);
    assert_eq!(merge(&mut machine, 1, 2), Reply::Operation { id: 2 });
    for range in [1, 2] {
        let Reply::Refused(why) = order(&mut machine, range, 3, 4) else { panic!("in a merge") };
        assert!(why.contains("operation 2 merges r2 into r1"), "{why}");
    }
    assert!(matches!(merge(&mut machine, 1, 2), Reply::Refused(_)), "once");
    let mut back = MetaMachine::default();
    back.restore(&machine.snapshot()).unwrap();
    assert_eq!(back, machine);
    let undo = MergeCommand::Undo { id: 2, why: Undo::TimedOut };
    assert_eq!(machine.apply_command(1, Command::Merge(undo.clone())), Reply::Operation { id: 2 });
    let ended = MergeCommand::End { id: 2, state: OperationState::Cancelled, now_ms: 9 };
    machine.apply_command(1, Command::Merge(ended));
    assert!(matches!(machine.apply_command(1, Command::Merge(undo)), Reply::Refused(_)));
    assert!(machine.merges().running().next().is_none());
    assert_eq!(order(&mut machine, 1, 3, 4), Reply::Operation { id: 3 });
}

#[test]
fn ranges_on_different_nodes_are_not_merged() {
    let mut machine = bootstrapped();
    register(&mut machine, None, "n4");
    let mut moved = machine.ranges().get(RangeId(2)).unwrap().clone();
    moved.replicas[0].node = NodeId(4);
    moved.epoch.conf_ver += 1;
    machine.apply_command(1, Command::TakeDescriptors { changes: vec![vec![moved]] });
    let Reply::Refused(why) = merge(&mut machine, 1, 2) else { panic!("on different nodes") };
    assert!(why.contains("move their replicas to the same nodes first"), "{why}");
}

#[test]
fn replica_ids_are_kept_only_until_the_range_knows_better() {
    let mut machine = bootstrapped();
    register(&mut machine, None, "n4");
    order(&mut machine, 1, 3, 4);
    order(&mut machine, 2, 3, 4);
    // The first came to be a replica, the second never did.
    let mut moved = machine.ranges().get(RangeId(1)).unwrap().clone();
    moved.next_replica_id = isotherm_types::ReplicaId(5);
    moved.epoch.conf_ver += 1;
    machine.apply_command(1, Command::TakeDescriptors { changes: vec![vec![moved]] });
    end(&mut machine, 1, OperationState::Done);
    end(&mut machine, 2, OperationState::Failed("a test".into()));
    assert_eq!(machine.operations().ids_kept(), 1);
    for (range, id) in [(1, 3), (2, 4)] {
        assert_eq!(order(&mut machine, range, 3, 4), Reply::Operation { id });
        assert_eq!(machine.operations().get(id).unwrap().added.get(), 5, "never given twice");
        end(&mut machine, id, OperationState::Failed("a test".into()));
    }
    // Both ranges become part of their neighbour.
    let wide = machine.ranges().get(RangeId(1)).unwrap().clone();
    let last = machine.ranges().get(RangeId(2)).unwrap().clone();
    let span = isotherm_types::KeyRange::new(wide.span.start().clone(), last.span.end().clone());
    let mut wide = RangeDescriptor { span: span.unwrap(), ..wide };
    wide.epoch.version = last.epoch.version + 1;
    machine.apply_command(1, Command::TakeDescriptors { changes: vec![vec![wide]] });
    assert_eq!(machine.ranges().get(RangeId(2)), None);
    order(&mut machine, 3, 3, 4);
    end(&mut machine, 5, OperationState::Failed("a test".into()));
    assert_eq!(machine.operations().ids_kept(), 2, "of ranges 1 and 3");
}

#[test]
fn only_so_many_ended_operations_are_listed() {
    let mut machine = bootstrapped();
    register(&mut machine, None, "n4");
    order(&mut machine, 2, 1, 4);
    for id in 2..=1100 {
        assert_eq!(order(&mut machine, 1, 3, 4), Reply::Operation { id });
        end(&mut machine, id, OperationState::Failed("a test".into()));
    }
    assert_eq!(machine.operations().iter().count(), 1001);
    assert!(machine.operations().get(1).is_some(), "one that runs is never forgotten");
    assert!(machine.operations().get(2).is_none());
}
