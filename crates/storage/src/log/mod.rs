//! The log engine: logs, votes and small synced records of every replica on the node.
//!
//! ```text
//!   group 1 ─┐                                         ┌─ Done, Done, …
//!   group 2 ─┼─ submit ─→ queue ─→ writer thread ─→ one batch, one sync
//!   group n ─┘      └─→ pending (readable at once) ←─ trimmed when written
//! ```
//!
//! Invariants:
//! * Operations take effect in the order in which they were submitted, over all groups.
//! * `Done(Ok)` is called after the sync that covers its operation, and for all earlier ones first.
//! * After a failed write nothing is ever acknowledged again.
//! * A log that lost a synced group does not open (`groups.rs`).

mod engine;
mod files;
mod groups;
mod keys;
mod options;
mod pending;
mod progress;
mod rocks;
#[cfg(test)]
mod tests;
mod writer;

pub use engine::{Done, LogEngine, LogOp, LogRecord, ReplicaKey, StateKind};
pub(crate) use groups::MARK_BYTES;
pub use options::{LogOptions, OnFatal};
pub use rocks::RocksLog;
