//! What must turn red: the same runs on a build that can be told to break its word.
//!
//! They need a binary built with its test-only switches, named by `ISOTHERM_FAULTS_BIN`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::env;

use isotherm_jepsen::nemesis::Fault;
use isotherm_jepsen::run::{RunOptions, run};
use isotherm_jepsen::workload::Workload;

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_not_synced_loses_inserts_in_a_power_loss() {
    let Some(binary) = env::var_os("ISOTHERM_FAULTS_BIN") else {
        println!("skipped: THE NEGATIVE CONTROL DID NOT RUN: ISOTHERM_FAULTS_BIN is not set");
        return;
    };
    let mut options = RunOptions::new(Workload::Set, &[Fault::PowerLossAll], 10, 4);
    options.binary = Some(binary.into());
    options.env = BTreeMap::from([("ISOTHERM_FAULT_SKIP_SYNC".to_owned(), "1".to_owned())]);
    let report = run(&options).await;
    // Whatever way it shows: inserts are gone, or the processes do not even come back.
    match report {
        Ok(report) if report.skipped => println!("skipped: {}", report.line()),
        Ok(report) => assert!(!report.valid, "the check cannot fail: {}", report.line()),
        Err(error) => println!("the cluster did not survive: {error:#}"),
    }
}
