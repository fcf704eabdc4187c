//! What a client does with data, one file per kind.

mod batch;
mod read;
mod scan;
mod types;
mod write;

pub use scan::Scan;
pub use types::{CasOutcome, Deleted, Incremented, Row, ScanOptions, ScanPage, Write, WriteResult};
