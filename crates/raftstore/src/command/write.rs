//! Client writes and their results.

use bytes::Bytes;
use isotherm_types::limits::KEY_BYTES_MAX;
use isotherm_types::{ClusterVersion, Key, REQUEST_SEQ, Timestamp, WriteId};
use serde::{Deserialize, Serialize};

/// A client's batch on one range: it becomes part of one log entry and is atomic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteRequest {
    /// Identity across attempts.
    pub id: WriteId,
    /// In order; later ones see earlier ones.
    pub ops: Vec<WriteOp>,
}

/// One write operation. Conditions are evaluated in apply, on every replica alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteOp {
    /// Sets a value.
    Put {
        /// Which key.
        key: Key,
        /// The new value.
        value: Bytes,
    },
    /// Removes a value.
    Delete {
        /// Which key.
        key: Key,
    },
    /// Sets a value if the current one is as expected.
    Cas {
        /// Which key.
        key: Key,
        /// `None`: the key must not exist.
        expected: Option<Bytes>,
        /// The new value.
        value: Bytes,
    },
    /// Adds to a decimal 64-bit integer; an absent key counts as 0.
    Incr {
        /// Which key.
        key: Key,
        /// What to add.
        by: i64,
    },
    /// Removes a value if it is as expected. From [`ClusterVersion::CONDITIONAL_REMOVALS`] on.
    CasRemove {
        /// Which key.
        key: Key,
        /// `None`: the key must not exist, and nothing changes.
        expected: Option<Bytes>,
    },
    /// Removes a value if a certain write set it. From [`ClusterVersion::CONDITIONAL_REMOVALS`] on.
    RemoveVersion {
        /// Which key.
        key: Key,
        /// Timestamp of the write.
        ts: Timestamp,
    },
    /// One that is remembered by itself, whatever it was sent together with: a write of a batch whose
    /// identity its caller drew. Those of one request are all of this kind, in the order of their numbers.
    /// From [`ClusterVersion::NUMBERED_WRITES`] on.
    Numbered {
        /// Its position in the batch.
        number: u32,
        /// What to do: never of this kind itself.
        op: Box<WriteOp>,
    },
}

impl WriteOp {
    /// What to do, without its number.
    pub fn into_plain(self) -> Self {
        match self {
            Self::Numbered { op, .. } => *op,
            plain => plain,
        }
    }

    /// What to do, without its number.
    pub fn plain(&self) -> &Self {
        match self {
            Self::Numbered { op, .. } => op,
            plain => plain,
        }
    }

    /// Its position in the batch of its caller, if it is remembered by that.
    pub fn number(&self) -> Option<u32> {
        match self {
            Self::Numbered { number, .. } => Some(*number),
            _ => None,
        }
    }

    /// Whether it has a condition, and answers the value that stands there if that is not met.
    pub fn may_answer_value(&self) -> bool {
        matches!(self.plain(), Self::Cas { .. } | Self::CasRemove { .. })
    }

    /// The key that it touches.
    pub fn key(&self) -> &Key {
        match self {
            Self::Numbered { op, .. } => op.key(),
            Self::Put { key, .. }
            | Self::Delete { key }
            | Self::Cas { key, .. }
            | Self::Incr { key, .. }
            | Self::CasRemove { key, .. }
            | Self::RemoveVersion { key, .. } => key,
        }
    }

    /// Bytes of key and values, for limits.
    pub fn size_bytes(&self) -> usize {
        self.key().len()
            + match self.plain() {
                Self::Numbered { .. } => 0,
                Self::Put { value, .. } => value.len(),
                Self::Delete { .. } => 0,
                Self::Cas { expected, value, .. } => {
                    expected.as_ref().map_or(0, Bytes::len) + value.len()
                }
                Self::Incr { .. } | Self::RemoveVersion { .. } => 8,
                Self::CasRemove { expected, .. } => expected.as_ref().map_or(0, Bytes::len),
            }
    }

    /// The oldest version that knows it.
    fn since(&self) -> ClusterVersion {
        match self {
            Self::Put { .. } | Self::Delete { .. } | Self::Cas { .. } | Self::Incr { .. } => {
                ClusterVersion(1)
            }
            Self::CasRemove { .. } | Self::RemoveVersion { .. } => {
                ClusterVersion::CONDITIONAL_REMOVALS
            }
            Self::Numbered { .. } => ClusterVersion::NUMBERED_WRITES,
        }
    }
}

impl WriteRequest {
    /// Whether its operations are remembered one by one.
    pub fn is_numbered(&self) -> bool {
        self.ops.iter().any(|op| op.number().is_some())
    }

    /// Whether it takes things away and puts nothing there: without that a full disk stays full.
    pub fn makes_room(&self) -> bool {
        let removes = |op: &WriteOp| {
            use WriteOp::{CasRemove, Delete, RemoveVersion};
            match op.plain() {
                Delete { .. } | RemoveVersion { .. } => true,
                // It takes room in the log, and may remove nothing.
                CasRemove { expected, .. } => {
                    expected.as_ref().is_none_or(|value| value.len() <= KEY_BYTES_MAX)
                }
                _ => false,
            }
        };
        self.ops.iter().all(removes)
    }

    /// The oldest version that knows all of it.
    pub fn since(&self) -> ClusterVersion {
        let ops = self.ops.iter().map(WriteOp::since).max().unwrap_or(ClusterVersion(1));
        // Versions before recall results whose time is over, each replica others.
        let is_request = self.id.seq == REQUEST_SEQ;
        if is_request { ops.max(ClusterVersion::CONDITIONAL_REMOVALS) } else { ops }
    }

    /// Bytes of all keys and values.
    pub fn size_bytes(&self) -> usize {
        self.ops.iter().map(WriteOp::size_bytes).sum()
    }
}

/// What one operation did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpResult {
    /// The value was set.
    Put,
    /// The key is absent now.
    Deleted {
        /// Whether it had a value.
        existed: bool,
    },
    /// Outcome of a compare-and-set.
    Cas {
        /// Whether the value was set.
        applied: bool,
        /// If it was not: what stands there.
        current: Option<Bytes>,
    },
    /// The value after the increment.
    Incr {
        /// Prefix result: later increments of the same batch come on top.
        value: i64,
    },
    /// Refused by what the operation found; nothing changed.
    Refused {
        /// Why.
        reason: Refusal,
    },
    /// A compare-and-set that was not applied, as it is remembered: without the value that stood there.
    CasLost,
    /// Of a numbered operation: it took effect in an earlier attempt.
    Earlier {
        /// Commit timestamp of that one.
        ts: Timestamp,
        /// What it did.
        result: Box<OpResult>,
    },
}

/// Why an operation was refused in apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// An increment found something other than a decimal 64-bit integer.
    #[error("the value is not a decimal 64-bit integer")]
    NotANumber,
    /// The sum does not fit.
    #[error("the sum does not fit into 64 bits")]
    Overflow,
}

/// The answer to a write that took effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteOutcome {
    /// Commit timestamp.
    pub ts: Timestamp,
    /// Index of the first operation inside its entry; `(ts, index)` is a row's version.
    pub index: u32,
    /// One per operation.
    pub results: Vec<OpResult>,
}
