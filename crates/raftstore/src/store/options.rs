//! How a store is set up.

use isotherm_types::{ClusterId, NodeId, RaftTiming};
use std::time::Duration;

/// What a store needs to know of its surroundings.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// This node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The cluster's Raft clocks.
    pub timing: RaftTiming,
    /// Everything else.
    pub tuning: StoreTuning,
}

/// How much room the disk of a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum DiskRoom {
    /// Enough.
    #[default]
    Enough,
    /// Little: it takes what makes room (deletes), and what its leaders order, and nothing else.
    Little,
    /// None: nothing is added, whoever asks for it.
    None,
}

/// Sizes and intervals. The defaults are for production; tests make them tiny, so that rare paths
/// are common.
#[derive(Debug, Clone)]
pub struct StoreTuning {
    /// Most operations in one log entry (a single client batch may be larger: it is never cut).
    pub entry_ops_max: usize,
    /// Most bytes in one log entry, likewise.
    pub entry_bytes_max: usize,
    /// Entries of one range on their way at a time.
    pub entries_in_flight: usize,
    /// Writes that may wait for one range before more are refused as `Busy`.
    pub queue_writes_max: usize,
    /// Largest write batch of apply.
    pub apply_bytes_max: usize,
    /// Flush the data when this much is in memory only …
    pub flush_bytes: u64,
    /// … or when something has been for this long.
    pub flush_interval: Duration,
    /// Log kept per range for slow followers, beyond what recovery needs.
    pub log_retain_bytes: u64,
    /// The same for all ranges of the node together.
    pub log_retain_node_bytes: u64,
    /// How long results of writes are remembered.
    pub session_retention: Duration,
    /// At most this many per range.
    pub session_results_max: u32,
    /// Largest file of a snapshot.
    pub snapshot_file_bytes: u64,
    /// All outgoing snapshots together; 0 is no limit.
    pub snapshot_bytes_per_second: u64,
    /// A learner becomes a voter when it lacks at most this many entries.
    pub promote_lag_max: u64,
    /// Snapshots exported at a time, each of them one file at a time, and received at a time.
    pub snapshots_at_once: usize,
    /// How often ranges are looked at for garbage to collect.
    pub collect_interval: Duration,
    /// Least garbage of a range that is worth a compaction.
    pub collect_bytes: u64,
    /// A sync that takes longer is a disk that does not answer: leaderships are given away.
    pub stall_after: Duration,
    /// One that takes that long ends the process, if the disks of others answer; zero: it never does.
    pub stall_limit: Duration,
    /// How often every replica is read from end to end to find what went bad on disk; zero: never.
    pub scrub_interval: Duration,
    /// How fast.
    pub scrub_bytes_per_second: u64,
    /// Reads are confirmed by a quorum round each time instead of a lease.
    pub read_quorum: bool,
    /// Groups that nobody used for that long sleep, until the cluster's setting says otherwise; zero:
    /// they do not.
    pub hibernate_after: Duration,
    /// How long a timestamp may take.
    pub oracle_timeout: Duration,
}

impl Default for StoreTuning {
    fn default() -> Self {
        Self {
            entry_ops_max: 64,
            entry_bytes_max: 256 << 10,
            entries_in_flight: 2,
            queue_writes_max: 4096,
            apply_bytes_max: 4 << 20,
            flush_bytes: 64 << 20,
            flush_interval: Duration::from_secs(10),
            log_retain_bytes: 64 << 20,
            log_retain_node_bytes: 1 << 30,
            session_retention: Duration::from_secs(60),
            session_results_max: 128 << 10,
            snapshot_file_bytes: 16 << 20,
            snapshot_bytes_per_second: 64 << 20,
            promote_lag_max: 256,
            snapshots_at_once: 2,
            collect_interval: Duration::from_secs(5),
            collect_bytes: 4 << 20,
            stall_after: Duration::from_secs(1),
            stall_limit: Duration::from_secs(60),
            scrub_interval: Duration::from_secs(7 * 24 * 3600),
            scrub_bytes_per_second: 16 << 20,
            read_quorum: false,
            hibernate_after: Duration::from_secs(5),
            oracle_timeout: Duration::from_secs(2),
        }
    }
}
