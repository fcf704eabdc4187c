//! The data engine: the state machines of all ranges of a node in one key space.
//!
//! | column family | key → value |
//! |---|---|
//! | `live` | enc(user key) → newest version, or its tombstone (`row.rs`) |
//! | `history` | enc(user key) ‖ inverted start ts → older versions with their end |
//! | `local` | per-range rows: descriptor, applied state, remembered results ([`crate::LocalKey`]) |
//! | `lock`, `agg` | empty; keyed by enc(user key), kept for transactions and for aggregates |
//!
//! The WAL is off and flushes are atomic over all column families: after a crash the engine is
//! exactly what the last flush made it, and each range replays its log from the applied state
//! found there.
//!
//! Reading key `k` at `T`: the `live` row if its ts ≤ T; else the `history` row of `k` with the
//! largest start ≤ T, if its end is above T; else absent. Every key with history has a live row
//! (a value or a tombstone) for as long as that history may be read.
//! Compactions drop what nobody may read any more (`collector.rs`).

mod batch;
mod collector;
mod engine;
mod export;
mod garbage;
mod overlay;
mod row;
mod scan;
mod snapshot;
#[cfg(test)]
mod tests;
mod unflushed;
mod visit;

pub use batch::DataBatch;
pub use engine::{DataEngine, DataOptions, VerifyPosition};
pub use export::{SnapshotCf, SnapshotExport, SnapshotFile};
pub use garbage::Garbage;
pub use overlay::Overlay;
pub use row::Row;
pub use scan::{MvccScan, Scanned};
pub use snapshot::{Checksum, DataSnapshot};
pub use visit::Visited;
