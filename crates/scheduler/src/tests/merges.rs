//! Neighbours that become one, or stay two.

use super::world::{World, expect};
use crate::{Action, Rule, Settings};
use isotherm_types::RangeId;

const COLD: u64 = 300_000;

fn two(left: &[u64], right: &[u64]) -> World {
    let mut world = World::new(*left.iter().chain(right).max().expect("a node"));
    world.range("", left);
    world.range("k", right);
    world.get(2).size_bytes = 512 << 10;
    world.decide();
    world
}

#[test]
fn neighbours_that_were_cold_for_long_become_one() {
    let mut world = two(&[1, 2, 3], &[2, 3, 1]);
    world.wait(COLD - 1);
    expect(&world.asked(Rule::Merge), "");
    world.wait(1);
    expect(
        &world.asked(Rule::Merge),
        r#"
         Merge: merge r2 into r1: both below 0.01 cores for 300 s; 1 MiB and 512 KiB are below 64 MiB together
        "#,
    );
    world.carry_out(&Action::Merge { left: RangeId(1), right: RangeId(2) });
    world.wait(COLD);
    expect(&world.asked(Rule::Merge), "");
}

#[test]
fn a_warm_second_within_the_five_minutes_counts() {
    let mut world = two(&[1, 2, 3], &[2, 3, 1]);
    world.wait(COLD / 2);
    world.cores(2, 0.02);
    world.decide();
    world.cores(2, 0.0);
    world.wait(COLD / 2);
    expect(&world.asked(Rule::Merge), "");
    world.wait(COLD / 2);
    world.decide();
    world.wait(COLD / 2);
    assert!(world.actions().contains("merge r2 into r1"));
}

#[test]
fn large_neighbours_stay_two() {
    let mut world = two(&[1, 2, 3], &[2, 3, 1]);
    world.get(1).size_bytes = 64 << 20;
    world.wait(COLD);
    expect(&world.asked(Rule::Merge), "");
}

#[test]
fn the_first_ranges_are_kept() {
    let mut world = two(&[1, 2, 3], &[2, 3, 1]);
    world.scheduler.set(Settings { ranges_min: 2, ..Settings::default() });
    world.wait(COLD);
    expect(
        &world.asked(Rule::Merge),
        r#"
         Merge: leave r1: cold, but there are only 2 ranges and 2 are kept
        "#,
    );
}

#[test]
fn replicas_come_to_the_same_nodes_first() {
    let mut world = two(&[1, 2, 3], &[2, 3, 4]);
    world.wait(COLD);
    expect(
        &world.asked(Rule::Merge),
        r#"
         Merge: move r2 from n4 to n1: both below 0.01 cores for 300 s; 1 MiB and 512 KiB are below 64 MiB together; first their replicas come to the same nodes
        "#,
    );
    world.carry_out(&Action::Move { range: RangeId(2), from: 4.into(), to: 1.into() });
    world.wait(500);
    expect(
        &world.asked(Rule::Merge),
        r#"
         Merge: merge r2 into r1: both below 0.01 cores for 300 s; 1 MiB and 512 KiB are below 64 MiB together
        "#,
    );
}

#[test]
fn a_merge_waits_for_moves_and_for_all_replicas() {
    let mut world = two(&[1, 2, 3], &[2, 3, 1]);
    world.moving(2, 3, 4);
    world.wait(COLD);
    expect(
        &world.asked(Rule::Merge),
        r#"
         Merge: leave r1: cold like its neighbour, but r2 is not free: a replica is moving from n3 to n4 since 300 s
        "#,
    );
    world.view.moves.clear();
    world.silence(3);
    expect(
        &world.asked(Rule::Merge),
        r#"
         Merge: leave r1: cold like its neighbour, but only 2 of 3 replicas of r1 are live: a merge waits for all
        "#,
    );
}

#[test]
fn nothing_else_happens_to_ranges_that_are_being_merged() {
    let mut world = two(&[1, 2, 3], &[1, 2, 3]);
    let started_ms = world.view.now_ms;
    let (left, right) = (RangeId(1), RangeId(2));
    world.view.merges.push(crate::PendingMerge { left, right, started_ms });
    world.wait(COLD);
    expect(
        &world.asked(Rule::Merge),
        r#"
         Merge: leave r1: cold like its neighbour, but r1 is not free: r2 is being merged into r1 since 300 s
        "#,
    );
}

