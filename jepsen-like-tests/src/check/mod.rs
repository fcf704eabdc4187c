//! Checkers: pure functions from a history to a verdict. Each has tests with histories that it
//! must reject, because a check that cannot fail is no check.

mod comments;
mod counter;
mod register;
mod set;
mod sums;
mod tallies;
#[cfg(test)]
pub(crate) mod testing;
mod totals;

use crate::history::Event;
use crate::operation::{Operation, pair};
use crate::workload::Workload;

/// What a checker says about a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The store kept its word.
    Valid,
    /// It did not, and this is where.
    Invalid(String),
    /// The checker could not decide; it counts as not passed.
    Undecided(String),
}

impl Verdict {
    /// Whether the history passed.
    pub fn is_valid(&self) -> bool {
        *self == Verdict::Valid
    }

    /// Why it did not pass.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Verdict::Valid => None,
            Verdict::Invalid(reason) | Verdict::Undecided(reason) => Some(reason),
        }
    }
}

/// Checks the history of a run of `workload`.
pub fn check(workload: Workload, events: &[Event]) -> Verdict {
    match pair(events) {
        Ok(operations) => check_operations(workload, &operations),
        Err(reason) => Verdict::Invalid(format!("malformed history: {reason}")),
    }
}

/// Checks operations, which must stand in order of their invocation.
pub fn check_operations(workload: Workload, operations: &[Operation]) -> Verdict {
    if operations.is_empty() {
        return Verdict::Invalid("the history is empty".to_owned());
    }
    match workload {
        Workload::Register => register::check(operations),
        Workload::Set => set::check(operations),
        Workload::Counter => counter::check(operations),
        Workload::Comments => comments::check(operations),
        Workload::Sums => sums::check(operations),
    }
}
