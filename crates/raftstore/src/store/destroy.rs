//! Destroying a replica that was removed from its range.
//!
//! A replica goes only on the word of meta's map, and only of one that is newer than what the
//! replica knows of itself ([`RangeDescriptor::is_removed_by`]): an older map may be from before
//! it was added, and what other nodes say is a rumour.
//!
//! Life: tombstone synced → out of service → instance ended → rows deleted, with the descriptor
//! row in the same batch → flushed → log and vote deleted → tombstone marked → span given back. A
//! restart goes on from the tombstone before any replica starts. Which rows are the replica's is
//! what its descriptor row says at that moment: both are of one batch, so a crash cannot part them.
//!
//! The tombstone stays: its id is never used again, and whoever still names it is refused. Rows of
//! remembered results are left alone, because children elsewhere on the node may consult them; the
//! next start removes those that nobody does.

use super::start::barrier;
use super::{Store, StoreContext, StoreError, StoreEvent};
use crate::replica::{AppliedState, Frozen, InstallMarker, Replica};
use isotherm_storage::{
    DataBatch, Done, LocalKey, LogOp, ReplicaKey, StateKind, StorageError, codec,
};
use isotherm_task::guarded;
use isotherm_types::{RangeDescriptor, RangeId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How far the destruction of a replica has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// It was decided. Whatever is on disk of the replica is to go.
    Decided,
    /// Rows and log are gone, durably: the span may belong to somebody else.
    Erased,
    /// Its remembered results are gone too, or were somebody else's.
    Swept,
}

/// Synced under the id of a replica that was removed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Tombstone {
    /// Of the descriptor that no longer named it; 0: the range was absorbed.
    conf_ver: u64,
    phase: Phase,
}

#[cfg(test)]
impl Tombstone {
    /// One that takes as many bytes as there can be.
    pub(crate) fn largest() -> Self {
        Self { conf_ver: u64::MAX, phase: Phase::Swept }
    }
}

/// What `op` does, once it is synced.
pub(super) async fn submitted(
    ctx: &StoreContext,
    op: impl FnOnce(Done) -> LogOp,
) -> io::Result<()> {
    let (sender, done) = tokio::sync::oneshot::channel();
    ctx.log.submit(op(Box::new(move |result| {
        // Whoever waited was stopped.
        let _ = sender.send(result);
    })));
    let done = done.await.map_err(|_| io::Error::other("the log engine has stopped"))?;
    done.map_err(io::Error::other)
}

/// Sets a record of a replica, synced.
pub(super) async fn put_state(
    ctx: &StoreContext,
    replica: ReplicaKey,
    kind: StateKind,
    bytes: Vec<u8>,
) -> io::Result<()> {
    submitted(ctx, |done| LogOp::PutState { replica, kind, bytes, done }).await
}

/// Decides that a replica id is no more here.
pub(super) async fn bury(ctx: &StoreContext, key: ReplicaKey, conf_ver: u64) -> io::Result<()> {
    let tombstone = codec::encode(&Tombstone { conf_ver, phase: Phase::Decided });
    put_state(ctx, key, StateKind::Tombstone, tombstone).await
}

/// [`submitted`] for blocking callers.
fn submitted_blocking(ctx: &StoreContext, op: impl FnOnce(Done) -> LogOp) -> io::Result<()> {
    let (sender, done) = std::sync::mpsc::channel();
    ctx.log.submit(op(Box::new(move |result| {
        let _ = sender.send(result);
    })));
    done.recv().map_err(io::Error::other)?.map_err(io::Error::other)
}

/// Whether this replica id was removed here for good.
pub(crate) fn is_buried(ctx: &StoreContext, key: ReplicaKey) -> Result<bool, StorageError> {
    Ok(ctx.log.state(key, StateKind::Tombstone)?.is_some())
}

