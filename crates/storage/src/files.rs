//! How many files a database may keep open.

use rustix::process::{Resource, getrlimit};

/// `wanted`, or less where the process may have few files: of those at most half go to tables, so that
/// connections and logs always find some.
pub(crate) fn open_files_max(wanted: i32) -> i32 {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(wanted, |limit| wanted.min(i32::try_from(limit / 2).unwrap_or(wanted)).max(16))
}
