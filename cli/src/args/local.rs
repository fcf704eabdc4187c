//! `up` and `down`.

use crate::numbers::within;
use clap::Args as ClapArgs;
use isotherm_types::limits;
use std::path::PathBuf;

/// One member decides alone, three outlive one of them; two would be worse than one.
fn meta_nodes(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("not 1 or 3".to_owned()),
    }
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
