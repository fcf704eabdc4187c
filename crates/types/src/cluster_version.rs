//! Which rules and formats a cluster uses: one number, agreed on by the meta service.
//!
//! Processes of two software versions run side by side during an upgrade. Each of them *supports* all
//! versions from [`ClusterVersion::OLDEST`] to [`ClusterVersion::CURRENT`]; the cluster *uses* one of
//! them, the cluster version, which only `isotherm upgrade finalize` raises, and never above what every
//! process supports. Until then nothing newer is written to a disk or into a log, so that every process
//! can go back to the older software. Rules and formats that came with a version are in force where the
//! version is at least the constant that names them below.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The version of the rules and formats that a cluster, or a range, uses.
///
/// In a range's log and state it is the *apply version*. Persisted as a plain number.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct ClusterVersion(pub u16);

impl ClusterVersion {
    /// What a cluster uses that has never agreed on a version, and what every range starts from.
    pub const FIRST: Self = Self(2);
    /// Apply bounds what a write may produce and refuses keys outside the range; see
    /// `raftstore/replica/bounds.rs`.
    pub const BOUNDED_WRITES: Self = Self(3);
    /// Writes that remove a value on a condition: what it is, or which write it comes from.
    pub const CONDITIONAL_REMOVALS: Self = Self(4);
    /// Writes of a batch that have an identity each.
    pub const NUMBERED_WRITES: Self = Self(5);
    /// For tests of upgrades: what builds with the feature `faults` support beyond a release. It brings
    /// one new log entry, an order for a checksum in another form.
    pub const REHEARSAL: Self = Self(6);
    /// The oldest version that this software can run at.
    pub const OLDEST: Self = Self::FIRST;
    /// The newest version that this software can run at.
    pub const CURRENT: Self =
        if cfg!(feature = "faults") { Self::REHEARSAL } else { Self::NUMBERED_WRITES };

    /// From a message, in which 0 stands for a process that is too old to say.
    pub fn from_wire(version: u32) -> Self {
        match version {
            0 => Self::FIRST,
            n => Self(u16::try_from(n).unwrap_or(u16::MAX)),
        }
    }

    /// As it stands in messages.
    pub fn to_wire(self) -> u32 {
        u32::from(self.0)
    }

    /// Whether this software can run at it.
    pub fn is_supported(self) -> bool {
        (Self::OLDEST..=Self::CURRENT).contains(&self)
    }
}

impl fmt::Display for ClusterVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
