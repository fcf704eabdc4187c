//! Confirming leadership by a quorum round: a read index.

use super::propose::not_leader;
use crate::group::applied::Machine;
use crate::group::{Group, GroupError};
use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use std::time::Duration;

impl<M: Machine> Group<M> {
    /// Confirms that this member leads, by a quorum round that begins after this call, and waits
    /// until everything committed then is applied here. Returns the term.
    pub async fn confirm_leadership(&self) -> Result<u64, GroupError> {
        let patience = Duration::from_millis(self.timing.election_max_ms * 2);
        match tokio::time::timeout(patience, self.confirm()).await {
            Ok(confirmed) => confirmed,
            Err(_) => Err(GroupError::TimedOut),
        }
    }

    async fn confirm(&self) -> Result<u64, GroupError> {
        let instance = self.running()?;
        let led = |e| not_leader(e);
        let before = instance.raft.as_leader().map_err(led)?.to_committed_leader_id();
        let linearizer = match instance.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => linearizer,
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
                return Err(not_leader(to));
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                return Err(GroupError::TimedOut);
            }
            Err(RaftError::Fatal(_)) => return Err(GroupError::Stopped),
        };
        let read_index = linearizer.read_log_id().index();
        let mut applied = self.applied.index();
        let reached = applied.wait_for(|index| *index >= read_index).await;
        reached.map_err(|_| GroupError::Stopped)?;
        // Another leadership of ours in between would not be the one that was confirmed.
        let after = instance.raft.as_leader().map_err(led)?.to_committed_leader_id();
        if before != after {
            return Err(GroupError::NotLeader { leader: None });
        }
        Ok(after.term)
    }
}
