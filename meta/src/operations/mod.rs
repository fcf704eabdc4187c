//! Carrying out operations: meta's leader drives every one that has not ended to its end.
//!
//! | file | what |
//! |---|---|
//! | `plan` | the next step of an operation, from the range's descriptor alone |
//! | `step` | carrying out one step on the range's leader |
//! | `ages` | how long operations have lasted, by a clock that does not jump |
//! | `driver` | the loop: plans, carries out, notes the end |
//! | `merge` | the same for merges, which concern two ranges |
//!
//! The driver keeps nothing: after a crash of the leader, or of the nodes that it asked, the next
//! one plans from what the map says by then.

mod ages;
mod driver;
mod merge;
mod plan;
mod step;

pub(crate) use driver::{Notes, drive, now_ms};
pub(crate) use merge::{LIMIT_MS as MERGE_LIMIT_MS, drive as drive_merges};
pub(crate) use plan::Step;
