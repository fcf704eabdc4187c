//! Nodes that fail, leave or stand badly.

use super::world::{World, expect};
use crate::{Action, Intent, Liveness, RangeView, Rule, Settings};
use isotherm_types::NodeId;

/// Four nodes, three ranges on the first three.
fn four() -> World {
    let mut world = World::new(4);
    world.range("", &[1, 2, 3]);
    world.range("h", &[2, 3, 1]);
    world.range("p", &[3, 1, 2]);
    world
}

#[test]
fn a_silent_node_is_not_replaced_before_its_time() {
    let mut world = four();
    world.silence(3);
    world.get(3).leader = Some(1.into());
    world.wait(40_000);
    expect(
        &world.asked(Rule::Repair),
        r#"
         Repair: leave r1: n3 is silent for 40 s; its replica is replaced after 300 s
         Repair: leave r2: n3 is silent for 40 s; its replica is replaced after 300 s
         Repair: leave r3: n3 is silent for 40 s; its replica is replaced after 300 s
        "#,
    );
}

#[test]
fn a_dead_node_is_replaced_the_most_endangered_range_first() {
    let mut world = four();
    world.silence(3);
    world.get(3).leader = Some(1.into());
    world.get(2).live.pop();
    world.wait(300_000);
    expect(
        &world.asked(Rule::Repair),
        r#"
         Repair: move r2 from n3 to n4: n3 is silent for 300 s, so its replica is lost; 1 live; n4 has 0 replicas
         Repair: move r1 from n3 to n4: n3 is silent for 300 s, so its replica is lost; 2 live; n4 has 1 replicas
         Repair: leave r3: n3 is silent for 300 s, so its replica is lost; no node can take a new one: of 4 nodes: 3 with a replica already, 1 receiving as many replicas as it may at once
        "#,
    );
}

#[test]
fn nothing_is_built_without_a_leader() {
    let mut world = four();
    world.silence(3);
    world.silence(2);
    world.get(1).leader = None;
    world.wait(300_000);
    expect(
        &world.asked(Rule::Repair),
        r#"
         Repair: leave r1: unavailable: no leader, 1 of 3 replicas are on nodes that are up and 2 are needed: bring a node back, nothing can be built without a quorum
         Repair: leave r2: unavailable: no leader, 1 of 3 replicas are on nodes that are up and 2 are needed: bring a node back, nothing can be built without a quorum
         Repair: leave r3: unavailable: no leader, 1 of 3 replicas are on nodes that are up and 2 are needed: bring a node back, nothing can be built without a quorum
        "#,
    );
}

#[test]
fn nothing_is_built_on_nodes_that_are_unknown_full_or_leaving() {
    let mut world = four();
    for id in 5..=7 {
        world.add_node(id);
    }
    world.node(4).liveness = Liveness::Unknown;
    world.node(5).is_read_only = true;
    world.node(6).disk_free_bytes = 4 << 30;
    world.node(7).intent = Intent::Draining;
    world.view.ranges.truncate(1);
    world.silence(3);
    world.wait(300_000);
    expect(
        &world.asked(Rule::Repair),
        r#"
         Repair: leave r1: n3 is silent for 300 s, so its replica is lost; no node can take a new one: of 7 nodes: 3 with a replica already, 1 down or not known yet, 2 draining, leaving or read-only, 1 with too full a disk
        "#,
    );
}

#[test]
fn replicas_that_are_missing_are_added_under_the_limit_of_moves() {
    let mut world = World::new(3);
    for start in ["", "c", "e"] {
        world.range(start, &[1, 2]);
    }
    expect(
        &world.asked(Rule::Repair),
        r#"
         Repair: add a replica of r1 on n3: 2 replicas of 3; 2 live; n3 has 0 replicas
         Repair: add a replica of r2 on n3: 2 replicas of 3; 2 live; n3 has 1 replicas
         Repair: leave r3: 2 replicas of 3; its leader n1 sends 2 replicas already, as many as it may
        "#,
    );
}

