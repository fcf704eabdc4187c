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

/// Says that a test cannot be run on this machine, and why. CI may do all that tests need: with `CI` in the environment
/// it fails.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "nothing was shown: {why}");
    eprintln!("SKIPPED: {why}");
}
