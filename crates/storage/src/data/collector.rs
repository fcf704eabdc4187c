//! What compactions leave out.
//!
//! | column family | dropped when | why nobody misses it |
//! |---|---|---|
//! | `history` | its END ts ≤ safe point | a read at T ≥ safe point wants END > T |
//! | `live` | a tombstone with ts ≤ safe point | a read at T ≥ safe point finds absence either way |
//!
//! Each row is judged by itself. That suffices because an older version ends no later than the
//! tombstone or the version after it begins: whoever no longer sees the tombstone sees none of the
//! versions under it either, dropped or not.
//!
//! Filters ignore RocksDB snapshots: rows can vanish under a reader that holds one. So every reader
//! at a past ts checks the safe point again after it has read (`raftstore/store/safe_point.rs`).
//! A compaction takes the safe point when it begins: one that was raised since is for the next.

use super::row::{Kind, RawRow};
use crate::metrics as names;
use isotherm_types::Timestamp;
use rocksdb::CompactionDecision as Decision;
use rocksdb::compaction_filter::CompactionFilter;
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};
use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Whose rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Live,
    History,
}

impl Family {
    fn name(self) -> &'static CStr {
        match self {
            Self::Live => c"isotherm.live",
            Self::History => c"isotherm.history",
        }
    }
}

/// Makes a [`Collector`] for every compaction.
pub(super) struct Collectors {
    pub(super) family: Family,
    /// The engine's; 0: nothing may be dropped.
    pub(super) safe_point: Arc<AtomicU64>,
}

impl CompactionFilterFactory for Collectors {
    type Filter = Collector;

    fn create(&mut self, _: CompactionFilterContext) -> Collector {
        let safe_point = Timestamp(self.safe_point.load(Ordering::SeqCst));
        Collector { family: self.family, safe_point, rows: 0, bytes: 0 }
    }

    fn name(&self) -> &CStr {
        self.family.name()
    }
}

/// Judges the rows of one compaction.
pub(super) struct Collector {
    family: Family,
    safe_point: Timestamp,
    rows: u64,
    bytes: u64,
}

impl Collector {
    fn is_garbage(&self, value: &[u8]) -> bool {
        // What cannot be read is left for whoever can, or reports it.
        let Ok(row) = RawRow::decode(value) else { return false };
        let passed = row.ts <= self.safe_point;
        match self.family {
            Family::History => passed,
            Family::Live => passed && row.kind == Kind::Tombstone,
        }
    }
}

impl CompactionFilter for Collector {
    fn filter(&mut self, _level: u32, key: &[u8], value: &[u8]) -> Decision {
        if self.safe_point == Timestamp::ZERO || !self.is_garbage(value) {
            return Decision::Keep;
        }
        self.rows += 1;
        self.bytes += (key.len() + value.len()) as u64;
        Decision::Remove
    }

    fn name(&self) -> &CStr {
        self.family.name()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if self.rows > 0 {
            metrics::counter!(names::DATA_COLLECTED_ROWS).increment(self.rows);
            metrics::counter!(names::DATA_COLLECTED_BYTES).increment(self.bytes);
        }
    }
}
