//! The versioned form of a range's log entry.
//!
//! Layout: one codec version byte, then [`Envelope`] in bincode. `apply_version` is the oldest version
//! whose rules apply the entry as its proposer meant it, so that replicas of different software never
//! diverge; an entry that this software does not know stops the replica, it is never skipped. By which
//! rules it is applied, the range's own version says, which is part of its state
//! ([`crate::replica::AppliedState::apply_version`]) and is raised by an entry of its log, so that
//! every replica changes its rules at the same place.

use super::WriteRequest;
use isotherm_types::{
    ClusterVersion, Key, RangeDescriptor, RangeEpoch, RangeId, ReplicaId, Timestamp,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One log entry of a range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The oldest version whose rules apply it as it is meant.
    pub apply_version: ClusterVersion,
    /// The version half of the range's epoch when it was proposed.
    pub range_version: u64,
    /// Its commit timestamp.
    pub ts: Timestamp,
    /// No later entry has a timestamp at or below this one (0: not promised yet).
    pub closed_ts: Timestamp,
    /// Spare bits; an unknown one stops the replica.
    pub flags: u32,
    /// What to do.
    pub body: Body,
}

/// What an entry does. In the log a variant is its number: new ones are added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Client writes in order.
    Writes(WriteEntry),
    /// Cuts the range.
    Split(Split),
    /// Orders a checksum of the state at this entry.
    Checksum,
    /// The range stands still, to be absorbed by its left neighbour.
    Freeze(Freeze),
    /// It serves again.
    Thaw(Thaw),
    /// The right neighbour, which stands still, becomes part of this range.
    Absorb(Absorb),
    /// The right neighbour cannot be absorbed any more as it was planned.
    Fence(Fence),
    /// From here on the range is changed by the rules of this version, if it is a newer one.
    Raise(ClusterVersion),
    /// Orders a checksum, as an entry that releases do not know: for tests of upgrades.
    #[cfg(feature = "faults")]
    Rehearsal,
}

impl Body {
    /// The oldest version that knows it.
    pub fn since(&self) -> ClusterVersion {
        match self {
            Self::Writes(entry) => {
                entry.writes.iter().map(WriteRequest::since).max().unwrap_or(ClusterVersion(1))
            }
            Self::Split(_) | Self::Checksum => ClusterVersion(1),
            Self::Freeze(_) | Self::Thaw(_) | Self::Absorb(_) | Self::Fence(_) => ClusterVersion(2),
            Self::Raise(to) => ClusterVersion::BOUNDED_WRITES.max(*to),
            #[cfg(feature = "faults")]
            Self::Rehearsal => ClusterVersion::REHEARSAL,
        }
    }
}

/// The writes of one entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteEntry {
    /// In order; the position of an operation over all of them is its index in the batch.
    pub writes: Vec<WriteRequest>,
}

/// Cuts a range at `keys`; the parent keeps the first piece.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Both halves must match the parent at apply.
    pub epoch: RangeEpoch,
    /// Ascending, strictly inside the parent.
    pub keys: Vec<Key>,
    /// One per key.
    pub children: Vec<SplitChild>,
}

/// Identity of one child of a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitChild {
    /// The new range.
    pub range: RangeId,
    /// One per replica of the parent, in the order of its descriptor.
    pub replicas: Vec<ReplicaId>,
}

/// Stops a range, so that its left neighbour can absorb it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// Both halves must match at apply.
    pub epoch: RangeEpoch,
    /// Who is to absorb it.
    pub into: RangeId,
    /// At which epoch of that one, and at no other.
    pub into_epoch: RangeEpoch,
}

/// Takes a freeze back, or prevents one that is still on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thaw {
    /// The epoch that the freeze was for.
    pub epoch: RangeEpoch,
    /// Who was to absorb it.
    pub into: RangeId,
    /// At which epoch.
    pub into_epoch: RangeEpoch,
}

/// Takes over a range that every one of its replicas knows to be frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absorb {
    /// Both halves must match the absorbing range at apply.
    pub epoch: RangeEpoch,
    /// The frozen range. Its own log has nothing behind the freeze that changes rows.
    pub right: RangeDescriptor,
    /// Timestamp of the freeze.
    pub frozen_ts: Timestamp,
}

/// Ends an epoch of the absorbing range, so that nothing is absorbed at it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The epoch that is to end.
    pub epoch: RangeEpoch,
    /// What was to be absorbed: the answer says whether it was.
    pub right: RangeId,
}

/// An entry that this software cannot apply. Fatal for the replica.
#[derive(Debug, Error)]
pub enum EnvelopeError {
    /// Not an envelope.
    #[error("a log entry cannot be decoded")]
    Decode(#[source] isotherm_storage::StorageError),
    /// Written by newer software.
    #[error(
        "a log entry needs apply version {found} with flags {flags:#x}; this software knows up to {known}: upgrade it"
    )]
    Unknown {
        /// What the entry asks for.
        found: ClusterVersion,
        /// Its flags.
        flags: u32,
        /// What this software knows.
        known: ClusterVersion,
    },
}

impl Envelope {
    /// Bytes for the log.
    pub fn encode(&self) -> bytes::Bytes {
        isotherm_storage::codec::encode(self).into()
    }

    /// From the log.
    pub fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let envelope: Self =
            isotherm_storage::codec::decode(bytes).map_err(EnvelopeError::Decode)?;
        if envelope.apply_version > ClusterVersion::CURRENT || envelope.flags != 0 {
            return Err(EnvelopeError::Unknown {
                found: envelope.apply_version,
                flags: envelope.flags,
                known: ClusterVersion::CURRENT,
            });
        }
        Ok(envelope)
    }
}
