//! A Raft group with a small state machine in memory: the meta service's own.
//!
//! It shares the log engine and the network code with the ranges, but not their state machine: its
//! state ([`Machine`]) is kept whole in memory, its snapshot is written whole beside the log
//! (`StateKind::Machine`, synced) every so many entries, and is sent whole.
//!
//! Invariants:
//! * an entry is applied only after it is durable in the local log;
//! * the log is purged only up to a snapshot that is synced: state after a restart is that
//!   snapshot and a replay of the log behind it;
//! * one consensus instance at a time changes the state: it is refused once its generation is old.
//!
//! | task | owner | ends |
//! |---|---|---|
//! | supervision: publishes leadership, rebuilds a failed instance | [`Group`] | `shutdown` |
//! | end of the vote hold | [`Group`] | when it is over, `shutdown` |
//! | openraft's own | the instance | when it is replaced, `shutdown` |

mod applied;
mod error;
mod instance;
mod machine;
mod member;
mod operation;
mod receive;
mod snapshot;
mod stall;
mod supervise;

pub use applied::Machine;
pub(crate) use applied::Saved;
pub use error::{GroupError, GroupOpenError};
pub use member::{Group, GroupOptions, Leadership, Part};
pub(crate) use snapshot::Head;
