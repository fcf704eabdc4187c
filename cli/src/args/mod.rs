//! Every flag, its environment variable and its default: one file per group of commands.

mod admin;
mod bench;
mod bulk;
mod local;
mod process;
mod span;

pub use admin::{
    ConfigCommand, NodeAdmin, OperationCommand, RangeCommand, RangeName, UpgradeCommand,
};
pub use bench::{Bench, Distribution, Workload};
pub use bulk::{Export, FileFormat, Import};
pub use local::{Down, Up};
pub use process::{Meta, Node, NodeCommand};
pub use span::{Aggregate, Delete, Scan, Span};

use crate::numbers::{DAY, address, lasting, within};
use crate::output::Format;
use crate::text::{At, Encoding};
use clap::{Args as ClapArgs, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

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
