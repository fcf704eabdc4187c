//! What a range's log holds and what applying it answers.
//!
//! A log entry of a range is one [`Envelope`]: a batch of client writes, a split, a step of a merge, or
//! an order for a checksum. It is opaque to consensus and is decoded only in apply.

mod envelope;
mod reply;
mod write;

pub use envelope::{Absorb, Body, Envelope, Fence, Freeze, Split, SplitChild, Thaw, WriteEntry};
pub use reply::{NotApplied, RangeReply, TooLarge, WriteReply};
pub use write::{OpResult, Refusal, WriteOp, WriteOutcome, WriteRequest};
