//! How much room the disk has.

use std::io;
use std::path::Path;

/// Room on the file system of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// All of it.
    pub total_bytes: u64,
    /// What this process may still fill.
    pub free_bytes: u64,
}

/// The room on the file system that holds `dir`.
pub fn free_space(dir: &Path) -> io::Result<DiskSpace> {
    let stat = rustix::fs::statvfs(dir)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(DiskSpace { total_bytes: bytes(stat.f_blocks), free_bytes: bytes(stat.f_bavail) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_directory_has_no_more_free_space_than_total() {
        let space = free_space(&std::env::temp_dir()).unwrap();
        assert!(space.total_bytes > 0 && space.free_bytes <= space.total_bytes);
        assert!(free_space(Path::new("/nowhere/at/all")).is_err());
    }
}
