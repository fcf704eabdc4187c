//! Every flag, its environment variable and its default.

use crate::numbers::{DAY, address, lasting, within};
use crate::output::Format;
use crate::text::{At, Encoding};
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use isotherm_types::limits;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

/// One member decides alone, three outlive one of them; two would be worse than one.
fn meta_nodes(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("not 1 or 3".to_owned()),
    }
}

/// A node as tables show it, or its number alone.
fn node(text: &str) -> Result<u64, String> {
    let number = text.strip_prefix('n').unwrap_or(text);
    number.parse().map_err(|_| "not a node; write for example n3 or 3".to_owned())
}

/// Durable, replicated, range-partitioned storage that keeps itself cool.
#[derive(Debug, Parser)]
#[command(name = "isotherm", version, propagate_version = true, args_override_self = true)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, ClapArgs)]
pub struct Global {
    /// Members of the meta service, HOST:PORT[,…]
    #[arg(
        long,
        global = true,
        env = "ISOTHERM_META",
        value_delimiter = ',',
        value_parser = address,
        default_value = "127.0.0.1:7400"
    )]
    pub meta: Vec<String>,
    /// How to print: a table for people, JSON for scripts. Left out: a table on a terminal, else
    /// JSON; keys and values as they are in both cases
    #[arg(short, long, global = true, env = "ISOTHERM_OUTPUT")]
    pub output: Option<Format>,
    /// How long to try, from 1ms to 1day; with --wait how long to wait, else without a limit [default: 10s]
    #[arg(long, global = true, env = "ISOTHERM_TIMEOUT", value_parser = lasting(MS..=DAY))]
    pub timeout: Option<Duration>,
    /// Keys and values are hexadecimal, on the command line and in what is printed
    #[arg(long, global = true, conflicts_with = "base64")]
    pub hex: bool,
    /// Keys and values are base64, on the command line and in what is printed
    #[arg(long, global = true)]
    pub base64: bool,
    /// Read flags from a TOML file; those given here, and environment variables, win
    #[arg(long, global = true, env = "ISOTHERM_CONFIG")]
    pub config: Option<PathBuf>,
    /// What to log: a level, or target=level,… [default: info]
    #[arg(long, global = true, env = "ISOTHERM_LOG")]
    pub log: Option<String>,
    /// Log as JSON lines
    #[arg(long, global = true, env = "ISOTHERM_LOG_JSON")]
    pub log_json: bool,
}

