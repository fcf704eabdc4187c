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

    /// The first timestamp of a millisecond; one that is too late for a timestamp gives the last.
    pub const fn from_physical_ms(ms: u64) -> Self {
        if ms > u64::MAX >> Self::LOGICAL_BITS {
            return Self::MAX;
        }
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
        Self(self.0.saturating_sub(Self::from_physical_ms(ms).0))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_do_not_fit_do_not_wrap_around() {
        let year_9999_ms = 253_402_300_799_000;
        assert_eq!(Timestamp::from_physical_ms(year_9999_ms), Timestamp::MAX);
        let now = Timestamp::from_physical_ms(1_700_000_000_000);
        assert_eq!(now.minus_ms(1 << 46), Timestamp::ZERO);
        assert_eq!(now.minus_ms(u64::MAX), Timestamp::ZERO);
        assert_eq!(now.minus_ms(30_000).physical_ms(), 1_699_999_970_000);
    }
}
