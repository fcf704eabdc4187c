//! The whole state of a range, sent to a replica whose log entries are gone elsewhere.
//!
//! openraft sees *virtual* snapshots: metadata only. Building one returns the id that the last
//! flush made durable (openraft purges the log up to it at most); the current one is the applied
//! state. Data is produced when a replica needs it: one SST file at a time, streamed in chunks,
//! deleted; never held in memory, on neither side.
//!
//! Install on the receiver (ARCHITECTURE.md, "Snapshots"): marker synced in the log → delete the
//! old and new span → flush → ingest → `local` rows → flush → clear the marker. A crash in between
//! rolls forward from the delete before any replica starts.

use super::Replica;
use super::applied::AppliedState;
use super::core::Core;
use crate::entry_codec::encode_message;
use crate::store::{StoreContext, StoreEvent, clear_away};
use crate::type_config::{Snapshot, SnapshotMeta, TypeConfig};
use isotherm_storage::{
    DataBatch, DataSnapshot, LocalKey, LogOp, ReplicaKey, SnapshotFile, StateKind, StorageError,
    codec,
};
use isotherm_types::{KeyRange, RangeDescriptor, RangeId, Timestamp};
use openraft::storage::RaftSnapshotBuilder;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What openraft passes from the state machine to the network and back.
pub enum SnapshotData {
    /// Metadata only.
    Virtual,
    /// To be sent: the state at one applied id.
    Outgoing(Box<Outgoing>),
    /// Received and staged on disk.
    Staged(Box<StagedSnapshot>),
}

/// The state to be sent.
pub struct Outgoing {
    /// Rows and progress that do not come in files.
    pub header: SnapshotHeader,
    /// Where the files are read from.
    pub data: DataSnapshot,
}

/// What a snapshot carries beside its files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SnapshotHeader {
    /// As of the snapshot.
    pub descriptor: RangeDescriptor,
    /// As of the snapshot.
    pub applied: AppliedState,
}

/// One remembered-results row: origin range, timestamp, encoded row.
pub type DedupRecord = (RangeId, Timestamp, Vec<u8>);

/// A received snapshot on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StagedSnapshot {
    /// Descriptor and progress.
    pub header: SnapshotHeader,
    /// Its own directory, removed after the install.
    pub dir: PathBuf,
    /// Files in key order per column family.
    pub files: Vec<SnapshotFile>,
    /// Encoded `Vec<DedupRecord>` files.
    pub dedup_files: Vec<PathBuf>,
}

/// Written before an install changes anything; cleared when it is complete.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstallMarker {
    /// What the replica had.
    pub old_span: Option<KeyRange>,
    /// What it gets.
    pub staged: StagedSnapshot,
    /// Replicas here whose range is part of this one in the snapshot, and what they had.
    pub swallowed: Vec<(ReplicaKey, KeyRange)>,
}

/// Builds virtual snapshots.
pub struct SnapshotBuilder {
    replica: Arc<Replica>,
}

