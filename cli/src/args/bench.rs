//! `bench`.

use super::MS;
use crate::numbers::{DAY, lasting, within};
use clap::{Args as ClapArgs, ValueEnum};
use isotherm_types::limits;
use std::time::Duration;

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
    /// Increments by reading, comparing and writing again until no other client was faster
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
