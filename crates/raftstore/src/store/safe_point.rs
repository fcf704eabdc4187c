//! From when on this node can be read.
//!
//! Meta says up to where history may go; each node follows when it hears of it. What has gone cannot
//! be told from what never was, so the order is:
//!
//! ```text
//! raise:  synced in `raft` ──► shown to reads and to the compaction filters (one number)
//! read:   check T ──► read ──► check T again ──► answer
//! ```
//!
//! * A filter never uses a safe point that a restart could forget.
//! * Filters ignore RocksDB snapshots. A read that met a row missing created its iterators after
//!   that compaction, which took a safe point above T, which the second check sees.
//! * A replica received as a snapshot lacks what its sender had dropped: the sender's safe point
//!   travels with it and is raised here before the install begins.

use super::{RangeError, Store, StoreContext, StoreError};
use isotherm_storage::{StorageError, codec};
use isotherm_types::Timestamp;
use std::sync::Arc;

/// Name of the node's record in the log engine: a [`Timestamp`] through the codec.
const RECORD: &str = "safe-point";

impl StoreContext {
    /// Takes up what was synced before the last stop. Blocking.
    pub(crate) fn load_safe_point(&self) -> Result<(), StorageError> {
        if let Some(bytes) = self.log.node_state(RECORD)? {
            self.data.raise_safe_point(codec::decode(&bytes)?);
        }
        Ok(())
    }

    /// Raises the safe point to `to`, if that is above it; synced when it returns. Blocking.
    pub(crate) fn raise_safe_point(&self, to: Timestamp) -> Result<(), StorageError> {
        // One at a time, so that the record on disk never falls back behind what is in use.
        let _one = self.raising.lock();
        if to <= self.data.safe_point() {
            return Ok(());
        }
        self.log.put_node_state(RECORD, codec::encode(&to))?;
        self.data.raise_safe_point(to);
        metrics::gauge!("isotherm_safe_point_timestamp_seconds")
            .set(to.physical_ms() as f64 / 1000.0);
        Ok(())
    }

    /// Refuses a timestamp whose versions may be gone.
    pub(crate) fn check_safe_point(&self, at: Timestamp) -> Result<(), RangeError> {
        let safe_point = self.data.safe_point();
        if at < safe_point { Err(RangeError::SnapshotTooOld { safe_point }) } else { Ok(()) }
    }
}

impl Store {
    /// The oldest timestamp that can be read here.
    pub fn safe_point(&self) -> Timestamp {
        self.ctx.data.safe_point()
    }

    /// Follows the cluster's safe point; a lower one than before changes nothing. Synced when it
    /// returns.
    pub async fn raise_safe_point(&self, to: Timestamp) -> Result<(), StoreError> {
        if to <= self.safe_point() {
            return Ok(());
        }
        let ctx = Arc::clone(&self.ctx);
        let raised = tokio::task::spawn_blocking(move || ctx.raise_safe_point(to)).await;
        raised
            .map_err(|e| StoreError::Corrupt(format!("raising the safe point failed: {e}")))??;
        Ok(())
    }

    /// Refuses to read at `at` if versions of that time may be gone. Whoever reads at a past
    /// timestamp calls this before it takes its snapshot of the data *and* after its last row.
    pub fn check_safe_point(&self, at: Timestamp) -> Result<(), RangeError> {
        self.ctx.check_safe_point(at)
    }
}
