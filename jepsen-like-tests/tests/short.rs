//! The short fixed part of the suite: one run of each workload under the fault that hurts it most,
//! on real processes of the release binary.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

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
