//! What a workload needs of a store. The cluster is one; the tests of the harness have another,
//! which can be told to break its word.

use std::future::Future;

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
    /// Value that was met instead of the expected one; of use only if it was not applied.
    pub current: Option<String>,
}

/// A store under test, as one client sees it. Operations on single keys are linearizable, and a
/// scan sees all keys at one moment.
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

    /// Every key and value, in the order in which the store gave them.
    fn scan_all(&self) -> impl Future<Output = Result<Vec<(String, String)>, OpError>> + Send;
}
