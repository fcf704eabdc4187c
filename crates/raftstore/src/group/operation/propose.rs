//! Proposing a command: propose → append → commit → apply here → reply.

use crate::group::applied::Machine;
use crate::group::{Group, GroupError};
use crate::type_config::{
    ClientWriteError, Command, LeaderId, ProgressResponder, Reply, WriteResult,
};
use bytes::Bytes;
use isotherm_types::NodeId;
use openraft::errors::{ForwardReason, ForwardToLeader};
use std::time::{Duration, Instant};

/// Between two attempts of a leader that no quorum confirmed lately.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

impl<M: Machine> Group<M> {
    /// Proposes `command` and returns what applying it answered. With `expected_term` it is
    /// refused unless this member leads in that very term when it enters the log.
    pub async fn propose(
        &self,
        command: Bytes,
        expected_term: Option<u64>,
    ) -> Result<Vec<u8>, GroupError> {
        if !self.has_room() {
            return Err(GroupError::DiskFull);
        }
        let patience = Duration::from_millis(self.timing.election_max_ms);
        let deadline = Instant::now() + patience;
        loop {
            let instance = self.running()?;
            let (responder, outcome) = ProgressResponder::<WriteResult>::complete_only();
            let mut write = instance.raft.write(Command(command.clone())).responder(responder);
            if let Some(term) = expected_term {
                write = write.with_leader(LeaderId { term, node_id: self.member.get() });
            }
            // Whether an instance that is dying took the message is not known.
            write.await.map_err(|_| GroupError::Indeterminate)?;
            let outcome = tokio::time::timeout(patience * 4, outcome).await;
            match outcome.map_err(|_| GroupError::Indeterminate)? {
                Ok(Ok(done)) => match done.data {
                    Reply::Machine(reply) => return Ok(reply),
                    Reply::None | Reply::Range(_) => return Ok(Vec::new()),
                },
                Ok(Err(ClientWriteError::ForwardToLeader(to))) => {
                    if to.reason != ForwardReason::LeaseExpired || Instant::now() >= deadline {
                        return Err(not_leader(to));
                    }
                    // It leads, but no quorum answered it lately: right after an election, or
                    // after silence. Nothing was appended; a round of heartbeats settles it.
                    let nudged = instance.raft.trigger().heartbeat().await;
                    nudged.map_err(|_| GroupError::Stopped)?;
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Ok(Err(_)) | Err(_) => return Err(GroupError::Indeterminate),
            }
        }
    }
}

pub(super) fn not_leader(to: ForwardToLeader<crate::type_config::TypeConfig>) -> GroupError {
    GroupError::NotLeader { leader: to.leader_id.map(NodeId) }
}