impl SnapshotBuilder {
    /// For `replica`.
    pub fn new(replica: Arc<Replica>) -> Self {
        Self { replica }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    /// The durable state, from disk: that id, and nothing else, bounds what may be purged.
    async fn build_snapshot(&mut self) -> io::Result<Snapshot<SnapshotData>> {
        let replica = self.replica.clone();
        let load = move || {
            if replica.ctx.faults.suite() == 1 {
                replica.ctx.data.flush().map_err(io::Error::other)?;
            }
            durable_state(&replica.ctx, replica.range)
        };
        let applied = tokio::task::spawn_blocking(load).await.map_err(io::Error::other)??;
        // Nothing durable yet is a snapshot of nothing: it purges nothing.
        let meta = applied.map_or_else(SnapshotMeta::default, |applied| SnapshotMeta {
            last_log_id: applied.log_id,
            last_membership: applied.membership,
        });
        Ok(Snapshot { meta, snapshot: SnapshotData::Virtual })
    }
}

/// The applied state that survives a crash without the log.
pub fn durable_state(ctx: &StoreContext, range: RangeId) -> io::Result<Option<AppliedState>> {
    let row = ctx.data.durable_local(&LocalKey::Applied(range)).map_err(io::Error::other)?;
    row.map(|bytes| AppliedState::decode(&bytes)).transpose().map_err(io::Error::other)
}

/// The current snapshot: the applied state, with the data behind it.
pub fn current(replica: &Replica) -> Option<Snapshot<SnapshotData>> {
    let core = replica.core.lock();
    core.applied.log_id.filter(|_| !replica.is_retired())?;
    let header =
        SnapshotHeader { descriptor: (*core.descriptor).clone(), applied: core.applied.clone() };
    // Under the core's lock: rows and progress are of one moment.
    let data = replica.ctx.data.snapshot();
    drop(core);
    let meta = SnapshotMeta {
        last_log_id: header.applied.log_id,
        last_membership: header.applied.membership.clone(),
    };
    Some(Snapshot { meta, snapshot: SnapshotData::Outgoing(Box::new(Outgoing { header, data })) })
}

/// Makes a staged snapshot the state of `replica`. Blocking; durable when it returns.
pub fn install(
    replica: &Replica,
    generation: u64,
    meta: &SnapshotMeta,
    data: SnapshotData,
) -> io::Result<()> {
    let staged = match data {
        SnapshotData::Staged(staged) => *staged,
        // openraft's suite hands a snapshot over without a network in between.
        SnapshotData::Outgoing(outgoing) if replica.ctx.faults.suite() == 1 => StagedSnapshot {
            header: outgoing.header,
            dir: replica.ctx.staging.join("suite"),
            files: Vec::new(),
            dedup_files: Vec::new(),
        },
        // openraft offers the current snapshot back at a start if it is newer than applied: it
        // never is, because both are the same row.
        SnapshotData::Virtual | SnapshotData::Outgoing(_) => {
            return Err(io::Error::other("a snapshot without files cannot be installed"));
        }
    };
    let ctx = &replica.ctx;
    let mut core = replica.core.lock();
    if core.generation != generation || replica.is_retired() {
        return Err(io::Error::other("a newer consensus instance owns this replica"));
    }
    if meta.last_log_id != staged.header.applied.log_id {
        return Err(io::Error::other("a snapshot's files and its metadata differ"));
    }
    let host = ctx.host();
    // Ended before the snapshot was staged (`stage_snapshot.rs`).
    let gone = host.as_ref().map(|store| store.superseded_by(&staged.header.descriptor));
    let gone = gone.unwrap_or_default();
    for gone in &gone {
        let _left_before_right = gone.core.lock();
        gone.retired.store(true, Ordering::Release);
    }
    let swallowed = gone.iter().map(|gone| (gone.key(), gone.descriptor().span.clone())).collect();
    let old_span = Some(core.descriptor.span.clone());
    let marker = InstallMarker { old_span, staged, swallowed };
    put_state(ctx, replica.key(), Some(codec::encode(&marker)))?;
    let loaded = roll_forward(ctx, replica.key(), &marker).map_err(io::Error::other)?;
    *core = Core { generation, ..loaded };
    let descriptor = core.descriptor.clone();
    let index = core.applied.index();
    withdraw_swallowed(ctx, replica.range, &descriptor, &marker)?;
    replica.show(&core);
    replica.durable.fetch_max(index, Ordering::AcqRel);
    drop(core);
    replica.applied.send_replace(index);
    ctx.descriptor_changed(descriptor);
    metrics::counter!("isotherm_snapshots_installed_total").increment(1);
    tracing::info!(range_id = %replica.range, replica_id = %replica.id, index, "snapshot installed");
    Ok(())
}

/// Goes on with an install that failed half way while the process went on: its rows are deleted, and what
/// was applied is still what it was before. `None`: there is none. Blocking.
pub fn finish_install(ctx: &StoreContext, key: ReplicaKey) -> Result<Option<Core>, StorageError> {
    let Some(bytes) = ctx.log.state(key, StateKind::InstallMarker)? else { return Ok(None) };
    let marker: InstallMarker = codec::decode(&bytes)?;
    let core = roll_forward(ctx, key, &marker)?;
    withdraw_swallowed(ctx, key.range, &core.descriptor, &marker)?;
    Ok(Some(core))
}

/// What a snapshot brought is of its replica alone.
fn withdraw_swallowed(
    ctx: &StoreContext,
    range: RangeId,
    descriptor: &RangeDescriptor,
    marker: &InstallMarker,
) -> io::Result<()> {
    let gone: Vec<RangeId> = marker.swallowed.iter().map(|(gone, _)| gone.range).collect();
    ctx.spans.take_over((range, descriptor.span.clone()), &gone).map_err(io::Error::other)?;
    let host = ctx.host();
    for range in gone {
        host.as_ref().and_then(|store| store.withdraw(range));
        // Nobody listens in tests and while stopping.
        let _ = ctx.events.send(StoreEvent::ReplicaRemoved { range });
    }
    Ok(())
}

/// Does, or does again, everything after the marker. Blocking.
pub fn roll_forward(
    ctx: &StoreContext,
    key: ReplicaKey,
    marker: &InstallMarker,
) -> Result<Core, StorageError> {
    let StagedSnapshot { header, dir, files, dedup_files } = &marker.staged;
    let swallowed = marker.swallowed.iter().map(|(_, span)| span);
    for span in marker.old_span.iter().chain([&header.descriptor.span]).chain(swallowed) {
        ctx.data.delete_span(span)?;
    }
    ctx.data.flush()?;
    ctx.faults.install_step(1)?;
    // Links, so that a crash leaves the staged files in place for the next try.
    let links = dir.join("ingest");
    let _ = std::fs::remove_dir_all(&links);
    std::fs::create_dir_all(&links).map_err(StorageError::from)?;
    let mut linked = Vec::with_capacity(files.len());
    for (i, file) in files.iter().enumerate() {
        let path = links.join(format!("{i:06}.sst"));
        std::fs::hard_link(&file.path, &path).map_err(StorageError::from)?;
        linked.push(SnapshotFile { path, ..file.clone() });
    }
    ctx.data.ingest(&linked)?;
    ctx.faults.install_step(2)?;
    let mut batch = DataBatch::new();
    batch.put_local(&LocalKey::Descriptor(key.range), &codec::encode(&header.descriptor));
    batch.put_local(&LocalKey::Applied(key.range), &codec::encode(&header.applied));
    for (gone, _) in &marker.swallowed {
        batch.delete_local(&LocalKey::Descriptor(gone.range));
        batch.delete_local(&LocalKey::Applied(gone.range));
    }
    for path in dedup_files {
        let bytes = std::fs::read(path).map_err(StorageError::from)?;
        let records: Vec<DedupRecord> = codec::decode(&bytes)?;
        for (origin, ts, row) in records {
            batch.put_local(&LocalKey::Dedup { origin, ts }, &row);
        }
    }
    ctx.data.write(batch)?;
    ctx.data.flush()?;
    ctx.faults.install_step(3)?;
    for (gone, _) in &marker.swallowed {
        clear_away(ctx, *gone).map_err(StorageError::from)?;
    }
    if let Some(log_id) = header.applied.log_id {
        // On disk with the end of the marker: from then on a log that ends before what is applied
        // has lost something.
        let (upto, purged) = (log_id.index, encode_message(&log_id));
        ctx.log.submit(LogOp::Purge { replica: key, upto, purged });
    }
    put_state(ctx, key, None).map_err(StorageError::from)?;
    let _ = std::fs::remove_dir_all(dir);
    Core::load(&ctx.data, key.range)?
        .ok_or_else(|| StorageError::from(io::Error::other("an installed range is not there")))
}

/// Sets or clears the install marker, synced. Blocking.
fn put_state(ctx: &StoreContext, replica: ReplicaKey, marker: Option<Vec<u8>>) -> io::Result<()> {
    let (sender, done) = std::sync::mpsc::channel();
    let done_op: isotherm_storage::Done = Box::new(move |result| {
        let _ = sender.send(result);
    });
    let kind = StateKind::InstallMarker;
    ctx.log.submit(match marker {
        Some(bytes) => LogOp::PutState { replica, kind, bytes, done: done_op },
        None => LogOp::DeleteState { replica, kind, done: done_op },
    });
    done.recv().map_err(io::Error::other)?.map_err(io::Error::other)
}
