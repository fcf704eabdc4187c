//! What can go wrong with a group.

use isotherm_storage::StorageError;
use isotherm_types::NodeId;
use std::io;
use thiserror::Error;

/// Why a request to the group was not done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GroupError {
    /// This member does not lead (any more). Nothing was proposed.
    #[error("this member does not lead the group; the leader is {leader:?}")]
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
    /// It was proposed; whether it takes effect is not known.
    #[error("the outcome is not known")]
    Indeterminate,
    /// The member is shutting down or starting again. Nothing was proposed.
    #[error("this member is not running")]
    Stopped,
    /// The disk has no room. Nothing was proposed.
    #[error("the disk of this member is full")]
    DiskFull,
    /// No quorum answered in time. Nothing was proposed.
    #[error("no quorum answered in time")]
    TimedOut,
}

/// Why a member could not be started.
#[derive(Debug, Error)]
pub enum GroupOpenError {
    /// The timing or another setting makes no sense.
    #[error("the group's settings are not valid")]
    Config(#[from] openraft::ConfigError),
    /// The log engine failed.
    #[error("the group's state cannot be read or written")]
    Storage(#[from] StorageError),
    /// The log or the snapshot is damaged or from a newer software.
    #[error("the group's log or snapshot cannot be used")]
    Log(#[from] io::Error),
    /// openraft refused.
    #[error("consensus does not start: {0}")]
    Raft(String),
}
