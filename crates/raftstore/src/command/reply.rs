//! What applying an entry answers to whoever proposed it.

use super::WriteOutcome;
use isotherm_types::{ClusterVersion, RangeDescriptor};
use serde::{Deserialize, Serialize};

/// The answer of one applied entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RangeReply {
    /// One per write of the entry, in order.
    Writes(Vec<WriteReply>),
    /// Parent and children after a split, in key order.
    Split(Vec<RangeDescriptor>),
    /// The range after a step of a merge.
    Merge {
        /// As it is now.
        descriptor: RangeDescriptor,
        /// Whether the right neighbour that the entry names is part of it.
        absorbed: bool,
    },
    /// A checksum of the state at this entry is being computed.
    ChecksumOrdered,
    /// The range's version, after an entry that raises it.
    Raised(ClusterVersion),
    /// The whole entry was a no-op.
    NotApplied(NotApplied),
}

/// The answer to one write of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteReply {
    /// Took effect, now or in an earlier attempt.
    Done(WriteOutcome),
    /// Its client has already answered every write below the floor: a late duplicate.
    Stale,
    /// The range has forgotten results as old as this write's birth.
    Expired,
    /// What it would replace or answer exceeds a limit (`replica/bounds.rs`); nothing was evaluated.
    TooLarge(TooLarge),
}

/// A bound on what one write request may produce was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum TooLarge {
    /// The values that its failed conditions could answer.
    #[error(
        "the current values under the conditions of this batch could exceed {limit} bytes, which is \
         the limit of an answer: send fewer conditions in one batch"
    )]
    Answer {
        /// Bytes of all current values that are answered together.
        limit: u64,
    },
    /// The values that it would move to the history.
    #[error(
        "this batch replaces values of more than {limit} bytes together, which is the limit: send \
         fewer operations in one batch"
    )]
    Replaced {
        /// Bytes of all values that are replaced together.
        limit: u64,
    },
}

/// Why an entry was a no-op: certainly not applied by this attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotApplied {
    /// Its timestamp is not above the range's last one.
    OldTimestamp,
    /// It was proposed for another version of the range.
    StaleVersion(Box<RangeDescriptor>),
    /// A split or a step of a merge that does not fit the range any more.
    Refused(String),
}
