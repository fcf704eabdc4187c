//! What the kernel says of this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt::Write;
use std::fs;

/// How many files the process may have open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLimit(u64);

/// Of those not counted.
const FILES_WITHOUT_LIMIT: u64 = 1 << 20;
const CONNECTIONS_MIN: u64 = 64;
const CONNECTIONS_MAX: u64 = 16 << 10;

impl FileLimit {
    /// As it is now.
    pub fn now() -> Self {
        Self(getrlimit(Resource::Nofile).current.unwrap_or(FILES_WITHOUT_LIMIT))
    }

    /// Connections that a server may take: databases may have half of the files, and beside the
    /// connections of others there are those that this process makes itself.
    pub fn connections_max(self) -> usize {
        (self.0 / 4).clamp(CONNECTIONS_MIN, CONNECTIONS_MAX) as usize
    }
}

/// Lets the process have as many files as the system allows it: the limit that a process starts with
/// (1,024 on many systems) is there for programs that cannot have more. Returns the limit from now on.
pub fn raise_file_limit() -> FileLimit {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    let now = FileLimit::now();
    tracing::debug!(files = now.0, "limit of open files");
    now
}

/// Memory, CPU time and open files in Prometheus' text form. What cannot be read is left out. Not through
/// the recorder: its counters are whole numbers, and CPU time is a counter of fractions.
pub(crate) fn render() -> String {
    let open = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
    let limit = getrlimit(Resource::Nofile).current.map(|files| files as f64);
    let resident = resident_bytes().map(|bytes| bytes as f64);
    let (allocated, held) = allocator_bytes().unzip();
    let figures = [
        ("gauge", "process_resident_memory_bytes", "Resident memory", resident),
        (
            "gauge",
            "process_allocated_memory_bytes",
            "Memory that the program has allocated",
            allocated,
        ),
        ("gauge", "process_allocator_memory_bytes", "Memory that the allocator holds for it", held),
        ("counter", "process_cpu_seconds_total", "User and system CPU time", cpu_seconds()),
        ("gauge", "process_max_fds", "Files that the process may have open", limit),
        ("gauge", "process_open_fds", "Files that the process has open", open),
    ];
    let mut text = String::new();
    for (kind, name, help, figure) in figures {
        if let Some(figure) = figure {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {figure}\n\n");
        }
    }
    text
}

fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// What is allocated, and what of the pages that the allocator holds is resident. None where the program
/// runs on another allocator.
fn allocator_bytes() -> Option<(f64, f64)> {
    use tikv_jemalloc_ctl::{epoch, stats};
    // Figures are those of the last epoch.
    epoch::advance().ok()?;
    let allocated = stats::allocated::read().ok()?;
    let resident = stats::resident::read().ok()?;
    (allocated > 0).then_some((allocated as f64, resident as f64))
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in parentheses that may hold spaces.
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn as_many_files_as_the_system_allows() {
        let before = getrlimit(Resource::Nofile);
        let low = Rlimit { current: Some(256), ..before };
        setrlimit(Resource::Nofile, low).unwrap();
        assert_eq!(FileLimit::now(), FileLimit(256));
        assert_eq!(FileLimit(256).connections_max(), 64);
        let raised = raise_file_limit();
        assert_eq!(Some(raised.0), before.maximum.or(Some(FILES_WITHOUT_LIMIT)));
        assert!(raised.connections_max() >= 64);
        setrlimit(Resource::Nofile, before).unwrap();
    }

    #[test]
    fn the_kernel_knows_this_process() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000));
        assert!(cpu_seconds().is_some_and(|seconds| seconds >= 0.0));
    }
}