#[test]
fn a_draining_node_hands_its_leaders_over_and_keeps_its_replicas() {
    let mut world = four();
    world.cores(2, 0.2);
    world.node(1).intent = Intent::Draining;
    expect(
        &world.asked(Rule::Evacuate),
        r#"
         Evacuate: hand r1 to n3: n1 is draining; n3 is the coolest heir, at 0 %
        "#,
    );
}

#[test]
fn a_draining_node_without_an_heir_says_so() {
    let mut world = World::new(3);
    world.range("", &[1, 2, 3]).live.truncate(1);
    world.node(1).intent = Intent::Draining;
    expect(
        &world.asked(Rule::Evacuate),
        r#"
         Evacuate: leave r1: n1 is draining, but no other voter is live on a node that may lead
        "#,
    );
}

#[test]
fn a_decommissioned_node_loses_its_replicas_too() {
    let mut world = four();
    world.node(1).intent = Intent::Decommissioning;
    expect(
        &world.asked(Rule::Evacuate),
        r#"
         Evacuate: hand r1 to n2: n1 is decommissioned; n2 is the coolest heir, at 0 %
         Evacuate: move r2 from n1 to n4: n1 is decommissioned; n4 has 0 replicas
         Evacuate: move r3 from n1 to n4: n1 is decommissioned; n4 has 1 replicas
        "#,
    );
}

#[test]
fn a_decommissioned_node_waits_for_a_place_for_its_replicas() {
    let mut world = World::new(3);
    world.range("", &[2, 1, 3]);
    world.node(1).intent = Intent::Decommissioning;
    expect(
        &world.asked(Rule::Evacuate),
        r#"
         Evacuate: leave r1: n1 is decommissioned, but no node can take this replica: of 3 nodes: 3 with a replica already
        "#,
    );
}

/// Zones a, a, b, c; one range with two replicas in zone a.
fn zones() -> World {
    let mut world = World::new(4);
    for (id, zone) in [(1, "a"), (2, "a"), (3, "b"), (4, "c")] {
        world.label(id, zone);
    }
    world.range("", &[1, 2, 3]);
    world
}

#[test]
fn replicas_spread_over_zones() {
    let mut world = zones();
    expect(
        &world.asked(Rule::Placement),
        r#"
         Placement: move r1 from n2 to n4: replicas spread better: zone a+a+b now, zone a+b+c then
        "#,
    );
    world.view.ranges.clear();
    world.range("", &[1, 3, 4]);
    expect(&world.asked(Rule::Placement), "");
}

/// A range that one zone can take down is worse than a node with more than others.
#[test]
fn a_spread_goes_before_even_numbers() {
    let mut world = World::new(4);
    for (id, zone) in [(1, "a"), (2, "b"), (3, "c"), (4, "c")] {
        world.label(id, zone);
    }
    for start in ["", "b", "d", "f"] {
        world.range(start, &[1, 2, 3]);
    }
    world.range("h", &[1, 3, 4]);
    expect(
        &world.asked(Rule::Placement),
        r#"
         Placement: move r5 from n3 to n2: replicas spread better: zone a+c+c now, zone a+b+c then
        "#,
    );
    // And then the two of zone c even out between themselves.
    let moved = world.live(60_000);
    assert!(
        moved.iter().all(|a| !matches!(a, Action::Move { from, .. } if from.0 <= 2)),
        "{moved:?}"
    );
    let has = |n: u64, r: &RangeView| r.descriptor.replica_on(NodeId(n)).is_some();
    let on = |n: u64| world.view.ranges.iter().filter(|r| has(n, r)).count();
    assert_eq!([1, 2, 3, 4].map(on), [5, 5, 3, 2]);
}

