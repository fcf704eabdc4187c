//! What a range costs its leader.

use isotherm_types::Key;
use serde::{Deserialize, Serialize};

/// Rates of one range at its leader, each an exponentially weighted average.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Rates {
    /// Keys read per second: gets, and rows of scans and aggregates.
    pub reads: f64,
    /// Operations written per second.
    pub writes: f64,
    /// Bytes per second, in and out.
    pub bytes: f64,
    /// Writes per second of a key above all keys that the range had before.
    pub appends: f64,
    /// CPU that the leader spends on it, in cores, including the demand that it queued or refused.
    pub cores: f64,
}

/// A key that was read or written, and how much of the range's heat it stands for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeySample {
    /// The key.
    pub key: Key,
    /// Its share of the sample, any unit.
    pub weight: f64,
    /// It is a row that a scan came by; otherwise it was read or written by itself.
    #[serde(default)]
    pub is_scanned: bool,
}

/// The load of a range as its leader reports it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RangeLoad {
    /// Averaged over about a second.
    pub fast: Rates,
    /// Averaged over about ten seconds.
    pub slow: Rates,
    /// A weighted reservoir of keys from reads and writes, in any order, a key possibly several
    /// times; empty unless the range is warm enough to be looked at.
    pub sample: Vec<KeySample>,
}