impl Global {
    /// How long to try.
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(10 * S)
    }

    /// What to log.
    pub fn log_filter(&self) -> &str {
        self.log.as_deref().unwrap_or("info")
    }

    /// How keys and values are written.
    pub fn encoding(&self) -> Encoding {
        match (self.hex, self.base64) {
            (true, _) => Encoding::Hex,
            (_, true) => Encoding::Base64,
            _ => Encoding::Text,
        }
    }

    /// How to print what is a table on a terminal.
    pub fn format(&self) -> Format {
        self.output.unwrap_or_else(Format::of_stdout)
    }

    /// How to print keys and values, and other single words: as they are, unless JSON is asked for.
    pub fn plain(&self) -> Format {
        self.output.unwrap_or(Format::Table)
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a local cluster of real processes
    Up(Up),
    /// Stop what `up --detach` started
    Down(Down),
    /// Run one member of the meta service
    Meta(Meta),
    /// Run one data node
    Node(NodeCommand),
    /// Set a key
    #[command(allow_negative_numbers = true)]
    Put {
        key: String,
        /// The value; - is stdin, all of it; left out with --file
        #[arg(conflicts_with = "file")]
        value: Option<String>,
        /// Take the value from a file, as it is
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// Read a key
    Get {
        key: String,
        /// Write the value into a file, as it is
        #[arg(long)]
        out: Option<PathBuf>,
        /// As of a past time: a timestamp, -30s, or an RFC 3339 time
        #[arg(long, allow_hyphen_values = true)]
        at: Option<At>,
    },
    /// Remove a key, or all keys with a prefix
    Delete(Delete),
    /// Set a key if it holds what is expected
    #[command(allow_negative_numbers = true)]
    Cas {
        key: String,
        /// What it must hold; left out with --absent
        expected_or_new: String,
        /// The new value
        new: Option<String>,
        /// The key must not exist
        #[arg(long)]
        absent: bool,
    },
    /// Add to a decimal number
    #[command(allow_negative_numbers = true)]
    Incr {
        key: String,
        #[arg(default_value_t = 1)]
        by: i64,
    },
    /// List keys and values in key order
    Scan(Scan),
    /// Count, sum, … over all keys of a span, at one instant
    Aggregate(Aggregate),
    /// Write many rows from a file
    Import(Import),
    /// Read many rows into a file, all at one instant
    Export(Export),
    /// One screen that says what is wrong first
    Status,
    /// Look at and administer ranges
    Range {
        #[command(subcommand)]
        command: RangeCommand,
    },
    /// Look at and undo what the cluster is carrying out
    Operation {
        #[command(subcommand)]
        command: OperationCommand,
    },
    /// Upgrade the software of a running cluster
    Upgrade {
        #[command(subcommand)]
        command: UpgradeCommand,
    },
    /// Show the hottest ranges and keys, live
    Hot {
        /// Show them once and end
        #[arg(long)]
        once: bool,
        /// Ranges at most, from 1 to 1000
        #[arg(long, default_value_t = 20, value_parser = within(1..=1000_u32))]
        limit: u32,
    },
    /// Settings of the cluster
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Put load on the cluster and measure
    Bench(Bench),
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
    /// Which software this is
    Version,
}

/// `up`: what a new cluster is made with. One that is there already is as it is, and other flags are
/// refused.
#[derive(Debug, ClapArgs)]
pub struct Up {
    /// Data nodes, from 1 to 64 [default: 3]
    #[arg(long, value_parser = within(1..=64_usize))]
    pub nodes: Option<usize>,
    /// Members of the meta service: 1 or 3 [default: 1]
    #[arg(long, value_parser = meta_nodes)]
    pub meta_nodes: Option<usize>,
    /// Where data, logs and cluster.json go
    #[arg(long, env = "ISOTHERM_DIR", default_value = "isotherm-data")]
    pub dir: PathBuf,
    /// Meta listens from here, nodes from 10 above; HTTP 1000 above each. From 1 to 64400 [default: 7400]
    #[arg(long, value_parser = within(1..=64_400_u16))]
    pub base_port: Option<u16>,
    /// Ranges that a new cluster begins with, from 1 to 10000 [default: 8]
    #[arg(long, value_parser = within(1..=limits::BOOTSTRAP_RANGES_MAX))]
    pub ranges: Option<usize>,
    /// Replicas of each range, from 1 to 15; at most one per node [default: 3]
    #[arg(long, value_parser = within(1..=15_usize))]
    pub replicas: Option<usize>,
    /// Return when it is ready
    #[arg(long)]
    pub detach: bool,
}

/// `down`
#[derive(Debug, ClapArgs)]
pub struct Down {
    /// Where cluster.json is
    #[arg(long, env = "ISOTHERM_DIR", default_value = "isotherm-data")]
    pub dir: PathBuf,
}

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

/// What is known of nodes.
#[derive(Debug, Subcommand)]
pub enum NodeAdmin {
    /// List the nodes
    List,
    /// Show one node
    Show {
        #[arg(value_parser = node)]
        id: u64,
    },
    /// Take all leaderships off a node; its replicas stay
    Drain {
        #[arg(value_parser = node)]
        id: u64,
        /// Wait until it leads nothing
        #[arg(long)]
        wait: bool,
    },
    /// Let a drained node lead again
    Undrain {
        #[arg(value_parser = node)]
        id: u64,
    },
    /// Take all replicas off a node, for good: it can be switched off then
    Decommission {
        #[arg(value_parser = node)]
        id: u64,
        /// Wait until it has nothing left
        #[arg(long)]
        wait: bool,
    },
    /// Keep a node that is being decommissioned after all
    Recommission {
        #[arg(value_parser = node)]
        id: u64,
    },
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

/// `delete`
#[derive(Debug, ClapArgs)]
pub struct Delete {
    #[arg(required_unless_present_any = ["prefix", "all"], conflicts_with_all = ["prefix", "all"])]
    pub key: Option<String>,
    /// Remove all keys that begin with this
    #[arg(long)]
    pub prefix: Option<String>,
    /// Remove every key of the cluster
    #[arg(long, conflicts_with = "prefix")]
    pub all: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Which keys.
#[derive(Debug, Clone, ClapArgs)]
pub struct Span {
    /// Keys that begin with this
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub prefix: Option<String>,
    /// From this key on
    #[arg(long)]
    pub from: Option<String>,
    /// Up to, and without, this key
    #[arg(long)]
    pub to: Option<String>,
}

/// `scan`
#[derive(Debug, ClapArgs)]
pub struct Scan {
    #[command(flatten)]
    pub span: Span,
    /// Most rows
    #[arg(long)]
    pub limit: Option<u64>,
    /// From the last key downwards
    #[arg(long)]
    pub reverse: bool,
    /// Leave the values out
    #[arg(long)]
    pub keys_only: bool,
    /// As of a past time: a timestamp, -30s, or an RFC 3339 time
    #[arg(long, allow_hyphen_values = true)]
    pub at: Option<At>,
}

/// `aggregate`
#[derive(Debug, ClapArgs)]
pub struct Aggregate {
    #[command(flatten)]
    pub span: Span,
    /// What to compute: any of count, sum, avg, min, max, stddev, distinct, p50, p99.9, …
    #[arg(long = "fn", value_name = "FUNCTIONS", default_value = "count")]
    pub functions: String,
    /// How values become numbers: text, i64, f64 (as text), i64le, i64be, f64le, f64be (8 bytes),
    /// json:PATH, json-f64:PATH
    #[arg(long, value_name = "KIND", default_value = "text")]
    pub value: String,
    /// Which rows count, such as: value > 10 and not json:country = 'CH'
    #[arg(long = "where", value_name = "CONDITION")]
    pub filter: Option<String>,
    /// One answer for each: prefix:BYTES, split:SEPARATOR:FIELD (the first is 1), json:PATH
    #[arg(long, value_name = "GROUP")]
    pub group_by: Option<String>,
    /// Most groups; more are an error [default: 10000]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub max_groups: u32,
    /// As of a past time: a timestamp, -30s, or an RFC 3339 time
    #[arg(long, allow_hyphen_values = true)]
    pub at: Option<At>,
    /// In JSON, figures are strings of their digits: common parsers take numbers above 2⁵³ for others
    #[arg(long)]
    pub number_strings: bool,
    /// Show what was read where, and how long it took
    #[arg(long)]
    pub explain: bool,
}

/// The form of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileFormat {
    /// Tab-separated, no header
    Tsv,
    /// Comma-separated, with a header
    Csv,
    /// One JSON object per line
    Jsonl,
}

/// `import`
#[derive(Debug, ClapArgs)]
pub struct Import {
    /// The file; - is stdin
    pub file: PathBuf,
    /// [default: by the file's name, else tsv]
    #[arg(long)]
    pub format: Option<FileFormat>,
    /// Column of the key: a name or a number from 1
    #[arg(long)]
    pub key: Option<String>,
    /// Column of the value: a name or a number from 1
    #[arg(long)]
    pub value: Option<String>,
    /// Put this before every key
    #[arg(long, default_value = "")]
    pub prefix: String,
    /// First split the span of the keys into this many ranges, from 1 to 10000, by a sample of them
    #[arg(long, value_parser = within(1..=limits::BOOTSTRAP_RANGES_MAX))]
    pub presplit: Option<usize>,
}

/// `export`
#[derive(Debug, ClapArgs)]
pub struct Export {
    #[command(flatten)]
    pub span: Span,
    /// As of a past time: a timestamp, -30s, or an RFC 3339 time
    #[arg(long, allow_hyphen_values = true)]
    pub at: Option<At>,
    #[arg(long, default_value = "jsonl")]
    pub format: FileFormat,
}

/// Which range.
#[derive(Debug, ClapArgs)]
pub struct RangeName {
    /// Its id, r7 or 7; anything else is one of its keys
    #[arg(required_unless_present = "key", conflicts_with = "key")]
    pub id_or_key: Option<String>,
    /// One of its keys, whatever it looks like
    #[arg(long)]
    pub key: Option<String>,
}

/// `range …`
#[derive(Debug, Subcommand)]
pub enum RangeCommand {
    /// List the ranges in key order
    List {
        /// Only those with a replica on this node
        #[arg(long, value_parser = node)]
        node: Option<u64>,
        /// The hottest first, and only those that are not cold
        #[arg(long)]
        hot: bool,
    },
    /// Show a range, by its id (r7) or by one of its keys
    Show(RangeName),
    /// Cut a range at a key
    Split { key: String },
    /// Hand the leadership of a range to another of its nodes
    TransferLeader {
        /// The range's id
        id: String,
        /// The node
        #[arg(long, value_parser = node)]
        to: u64,
    },
    /// Move a replica of a range to another node
    Move {
        /// The range's id
        id: String,
        /// The node that it leaves
        #[arg(long, value_parser = node)]
        from: u64,
        /// The node that it goes to
        #[arg(long, value_parser = node)]
        to: u64,
        /// Undo it if it is not done within this time, from 1s to 1day
        #[arg(long, default_value = "10m", value_parser = lasting(S..=DAY))]
        within: Duration,
        /// Wait until it has ended
        #[arg(long)]
        wait: bool,
    },
    /// Merge a range with its right neighbour; both must be on the same nodes
    Merge {
        /// The range's id
        id: String,
        /// Undo it if it is not done within this time, from 1s to 1day
        #[arg(long, default_value = "10s", value_parser = lasting(S..=DAY))]
        within: Duration,
        /// Wait until it has ended
        #[arg(long)]
        wait: bool,
    },
    /// Compare the replicas of a range at one applied index
    Checksum(RangeName),
    /// Say what was decided about a range lately, and why; also why nothing was
    Explain(RangeName),
}

/// `operation …`
#[derive(Debug, Subcommand)]
pub enum OperationCommand {
    /// List operations, the newest first
    List,
    /// Show one
    Show { id: u64 },
    /// Undo one, as far as that is possible
    Cancel { id: u64 },
}

/// `upgrade …`
#[derive(Debug, Subcommand)]
pub enum UpgradeCommand {
    /// Show which version the cluster uses, which every process supports, and what to do next
    Status,
    /// Raise the cluster to the newest version that every process supports, for good
    Finalize,
}

/// `config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show all settings
    Show,
    /// Change one
    Set { name: String, value: String },
}

/// What a load does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Writes
    Put,
    /// Reads of keys that are written first
    Get,
    /// Reads and writes
    Mixed,
    /// Increments
    Incr,
    /// Short scans, of --scan-rows rows each
    Scan,
    /// count,sum,avg,min,max over all keys, whose values are decimal numbers
    Aggregate,
    /// Writes of new keys at the end
    Append,
    /// Increments by reading, comparing and writing again until nobody was faster
    Cas,
    /// Reads and writes of a hot 1 % of the keys that lie side by side and change every --shift
    HotspotShift,
    /// YCSB A: half reads, half updates, zipfian
    YcsbA,
    /// YCSB B: 95 % reads, 5 % updates, zipfian
    YcsbB,
    /// YCSB C: reads only, zipfian
    YcsbC,
    /// YCSB D: 95 % reads of the latest keys, 5 % inserts
    YcsbD,
    /// YCSB E: 95 % short scans, 5 % inserts
    YcsbE,
    /// YCSB F: half reads, half reads followed by a write of the same key
    YcsbF,
}

