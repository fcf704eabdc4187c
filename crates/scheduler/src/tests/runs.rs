//! Whole runs of simulated clusters, several seeds each.

use crate::simulator::{Demand, Setup, Simulation, Spot};
use crate::{Action, Intent, Rule, Scheduler, Settings};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const SEEDS: [u64; 3] = [1, 2, 3];

fn scheduler(ranges_min: usize) -> Scheduler {
    Scheduler::new(Settings { ranges_min, ..Settings::default() })
}

/// Weights as of a skewed load: the n-th hottest range has 1/(n + `flat`) of the heat, in any order.
fn zipf(ranges: usize, flat: f64, seed: u64) -> Vec<f64> {
    let mut weights: Vec<_> = (0..ranges).map(|n| 1.0 / (n as f64 + flat)).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut weights);
    weights
}

fn say(name: &str, run: &Simulation) {
    let m = &run.metrics;
    eprintln!(
        "{name}: {:.1} s, unevenness {:.3}, {} ranges, useless {} {:?} of {}, returns {}, failed {:?}, \
         pass {:?} on average and {:?} at most, {:?}",
        run.now_ms() as f64 / 1000.0,
        run.unevenness(),
        run.view.ranges.len(),
        m.useless,
        m.useless_by,
        m.evening,
        m.returns,
        m.failed,
        m.all_passes / m.passes.max(1),
        m.slowest_pass,
        m.orders
    );
}

/// All of `ranges` are led by a tenth of `nodes`.
fn uneven(nodes: u64, ranges: u64, seed: u64) -> Simulation {
    let setup =
        Setup { seed, nodes, ranges, led_by_first: nodes / 10, capacity: 4.0, ..Setup::default() };
    let demand = Demand::ground(&zipf(ranges as usize, 50.0, seed), nodes as f64 * 4.0 * 0.4);
    Simulation::new(setup, demand, scheduler(ranges as usize))
}

#[test]
fn a_hundred_nodes_are_even_within_a_minute() {
    for seed in SEEDS {
        let mut run = uneven(100, 10_000, seed);
        let even = run.run_until(60_000, |run| run.unevenness() < 0.1);
        say("even", &run);
        run.run(20_000);
        say("and then", &run);
        assert!(even.is_some(), "seed {seed}");
        assert!(run.metrics.useless_share() < 0.05, "seed {seed}");
        assert_eq!(run.metrics.returns, 0, "seed {seed}");
    }
}

#[test]
#[ignore = "takes minutes"]
fn a_thousand_nodes_are_even_within_two_minutes() {
    let mut run = uneven(1000, 100_000, 1);
    let even = run.run_until(120_000, |run| run.unevenness() < 0.1);
    say("large", &run);
    assert!(even.is_some());
    assert!(run.metrics.useless_share() < 0.05);
    assert!(run.metrics.all_passes.as_secs_f64() / f64::from(run.metrics.passes) < 0.5);
}

#[test]
fn an_even_load_is_left_alone() {
    for seed in SEEDS {
        let setup = Setup { seed, nodes: 10, ranges: 100, ..Setup::default() };
        let demand = Demand::ground(&[1.0; 100], 5.0);
        let mut run = Simulation::new(setup, demand, scheduler(100));
        run.run(120_000);
        say("constant", &run);
        assert!(run.log.is_empty(), "seed {seed}: {:?}", run.log);
    }
}

const MINUTES: u64 = 60_000;

/// Heat on one per cent of the keys.
fn spot(at: f64, cores: f64, time_ms: std::ops::Range<u64>) -> Spot {
    let start = (at * u64::MAX as f64) as u64;
    Spot { keys: start..start + u64::MAX / 100, cores, time_ms, appends: 0 }
}