impl Store {
    /// Takes note of descriptors that meta's map holds. Replicas here that they prove removed are
    /// destroyed in the background.
    pub fn take_newer(self: &Arc<Self>, newer: Vec<RangeDescriptor>) {
        for descriptor in newer {
            let removed = self.replica(descriptor.id).into_iter();
            let removed = removed.chain(self.superseded_by(&descriptor));
            let removed: Vec<_> =
                removed.filter(|replica| self.is_removed(replica, &descriptor)).collect();
            for replica in removed {
                let (store, descriptor) = (self.clone(), descriptor.clone());
                self.ctx.tasks.spawn(guarded("destruction of a replica", async move {
                    let range = replica.range;
                    if let Err(error) = store.destroy(range, &descriptor).await {
                        if let StoreError::Storage(error) = &error
                            && error.stops_engine()
                        {
                            store.ctx.note_damage(error);
                        }
                        tracing::error!(range_id = %range, error = %error, "a removed replica cannot be destroyed: a restart of this node tries again");
                    }
                }));
            }
        }
    }

    /// Whether `newer`, of the same range or of the one that absorbed it, proves that the replica is no
    /// more. One that its neighbour here has yet to absorb is left to that one: it needs the rows. Once the
    /// neighbour is past the epoch that the replica was frozen for, it does not: it came to that by a
    /// snapshot, or was fenced; and it is not asked to absorb again before the replicas here stand still for
    /// that epoch.
    fn is_removed(&self, replica: &Replica, newer: &RangeDescriptor) -> bool {
        let descriptor = replica.descriptor();
        if newer.id != replica.range {
            let waits = |frozen: &Frozen| {
                let neighbour = self.replica(frozen.into).map(|n| n.descriptor().epoch.version);
                neighbour.is_some_and(|version| version <= frozen.into_epoch.version)
            };
            let is_awaited = replica.frozen.load().as_deref().is_some_and(waits);
            return descriptor.is_superseded_by(newer) && !is_awaited;
        }
        let proved = descriptor.is_removed_by(replica.id, newer);
        proved || (self.ctx.faults.trust_any_map() == 1 && newer.replica(replica.id).is_none())
    }

    /// Destroys the replica of `range` here that `newer` proves removed; whether there was one.
    pub(crate) async fn destroy(
        self: &Arc<Self>,
        range: RangeId,
        newer: &RangeDescriptor,
    ) -> Result<bool, StoreError> {
        let Some(_claim) = self.claims.take(range) else { return Ok(false) };
        let Some(replica) = self.replica(range).filter(|r| self.is_removed(r, newer)) else {
            return Ok(false);
        };
        let (key, ctx) = (replica.key(), &self.ctx);
        let conf_ver = newer.epoch.conf_ver;
        tracing::info!(range_id = %range, replica_id = %replica.id, conf_ver, "replica was removed from its range, destroying it");
        bury(ctx, key, conf_ver).await.map_err(StorageError::from)?;
        ctx.faults.destroy_step(1).map_err(StorageError::from)?;
        self.replicas.write().remove(&range);
        replica.end().await;
        let in_background = ctx.clone();
        let erase = move || {
            // Waits for whoever still applies or installs; what comes later is refused.
            replica.core.lock().generation = u64::MAX;
            erase(&in_background, key, conf_ver)
        };
        tokio::task::spawn_blocking(erase)
            .await
            .map_err(|e| StoreError::Corrupt(format!("destroying a replica failed: {e}")))??;
        ctx.spans.release(range);
        tracing::info!(range_id = %range, replica_id = %key.replica, "replica destroyed");
        // Nobody listens in tests and while stopping.
        let _ = ctx.events.send(StoreEvent::ReplicaRemoved { range });
        Ok(true)
    }
}

impl Replica {
    /// Ends everything that runs on it. Nothing of it is submitted to the log after this.
    pub(crate) async fn end(&self) {
        self.stop.cancel();
        drop(self.receiving.write().await);
        self.ended.cancelled().await;
        self.generation.fetch_add(1, Ordering::AcqRel);
        if let Some(instance) = self.instance.swap(None) {
            let _ = tokio::time::timeout(Duration::from_secs(5), instance.raft.shutdown()).await;
            instance.log.close();
        }
        barrier(&self.ctx).await;
    }
}

