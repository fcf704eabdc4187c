//! What a client does with data, one file per kind.

mod aggregate;
mod batch;
mod coordinator;
mod hold;
mod partials;
mod read;
mod scan;
mod types;
mod write;

pub use aggregate::{AggregateOptions, AggregateProgress, Aggregated, AggregatedGroups, RangeWork};
pub use hold::{Hold, Holding};
pub use scan::Scan;
pub use types::{
    CasOutcome, Deleted, Incremented, RequestId, Row, ScanOptions, ScanPage, Write, WriteResult,
};
