//! Nodes, ranges, operations, upgrades and settings.

use super::S;
use crate::numbers::{DAY, lasting};
use clap::{Args as ClapArgs, Subcommand};
use std::time::Duration;

/// A node as tables show it, or its number alone.
fn node(text: &str) -> Result<u64, String> {
    let number = text.strip_prefix('n').unwrap_or(text);
    number.parse().map_err(|_| "not a node; write for example n3 or 3".to_owned())
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
