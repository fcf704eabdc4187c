//! What must turn red: the same runs on a build that can be told to break its word.
//!
//! They need a binary built with its test-only switches, named by `ISOTHERM_FAULTS_BIN`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::env;

use isotherm_jepsen::nemesis::Fault;
use isotherm_jepsen::run::{RunOptions, run};
use isotherm_jepsen::workload::Workload;

/// Runs with `switch` set on every node; the run must not be valid, and say `because`.
async fn turns_red(mut options: RunOptions, switch: &str, because: &str) {
    let Some(binary) = env::var_os("ISOTHERM_FAULTS_BIN") else {
        println!("skipped: THE NEGATIVE CONTROL DID NOT RUN: ISOTHERM_FAULTS_BIN is not set");
        return;
    };
    options.binary = Some(binary.into());
    options.node_env = BTreeMap::from([(switch.to_owned(), "1".to_owned())]);
    let report = run(&options).await.unwrap();
    println!("{}", report.line());
    if report.skipped {
        println!("skipped: THE NEGATIVE CONTROL DID NOT RUN");
        return;
    }
    let reason = report.reason.clone().unwrap_or_default();
    assert!(!report.valid, "the check cannot fail: {}", report.line());
    assert!(reason.contains(because), "red for another reason: {}", report.line());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_not_synced_loses_inserts_in_a_power_loss() {
    let options = RunOptions::new(Workload::Set, &[Fault::PowerLossAll], 10, 4);
    turns_red(options, "ISOTHERM_FAULT_SKIP_SYNC", "missing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn increments_without_deduplication_count_twice() {
    let mut options = RunOptions::new(Workload::Counter, &[Fault::KillAll, Fault::Kill], 20, 4);
    // Many, so that at each kill some have been applied and not yet answered.
    options.clients = 64;
    turns_red(options, "ISOTHERM_FAULT_NO_DEDUP", "key").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_without_a_confirmed_leadership_are_stale() {
    let options = RunOptions::new(Workload::Register, &[Fault::Pause], 30, 4);
    turns_red(options, "ISOTHERM_FAULT_SKIP_READ_CONFIRMATION", "no order").await;
}
