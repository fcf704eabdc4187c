//! What a log engine does, whatever it is made of.

use crate::{Result, StorageError};
use bytes::Bytes;
use isotherm_types::{RangeId, ReplicaId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Whose log: one replica of one range.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct ReplicaKey {
    /// The range.
    pub range: RangeId,
    /// The replica of it.
    pub replica: ReplicaId,
}

impl fmt::Display for ReplicaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.range, self.replica)
    }
}

/// One entry of a log. What its bytes mean, and their format version, is the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Its place in the log.
    pub index: u64,
    /// The entry.
    pub bytes: Bytes,
}

/// Called on the writer thread after the sync: it must not block.
pub type Done = Box<dyn FnOnce(std::result::Result<(), Arc<StorageError>>) + Send>;

/// A small record beside a log, one of each kind per replica. The bytes are the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StateKind {
    /// The vote.
    Vote,
    /// The committed log id.
    Committed,
    /// The last purged log id.
    Purged,
    /// That a message created the replica, with what its leader said of it.
    Creation,
    /// That the replica is being, or was, destroyed.
    Tombstone,
    /// That a snapshot is being installed.
    InstallMarker,
    /// The whole state machine of a group that keeps it here (the meta service's).
    Machine,
    /// That the replica lost a part of its log, and votes no more.
    Lost,
}

impl StateKind {
    /// Every kind.
    pub const ALL: [StateKind; 8] = [
        Self::Vote,
        Self::Committed,
        Self::Purged,
        Self::Creation,
        Self::Tombstone,
        Self::InstallMarker,
        Self::Machine,
        Self::Lost,
    ];

    pub(super) fn tag(self) -> u8 {
        match self {
            Self::Vote => 1,
            Self::Committed => 2,
            Self::Purged => 3,
            Self::Creation => 4,
            Self::Tombstone => 5,
            Self::InstallMarker => 6,
            Self::Machine => 7,
            Self::Lost => 8,
        }
    }
}

/// One operation on one replica's log or records.
pub enum LogOp {
    /// Adds entries; they are readable at once and durable when `done` is called.
    Append {
        /// Whose log.
        replica: ReplicaKey,
        /// The entries, ascending.
        records: Vec<LogRecord>,
        /// Called after the sync.
        done: Done,
    },
    /// Sets the vote.
    Vote {
        /// Whose vote.
        replica: ReplicaKey,
        /// The vote.
        bytes: Vec<u8>,
        /// Called after the sync.
        done: Done,
    },
    /// Sets the committed log id: a hint for the next start, not synced on its own account.
    Committed {
        /// Whose.
        replica: ReplicaKey,
        /// The log id.
        bytes: Vec<u8>,
    },
    /// Removes the entries after `index`.
    TruncateAfter {
        /// Whose log.
        replica: ReplicaKey,
        /// The last entry that stays.
        index: u64,
        /// Called after the sync.
        done: Done,
    },
    /// Removes the entries up to and with `upto`; a log that does not reach there, or is empty, is
    /// fine. Not synced on its own account: what comes back after a crash is purged again.
    Purge {
        /// Whose log.
        replica: ReplicaKey,
        /// The last entry that goes.
        upto: u64,
        /// The purged log id, stored as [`StateKind::Purged`].
        purged: Vec<u8>,
    },
    /// Sets a record.
    PutState {
        /// Whose.
        replica: ReplicaKey,
        /// Which.
        kind: StateKind,
        /// The record.
        bytes: Vec<u8>,
        /// Called after the sync.
        done: Done,
    },
    /// Removes a record.
    DeleteState {
        /// Whose.
        replica: ReplicaKey,
        /// Which.
        kind: StateKind,
        /// Called after the sync.
        done: Done,
    },
    /// Removes the log and all records of a replica but those that `keep` lists.
    DeleteReplica {
        /// Whose.
        replica: ReplicaKey,
        /// What stays.
        keep: &'static [StateKind],
        /// Called after the sync.
        done: Done,
    },
    /// Nothing: `done` says that everything submitted before is durable.
    Barrier {
        /// Called after the sync.
        done: Done,
    },
}

