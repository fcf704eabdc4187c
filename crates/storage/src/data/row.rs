//! Rows of `live` and `history`.
//!
//! Layout, both: `[format: u8 = 1][kind: u8][ts: u64][index: u32][value]`, big-endian. In `live` the
//! ts is the version's own; in `history` it is the version's END (its start is in the key). Index is
//! the position of the write inside its log entry: `(ts, index)` names a version.

use crate::{Result, StorageError};
use bytes::Bytes;
use isotherm_types::Timestamp;

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 14;

/// A version of a key as readers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What was written.
    pub value: Bytes,
    /// When.
    pub ts: Timestamp,
    /// Position inside its log entry.
    pub index: u32,
}

/// What a row stands for. Other numbers are kept for staged and merged values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Value = 0,
    Tombstone = 1,
}

/// A row with its parts still in place.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawRow<'a> {
    pub kind: Kind,
    pub ts: Timestamp,
    pub index: u32,
    pub value: &'a [u8],
}

impl<'a> RawRow<'a> {
    pub fn decode(bytes: &'a [u8]) -> Result<Self> {
        let Some((header, value)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(StorageError::corrupt("row", "it is too short"));
        };
        if header[0] != FORMAT {
            return Err(StorageError::corrupt("row", format!("unknown format {}", header[0])));
        }
        let kind = match header[1] {
            0 => Kind::Value,
            1 => Kind::Tombstone,
            kind => return Err(StorageError::corrupt("row", format!("unknown kind {kind}"))),
        };
        let ts = u64::from_be_bytes(header[2..10].try_into().expect("eight bytes"));
        let index = u32::from_be_bytes(header[10..14].try_into().expect("four bytes"));
        Ok(Self { kind, ts: Timestamp(ts), index, value })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + self.value.len());
        out.push(FORMAT);
        out.push(self.kind as u8);
        out.extend_from_slice(&self.ts.get().to_be_bytes());
        out.extend_from_slice(&self.index.to_be_bytes());
        out.extend_from_slice(self.value);
        out
    }

    /// The row as readers see it: a tombstone is absence.
    pub fn visible(&self) -> Option<Row> {
        (self.kind == Kind::Value).then(|| Row {
            value: Bytes::copy_from_slice(self.value),
            ts: self.ts,
            index: self.index,
        })
    }
}
