//! Keys of the `local` column family: what a range keeps beside its user rows.

use isotherm_types::{RangeId, Timestamp};

/// One row of `local`.
///
/// Layout: `[kind: u8][range: u64]`, for remembered results followed by `[ts: u64]`, big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LocalKey {
    /// The descriptor.
    Descriptor(RangeId),
    /// The applied state.
    Applied(RangeId),
    /// Results of the writes of one log entry.
    Dedup {
        /// The range that applied it (a child consults its parent's rows).
        origin: RangeId,
        /// The entry's timestamp.
        ts: Timestamp,
    },
}

pub(super) const DESCRIPTOR: u8 = 1;
const APPLIED: u8 = 2;
const DEDUP: u8 = 3;

impl LocalKey {
    /// The key on disk.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, range, ts) = match self {
            Self::Descriptor(range) => (DESCRIPTOR, range, None),
            Self::Applied(range) => (APPLIED, range, None),
            Self::Dedup { origin, ts } => (DEDUP, origin, Some(ts)),
        };
        let mut out = Vec::with_capacity(17);
        out.push(kind);
        out.extend_from_slice(&range.get().to_be_bytes());
        if let Some(ts) = ts {
            out.extend_from_slice(&ts.get().to_be_bytes());
        }
        out
    }
}
