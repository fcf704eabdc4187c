//! Consensus: replicas of ranges, and the meta service's own group, over openraft.
//!
//! | module | what |
//! |---|---|
//! | `store` | all replicas of one node: opening, starting, supervising, operations on ranges |
//! | `replica` | one replica: its applied state, its sequencer, its reads, its snapshots |
//! | `group` | a group whose state machine fits into memory: the meta service |
//! | `heat` | what each range costs, and which of its keys cause it |
//! | `command` | what a range's log holds |
//! | `log_store` | the Raft log of one replica over the node's one log engine |
//! | `network` | openraft's messages over a [`PeerSender`] |
//! | `type_config`, `entry_codec` | openraft's types, and everything of it as versioned bytes |
//!
//! The only user of openraft, whose types do not leave this crate.

mod command;
mod disk_probe;
mod entry_codec;
mod faults;
mod group;
mod heat;
mod log_store;
mod network;
mod replica;
mod sender;
pub mod sizes;
mod store;
#[cfg(test)]
mod testing;
mod type_config;

pub use command::{OpResult, Refusal, WriteOp, WriteOutcome, WriteRequest};
pub use group::{Group, GroupError, GroupOpenError, GroupOptions, Leadership, Machine, Part};
pub use heat::{HeatMeter, HeatRates, RangeHeat, SampledKey, ScannedRows};
pub use replica::{Page, PageRead, PointRead, ReplicaMark, ReplicaStatus};
pub use sender::{FrameHeader, FrameReceiver, FrameSink, FrameSource, PeerSender, SendError};
pub use store::{
    DiskRoom, Look, OracleError, RangeError, SliceBudget, SpanOverlap, Store, StoreError,
    StoreEvent, StoreOptions, StoreTuning, TimestampSource, distrust_all,
};
