//! Several stores in one process, with real disks between them and a network that can be cut.
//!
//! For the tests of this crate only; processes, signals and power loss are tested elsewhere.
#![allow(clippy::unwrap_used)]

mod cluster;
mod crash_copy;
mod merges;
mod moves;
mod net;

pub use cluster::{Cluster, ORACLE_START_MS, put, value};
pub use merges::Merge;
pub use net::Net;
