//! openraft's state machine over [`Core`].
//!
//! Rules (ARCHITECTURE.md, "Apply"):
//! * an entry is applied only after it is durable in the LOCAL log, so that data never runs ahead
//!   of the log that has to explain it after a crash;
//! * work of an instance that was replaced is refused: every step checks the generation under
//!   the core's lock;
//! * a split or a merge is flushed before anything shows it, starts its children or deletes its log;
//! * answers leave after the write, in order.

use super::Replica;
use super::core::{self, ApplyRules, Core, Structural, Work};
use super::snapshot::{SnapshotBuilder, SnapshotData};
use crate::command::{Envelope, RangeReply};
use crate::store::{StoreContext, is_buried};
use crate::type_config::{
    ApplyResponder, Entry, EntryPayload, LogId, Reply, Snapshot, SnapshotMeta, StoredMembership,
    TypeConfig,
};
use futures::{Stream, StreamExt};
use isotherm_storage::{DataBatch, LocalKey, ReplicaKey, StorageError};
use isotherm_types::RangeDescriptor;
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftStateMachine};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::watch;

/// The state machine of one consensus instance of a replica.
pub struct RangeMachine {
    replica: Arc<Replica>,
    generation: u64,
    /// Index up to which this instance's log is durable here.
    flushed: watch::Receiver<u64>,
}

struct Step {
    log_id: LogId,
    work: Work,
    responder: Option<ApplyResponder>,
}

impl RangeMachine {
    /// For the instance of `generation`.
    pub fn new(replica: Arc<Replica>, generation: u64, flushed: watch::Receiver<u64>) -> Self {
        Self { replica, generation, flushed }
    }

    /// Waits until the local log is durable up to `index`.
    async fn wait_until_durable(&mut self, index: u64) -> io::Result<()> {
        let durable = self.flushed.wait_for(|flushed| *flushed >= index).await;
        durable.map_err(|_| io::Error::other("the log of this replica was closed"))?;
        Ok(())
    }

    async fn apply_steps(&mut self, steps: Vec<Step>) -> io::Result<()> {
        let Some(last) = steps.last() else { return Ok(()) };
        let (index, structural) = (last.log_id.index, last.work.ends_batch());
        if self.replica.ctx.faults.suite() == 0 {
            self.wait_until_durable(index).await?;
        }
        self.replica.ctx.faults.applying(self.generation).await;
        let (mut work, mut responders) =
            (Vec::with_capacity(steps.len()), Vec::with_capacity(steps.len()));
        for step in steps {
            let (log_id, is_awaited) = (step.log_id, step.responder.is_some());
            work.push(core::Step { log_id, work: step.work, is_awaited });
            responders.push(step.responder);
        }
        let replica = self.replica.clone();
        let generation = self.generation;
        let replies = if structural {
            let run = move || apply_structural(&replica, generation, work);
            tokio::task::spawn_blocking(run).await.map_err(io::Error::other)??
        } else {
            apply_plain(&replica, generation, work)?
        };
        for (responder, reply) in responders.into_iter().zip(replies) {
            if let Some(responder) = responder {
                responder.send(Reply::Range(Box::new(reply)));
            }
        }
        Ok(())
    }
}

fn rules(replica: &Replica) -> ApplyRules {
    let tuning = &replica.ctx.tuning;
    ApplyRules {
        retention_ms: tuning.session_retention.as_millis() as u64,
        results_max: tuning.session_results_max,
        no_dedup: replica.ctx.faults.no_dedup() == 1,
        no_session_floor: replica.ctx.faults.no_session_floor() == 1,
        suite: replica.ctx.faults.suite() == 1 || replica.ctx.faults.no_generations() == 1,
    }
}

fn check_owner(replica: &Replica, core: &Core, generation: u64, first: u64) -> io::Result<()> {
    if replica.ctx.faults.no_generations() == 1 {
        return Ok(());
    }
    if core.generation != generation || replica.is_retired() {
        return Err(io::Error::other("a newer consensus instance owns this replica"));
    }
    if first != core.applied.index() + 1 && replica.ctx.faults.suite() == 0 {
        let at = core.applied.index();
        return Err(io::Error::other(format!("entry {first} does not follow the applied {at}")));
    }
    Ok(())
}