/// Which keys a load meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Distribution {
    /// All alike
    Uniform,
    /// Some far more than others (exponent 0.99)
    Zipfian,
    /// The last ones far more than others
    Latest,
    /// 1 % of the keys, side by side, get 90 % of the load
    Hotspot,
}

/// `bench`
#[derive(Debug, ClapArgs)]
pub struct Bench {
    pub workload: Workload,
    /// Operations at a time, from 1 to 10000
    #[arg(long, default_value_t = 64, value_parser = within(1..=10_000_usize))]
    pub clients: usize,
    /// How long to measure, in seconds, from 1 to 1000000
    #[arg(long, default_value_t = 10, value_parser = within(1..=1_000_000_u64))]
    pub seconds: u64,
    /// Different keys, from 1 to 1000000000000
    #[arg(long, default_value_t = 100_000, value_parser = within(1..=1_000_000_000_000_u64))]
    pub keys: u64,
    /// Bytes of a value, from 0 to 1048576
    #[arg(long, default_value_t = 128, value_parser = within(0..=limits::VALUE_BYTES_MAX))]
    pub value_size: usize,
    /// Begin so many operations each second, whether or not those before are done, and measure from
    /// when each should have begun; --clients is then the most at a time. From 0.001 to 10000000
    #[arg(long, value_parser = within(0.001..=1e7))]
    pub rate: Option<f64>,
    /// How long hotspot-shift stays with the same keys, from 1ms to 1day
    #[arg(long, default_value = "20s", value_parser = lasting(MS..=DAY))]
    pub shift: Duration,
    /// Rows of one scan, from 1 to 1000000
    #[arg(long, default_value_t = 100, value_parser = within(1..=1_000_000_u64))]
    pub scan_rows: u64,
    /// Share of reads in a mixed load, in percent, from 0 to 100
    #[arg(long, default_value_t = 50, value_parser = within(0..=100_u8))]
    pub read_percent: u8,
    #[arg(long, default_value = "uniform")]
    pub dist: Distribution,
    /// First split the keys into this many ranges, from 1 to 10000
    #[arg(long, value_parser = within(1..=limits::BOOTSTRAP_RANGES_MAX))]
    pub presplit: Option<usize>,
    /// Put this before every key
    #[arg(long, default_value = "")]
    pub prefix: String,
    /// The same seed meets the same keys
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The keys are there already
    #[arg(long)]
    pub no_load: bool,
}
