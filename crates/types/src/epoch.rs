//! The epoch of a range: which version of its span and of its membership one speaks of.

use serde::{Deserialize, Serialize};
use std::fmt;

/// `(version, conf_ver)` of a range.
///
/// Invariants:
/// * `version` grows with every split or merge, `conf_ver` with every membership change;
/// * neither ever decreases, so two epochs of one range are always comparable part by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct RangeEpoch {
    /// Grows with every split or merge.
    pub version: u64,
    /// Grows with every membership change.
    pub conf_ver: u64,
}

impl RangeEpoch {
    /// The epoch of a range that was just created.
    pub const FIRST: RangeEpoch = RangeEpoch { version: 1, conf_ver: 1 };

    /// Whether a descriptor with this epoch replaces one with `other`: newer in one part and not
    /// older in the other.
    pub fn is_newer_than(self, other: RangeEpoch) -> bool {
        self.version >= other.version && self.conf_ver >= other.conf_ver && self != other
    }

    /// The epoch after a split or merge.
    pub fn next_version(self) -> Self {
        Self { version: self.version + 1, ..self }
    }

    /// The epoch after a membership change.
    pub fn next_conf_ver(self) -> Self {
        Self { conf_ver: self.conf_ver + 1, ..self }
    }
}

impl fmt::Display for RangeEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.version, self.conf_ver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_newer_only_if_no_part_is_older() {
        let e = |version, conf_ver| RangeEpoch { version, conf_ver };
        assert!(e(2, 1).is_newer_than(e(1, 1)));
        assert!(e(1, 2).is_newer_than(e(1, 1)));
        assert!(!e(1, 1).is_newer_than(e(1, 1)));
        assert!(!e(2, 1).is_newer_than(e(1, 2)));
        assert!(!e(1, 2).is_newer_than(e(2, 1)));
    }
}
