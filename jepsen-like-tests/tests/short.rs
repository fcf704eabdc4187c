//! The short fixed part of the suite: one run of each workload under the fault that hurts it most,
//! on real processes of the release binary.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use isotherm_jepsen::cluster_target::Reading;
use isotherm_jepsen::nemesis::Fault;
use isotherm_jepsen::report::Report;
use isotherm_jepsen::run::{RunOptions, run};
use isotherm_jepsen::workload::Workload;

async fn report(workload: Workload, fault: Fault, seconds: u64, seed: u64) -> Report {
    let report = run(&RunOptions::new(workload, &[fault], seconds, seed)).await.unwrap();
    println!("{}", report.line());
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn registers_are_linearizable_while_nodes_are_killed() {
    let report = report(Workload::Register, Fault::Kill, 10, 1).await;
    assert!(report.valid, "{}", report.line());
}

#[tokio::test(flavor = "multi_thread")]
async fn increments_count_once_while_all_processes_are_killed() {
    let report = report(Workload::Counter, Fault::KillAll, 10, 2).await;
    assert!(report.valid, "{}", report.line());
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_inserts_outlast_a_power_loss_of_all_processes() {
    let report = report(Workload::Set, Fault::PowerLossAll, 10, 3).await;
    if report.skipped {
        println!("skipped: THE POWER LOSS CHECK DID NOT RUN: {}", report.line());
        return;
    }
    assert!(report.valid, "{}", report.line());
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_have_what_came_before_what_they_have_while_ranges_split_and_move() {
    let faults = [Fault::Split, Fault::Transfer];
    let report = run(&RunOptions::new(Workload::Comments, &faults, 5, 4)).await.unwrap();
    println!("{}", report.line());
    assert!(report.valid, "{}", report.line());
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_are_of_one_moment_while_nodes_are_killed() {
    let report = report(Workload::Sums, Fault::Kill, 5, 5).await;
    assert!(report.valid, "{}", report.line());
}

/// The control of the two above: ranges read one after the other, each at its own newest moment, are
/// no snapshot, and the checks say so. It needs no binary that breaks its word.
#[tokio::test(flavor = "multi_thread")]
async fn ranges_read_each_at_their_own_moment_are_found_out() {
    let mut options = RunOptions::new(Workload::Comments, &[], 2, 6);
    options.reading = Reading::PerRangeNewest;
    let report = run(&options).await.unwrap();
    println!("{}", report.line());
    assert!(!report.valid, "the check cannot fail: {}", report.line());
    let reason = report.reason.clone().unwrap_or_default();
    assert!(reason.contains("but lacks"), "red for another reason: {}", report.line());
}
