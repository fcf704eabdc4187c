//! Cuts.

use super::world::{World, expect, sample, writes};
use crate::{Action, KeySample, Rule, Settings};
use isotherm_types::RangeId;

const EVEN: [(&str, f64); 8] =
    [("b", 1.), ("c", 1.), ("d", 1.), ("e", 1.), ("f", 1.), ("g", 1.), ("h", 1.), ("i", 1.)];

fn hot(cores: f64, keys: &[(&'static str, f64)]) -> World {
    let mut world = World::new(3);
    world.range("", &[1, 2, 3]);
    world.cores(1, cores);
    world.get(1).load.sample = sample(keys);
    world
}

#[test]
fn a_hot_range_is_cut_where_both_sides_carry_half() {
    let mut world = hot(0.4, &EVEN);
    expect(
        &world.asked(Rule::Split),
        r#"
         Split: split r1 at f: 0.40 cores over 1 s and 0.40 over 10 s, hot is 0.25; pieces with 50 %, 50 % of the heat
        "#,
    );
}

#[test]
fn a_range_far_above_the_threshold_is_cut_into_a_piece_per_node() {
    let mut world = hot(0.9, &EVEN);
    expect(
        &world.asked(Rule::Split),
        r#"
         Split: split r1 at e, g: 0.90 cores over 1 s and 0.90 over 10 s, hot is 0.25; pieces with 38 %, 25 %, 38 % of the heat
        "#,
    );
}

#[test]
fn one_key_that_carries_the_range_gets_its_own_and_is_then_left_alone() {
    let mut world = hot(0.9, &[("b", 1.), ("k", 8.), ("z", 1.)]);
    expect(
        &world.actions(),
        r#"
         Split: split r1 at k, k\x00: 0.90 cores over 1 s and 0.90 over 10 s, hot is 0.25; one key carries 80 %: "k" gets its own range
        "#,
    );
    world.carry_out(&Action::Split { range: RangeId(1), keys: vec!["k".into(), "k\0".into()] });
    world.cores(2, 0.8);
    world.get(2).load.sample = sample(&[("k", 1.)]);
    world.decide();
    world.wait(3500);
    expect(
        &world.asked(Rule::Split),
        r#"
         Split: leave r2: 0.80 cores over 1 s and 0.80 over 10 s, hot is 0.25, but one key carries 100 %: "k" is its own range already, and one key cannot be cut
        "#,
    );
}

#[test]
fn appends_are_cut_off_once() {
    let mut world = hot(0.9, &EVEN);
    world.get(1).load.fast = writes(0.9, 10_000., 9_500.);
    expect(
        &world.actions(),
        r#"
         Split: split r1 at i: 0.90 cores over 1 s and 0.90 over 10 s, hot is 0.25, 95 % of its writes are appends: the growing end, above "i", gets its own range
        "#,
    );
    world.carry_out(&Action::Split { range: RangeId(1), keys: vec!["i".into()] });
    world.cores(2, 0.9);
    world.get(2).load.fast = writes(0.9, 10_000., 9_500.);
    world.get(2).load.sample = sample(&[("j", 1.), ("k", 1.), ("l", 1.)]);
    world.decide();
    world.wait(3500);
    expect(
        &world.asked(Rule::Split),
        r#"
         Split: leave r2: 0.90 cores over 1 s and 0.90 over 10 s, hot is 0.25, 95 % of its writes are appends: the growing end is its own range already, and wherever it is cut the heat goes on at its end
        "#,
    );
}

#[test]
fn a_range_that_is_not_hot_or_large_is_left_alone() {
    let mut world = hot(0.24, &EVEN);
    world.get(1).size_bytes = 256 << 20;
    expect(&world.asked(Rule::Split), "");
}

/// A sample with these rows of scans, all alike, and these keys.
fn scanned(rows: &[&'static str], keys: &[(&'static str, f64)]) -> Vec<KeySample> {
    let rows: Vec<_> = rows.iter().map(|key| (*key, 1.0)).collect();
    let rows = sample(&rows).into_iter().map(|taken| KeySample { is_scanned: true, ..taken });
    rows.chain(sample(keys)).collect()
}

#[test]
fn scans_of_few_rows_cut_nothing_and_no_row_out_of_a_scan() {
    for rows in [&["ds/1"][..], &["ds/1", "ds/1", "ds/1", "ds/2"], &["ds/1", "ds/2", "ds/3"]] {
        let mut world = hot(0.9, &[]);
        world.get(1).load.sample = scanned(rows, &[("get", 0.1)]);
        let asked = world.asked(Rule::Split);
        assert!(asked.contains("leave r1") && asked.contains("scans and totals of"), "{asked}");
    }
    // A key that is read by itself as well is cut out only for that.
    let mut world = hot(0.9, &[]);
    world.get(1).load.sample = scanned(&["b", "c", "d", "k"], &[("k", 8.0)]);
    let asked = world.asked(Rule::Split);
    assert!(asked.contains("split r1 at k, k\\x00"), "{asked}");
    // Scans of many rows are cut among them.
    let mut world = hot(0.4, &[]);
    world.get(1).load.sample = scanned(&["b", "c", "d", "e", "f", "g", "h", "i"], &[]);
    let asked = world.asked(Rule::Split);
    assert!(asked.contains("split r1 at f"), "{asked}");
}

#[test]
fn heat_without_a_sample_is_explained() {
    let mut world = hot(0.9, &[]);
    expect(
        &world.asked(Rule::Split),
        r#"
         Split: leave r1: 0.90 cores over 1 s and 0.90 over 10 s, hot is 0.25, but no key was sampled yet to cut at
        "#,
    );
}

#[test]
fn a_small_node_is_hot_earlier() {
    let mut world = hot(0.2, &EVEN);
    for id in 1..=3 {
        world.node(id).capacity_cores = 0.6;
    }
    expect(
        &world.asked(Rule::Split),
        r#"
         Split: split r1 at f: 0.20 cores over 1 s and 0.20 over 10 s, hot is 0.15; pieces with 50 %, 50 % of the heat
        "#,
    );
}

#[test]
fn a_large_range_is_cut_in_its_middle() {
    let mut world = hot(0.1, &[]);
    world.get(1).size_bytes = 300 << 20;
    expect(
        &world.asked(Rule::Split),
        r#"
         Split: leave r1: 300 MiB, large is 256 MiB, but no key in its middle is known to cut at
        "#,
    );
    world.get(1).middle = Some("m".into());
    expect(
        &world.asked(Rule::Split),
        r#"
         Split: split r1 at m: 300 MiB, large is 256 MiB; half of its bytes lie below "m"
        "#,
    );
    world.carry_out(&Action::Split { range: RangeId(1), keys: vec!["m".into()] });
    world.get(1).size_bytes = 300 << 20;
    world.wait(500);
    expect(
        &world.asked(Rule::Split),
        r#"
         Split: leave r1: 300 MiB, large is 256 MiB, but it was cut 0.0 s ago: its size is believed in 9.0 s
        "#,
    );
}

#[test]
fn pieces_too_small_to_even_nodes_out_are_not_cut() {
    let mut world = World::new(3);
    for start in ["", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"] {
        world.range(start, &[1, 2, 3]);
        let id = world.view.ranges.len() as u64;
        world.cores(id, 0.3);
    }
    expect(
        &world.asked(Rule::Split),
        r#"
         Split: leave r1: 0.30 cores over 1 s and 0.30 over 10 s, hot is 0.25, but nodes carry 1.20 cores on average: pieces below 1.00 do not even them out any better
         Split: leave r2: 0.30 cores over 1 s and 0.30 over 10 s, hot is 0.25, but nodes carry 1.20 cores on average: pieces below 1.00 do not even them out any better
         Split: leave r3: 0.30 cores over 1 s and 0.30 over 10 s, hot is 0.25, but nodes carry 1.20 cores on average: pieces below 1.00 do not even them out any better
         Split: leave r4: 0.30 cores over 1 s and 0.30 over 10 s, hot is 0.25, but nodes carry 1.20 cores on average: pieces below 1.00 do not even them out any better
         Split: leave r5: 0.30 cores over 1 s and 0.30 over 10 s, hot is 0.25, but nodes carry 1.20 cores on average: pieces below 1.00 do not even them out any better
         Split: leave r6: 0.30 cores over 1 s and 0.30 over 10 s, hot is 0.25, but nodes carry 1.20 cores on average: pieces below 1.00 do not even them out any better
         Split: leave r7: 0.30 cores over 1 s and 0.30 over 10 s, hot is 0.25, but nodes carry 1.20 cores on average: pieces below 1.00 do not even them out any better
         Split: leave r8: 0.30 cores over 1 s and 0.30 over 10 s, hot is 0.25, but nodes carry 1.20 cores on average: pieces below 1.00 do not even them out any better
         Split: leave r9: 0.30 cores over 1 s and 0.30 over 10 s, hot is 0.25, but nodes carry 1.20 cores on average: pieces below 1.00 do not even them out any better
         Split: leave r10: 0.30 cores over 1 s and 0.30 over 10 s, hot is 0.25, but nodes carry 1.20 cores on average: pieces below 1.00 do not even them out any better
         Split: leave r11: 0.30 cores over 1 s and 0.30 over 10 s, hot is 0.25, but nodes carry 1.20 cores on average: pieces below 1.00 do not even them out any better
         Split: leave r12: 0.30 cores over 1 s and 0.30 over 10 s, hot is 0.25, but nodes carry 1.20 cores on average: pieces below 1.00 do not even them out any better
        "#,
    );
}

#[test]
fn a_range_without_a_leader_is_not_cut() {
    let mut world = hot(0.9, &EVEN);
    world.get(1).leader = None;
    expect(
        &world.asked(Rule::Split),
        r#"
         Split: leave r1: 0.90 cores over 1 s and 0.90 over 10 s, hot is 0.25; pieces with 38 %, 25 %, 38 % of the heat; no leader is known, though 3 of 3 replicas are on nodes that are up: an election is due
        "#,
    );
}

#[test]
fn only_so_many_splits_run_at_once_the_hottest_first() {
    let mut world = World::new(1);
    for start in ["", "k", "t"] {
        world.range(start, &[1]);
    }
    for (id, cores) in [(1, 0.5), (2, 0.7), (3, 0.6)] {
        world.cores(id, cores);
    }
    world.get(1).load.sample = sample(&[("b", 1.), ("d", 1.), ("f", 1.)]);
    world.get(2).load.sample = sample(&[("l", 1.), ("m", 1.), ("n", 1.)]);
    world.get(3).load.sample = sample(&[("u", 1.), ("v", 1.), ("w", 1.)]);
    world.view.replicas_wanted = 1;
    let limits = Settings { splits_per_node: 1, hot_pieces_per_node: 100.0, ..Settings::default() };
    world.scheduler.set(limits);
    expect(
        &world.asked(Rule::Split),
        r#"
         Split: split r2 at n: 0.70 cores over 1 s and 0.70 over 10 s, hot is 0.25; pieces with 67 %, 33 % of the heat
         Split: leave r3: 0.60 cores over 1 s and 0.60 over 10 s, hot is 0.25; pieces with 67 %, 33 % of the heat; 1 splits of hotter ranges are under way, 1 may be
         Split: leave r1: 0.50 cores over 1 s and 0.50 over 10 s, hot is 0.25; pieces with 67 %, 33 % of the heat; 1 splits of hotter ranges are under way, 1 may be
        "#,
    );
}
