//! Heat, numbers and disks, evened out.

use super::world::{World, expect};
use crate::{Action, Rule, Settings};
use isotherm_types::NodeId;

/// Ranges of which n1 leads those with these costs, n2 those, n3 those.
fn led(costs: [&[f64]; 3]) -> World {
    let starts = ["", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let mut world = World::new(3);
    let mut id = 0;
    for (n, costs) in (0u64..).zip(costs) {
        for &cores in costs {
            world.range(starts[id], &[n + 1, (n + 1) % 3 + 1, (n + 2) % 3 + 1]);
            id += 1;
            world.cores(id as u64, cores);
        }
    }
    world
}

#[test]
fn leaders_of_hot_ranges_are_handed_to_cool_nodes() {
    let mut world = led([&[0.2, 0.2, 0.2], &[0.05], &[0.05]]);
    expect(
        &world.asked(Rule::LeaderLoad),
        r#"
         LeaderLoad: hand r1 to n2: 0.20 cores; n1 carries 60 % and n2 5 %, the mean is 23 %; 40 % and 25 % then
        "#,
    );
    // Booked: the view shows nothing of it yet, and nothing is ordered twice.
    world.wait(250);
    expect(
        &world.asked(Rule::LeaderLoad),
        r#"
         LeaderLoad: hand r2 to n3: 0.20 cores; n1 carries 40 % and n3 5 %, the mean is 23 %; 20 % and 25 % then
        "#,
    );
}

#[test]
fn a_range_that_carries_its_node_is_not_handed_around() {
    let mut world = led([&[0.24], &[0.01], &[0.01]]);
    expect(
        &world.asked(Rule::LeaderLoad),
        r#"
         LeaderLoad: leave r1: n1 carries 24 %, the mean is 9 % and up to 11 % is even, but no better node: with its 0.24 cores n2 would carry 25 % instead, and n1 keep 0 %
        "#,
    );
}

/// Hand-overs of what costs next to nothing would change numbers, which then go back.
#[test]
fn what_would_not_show_is_not_handed_over() {
    let mut world = led([&[0.21, 0.21, 0.003, 0.002], &[0.16, 0.14, 0.001], &[0.16, 0.14, 0.002]]);
    expect(
        &world.asked(Rule::LeaderLoad),
        r#"
         LeaderLoad: leave r1: n1 carries 42 %, the mean is 34 % and up to 38 % is even, but no better node: with its 0.21 cores n2 would carry 51 % instead, and n1 keep 22 %
        "#,
    );
    // Of small ones alone each counts.
    let mut world = led([&[0.004; 8], &[0.0], &[0.0]]);
    world.node(1).capacity_cores = 0.1;
    world.node(2).capacity_cores = 0.1;
    world.node(3).capacity_cores = 0.1;
    assert!(world.asked(Rule::LeaderLoad).contains("hand r1 to n2: 0.00 cores"));
}

/// One range is most of the load and stays; what is too much goes in small ones.
#[test]
fn small_ranges_go_when_a_large_one_cannot() {
    let mut world = World::new(3);
    for (id, start) in (1u64..).zip(["", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"]) {
        world.range(start, &[1, 2, 3]);
        world.cores(id, if id == 1 { 0.5 } else { 0.01 });
    }
    for (id, leader, start) in [(13, 2, "m"), (14, 3, "n")] {
        world.range(start, &[leader, 1, 5 - leader]);
        world.cores(id, 0.45);
    }
    let ordered = world.asked(Rule::LeaderLoad);
    assert!(ordered.contains("hand r2 to n2: 0.01 cores"), "{ordered}");
    assert!(!ordered.contains("r1 "), "{ordered}");
}

/// n1 carries too much, in small ranges that only n2 and n3 have too, which carry what they should
/// and hand on to n4 alone; and so does n4, but its small ranges are on nodes with room.
#[test]
fn nodes_with_enough_make_room_for_a_node_with_too_much() {
    let mut world = World::new(8);
    let mut lead = |nodes: &[u64], large: f64, small: usize| {
        for n in 0..=small {
            let id = world.view.ranges.len() as u64 + 1;
            // Starts in order; there is nothing to be had from a name here.
            let start = if id == 1 { String::new() } else { format!("{id:04}") };
            world.range(start.leak(), nodes);
            world.cores(id, if n == 0 { large } else { 0.007 });
        }
    };
    lead(&[1, 2, 3], 0.445, 25);
    lead(&[2, 3, 4], 0.474, 12);
    lead(&[3, 2, 4], 0.474, 12);
    lead(&[4, 5, 6], 0.474, 12);
    [[5, 6, 7], [6, 7, 8], [7, 8, 5], [8, 5, 6]].iter().for_each(|nodes| lead(nodes, 0.5, 0));
    expect(
        &world.asked(Rule::LeaderLoad),
        r#"
         LeaderLoad: hand r54 to n5: 0.01 cores; n4 carries 56 % and makes room for r28 of n2, which carries 56 %; the mean is 54 %, n5 carries 51 % then
         LeaderLoad: hand r55 to n6: 0.01 cores; n4 carries 55 % and makes room for r28 of n2, which carries 56 %; the mean is 54 %, n6 carries 51 % then
         LeaderLoad: hand r56 to n5: 0.01 cores; n4 carries 54 % and makes room for r28 of n2, which carries 56 %; the mean is 54 %, n5 carries 51 % then
         LeaderLoad: hand r57 to n6: 0.01 cores; n4 carries 54 % and makes room for r28 of n2, which carries 56 %; the mean is 54 %, n6 carries 51 % then
        "#,
    );
    world.live(30_000);
    let carries = |id: u64| -> f64 {
        let led = world.view.ranges.iter().filter(|range| range.leader == Some(NodeId(id)));
        led.map(|range| range.load.fast.cores).sum()
    };
    let carried: Vec<_> = (1..=8).map(carries).collect();
    assert!(carried.iter().all(|cores| (cores - 0.537).abs() < 0.0537), "{carried:?}");
}

#[test]
fn what_is_even_within_the_tolerance_is_left_alone() {
    let mut world = led([&[0.11, 0.11], &[0.1, 0.1], &[0.1, 0.1]]);
    expect(&world.actions(), "");
    assert!(world.live(30_000).is_empty());
}

#[test]
fn a_leader_that_just_changed_stays_until_its_load_is_known() {
    let mut world = led([&[0.05, 0.15, 0.15], &[0.0], &[0.05]]);
    // Both left n1 by themselves; one of them could go on to n3.
    world.scheduler.set(Settings { transfers_per_node: 0, ..Settings::default() });
    world.decide();
    world.scheduler.set(Settings::default());
    world.wait(250);
    world.get(2).leader = Some(2.into());
    world.get(3).leader = Some(2.into());
    expect(
        &world.asked(Rule::LeaderLoad),
        r#"
         LeaderLoad: leave r2: n2 carries 30 %, the mean is 13 % and up to 15 % is even; its leader changed 0.0 s ago, settling for 3.0 s
        "#,
    );
    world.wait(3_000);
    assert!(world.asked(Rule::LeaderLoad).contains("hand r2 to"));
}

#[test]
fn a_replica_moves_when_all_nodes_of_a_range_are_hot() {
    let mut world = World::new(4);
    for (start, leader) in [("", 1), ("c", 1), ("e", 2), ("g", 2), ("i", 3), ("k", 3)] {
        let nodes = [leader, leader % 3 + 1, (leader + 1) % 3 + 1];
        world.range(start, &nodes);
        let id = world.view.ranges.len() as u64;
        world.cores(id, 0.2);
    }
    // Nothing may move yet, or numbers would be evened out meanwhile.
    world.scheduler.set(Settings { moves_per_node: 0, ..Settings::default() });
    for (start, nodes) in [("m", [4, 1, 2]), ("o", [4, 2, 3]), ("q", [4, 3, 1]), ("s", [4, 1, 3])] {
        world.range(start, &nodes);
    }
    expect(&world.asked(Rule::ReplicaLoad), "");
    world.wait(9_500);
    world.scheduler.set(Settings::default());
    expect(
        &world.asked(Rule::ReplicaLoad),
        r#"
         ReplicaLoad: move r1 from n2 to n4: 0.20 cores; n1 carries 40 %, the mean is 30 %, and its other nodes are no cooler; n4 carries 0 % and is to lead it; 1 MiB to send
         ReplicaLoad: leave r3: 0.20 cores; n2 carries 40 %, the mean is 30 %, but no node is better: of 4 nodes: 3 with a replica already, 1 with too much to carry already
         ReplicaLoad: leave r4: 0.20 cores; n2 carries 40 %, the mean is 30 %, but no node is better: of 4 nodes: 3 with a replica already, 1 with too much to carry already
         ReplicaLoad: leave r5: 0.20 cores; n3 carries 40 %, the mean is 30 %, but no node is better: of 4 nodes: 3 with a replica already, 1 with too much to carry already
         ReplicaLoad: leave r6: 0.20 cores; n3 carries 40 %, the mean is 30 %, but no node is better: of 4 nodes: 3 with a replica already, 1 with too much to carry already
        "#,
    );
}

#[test]
fn leaders_spread_by_number_without_any_load() {
    let mut world = World::new(3);
    for start in ["", "b", "c", "d", "e", "f"] {
        world.range(start, &[1, 2, 3]);
    }
    expect(
        &world.actions(),
        r#"
         Count: hand r1 to n2: n1 leads 6 ranges and n2 0, the mean is 2.0
         Count: hand r2 to n3: n1 leads 5 ranges and n3 0, the mean is 2.0
         Count: hand r3 to n2: n1 leads 4 ranges and n2 1, the mean is 2.0
        "#,
    );
    world.live(2_000);
    expect(&world.actions(), "");
}

#[test]
fn a_new_node_gets_replicas_under_the_limit_of_moves() {
    let mut world = World::new(3);
    for (n, start) in (0u64..).zip(["", "b", "c", "d", "e", "f", "g", "h", "i"]) {
        world.range(start, &[n % 3 + 1, (n + 1) % 3 + 1, (n + 2) % 3 + 1]);
    }
    world.add_node(4);
    expect(
        &world.actions(),
        r#"
         Count: move r2 from n1 to n4: n1 has 9 replicas and n4 0, the mean is 6.8
         Count: move r3 from n1 to n4: n1 has 8 replicas and n4 1, the mean is 6.8
        "#,
    );
}

#[test]
fn replicas_leave_a_full_disk_and_do_not_come_back() {
    let mut world = World::new(4);
    for (n, start) in (0u64..).zip(["", "b", "c", "d"]) {
        world.range(start, &[n % 4 + 1, (n + 1) % 4 + 1, (n + 2) % 4 + 1]).size_bytes = 4 << 30;
    }
    expect(&world.asked(Rule::Disk), "");
    world.node(2).disk_free_bytes = 15 << 30;
    expect(
        &world.asked(Rule::Disk),
        r#"
         Disk: move r1 from n2 to n4: 4096 MiB; the disk of n2 is 85 % full, that of n4 10 %
         Disk: move r4 from n2 to n3: 4096 MiB; the disk of n2 is 81 % full, that of n3 10 %
        "#,
    );
    let moved = world.live(1_000);
    assert!(moved.iter().all(|a| !matches!(a, Action::Move { to, .. } if to.0 == 2)), "{moved:?}");
}
