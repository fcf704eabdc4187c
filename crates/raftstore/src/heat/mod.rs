//! Heat: what each range costs this node, and which of its keys cause it.
//!
//! | file | what |
//! |---|---|
//! | `counters.rs` | what the paths of reads and writes count: a few atomic additions per batch |
//! | `sampler.rs` | which keys they were: about as many a second, however hot the range is |
//! | `scanned.rs` | which rows a scan came by, so that its cost is theirs and not that of its first key |
//! | `meter.rs` | rates of all ranges, and the CPU of the process divided among them |
//!
//! Nothing here locks on the path of an operation, but for the few that are sampled.

mod counters;
mod meter;
mod sampler;
mod scanned;

pub(crate) use counters::Heat;
pub use meter::{HeatMeter, HeatRates, RangeHeat};
pub use sampler::SampledKey;
pub(crate) use sampler::Sampler;
pub use scanned::ScannedRows;