#[test]
fn what_was_cut_for_heat_is_not_merged_for_as_long() {
    let mut world = World::new(3);
    world.range("", &[1, 2, 3]);
    world.cores(1, 0.9);
    world.get(1).load.sample = super::world::sample(&[("b", 1.), ("d", 1.), ("f", 1.), ("h", 1.)]);
    world.live(1_000);
    let pieces = world.view.ranges.len();
    assert!(pieces > 1);
    for range in &mut world.view.ranges {
        range.load = crate::RangeLoad::default();
    }
    world.live(COLD - 5_000);
    assert_eq!(world.view.ranges.len(), pieces);
    world.live(60_000);
    assert_eq!(world.view.ranges.len(), 1);
}

#[test]
fn few_merges_run_at_once() {
    let mut world = World::new(3);
    for (n, start) in (0..).zip(["", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"]) {
        world.range(start, &[n % 3 + 1, (n + 1) % 3 + 1, (n + 2) % 3 + 1]);
    }
    world.decide();
    world.wait(COLD);
    expect(
        &world.asked(Rule::Merge),
        r#"
         Merge: merge r2 into r1: both below 0.01 cores for 300 s; 1 MiB and 1 MiB are below 64 MiB together
         Merge: merge r4 into r3: both below 0.01 cores for 300 s; 1 MiB and 1 MiB are below 64 MiB together
         Merge: merge r6 into r5: both below 0.01 cores for 300 s; 1 MiB and 1 MiB are below 64 MiB together
         Merge: merge r8 into r7: both below 0.01 cores for 300 s; 1 MiB and 1 MiB are below 64 MiB together
         Merge: leave r9: cold like its neighbour, but 4 merges are under way, as many as may be
         Merge: leave r10: cold like its neighbour, but 4 merges are under way, as many as may be
         Merge: leave r11: cold like its neighbour, but 4 merges are under way, as many as may be
        "#,
    );
}

/// Ranges 2 and 3 are being brought together; then their neighbours on the outer sides get cold, and
/// both merge the other way, each counted as one that aligns.
#[test]
fn ranges_that_align_and_merge_with_other_neighbours_leave_no_room_for_more() {
    let mut world = World::new(4);
    // No other rule orders anything: what it holds back could not merge.
    let only_merges = |moves_per_node, merge_after_ms| Settings {
        transfers_per_node: 0,
        moves_per_node,
        merge_after_ms,
        ..Settings::default()
    };
    world.scheduler.set(only_merges(0, COLD));
    let starts = ["", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    for (n, start) in starts.into_iter().enumerate() {
        world.range(start, if n < 2 { &[1, 2, 3] } else { &[1, 2, 4] });
    }
    for range in (1..=12).filter(|range| ![2, 3].contains(range)) {
        world.cores(range, 0.5);
    }
    world.decide();
    world.wait(COLD - 30_000);
    for range in 1..=12 {
        world.cores(range, 0.0);
    }
    world.decide();
    world.wait(30_000);
    world.scheduler.set(only_merges(1, COLD));
    expect(
        &world.asked(Rule::Merge),
        r#"
         Merge: move r3 from n4 to n3: both below 0.01 cores for 300 s; 1 MiB and 1 MiB are below 64 MiB together; first their replicas come to the same nodes
        "#,
    );
    // It comes to nothing; meanwhile all of them have been cold for long.
    let action = Action::Move { range: RangeId(3), from: 4.into(), to: 3.into() };
    let now = world.view.now_ms;
    world.scheduler.note_result(&action, now, Err("refused"));
    world.scheduler.set(only_merges(0, COLD - 240_000));
    world.wait(30_000);
    let decisions = world.decide().into_iter();
    let merges = decisions.filter_map(|decision| match decision.action {
        Some(Action::Merge { left, .. }) => Some(left.get()),
        _ => None,
    });
    assert_eq!(merges.collect::<Vec<_>>(), [1, 3, 5, 7], "four at once, as many as may be");
}