impl fmt::Debug for LogOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Append { .. } => "Append",
            Self::Vote { .. } => "Vote",
            Self::Committed { .. } => "Committed",
            Self::TruncateAfter { .. } => "TruncateAfter",
            Self::Purge { .. } => "Purge",
            Self::PutState { .. } => "PutState",
            Self::DeleteState { .. } => "DeleteState",
            Self::DeleteReplica { .. } => "DeleteReplica",
            Self::Barrier { .. } => "Barrier",
        };
        f.debug_struct(name).field("replica", &self.replica()).finish_non_exhaustive()
    }
}

impl LogOp {
    /// Whose; none for a barrier.
    pub fn replica(&self) -> Option<ReplicaKey> {
        match self {
            Self::Append { replica, .. }
            | Self::Vote { replica, .. }
            | Self::Committed { replica, .. }
            | Self::TruncateAfter { replica, .. }
            | Self::Purge { replica, .. }
            | Self::PutState { replica, .. }
            | Self::DeleteState { replica, .. }
            | Self::DeleteReplica { replica, .. } => Some(*replica),
            Self::Barrier { .. } => None,
        }
    }

    /// Bytes of what it writes.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Append { records, .. } => records.iter().map(|r| r.bytes.len()).sum(),
            Self::Vote { bytes, .. }
            | Self::Committed { bytes, .. }
            | Self::Purge { purged: bytes, .. }
            | Self::PutState { bytes, .. } => bytes.len(),
            Self::TruncateAfter { .. }
            | Self::DeleteState { .. }
            | Self::DeleteReplica { .. }
            | Self::Barrier { .. } => 0,
        }
    }

    /// Whether somebody waits for it to be on disk.
    pub fn is_synced(&self) -> bool {
        !matches!(self, Self::Committed { .. } | Self::Purge { .. })
    }

    /// The callback, if it has one.
    pub(super) fn into_done(self) -> Option<Done> {
        match self {
            Self::Append { done, .. }
            | Self::Vote { done, .. }
            | Self::TruncateAfter { done, .. }
            | Self::PutState { done, .. }
            | Self::DeleteState { done, .. }
            | Self::DeleteReplica { done, .. }
            | Self::Barrier { done } => Some(done),
            Self::Committed { .. } | Self::Purge { .. } => None,
        }
    }
}

/// The logs of every replica on the node.
///
/// To ensure correctness an implementation must:
/// * take effect in the order of `submit`, over all replicas;
/// * call every `done` exactly once, in that order, `Ok` only after a sync that covers it;
/// * show entries through [`LogEngine::entries`], [`LogEngine::last`] and
///   [`LogEngine::first_index`] as of everything submitted, written or not;
/// * come back after a crash with every operation that was acknowledged.
pub trait LogEngine: Send + Sync + 'static {
    /// Queues an operation. Never blocks: what may wait here is bounded by the windows of the
    /// groups that submit. After [`LogEngine::close`] or a failure, `done` is called with an error.
    fn submit(&self, op: LogOp);

    /// The entries in `[from, to)`, ascending, up to `bytes_max`; at least one if there is any.
    fn entries(
        &self,
        r: ReplicaKey,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<Vec<LogRecord>>;

    /// The last entry.
    fn last(&self, r: ReplicaKey) -> Result<Option<LogRecord>>;

    /// The index of the first entry.
    fn first_index(&self, r: ReplicaKey) -> Result<Option<u64>>;

    /// A record as it was last written; one still in the queue is not seen.
    fn state(&self, r: ReplicaKey, kind: StateKind) -> Result<Option<Vec<u8>>>;

    /// Every replica that has an entry or a record, ascending; what is still in the queue is not
    /// seen.
    fn replicas(&self) -> Result<Vec<ReplicaKey>>;

    /// A record of the node itself.
    fn node_state(&self, key: &str) -> Result<Option<Vec<u8>>>;

    /// Sets a record of the node itself. Blocks until it is on disk.
    fn put_node_state(&self, key: &str, bytes: Vec<u8>) -> Result<()>;

    /// How long the write and sync take that are being made now; zero if none are. A disk that answers
    /// is done in a moment.
    fn waiting(&self) -> Duration;

    /// Writes what is queued and stops. Blocks until then.
    fn close(&self);
}
