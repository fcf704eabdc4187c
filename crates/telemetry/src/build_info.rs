//! Which software this is.

use serde::Serialize;

/// Which software this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BuildInfo {
    /// Version of the release.
    pub version: &'static str,
    /// Version of the on-disk format that it writes.
    pub format: u32,
    /// Whether switches that break rules on purpose are compiled in. Never in a release.
    pub faults: bool,
}

/// Which software this is.
pub const fn build_info() -> BuildInfo {
    BuildInfo { version: env!("CARGO_PKG_VERSION"), format: 1, faults: cfg!(feature = "faults") }
}
