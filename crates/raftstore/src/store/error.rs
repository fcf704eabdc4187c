//! What a range answers when it does not do what was asked.

use crate::command::TooLarge;
use isotherm_types::{NodeId, RangeDescriptor, RangeId, Timestamp};
use std::time::Duration;
use thiserror::Error;

/// An error of an operation on a range. Everything but [`RangeError::Indeterminate`] means:
/// certainly not applied by this attempt.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RangeError {
    /// This replica does not lead, or not any more, or not yet.
    #[error("this node does not lead the range")]
    NotLeader {
        /// Who does, if known. Unknown also means: ask again here shortly.
        leader: Option<NodeId>,
    },
    /// The range has another epoch, or the keys are not all inside it.
    #[error("the range has changed since it was routed to")]
    EpochMismatch {
        /// What is known here of the span now.
        current: Vec<RangeDescriptor>,
    },
    /// No replica of it here.
    #[error("{0} has no replica on this node")]
    RangeNotFound(RangeId),
    /// Overloaded.
    #[error("overloaded: try again later")]
    Busy {
        /// After this.
        retry_after: Duration,
    },
    /// The oracle is known to be down: nothing that needs a timestamp is begun.
    #[error("the meta service gives no timestamps now: writes wait for it, try again later")]
    NoTimestamps,
    /// The node's disk is nearly full; it still reads.
    #[error("the disk of this node is nearly full: it takes no writes until space is freed")]
    DiskFull,
    /// Bad input.
    #[error("{0}")]
    Invalid(String),
    /// What the write would replace or answer exceeds a limit.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// Proposed, and the outcome is unknown.
    #[error("the write may or may not take effect: its outcome is unknown")]
    Indeterminate,
    /// A late duplicate of a write that was answered.
    #[error("a late duplicate: this write was answered before")]
    Stale,
    /// Too old for its result to be remembered.
    #[error("too old: the range no longer remembers writes as old as this one")]
    Expired,
    /// The versions at that timestamp may be gone.
    #[error(
        "values as old as that may be gone: read at {safe_point} or later, or keep more with the \
         setting history.retention"
    )]
    SnapshotTooOld {
        /// The oldest timestamp that can be read.
        safe_point: Timestamp,
    },
    /// That timestamp was not issued yet.
    #[error("the timestamp was not issued yet")]
    TsTooNew,
    /// A quorum or the oracle did not answer in time.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// A condition of an admin request does not hold.
    #[error("{0}")]
    Condition(String),
    /// A fault of this node.
    #[error("internal: {0}")]
    Internal(String),
}

impl StoreError {
    /// Whether the node's disk holds something other than what was written there.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Storage(error) => error.is_damage(),
            Self::Damaged { .. } => true,
            Self::Overlap(_) | Self::Raft { .. } | Self::Corrupt(_) => false,
        }
    }
}

/// Why a store could not be opened or did not do what it was told.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The disk.
    #[error(transparent)]
    Storage(#[from] isotherm_storage::StorageError),
    /// Two replicas of this node claim the same keys.
    #[error(transparent)]
    Overlap(#[from] super::SpanOverlap),
    /// Consensus would not start.
    #[error("range {range} would not start: {reason}")]
    Raft {
        /// Which range.
        range: RangeId,
        /// What openraft said.
        reason: String,
    },
    /// One replica cannot be read.
    #[error("the replica of {range} cannot be read: {reason}")]
    Damaged {
        /// Which range.
        range: RangeId,
        /// What was found.
        reason: String,
    },
    /// What is on disk contradicts itself.
    #[error("{0}")]
    Corrupt(String),
}