#[test]
fn a_hot_spot_is_cut_within_three_seconds_and_led_by_all_nodes_within_eight() {
    for seed in SEEDS {
        let setup = Setup { seed, ranges: 1, capacity: 0.67, ..Setup::default() };
        let demand = Demand::default().with(spot(0.5, 1.8, 5_000..60_000));
        let mut run = Simulation::new(setup, demand, scheduler(1));
        let cut = run.run_until(20_000, |run| run.view.ranges.len() > 1);
        let spread = run.run_until(20_000, |run| run.asked().values().all(|&cores| cores > 0.2));
        say("hot spot", &run);
        eprintln!("cut {cut:?} spread {spread:?}");
        run.run(40_000);
        say("hot spot later", &run);
        assert!(cut.is_some_and(|at| at <= 8_000), "seed {seed}: {cut:?}");
        assert!(spread.is_some_and(|at| at <= 13_000), "seed {seed}: {spread:?}");
        assert_eq!(run.metrics.returns, 0, "seed {seed}");
        assert!(run.view.ranges.len() <= 20, "seed {seed}");
    }
}

#[test]
fn a_hot_spot_that_jumps_is_followed_without_to_and_fro_and_leaves_nothing_behind() {
    for seed in SEEDS {
        let setup = Setup { seed, ranges: 3, capacity: 0.67, ..Setup::default() };
        let mut demand = Demand::default();
        let mut random = fastrand::Rng::with_seed(seed);
        for jump in 0..15 {
            let at = jump * 20_000;
            demand = demand.with(spot(random.f64() * 0.98, 1.5, at..at + 20_000));
        }
        let mut run = Simulation::new(setup, demand, scheduler(3));
        run.run(5 * MINUTES);
        say("jumps", &run);
        assert!(run.metrics.count("split") <= 15 * 4, "seed {seed}");
        assert_eq!(run.metrics.count("move"), 0, "three nodes have everything");
        assert!(run.metrics.count("transfer") <= 15 * 12, "seed {seed}");
        assert!(run.metrics.useless_share() < 0.2, "seed {seed}");
        assert_eq!(run.metrics.returns, 0, "seed {seed}");
        run.run(10 * MINUTES);
        say("cold again", &run);
        assert_eq!(run.view.ranges.len(), 3, "seed {seed}");
    }
}

#[test]
fn a_lost_node_is_replaced_and_everything_is_whole_again() {
    for seed in SEEDS {
        let setup = Setup { seed, nodes: 6, ranges: 60, ..Setup::default() };
        let demand = Demand::ground(&[1.0; 60], 1.0);
        let settings = Settings { ranges_min: 60, dead_after_ms: 30_000, ..Settings::default() };
        let mut run = Simulation::new(setup, demand, Scheduler::new(settings));
        run.run(5_000);
        run.stop(2.into());
        run.run(29_000);
        assert_eq!(run.metrics.by(Rule::Repair), 0, "not before it counts as dead");
        let whole = |run: &Simulation| {
            let is_whole = |r: &crate::RangeView| r.live.len() == 3;
            run.view.ranges.iter().all(is_whole)
        };
        let healed = run.run_until(60_000, whole);
        say("lost", &run);
        assert!(healed.is_some(), "seed {seed}");
    }
}

#[test]
fn a_rolling_restart_moves_no_replica() {
    for seed in SEEDS {
        let setup = Setup { seed, nodes: 5, ranges: 50, ..Setup::default() };
        let mut run = Simulation::new(setup, Demand::ground(&[1.0; 50], 1.0), scheduler(50));
        for id in 1..=5u64 {
            run.run(10_000);
            run.stop(id.into());
            run.run(15_000);
            run.start(id.into());
        }
        run.run(30_000);
        say("restarts", &run);
        assert_eq!(run.metrics.count("move") + run.metrics.count("add"), 0, "seed {seed}");
        assert!(run.unevenness() < 0.15, "seed {seed}");
    }
}

