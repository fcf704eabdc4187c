//! What applying an entry answers to whoever proposed it.

use super::WriteOutcome;
use isotherm_types::RangeDescriptor;
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
