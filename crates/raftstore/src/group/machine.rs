//! openraft's state machine over [`Applied`].

use super::applied::{Applied, Machine};
use crate::type_config::{LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use std::io;
use std::sync::Arc;
use tokio::sync::watch;

/// Entries that are applied under one lock at most.
const BATCH_ENTRIES_MAX: usize = 128;

/// The state machine of one consensus instance.
pub struct GroupMachine<M> {
    pub(super) applied: Arc<Applied<M>>,
    pub(super) generation: u64,
    pub(super) flushed: watch::Receiver<u64>,
}

/// Writes the state beside the log.
pub struct GroupSnapshotBuilder<M> {
    applied: Arc<Applied<M>>,
    generation: u64,
}

impl<M: Machine> RaftSnapshotBuilder<TypeConfig> for GroupSnapshotBuilder<M> {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot<Bytes>> {
        let (meta, snapshot) = self.applied.save(self.generation).await?;
        Ok(Snapshot { meta, snapshot })
    }
}

impl<M: Machine> GroupMachine<M> {
    async fn apply_batch(&mut self, batch: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let (entries, responders): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let Some(last) = entries.last().map(|entry| entry.log_id.index) else { return Ok(()) };
        self.flushed
            .wait_for(|flushed| *flushed >= last)
            .await
            .map_err(|_| io::Error::other("the log of this member was closed"))?;
        let replies = self.applied.apply(self.generation, entries)?;
        for (responder, reply) in responders.into_iter().zip(replies) {
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }
}

impl<M: Machine> RaftStateMachine<TypeConfig> for GroupMachine<M> {
    type SnapshotData = Bytes;
    type SnapshotBuilder = GroupSnapshotBuilder<M>;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok(self.applied.state())
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut batches = entries.ready_chunks(BATCH_ENTRIES_MAX);
        while let Some(batch) = batches.next().await {
            self.apply_batch(batch.into_iter().collect::<io::Result<_>>()?).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> GroupSnapshotBuilder<M> {
        GroupSnapshotBuilder { applied: self.applied.clone(), generation: self.generation }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, state: Bytes) -> io::Result<()> {
        self.applied.install(self.generation, meta.clone(), state).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot<Bytes>>> {
        Ok(self.applied.saved().map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}