#[test]
fn an_append_tail_is_cut_off_once_and_handed_around_at_most_once() {
    for seed in SEEDS {
        let setup = Setup { seed, ranges: 3, capacity: 1.0, ..Setup::default() };
        let start = u64::MAX / 10 * 9;
        let tail = Spot {
            keys: start..start + 1000,
            cores: 0.6,
            time_ms: 0..4 * MINUTES,
            appends: 100_000,
        };
        let mut run = Simulation::new(
            setup,
            Demand::ground(&[1., 1., 1., 1., 1., 1., 1., 1., 1., 0.], 0.2).with(tail),
            scheduler(3),
        );
        run.run(3 * MINUTES);
        say("append", &run);
        assert_eq!(run.metrics.count("split"), 1, "seed {seed}: {:?}", run.log);
        let tail = run.view.ranges.last().expect("one").descriptor.id;
        let is_tail = |a: &Option<Action>| matches!(a, Some(Action::Transfer { range, .. }) if *range == tail);
        let handed = run.log.iter().filter(|(_, d)| is_tail(&d.action)).count();
        assert!(handed <= 1, "seed {seed}");
    }
}

#[test]
fn a_new_node_fills_within_a_minute() {
    for seed in SEEDS {
        let setup = Setup { seed, ranges: 24, ..Setup::default() };
        let mut run = Simulation::new(setup, Demand::ground(&[1.0; 24], 1.0), scheduler(24));
        run.run(5_000);
        assert!(run.log.is_empty(), "{:?}", run.log);
        let id = run.join();
        let replicas = |run: &Simulation| {
            run.view.ranges.iter().filter(|r| r.descriptor.replica_on(id).is_some()).count()
        };
        let full = run.run_until(60_000, |run| replicas(run) >= 16);
        say("new node", &run);
        assert!(full.is_some(), "seed {seed}: {}", replicas(&run));
        assert!(run.metrics.useless_share() < 0.05, "seed {seed}");
    }
}

#[test]
fn leaders_spread_without_any_load() {
    let setup = Setup { led_by_first: 1, ..Setup::default() };
    let mut run = Simulation::new(setup, Demand::default(), scheduler(24));
    run.run(20_000);
    for id in 1..=3u64 {
        let led = run.view.ranges.iter().filter(|r| r.leader == Some(id.into())).count();
        assert!((7..=9).contains(&led), "n{id} leads {led}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut run = uneven(20, 400, 7);
        run.run(20_000);
        run.log
    };
    let first = run();
    assert!(!first.is_empty());
    assert_eq!(first, run());
}

#[test]
fn a_decommissioned_node_is_emptied_and_zones_stay_apart() {
    for seed in SEEDS {
        let setup = Setup { seed, nodes: 6, ranges: 30, ..Setup::default() };
        let mut run = Simulation::new(setup, Demand::ground(&[1.0; 30], 1.0), scheduler(30));
        // Neighbours by number are in different zones: n1 and n4 in a, n2 and n5 in b, …
        for (n, node) in run.view.nodes.values_mut().enumerate() {
            let zone = ["a", "b", "c"][n % 3].to_owned();
            node.labels = Arc::new(BTreeMap::from([("zone".to_owned(), zone)]));
        }
        run.run(5_000);
        run.view.nodes.get_mut(&2.into()).expect("there").intent = Intent::Decommissioning;
        let has = |run: &Simulation| {
            run.view.ranges.iter().any(|r| r.descriptor.replica_on(2.into()).is_some())
        };
        let empty = run.run_until(60_000, |run| !has(run));
        say("decommission", &run);
        assert!(empty.is_some(), "seed {seed}");
        run.run(30_000);
        assert!(!has(&run), "nothing comes back");
        for range in &run.view.ranges {
            let zones: BTreeSet<_> =
                range.descriptor.replicas.iter().map(|r| (r.node.0 - 1) % 3).collect();
            assert_eq!(zones.len(), 3, "seed {seed}: {:?}", range.descriptor);
        }
    }
}