fn apply_plain(
    replica: &Arc<Replica>,
    generation: u64,
    work: Vec<core::Step>,
) -> io::Result<Vec<RangeReply>> {
    let first = work.first().map_or(0, |step| step.log_id.index);
    let (ops, bytes) = written(&work);
    let mut core = replica.core.lock();
    check_owner(replica, &core, generation, first)?;
    let bytes_max = replica.ctx.tuning.apply_bytes_max;
    let (replies, structural) = core
        .apply(&replica.ctx.data, work, None, rules(replica), bytes_max)
        .map_err(failed(replica))?;
    assert!(structural.is_none(), "splits and merges are applied as structural changes");
    replica.remembered.store(core.sessions.count(), Ordering::Relaxed);
    replica.heat.note_applied(ops, bytes);
    publish_own(replica, &core);
    replica.applied.send_replace(core.applied.index());
    Ok(replies)
}

/// Takes note of an error of the disk that ends the instance.
fn failed(replica: &Arc<Replica>) -> impl Fn(StorageError) -> io::Error {
    move |error| {
        replica.disk_failed(&error);
        io::Error::other(error)
    }
}

/// How many operations there are, and their bytes.
fn written(work: &[core::Step]) -> (u64, u64) {
    let writes = work.iter().flat_map(|step| step.work.writes());
    let sizes = writes.map(|write| (write.ops.len() as u64, write.size_bytes() as u64));
    sizes.fold((0, 0), |(ops, bytes), (o, b)| (ops + o, bytes + b))
}

/// Applies a batch whose last entry is a split, a step of a merge or a checksum order. Blocking: it
/// flushes.
fn apply_structural(
    replica: &Arc<Replica>,
    generation: u64,
    work: Vec<core::Step>,
) -> io::Result<Vec<RangeReply>> {
    let first = work.first().map_or(0, |step| step.log_id.index);
    let ctx = &replica.ctx;
    let right = work.last().and_then(|step| step.work.absorbs());
    let right = right.and_then(|range| ctx.host()?.replica(range));
    let mut core = replica.core.lock();
    check_owner(replica, &core, generation, first)?;
    // Left before right, always: nobody waits for each other in a circle.
    let mut right_core = right.as_ref().map(|right| right.core.lock());
    let (replies, structural) = core
        .apply(
            &ctx.data,
            work,
            right_core.as_deref_mut(),
            rules(replica),
            ctx.tuning.apply_bytes_max,
        )
        .map_err(failed(replica))?;
    match structural {
        Some(Structural::Born(children)) => publish_split(replica, &core, children)?,
        Some(Structural::Absorbed(gone)) => {
            let right = right.as_ref().expect("what was absorbed was there");
            right.retired.store(true, Ordering::Release);
            drop(right_core);
            publish_absorbed(replica, &core, &gone)?;
        }
        None => drop(right_core),
    }
    publish_own(replica, &core);
    let index = core.applied.index();
    if matches!(replies.last(), Some(RangeReply::ChecksumOrdered)) {
        let snapshot = ctx.data.snapshot();
        let span = core.descriptor.span.clone();
        drop(core);
        replica.applied.send_replace(index);
        let sum = snapshot.checksum(&span).map_err(failed(replica))?;
        let mut checksums = replica.checksums.lock();
        checksums.push_back((index, sum));
        while checksums.len() > 4 {
            checksums.pop_front();
        }
    } else {
        replica.applied.send_replace(index);
    }
    Ok(replies)
}

/// Shows the descriptor that a change of members, a freeze, a thaw or a fence made. Nothing is flushed for
/// it: a crash goes back to an older epoch of the same range, and the log brings it forward again.
fn publish_own(replica: &Replica, core: &Core) {
    let descriptor = &core.descriptor;
    if !replica.publish(core) {
        return;
    }
    let members: Vec<_> = descriptor.replicas.iter().map(|r| (r.id.get(), r.role)).collect();
    tracing::info!(
        range_id = %descriptor.id,
        replica_id = %replica.id,
        epoch = %descriptor.epoch,
        ?members,
        frozen_into = core.applied.frozen.map(|frozen| frozen.into.get()),
        "range changed"
    );
    replica.ctx.descriptor_changed(descriptor.clone());
}

