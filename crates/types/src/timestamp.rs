//! Timestamps of the oracle: 46 bits of milliseconds since the Unix epoch, 18 bits of counter.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A point in the cluster's one order of writes and reads.
///
/// Issued by the meta leader only, strictly increasing across leaders and restarts. The physical
/// part follows the leader's clock loosely: it is for people and for retention, never for
/// correctness.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Bits of the counter: 262,144 timestamps a millisecond.
    pub const LOGICAL_BITS: u32 = 18;
    /// Before every issued timestamp.
    pub const ZERO: Timestamp = Timestamp(0);
    /// After every issued timestamp.
    pub const MAX: Timestamp = Timestamp(u64::MAX);

    /// The first timestamp of a millisecond.
    pub const fn from_physical_ms(ms: u64) -> Self {
        Self(ms << Self::LOGICAL_BITS)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn physical_ms(self) -> u64 {
        self.0 >> Self::LOGICAL_BITS
    }

    /// The counter inside its millisecond.
    pub const fn logical(self) -> u64 {
        self.0 & ((1 << Self::LOGICAL_BITS) - 1)
    }

    /// The bare number, for encoding.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// This timestamp moved back by `ms` milliseconds, not below zero.
    pub const fn minus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms << Self::LOGICAL_BITS))
    }

    /// The next one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl From<u64> for Timestamp {
    fn from(ts: u64) -> Self {
        Self(ts)
    }
}
