//! CPU that this process uses, and that it may use.

use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How busy this process is, from one question to the next.
#[derive(Debug)]
pub struct CpuMeter {
    asked: Instant,
    seconds: f64,
}

impl Default for CpuMeter {
    fn default() -> Self {
        Self { asked: Instant::now(), seconds: used_seconds() }
    }
}

impl CpuMeter {
    /// Cores in use since the last call.
    pub fn cores(&mut self) -> f64 {
        let (now, seconds) = (Instant::now(), used_seconds());
        let lasted = now.saturating_duration_since(self.asked).as_secs_f64();
        let used = (seconds - self.seconds).max(0.0);
        (self.asked, self.seconds) = (now, seconds);
        if lasted > 0.0 { used / lasted } else { 0.0 }
    }
}

fn used_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

/// The CPU that this process may use, in cores: those of the machine, or the quota of a control
/// group (version 1 or 2) above it, if that is less.
pub fn cpu_capacity() -> f64 {
    let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let root = Path::new("/sys/fs/cgroup");
    groups.lines().filter_map(|line| quota_of(root, line)).fold(cores, f64::min)
}

/// The least quota of a group and of those above it.
fn quota_of(root: &Path, line: &str) -> Option<f64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let is_version_2 = controllers.is_empty();
    let mounts = match controllers {
        "" => [root.to_owned(), root.join("unified")],
        names if names.split(',').any(|name| name == "cpu") => [root.join(names), root.join("cpu")],
        _ => return None,
    };
    let mount = mounts.into_iter().find(|mount| mount.is_dir())?;
    let groups = Path::new(path.trim_start_matches('/')).ancestors().map(|group| mount.join(group));
    let quota = |group: PathBuf| if is_version_2 { version_2(&group) } else { version_1(&group) };
    groups.filter_map(quota).reduce(f64::min)
}

fn version_2(group: &Path) -> Option<f64> {
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    share(quota, period)
}

fn version_1(group: &Path) -> Option<f64> {
    let read = |name| fs::read_to_string(group.join(name)).ok();
    share(read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?.trim())
}

/// None: unlimited.
fn share(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_busy_moment_is_measured() {
        let mut meter = CpuMeter::default();
        let busy = Instant::now();
        while busy.elapsed().as_millis() < 100 {
            std::hint::black_box(fs::metadata("/proc/self").is_ok());
        }
        let cores = meter.cores();
        assert!((0.1..8.0).contains(&cores), "{cores}");
    }

    #[test]
    fn the_least_quota_above_a_process_counts() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("a/b");
        fs::create_dir_all(&group).unwrap();
        fs::write(root.path().join("a/cpu.max"), "25000 100000\n").unwrap();
        fs::write(group.join("cpu.max"), "max 100000\n").unwrap();
        assert_eq!(quota_of(root.path(), "0::/a/b"), Some(0.25));
        assert_eq!(quota_of(root.path(), "0::/"), None);

        let group = root.path().join("cpu,cpuacct/c");
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("cpu.cfs_quota_us"), "15000\n").unwrap();
        fs::write(group.join("cpu.cfs_period_us"), "100000\n").unwrap();
        assert_eq!(quota_of(root.path(), "4:cpu,cpuacct:/c"), Some(0.15));
        fs::write(group.join("cpu.cfs_quota_us"), "-1\n").unwrap();
        assert_eq!(quota_of(root.path(), "4:cpu,cpuacct:/c"), None);
        assert_eq!(quota_of(root.path(), "5:memory:/c"), None);
    }
}
