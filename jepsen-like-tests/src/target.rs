//! What a workload needs of a store. The cluster is one; the tests of the harness have another,
//! which can be told to break its word.

use std::collections::BTreeMap;
use std::future::Future;

use isotherm_types::KeyRange;

/// Why an operation did not end with an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// Certainly not applied, now or later.
    #[error("{0}")]
    Definite(String),
    /// May have been applied, or may be later.
    #[error("{0}")]
    Unknown(String),
}

/// Answer to a compare and set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CasAnswer {
    /// Whether the new value was set.
    pub applied: bool,
    /// Whether `current` says anything: a retry whose first answer was lost may not learn it.
    pub is_current_known: bool,
    /// Value that was met instead of the expected one; of use only if it was not applied.
    pub current: Option<String>,
}

/// What the rows of a span come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows whose value is a number: any other is missing here.
    pub rows: u64,
    /// Sum of their values.
    pub total: i64,
    /// Rows and sum by the first bytes of the key, if that was asked for.
    pub groups: Option<BTreeMap<String, (u64, i64)>>,
}

/// A store under test, as one client sees it. Operations on single keys are linearizable, and a
/// scan, as well as totals, sees all keys at one moment.
///
/// # To ensure correctness
/// An implementation reports [`OpError::Definite`] only for what is never applied; whatever it is
/// not sure of is [`OpError::Unknown`].
pub trait Target: Clone + Send + Sync + 'static {
    /// Value of `key`.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<String>, OpError>> + Send;

    /// Sets `key`.
    fn put(&self, key: &str, value: &str) -> impl Future<Output = Result<(), OpError>> + Send;

    /// Sets `key` to `new` if it has the value `expected`; `None` is the absent key.
    fn cas(
        &self,
        key: &str,
        expected: Option<&str>,
        new: &str,
    ) -> impl Future<Output = Result<CasAnswer, OpError>> + Send;

    /// Adds `by` to the number at `key` and returns the sum.
    fn incr(&self, key: &str, by: i64) -> impl Future<Output = Result<i64, OpError>> + Send;

    /// Takes `by` from the number at `from` and adds it to the one at `to`, both at one moment.
    fn transfer(
        &self,
        from: &str,
        to: &str,
        by: i64,
    ) -> impl Future<Output = Result<(), OpError>> + Send;

    /// Counts and sums the rows of `span`; by that many first bytes of the key too, if given.
    fn totals(
        &self,
        span: &KeyRange,
        group_bytes: Option<usize>,
    ) -> impl Future<Output = Result<Totals, OpError>> + Send;

    /// Every key and value, in the order in which the store gave them.
    fn scan_all(&self) -> impl Future<Output = Result<Vec<(String, String)>, OpError>> + Send;
}
