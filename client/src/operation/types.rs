//! What goes in and what comes out.

use bytes::Bytes;
use isotherm_types::{Key, KeyRange, Timestamp};

/// A value with the version that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The value.
    pub value: Bytes,
    /// When it was written.
    pub ts: Timestamp,
}

/// One write of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
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
    /// Removes a value if it is as expected.
    CasRemove {
        /// Which key.
        key: Key,
        /// `None`: the key must not exist, and nothing changes.
        expected: Option<Bytes>,
    },
    /// Removes a value if a certain write set it.
    RemoveVersion {
        /// Which key.
        key: Key,
        /// Timestamp of the write.
        ts: Timestamp,
    },
}

/// The identity of a write, through every client and however often it is sent: all attempts of one write carry the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    /// Drawn at random for each write.
    pub id: [u8; 16],
    /// A timestamp that was known before the first attempt. With it an attempt that comes too late for the
    /// result to be remembered is refused as [`crate::ErrorKind::Expired`]; without it, it is a new write.
    pub since: Option<Timestamp>,
}

impl Write {
    /// A put.
    pub fn put(key: impl Into<Key>, value: impl Into<Bytes>) -> Self {
        Self::Put { key: key.into(), value: value.into() }
    }

    /// A delete.
    pub fn delete(key: impl Into<Key>) -> Self {
        Self::Delete { key: key.into() }
    }

    /// An increment.
    pub fn incr(key: impl Into<Key>, by: i64) -> Self {
        Self::Incr { key: key.into(), by }
    }

    /// The key that it touches.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. }
            | Self::Delete { key }
            | Self::Cas { key, .. }
            | Self::Incr { key, .. }
            | Self::CasRemove { key, .. }
            | Self::RemoveVersion { key, .. } => key,
        }
    }
}

/// What one write of a batch did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteResult {
    /// The value was set.
    Put {
        /// When.
        ts: Timestamp,
    },
    /// The key is absent now.
    Deleted(Deleted),
    /// Outcome of a compare-and-set.
    Cas(CasOutcome),
    /// The sum.
    Incremented(Incremented),
    /// Refused by what it found; nothing changed.
    Refused {
        /// Why.
        reason: String,
    },
}

/// A delete that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    /// When.
    pub ts: Timestamp,
    /// Whether there was a value.
    pub existed: bool,
}

/// A compare-and-set that was evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CasOutcome {
    /// When.
    pub ts: Timestamp,
    /// Whether the value was set.
    pub applied: bool,
    /// If it was not: what stood there then.
    pub current: Option<Bytes>,
    /// Whether what stood there is not known: the answer of the attempt that was evaluated was lost, and
    /// a range remembers only that it was not applied. Then `current` says nothing.
    pub current_forgotten: bool,
}

/// An increment that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incremented {
    /// When.
    pub ts: Timestamp,
    /// The value after it.
    pub value: i64,
}

/// What to scan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScanOptions {
    /// Which keys.
    pub span: KeyRange,
    /// Most rows; `None`: all.
    pub limit: Option<u64>,
    /// From the end downwards.
    pub reverse: bool,
    /// Leave the values out.
    pub keys_only: bool,
    /// As of when; `None`: now.
    pub at: Option<Timestamp>,
    /// Most bytes of keys and values in one page, which has one row at least; 0: as many as a node gives.
    pub page_bytes_max: u32,
}

/// A part of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanPage {
    /// The timestamp of all pages of the scan.
    pub at: Timestamp,
    /// Rows in key order, or the reverse of it.
    pub rows: Vec<(Key, Row)>,
}