/// Deletes what is on disk of a replica whose tombstone is synced. Blocking; done again after a
/// crash.
fn erase(ctx: &StoreContext, key: ReplicaKey, conf_ver: u64) -> Result<(), StorageError> {
    let range = key.range;
    let mut batch = DataBatch::new();
    if let Some(bytes) = ctx.data.local(&LocalKey::Descriptor(range))? {
        let descriptor: RangeDescriptor = codec::decode(&bytes)?;
        if ctx.is_noted_lost(key)? {
            // Whole files without reading them, or a compaction would come to what cannot be read.
            ctx.data.drop_files(&descriptor.span)?;
        }
        batch.delete_span(&descriptor.span);
    }
    if let Some(bytes) = ctx.log.state(key, StateKind::InstallMarker)? {
        // An install that was cut off: what it deleted, and what it may have brought.
        let marker: InstallMarker = codec::decode(&bytes)?;
        let spans = marker.old_span.iter().chain([&marker.staged.header.descriptor.span]);
        spans.for_each(|span| batch.delete_span(span));
        let _ = std::fs::remove_dir_all(&marker.staged.dir);
    }
    batch.delete_local(&LocalKey::Descriptor(range));
    batch.delete_local(&LocalKey::Applied(range));
    ctx.data.write(batch)?;
    ctx.faults.destroy_step(2)?;
    ctx.data.flush()?;
    ctx.faults.destroy_step(3)?;
    let keep: &'static [StateKind] = &[StateKind::Tombstone];
    submitted_blocking(ctx, |done| LogOp::DeleteReplica { replica: key, keep, done })?;
    ctx.faults.destroy_step(4)?;
    mark(ctx, key, conf_ver, Phase::Erased)?;
    Ok(())
}

fn mark(ctx: &StoreContext, key: ReplicaKey, conf_ver: u64, phase: Phase) -> io::Result<()> {
    let bytes = codec::encode(&Tombstone { conf_ver, phase });
    let kind = StateKind::Tombstone;
    submitted_blocking(ctx, |done| LogOp::PutState { replica: key, kind, bytes, done })
}

/// Deletes the log of a replica whose rows are part of another one, durably. Blocking.
pub(crate) fn clear_away(ctx: &StoreContext, key: ReplicaKey) -> io::Result<()> {
    mark(ctx, key, 0, Phase::Erased)?;
    let keep: &'static [StateKind] = &[StateKind::Tombstone];
    submitted_blocking(ctx, |done| LogOp::DeleteReplica { replica: key, keep, done })
}

/// Finishes every destruction that a crash cut off. Before any replica starts; blocking.
pub(super) fn finish_destructions(
    ctx: &StoreContext,
    keys: &[ReplicaKey],
) -> Result<(), StorageError> {
    let mut erased = Vec::new();
    let mut tombstones = 0_u32;
    for key in keys.iter().copied() {
        let Some(bytes) = ctx.log.state(key, StateKind::Tombstone)? else { continue };
        tombstones += 1;
        let tombstone: Tombstone = codec::decode(&bytes)?;
        if tombstone.phase == Phase::Decided {
            tracing::info!(range_id = %key.range, replica_id = %key.replica, "finishing the destruction of a replica");
            erase(ctx, key, tombstone.conf_ver)?;
        }
        if tombstone.phase != Phase::Swept {
            erased.push((key, tombstone.conf_ver));
        }
    }
    // Some 30 bytes each, on disk only.
    metrics::gauge!("isotherm_tombstones").set(tombstones);
    if erased.is_empty() {
        return Ok(());
    }
    let consulted = match consulted(ctx) {
        // Some range's state cannot be read: then it may consult any of them.
        Err(error) if error.is_damage() => return Ok(()),
        consulted => consulted?,
    };
    let mut batch = DataBatch::new();
    for (key, _) in erased.iter().filter(|(key, _)| !consulted.contains(&key.range)) {
        batch.delete_dedup_below(key.range, Timestamp::MAX);
    }
    ctx.data.write(batch)?;
    ctx.data.flush()?;
    for (key, conf_ver) in erased.into_iter().filter(|(key, _)| !consulted.contains(&key.range)) {
        mark(ctx, key, conf_ver, Phase::Swept)?;
    }
    Ok(())
}

/// The ranges whose remembered results some range here still consults.
fn consulted(ctx: &StoreContext) -> Result<HashSet<RangeId>, StorageError> {
    let mut consulted = HashSet::new();
    for range in ctx.data.local_ranges()? {
        consulted.insert(range);
        if let Some(bytes) = ctx.data.local(&LocalKey::Applied(range))? {
            let applied = AppliedState::decode(&bytes)?;
            consulted.extend(applied.memory.origins.iter().map(|origin| origin.range));
        }
    }
    Ok(consulted)
}
