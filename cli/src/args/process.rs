//! `meta` and `node`: the processes of a cluster.

use super::{MS, NodeAdmin, S};
use crate::numbers::{DAY, lasting, within};
use clap::Args as ClapArgs;
use isotherm_types::limits;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// `meta`
#[derive(Debug, ClapArgs)]
#[command(args_override_self = true)]
pub struct Meta {
    /// Which member this is, from 1 to 65535
    #[arg(long, env = "ISOTHERM_ID", default_value_t = 1, value_parser = within(1..=65_535_u64))]
    pub id: u64,
    /// Where it serves
    #[arg(long, env = "ISOTHERM_LISTEN", default_value = "127.0.0.1:7400")]
    pub listen: SocketAddr,
    /// Where it serves health and metrics [default: the port + 1000]
    #[arg(long, env = "ISOTHERM_HTTP")]
    pub http: Option<SocketAddr>,
    /// How others reach it, if not as it listens; needed when it listens on a wildcard (0.0.0.0)
    #[arg(long, env = "ISOTHERM_ADVERTISE")]
    pub advertise: Option<String>,
    /// What it keeps on disk
    #[arg(long, env = "ISOTHERM_DATA_DIR")]
    pub data_dir: PathBuf,
    /// All members, itself included: ID=HOST:PORT,… [default: itself alone]
    #[arg(long, env = "ISOTHERM_JOIN", value_delimiter = ',')]
    pub join: Vec<String>,
    /// Nodes that must have joined before the first ranges are placed, from 1 to 1000
    #[arg(long, env = "ISOTHERM_BOOTSTRAP_NODES", default_value_t = 3, value_parser = within(1..=1000_usize))]
    pub bootstrap_nodes: usize,
    /// Ranges that a new cluster begins with, from 1 to 10000
    #[arg(long, env = "ISOTHERM_BOOTSTRAP_RANGES", default_value_t = 8, value_parser = within(1..=limits::BOOTSTRAP_RANGES_MAX))]
    pub bootstrap_ranges: usize,
    /// Replicas of each range, from 1 to 15; at most one per node
    #[arg(long, env = "ISOTHERM_REPLICAS", default_value_t = 3, value_parser = within(1..=15_usize))]
    pub replicas: usize,
    /// With less free space than this, give leadership away; with a quarter of it, take nothing; 0 turns it off [default: 5 % of the disk, at most 256 MiB]
    #[arg(long, env = "ISOTHERM_DISK_RESERVE_BYTES", help_heading = "Tuning")]
    pub disk_reserve_bytes: Option<u64>,
    /// End when the disk does not answer for that long while those of other members do; up to 1day, 0s turns it off [default: 60 s]
    #[arg(long, env = "ISOTHERM_DISK_STALL_LIMIT", value_parser = lasting(Duration::ZERO..=DAY), help_heading = "Tuning")]
    pub disk_stall_limit: Option<Duration>,
}

/// `node`: one data node, or what is known of nodes.
#[derive(Debug, ClapArgs)]
#[command(args_override_self = true, args_conflicts_with_subcommands = true)]
pub struct NodeCommand {
    #[command(subcommand)]
    pub command: Option<NodeAdmin>,
    #[command(flatten)]
    pub run: Node,
}

/// `node --listen …`
#[derive(Debug, ClapArgs)]
pub struct Node {
    /// Where it serves
    #[arg(long, env = "ISOTHERM_LISTEN", default_value = "127.0.0.1:7410")]
    pub listen: SocketAddr,
    /// Where it serves health and metrics [default: the port + 1000]
    #[arg(long, env = "ISOTHERM_HTTP")]
    pub http: Option<SocketAddr>,
    /// How others reach it, if not as it listens; needed when it listens on a wildcard (0.0.0.0)
    #[arg(long, env = "ISOTHERM_ADVERTISE")]
    pub advertise: Option<String>,
    /// What it keeps on disk
    #[arg(long, env = "ISOTHERM_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where it is, for placement: NAME=VALUE
    #[arg(long = "label", env = "ISOTHERM_LABEL", value_delimiter = ',')]
    pub label: Vec<String>,
    /// Memory for blocks of data read from disk, in bytes
    #[arg(long, env = "ISOTHERM_BLOCK_CACHE_BYTES", help_heading = "Tuning")]
    pub block_cache_bytes: Option<usize>,
    /// Flush the data when this much is in memory only
    #[arg(long, env = "ISOTHERM_FLUSH_BYTES", help_heading = "Tuning")]
    pub flush_bytes: Option<u64>,
    /// Flush what is in memory only after this long, from 1ms to 1day
    #[arg(long, env = "ISOTHERM_FLUSH_INTERVAL", value_parser = lasting(MS..=DAY), help_heading = "Tuning")]
    pub flush_interval: Option<Duration>,
    /// Log kept per range for slow followers, in bytes
    #[arg(long, env = "ISOTHERM_LOG_RETAIN_BYTES", help_heading = "Tuning")]
    pub log_retain_bytes: Option<u64>,
    /// How fast snapshots leave this node, in bytes per second; 0 is no limit
    #[arg(long, env = "ISOTHERM_SNAPSHOT_BYTES_PER_SECOND", help_heading = "Tuning")]
    pub snapshot_bytes_per_second: Option<u64>,
    /// Log kept for all ranges together, in bytes
    #[arg(long, env = "ISOTHERM_LOG_RETAIN_NODE_BYTES", help_heading = "Tuning")]
    pub log_retain_node_bytes: Option<u64>,
    /// Wait before each sync of the log, to see what a slower disk would do; up to 10s
    #[arg(long, env = "ISOTHERM_LOG_SYNC_DELAY", value_parser = lasting(Duration::ZERO..=10 * S), help_heading = "Tuning")]
    pub log_sync_delay: Option<Duration>,
    /// With less free space than this, take no writes; 0 turns it off [default: 5 % of the disk, at most 1 GiB]
    #[arg(long, env = "ISOTHERM_DISK_RESERVE_BYTES", help_heading = "Tuning")]
    pub disk_reserve_bytes: Option<u64>,
    /// End when the disk does not answer for that long while those of other nodes do; up to 1day, 0s turns it off [default: 60 s]
    #[arg(long, env = "ISOTHERM_DISK_STALL_LIMIT", value_parser = lasting(Duration::ZERO..=DAY), help_heading = "Tuning")]
    pub disk_stall_limit: Option<Duration>,
    /// Once, after the disk was checked: use a data directory that is noted as damaged, and have every replica in it built again
    #[arg(long, env = "ISOTHERM_CLEAR_DAMAGE", help_heading = "Tuning")]
    pub clear_damage: bool,
    /// Confirm every read by a quorum round instead of a lease
    #[arg(long, env = "ISOTHERM_READ_QUORUM", help_heading = "Tuning")]
    pub read_quorum: bool,
    /// End a stream of answers of which nothing is read for so long, from 1ms to 1day [default: 60s]
    #[arg(long, env = "ISOTHERM_STREAM_IDLE", value_parser = lasting(MS..=DAY), help_heading = "Tuning")]
    pub stream_idle: Option<Duration>,
    /// Memory for requests and answers, in bytes; what does not fit is refused as busy [default: 256 MiB]
    #[arg(long, env = "ISOTHERM_REQUEST_MEMORY_BYTES", help_heading = "Tuning")]
    pub request_memory_bytes: Option<usize>,
}
