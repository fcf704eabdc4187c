//! Clusters of real processes for tests, and disks that lose power.
//!
//! What runs here is the release binary itself, one process per member, on loopback: a test sees
//! what an operator would see, and a `kill -9` is a real one. Nothing started here outlives the
//! test: dropping a [`ProcessCluster`] kills and reaps every process and unmounts every disk, and
//! should the test itself be killed, the kernel ends its processes and the next test's
//! [`sweep_stale_disks`] unmounts its disks.

mod binary;
mod cluster;
mod cut_network;
pub mod http;
mod logs;
mod ports;
mod power_loss_disk;
mod process;
mod spawner;

pub use binary::{BINARY_ENV, isotherm_binary};
pub use cluster::{ClusterOptions, Member, ProcessCluster};
pub use cut_network::{CutNetwork, NetworkError};
pub use logs::{LogAlarm, LogAlarmKind, alarms_in, tail};
pub use ports::{PORTS_PER_BLOCK, PortBlock};
pub use power_loss_disk::{DiskError, PowerLossDisk, sweep_stale_disks};
pub use process::{Process, ProcessSpec};
pub use spawner::Spawner;

/// Says that a test cannot be run on this machine, and why. With `ISOTHERM_NO_SKIPS=1` in the environment it fails:
/// for machines that can do all that tests need.
pub fn skip(why: &str) {
    let is_allowed = std::env::var_os("ISOTHERM_NO_SKIPS").is_none_or(|value| value == "0");
    assert!(is_allowed, "nothing was shown: {why}");
    eprintln!("SKIPPED: {why}");
}
