//! What was ordered, what became of it, and what the next order has to wait for.

use super::world::{World, expect, lines, sample};
use crate::{Action, Rule, Scheduler, Settings};
use isotherm_types::RangeId;

/// One hot range on three nodes, with a fourth one.
fn hot() -> World {
    let mut world = World::new(4);
    world.range("", &[1, 2, 3]);
    world.cores(1, 0.9);
    world.get(1).load.sample = sample(&[("b", 1.), ("d", 1.), ("f", 1.), ("h", 1.)]);
    world
}

#[test]
fn what_was_ordered_is_not_ordered_again_until_it_fails_or_is_lost() {
    let mut world = hot();
    let ordered = world.decide().into_iter().find_map(|d| d.action).expect("a split");
    world.wait(300);
    expect(
        &world.asked(Rule::Split),
        r#"
         Split: leave r1: 0.90 cores over 1 s and 0.90 over 10 s, hot is 0.25; pieces with 25 %, 25 %, 25 %, 25 % of the heat; "split r1 at d, f, h" was ordered 0.3 s ago and does not show yet
        "#,
    );
    let now = world.view.now_ms;
    world.scheduler.note_result(&ordered, now, Err("the leader changed"));
    expect(
        &world.asked(Rule::Split),
        r#"
         Split: leave r1: 0.90 cores over 1 s and 0.90 over 10 s, hot is 0.25; pieces with 25 %, 25 %, 25 %, 25 % of the heat; the last order failed 0.0 s ago (the leader changed), 1 in a row; the next one in 3.0 s
        "#,
    );
    world.wait(3_000);
    assert!(world.actions().contains("split r1"));
    // No answer and no effect.
    world.wait(10_000);
    expect(
        &world.asked(Rule::Split),
        r#"
         Split: leave r1: 0.90 cores over 1 s and 0.90 over 10 s, hot is 0.25; pieces with 25 %, 25 %, 25 %, 25 % of the heat; the last order failed 0.0 s ago (no effect within 10 s), 2 in a row; the next one in 6.0 s
        "#,
    );
    world.wait(6_000);
    assert!(world.actions().contains("split r1"));
}

#[test]
fn a_move_of_a_range_that_turned_hot_is_given_up_for_the_split() {
    let mut world = hot();
    world.moving(1, 3, 4);
    expect(
        &world.actions(),
        r#"
         Split: give up the move of r1: 0.90 cores over 1 s and 0.90 over 10 s, hot is 0.25; pieces with 25 %, 25 %, 25 %, 25 % of the heat; a replica is moving from n3 to n4 since 0.0 s: given up, the cut is more urgent
        "#,
    );
    world.wait(100);
    expect(
        &world.asked(Rule::Split),
        r#"
         Split: leave r1: 0.90 cores over 1 s and 0.90 over 10 s, hot is 0.25; pieces with 25 %, 25 %, 25 %, 25 % of the heat; "give up the move of r1" was ordered 0.1 s ago and does not show yet
        "#,
    );
    // The move that was given up fails: no reason to wait with the split.
    let moved = Action::Move { range: RangeId(1), from: 3.into(), to: 4.into() };
    let now = world.view.now_ms;
    world.scheduler.note_result(&moved, now, Err("given up"));
    world.view.moves.clear();
    world.wait(100);
    assert!(world.actions().contains("split r1"));
}

#[test]
fn a_repair_goes_before_a_split() {
    let mut world = hot();
    world.moving(1, 3, 4);
    world.silence(3);
    expect(
        &world.asked(Rule::Split),
        r#"
         Split: leave r1: 0.90 cores over 1 s and 0.90 over 10 s, hot is 0.25; pieces with 25 %, 50 %, 25 % of the heat; a replica is moving from n3 to n4 since 0.0 s: that goes first
        "#,
    );
}

#[test]
fn a_split_waits_for_replicas_to_apply_the_last_one() {
    let mut world = hot();
    world.get(1).may_split = false;
    expect(
        &world.asked(Rule::Split),
        r#"
         Split: leave r1: 0.90 cores over 1 s and 0.90 over 10 s, hot is 0.25; pieces with 25 %, 25 %, 25 %, 25 % of the heat; but not all of its 3 live replicas have applied the last split of its lineage yet: it is cut when they have
        "#,
    );
}

#[test]
fn pieces_are_expected_to_cost_their_share_and_spread_at_once() {
    let mut world = hot();
    world.view.nodes.remove(&4.into());
    let split = world.decide().into_iter().find_map(|d| d.action).expect("a split");
    world.wait(200);
    world.carry_out(&split);
    world.wait(50);
    expect(
        &world.asked(Rule::LeaderLoad),
        r#"
         LeaderLoad: hand r1 to n2: 0.23 cores; n1 carries 90 % and n2 0 %, the mean is 30 %; 68 % and 22 % then
         LeaderLoad: hand r3 to n3: 0.23 cores; n1 carries 68 % and n3 0 %, the mean is 30 %; 45 % and 22 % then
        "#,
    );
}

