//! The result of a run: one JSON line.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::nemesis::FaultRecord;
use crate::operation::Counts;
use crate::run::RunOptions;

/// The result of a run. The first fields are for people, in this order.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The workload.
    pub workload: &'static str,
    /// The faults that were asked for.
    pub nemesis: String,
    /// The seed.
    pub seed: u64,
    /// Length of the run under faults.
    pub seconds: u64,
    /// Operations in the history, final reads counted.
    pub ops: usize,
    /// Operations that were applied.
    pub ok: usize,
    /// The same by what they do.
    pub ok_by_function: BTreeMap<&'static str, u64>,
    /// Operations that certainly were not.
    pub fail: usize,
    /// Operations of which nobody knows.
    pub info: usize,
    /// Whether everything held. Never true for a run that was skipped.
    pub valid: bool,
    /// What did not hold.
    pub reason: Option<String>,
    /// Set if this machine cannot do what was asked.
    pub skipped: bool,
    /// How long the cluster took to be ready after the last fault was taken back.
    pub ready_ms: u64,
    /// Longest time in which no operation at all was acknowledged.
    pub longest_gap_ms: u64,
    /// What struck, and when.
    pub faults: Vec<FaultRecord>,
    /// The command that does it again.
    pub reproduce: String,
}

impl Report {
    /// The report of a run that has not happened.
    pub(crate) fn new(options: &RunOptions) -> Self {
        Self {
            workload: options.workload.name(),
            nemesis: options.nemesis_names(),
            seed: options.seed,
            seconds: options.seconds,
            ops: 0,
            ok: 0,
            ok_by_function: BTreeMap::new(),
            fail: 0,
            info: 0,
            valid: false,
            reason: None,
            skipped: false,
            ready_ms: 0,
            longest_gap_ms: 0,
            faults: Vec::new(),
            reproduce: options.command_line(),
        }
    }

    pub(crate) fn count(&mut self, counts: Counts) {
        let Counts { ops, ok, fail, info } = counts;
        (self.ops, self.ok, self.fail, self.info) = (ops, ok, fail, info);
    }

    /// The JSON line.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("a report holds nothing that JSON cannot say")
    }
}