/// Uneven numbers between zones cannot be helped, those inside one can.
#[test]
fn numbers_are_even_inside_each_zone() {
    for (a, b, c) in [(1, 2, [3, 4]), (2, 4, [1, 3]), (3, 4, [1, 2])] {
        let mut world = World::new(4);
        let zones = [(a, "a"), (b, "b"), (c[0], "c"), (c[1], "c")];
        zones.into_iter().for_each(|(id, zone)| world.label(id, zone));
        for (n, start) in ["", "b", "d", "f", "h", "j", "l", "n"].into_iter().enumerate() {
            world.range(start, &[a, b, c[usize::from(n < 2)]]);
        }
        let moved = world.live(60_000);
        let is_in_c = |action: &Action| match action {
            Action::Move { from, to, .. } => (from.0, to.0) == (c[0], c[1]),
            _ => true,
        };
        assert!(moved.iter().all(is_in_c), "{moved:?}");
        let has = |r: &RangeView| r.descriptor.replica_on(NodeId(c[0])).is_some();
        let left = world.view.ranges.iter().filter(|r| has(r)).count();
        assert_eq!(left, 5, "one off is even: {zones:?} {moved:?}");
    }
}

#[test]
fn a_spread_that_no_node_can_improve_is_explained() {
    let mut world = zones();
    world.node(4).is_read_only = true;
    expect(
        &world.asked(Rule::Placement),
        r#"
         Placement: leave r1: replicas are not spread as they could be (zone a+a+b), but no node helps: of 4 nodes: 3 with a replica already, 1 draining, leaving or read-only
        "#,
    );
}

#[test]
fn no_rule_trades_the_spread_for_something_else() {
    let mut world = World::new(4);
    for (id, zone) in [(1, "a"), (2, "b"), (3, "c"), (4, "c")] {
        world.label(id, zone);
    }
    // n4 is empty and takes replicas of n3, which is in its zone, but of no other node.
    for start in ["", "c", "e", "g", "i", "k", "m", "o"] {
        world.range(start, &[1, 2, 3]);
    }
    world.scheduler.set(Settings { moves_per_node: 9, ..Settings::default() });
    expect(
        &world.asked(Rule::Count),
        r#"
         Count: hand r1 to n2: n1 leads 8 ranges and n2 0, the mean is 2.0
         Count: hand r2 to n3: n1 leads 7 ranges and n3 0, the mean is 2.0
         Count: hand r3 to n2: n1 leads 6 ranges and n2 1, the mean is 2.0
         Count: hand r4 to n3: n1 leads 5 ranges and n3 1, the mean is 2.0
         Count: hand r5 to n2: n1 leads 4 ranges and n2 2, the mean is 2.0
         Count: leave r6: n1 has 8 replicas, the mean is 6.0, but no node is better: of 4 nodes: 3 with a replica already, 1 ruled out by labels (replicas would be spread worse)
         Count: leave r6: n2 has 8 replicas, the mean is 6.0, but no node is better: of 4 nodes: 3 with a replica already, 1 ruled out by labels (replicas would be spread worse)
         Count: move r6 from n3 to n4: n3 has 8 replicas and n4 0, the mean is 6.0
         Count: move r7 from n3 to n4: n3 has 7 replicas and n4 1, the mean is 6.0
         Count: move r8 from n3 to n4: n3 has 6 replicas and n4 2, the mean is 4.0
        "#,
    );
}

#[test]
fn a_move_to_a_node_that_falls_silent_is_given_up_after_longer_than_a_restart() {
    let mut world = four();
    world.moving(1, 3, 4);
    world.silence(4);
    world.wait(29_000);
    assert_eq!(world.actions(), "");
    world.wait(1_000);
    expect(
        &world.actions(),
        r#"
         Repair: give up the move of r1: n4, where its new replica is being built, is silent for 30 s
        "#,
    );
    world.wait(250);
    assert_eq!(world.actions(), "", "it is ordered once");
}