#[test]
fn a_burst_is_not_heat_and_heat_that_lasts_is_before_the_slow_average_says_so() {
    let mut world = hot();
    world.cores(1, 0.0);
    world.decide();
    world.wait(250);
    world.get(1).load.fast.cores = 0.4;
    world.get(1).load.slow.cores = 0.05;
    world.decide();
    world.wait(1_000);
    expect(
        &world.asked(Rule::Split),
        r#"
         Split: leave r1: 0.40 cores over 1 s and 0.05 over 10 s, hot is 0.25: hot for 1.0 s only, a burst may last 2.0 s
        "#,
    );
    world.wait(1_000);
    assert!(world.actions().contains("split r1"));
}

#[test]
fn heat_that_goes_away_is_not_cut() {
    let mut world = hot();
    world.get(1).load.fast.cores = 0.1;
    expect(
        &world.asked(Rule::Split),
        r#"
         Split: leave r1: 0.10 cores over 1 s and 0.90 over 10 s, hot is 0.25: cooling down
        "#,
    );
}

#[test]
fn every_range_can_be_explained_and_explaining_changes_nothing() {
    let mut world = World::new(3);
    world.range("", &[1, 2, 3]);
    world.range("k", &[2, 3, 1]);
    world.range("t", &[3, 1, 2]);
    world.cores(2, 0.02);
    world.get(2).size_bytes = 12 << 20;
    world.decide();
    world.wait(40_000);
    let before = world.scheduler.clone();
    let told = world.scheduler.explain(&world.view, RangeId(2));
    expect(
        &lines(told.iter()),
        r#"
         Repair: leave r2: 3 replicas of 3, 3 live
         Evacuate: leave r2: none of its nodes is draining, leaving or read-only
         Placement: leave r2: nodes have no labels
         Split: leave r2: 0.02 cores of 0.25: not hot; 12 MiB of 256 MiB: not large
         Merge: leave r2: 0.02 cores, cold is below 0.01
         LeaderLoad: leave r2: its leader n2 carries 2 %, the mean is 1 % and differences up to 2 % are even
         ReplicaLoad: leave r2: hand-overs are enough to even out heat
         Count: leave r2: replicas are even: n2 has 3, n3 has 3, n1 has 3, the mean is 3.0
         Disk: leave r2: disks are even: n2 10 %, n3 10 %, n1 10 %
        "#,
    );
    assert_eq!(format!("{before:?}"), format!("{:?}", world.scheduler));
}

/// Whatever rule is asked about, what is under way keeps all of them from it.
#[test]
fn what_is_under_way_is_said() {
    let mut world = World::new(4);
    world.range("", &[1, 2, 3]);
    world.moving(1, 3, 4);
    world.wait(600);
    let told = world.scheduler.explain(&world.view, RangeId(1));
    expect(
        &lines(told.iter().filter(|d| d.rule == Rule::Repair)),
        r#"
         Repair: leave r1: 3 replicas of 3, but nothing more is ordered for now: a replica is moving from n3 to n4 since 0.6 s
        "#,
    );
}

#[test]
fn a_new_scheduler_compares_nodes_only_when_all_have_reported() {
    let mut world = World::new(3);
    world.range("", &[1, 2, 3]);
    world.range("k", &[1, 2, 3]);
    world.cores(1, 0.2);
    world.cores(2, 0.2);
    world.scheduler = Scheduler::new(Settings::default());
    expect(&world.actions(), "");
    let told = world.scheduler.explain(&world.view, RangeId(1));
    expect(
        &lines(told.iter().filter(|d| d.rule == Rule::LeaderLoad)),
        r#"
         LeaderLoad: leave r1: this meta leader is new: nodes are compared in 3.0 s
        "#,
    );
    world.wait(3_000);
    assert!(world.actions().contains("hand r"));
}

#[test]
fn a_range_does_not_return_to_the_node_that_it_left() {
    let mut world = World::new(3);
    for start in ["", "g", "p"] {
        world.range(start, &[1, 2, 3]);
    }
    world.cores(1, 0.2);
    world.cores(2, 0.2);
    world.decide().iter().filter_map(|d| d.action.clone()).for_each(|a| world.carry_out(&a));
    let left = world.view.ranges.iter().find(|r| r.leader != Some(1.into())).expect("one");
    let (id, leader) = (left.descriptor.id, left.leader.expect("led"));
    // It cools, and its new node gets hot by another range.
    world.get(3).leader = Some(leader);
    world.cores(3, 0.24);
    world.cores(1, 0.05);
    world.cores(2, 0.05);
    let back = world.live(30_000).into_iter();
    let back: Vec<_> = back
        .filter(|a| matches!(a, Action::Transfer { range, to } if *range == id && to.0 == 1))
        .collect();
    assert!(back.is_empty(), "{back:?}");
}

#[test]
fn switched_off_it_does_nothing_and_says_so() {
    let mut world = hot();
    world.scheduler.set(Settings { enabled: false, ..Settings::default() });
    assert!(world.decide().is_empty());
    let told = world.scheduler.explain(&world.view, RangeId(1));
    expect(
        &lines(told.iter()),
        r#"
         Repair: leave r1: the scheduler is switched off by the cluster settings
        "#,
    );
}
