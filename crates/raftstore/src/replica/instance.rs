//! One consensus instance of a replica, and what belongs to its life time only.

use super::RangeMachine;
use crate::log_store::LogView;
use crate::type_config::{CommittedLeaderId, Raft};
use openraft::type_config::async_runtime::watch::WatchReceiver;
use std::time::Instant;

/// A running openraft instance. Replaced as a whole when it failed.
pub struct Instance {
    /// Which one of this replica.
    pub generation: u64,
    /// openraft's handle.
    pub raft: Raft<RangeMachine>,
    /// What is in the log.
    pub log: LogView,
    /// Until then it neither grants nor asks for votes: the lease that its last vote promised is
    /// not on disk, so it is waited out.
    pub vote_hold_until: Option<Instant>,
    /// When it was built.
    pub built: Instant,
}

impl Instance {
    /// The leadership that this replica holds right now.
    pub fn leadership(&self) -> Option<CommittedLeaderId> {
        let leader = self.raft.as_leader().ok()?;
        Some(leader.to_committed_leader_id())
    }

    /// The replica that leads, as far as this one knows.
    pub fn leader(&self) -> Option<u64> {
        self.raft.metrics().borrow_watched().current_leader
    }

    /// Whether votes are still held back.
    pub fn holds_votes(&self) -> bool {
        self.vote_hold_until.is_some_and(|until| Instant::now() < until)
    }
}
