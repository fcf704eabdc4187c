//! How much of what is on disk will be of no use to anybody.

use std::ops::{Add, AddAssign};

/// Bytes of rows that nobody reads once the safe point has passed them.
///
/// An estimate, for deciding whether a compaction is worth its cost: keys and values before
/// compression, and a tombstone that a later put replaced is still counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Garbage {
    /// Older versions, in `history`.
    pub history_bytes: u64,
    /// Tombstones, in `live`.
    pub tombstone_bytes: u64,
}

impl Garbage {
    /// What came on top of `before`; nothing if that is not less.
    pub fn since(self, before: Self) -> Self {
        Self {
            history_bytes: self.history_bytes.saturating_sub(before.history_bytes),
            tombstone_bytes: self.tombstone_bytes.saturating_sub(before.tombstone_bytes),
        }
    }
}

impl Add for Garbage {
    type Output = Self;
    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl AddAssign for Garbage {
    fn add_assign(&mut self, other: Self) {
        self.history_bytes += other.history_bytes;
        self.tombstone_bytes += other.tombstone_bytes;
    }
}