/// Makes a merge last and shows it: before that a crash leaves both ranges, and the log is applied again.
fn publish_absorbed(replica: &Arc<Replica>, core: &Core, gone: &RangeDescriptor) -> io::Result<()> {
    let ctx = &replica.ctx;
    ctx.faults.absorb_step(1)?;
    ctx.data.flush().map_err(failed(replica))?;
    ctx.faults.absorb_step(2)?;
    let descriptor = core.descriptor.clone();
    let own = (descriptor.id, descriptor.span.clone());
    ctx.spans.take_over(own, &[gone.id]).map_err(io::Error::other)?;
    let retired = ctx.host().and_then(|store| store.withdraw(gone.id));
    replica.publish(core);
    tracing::info!(
        range_id = %descriptor.id,
        epoch = %descriptor.epoch,
        absorbed = %gone.id,
        "ranges merged"
    );
    ctx.faults.absorb_step(3)?;
    ctx.descriptor_changed(descriptor);
    if let (Some(retired), Some(store)) = (retired, ctx.host()) {
        ctx.tasks.spawn(async move { store.retire(retired).await });
    }
    Ok(())
}

fn publish_split(
    replica: &Arc<Replica>,
    core: &Core,
    born: Vec<(RangeDescriptor, Core)>,
) -> io::Result<()> {
    let ctx = &replica.ctx;
    ctx.faults.before_split_flush();
    ctx.faults.split_step(1)?;
    let children: Vec<_> = born.iter().map(|(d, _)| d.clone()).collect();
    let living = without_buried(ctx, born).map_err(io::Error::other)?;
    ctx.data.flush().map_err(failed(replica))?;
    ctx.faults.split_step(2)?;
    let parent = core.descriptor.clone();
    let mut owners = vec![(parent.id, parent.span.clone())];
    owners.extend(living.iter().map(|core| (core.descriptor.id, core.descriptor.span.clone())));
    ctx.spans.replace(&owners).map_err(io::Error::other)?;
    replica.publish(core);
    ctx.faults.split_step(3)?;
    tracing::info!(
        range_id = %parent.id,
        epoch = %parent.epoch,
        children = children.len(),
        "range split applied"
    );
    ctx.born(parent, children, living);
    Ok(())
}

/// The children that start here: the rows of one whose replica here was removed for good, while this
/// node had not applied the split yet, go at once.
fn without_buried(
    ctx: &StoreContext,
    born: Vec<(RangeDescriptor, Core)>,
) -> Result<Vec<Core>, StorageError> {
    let mut living = Vec::with_capacity(born.len());
    for (descriptor, core) in born {
        let range = descriptor.id;
        let me = descriptor.replica_on(ctx.node).map(|r| r.id);
        let key = me.map(|replica| ReplicaKey { range, replica });
        if key.map(|key| is_buried(ctx, key)).transpose()? != Some(true) {
            living.push(core);
            continue;
        }
        tracing::info!(range_id = %range, "a child of a split was removed from here before it began");
        let mut batch = DataBatch::new();
        batch.delete_span(&descriptor.span);
        batch.delete_local(&LocalKey::Descriptor(range));
        batch.delete_local(&LocalKey::Applied(range));
        ctx.data.write(batch)?;
    }
    Ok(living)
}

fn decode(entry: &Entry) -> io::Result<Work> {
    Ok(match &entry.payload {
        EntryPayload::Blank => Work::Blank,
        EntryPayload::Membership(m) => Work::Membership(m.clone()),
        EntryPayload::Normal(command) => {
            Work::Envelope(Envelope::decode(&command.0).map_err(io::Error::other)?)
        }
    })
}

impl RaftStateMachine<TypeConfig> for RangeMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let core = self.replica.core.lock();
        Ok((core.applied.log_id, core.applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let bytes_max = self.replica.ctx.tuning.apply_bytes_max;
        let (mut steps, mut bytes) = (Vec::new(), 0);
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            if let EntryPayload::Normal(command) = &entry.payload {
                bytes += command.0.len();
            }
            let work = decode(&entry)?;
            let ends_batch = work.ends_batch();
            steps.push(Step { log_id: entry.log_id, work, responder });
            if ends_batch || bytes > bytes_max {
                self.apply_steps(std::mem::take(&mut steps)).await?;
                bytes = 0;
            }
        }
        self.apply_steps(steps).await
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder::new(self.replica.clone())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        data: SnapshotData,
    ) -> io::Result<()> {
        let (replica, generation, meta) = (self.replica.clone(), self.generation, meta.clone());
        let run = move || super::snapshot::install(&replica, generation, &meta, data);
        tokio::task::spawn_blocking(run).await.map_err(io::Error::other)?
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot<SnapshotData>>> {
        Ok(super::snapshot::current(&self.replica))
    }
}
