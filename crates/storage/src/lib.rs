//! What Isotherm keeps on disk; the only crate that uses RocksDB.
//!
//! * [`DataEngine`]: the rows of every range on the node, with their older versions. It has no
//!   write-ahead log: the Raft logs are that, and after a crash the engine shows exactly what its
//!   last [`DataEngine::flush`] held.
//! * [`LogEngine`], [`RocksLog`]: the Raft logs and votes of every replica on the node, written
//!   by one thread and synced once per group of writes.
//! * [`DataDir`]: the directory that holds both, its format, its lock and its identity.
//! * [`codec`], [`key`]: the one place where values and keys become bytes.
//!
//! Everything here blocks. Cached point reads may run on an async thread; scans, flushes, exports
//! and anything that waits for a sync may not.

pub mod codec;
mod data;
mod dir;
mod error;
mod files;
pub mod key;
mod log;
mod metrics;
pub mod sizes;

pub use data::{
    Checksum, DataBatch, DataEngine, DataOptions, DataSnapshot, Garbage, MvccScan, Overlay, Row,
    Scanned, SnapshotCf, SnapshotExport, SnapshotFile, VerifyPosition, Visited,
};
pub use dir::{Damage, DataDir, DiskSpace, Identity, KnownPeer, LastStart, Place, free_space};
pub use error::{Result, StorageError};
pub use key::LocalKey;
pub use log::{
    Done, LogEngine, LogOp, LogOptions, LogRecord, OnFatal, ReplicaKey, RocksLog, StateKind,
};
