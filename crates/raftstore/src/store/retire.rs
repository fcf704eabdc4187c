//! Replicas whose range became part of another one.
//!
//! Their rows are the other range's by then, and flushed as such; what is left is to end them and to
//! delete their logs. A crash in between is made good when the store opens: the range that absorbed them
//! says so.

use super::destroy::clear_away;
use super::{Store, StoreError, StoreEvent};
use crate::replica::Replica;
use isotherm_types::{RangeDescriptor, RangeId};
use std::sync::Arc;

impl Store {
    /// Takes a replica off the table.
    pub(crate) fn withdraw(&self, range: RangeId) -> Option<Arc<Replica>> {
        self.replicas.write().remove(&range)
    }

    /// Ends a replica that was withdrawn and deletes its log.
    pub(crate) async fn retire(self: &Arc<Self>, replica: Arc<Replica>) {
        let (range, key, ctx) = (replica.range, replica.key(), self.ctx.clone());
        replica.end().await;
        let cleared = tokio::task::spawn_blocking(move || clear_away(&ctx, key)).await;
        match cleared {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(range_id = %range, error = %error, "the log of a merged range cannot be deleted: a restart of this node tries again");
            }
            // The process ends.
            Err(_) => return,
        }
        // Nobody listens in tests and while stopping.
        let _ = self.ctx.events.send(StoreEvent::ReplicaRemoved { range });
    }

    /// The replicas here whose range is part of that of `descriptor` for good.
    pub(crate) fn superseded_by(&self, descriptor: &RangeDescriptor) -> Vec<Arc<Replica>> {
        let replicas = self.replicas.read();
        let gone = |r: &&Arc<Replica>| r.descriptor().is_superseded_by(descriptor);
        replicas.values().filter(gone).cloned().collect()
    }

    /// Finishes what a failure cut off after a merge was applied to the data of `left`.
    pub(super) async fn finish_merges(
        self: &Arc<Self>,
        left: &Arc<Replica>,
    ) -> Result<(), StoreError> {
        let (own, gone) = {
            let core = left.core.lock();
            // One that lies outside was left over by a snapshot: its rows are its own still, and it goes
            // on meta's word.
            let is_part = |range: &RangeId| {
                let replica = self.replica(*range);
                replica.is_some_and(|r| r.descriptor().is_superseded_by(&core.descriptor))
            };
            let gone: Vec<_> = core.applied.absorbed.iter().copied().filter(is_part).collect();
            ((left.range, core.descriptor.span.clone()), gone)
        };
        if gone.is_empty() {
            return Ok(());
        }
        let data = self.ctx.data.clone();
        tokio::task::spawn_blocking(move || data.flush())
            .await
            .map_err(|e| StoreError::Corrupt(e.to_string()))??;
        self.ctx.spans.take_over(own, &gone)?;
        for replica in gone.into_iter().filter_map(|range| self.withdraw(range)) {
            self.retire(replica).await;
        }
        Ok(())
    }
}
