//! Streaming a snapshot: the sender's chunks and the receiver's staging.
//!
//! Wire, one message per chunk, each `[kind: u8][body]`: `HEADER` (bincode of [`Preamble`]), then
//! `SAFE_POINT` (of the sender, when it began to read: older versions may be missing), then for every
//! file `FILE` (column family), `DATA`…, `END` (CRC-32C of the file), then `DEDUP`
//! (bincode of rows of remembered results)…, and `DONE` (the number of files). A stream that
//! ends without `DONE` is thrown away.

use super::snapshot::{DedupRecord, Outgoing, SnapshotData, SnapshotHeader};
use super::{Instance, Replica, StagedSnapshot};
use crate::network::SnapshotSender;
use crate::sender::{FrameHeader, SendError};
use crate::sizes::{STAGED_FILES_MAX, SWALLOWED_MAX};
use crate::store::{Claim, Room, StoreContext, ask_for_room};
use crate::type_config::{Snapshot, SnapshotMeta, SnapshotResponse, Vote};
use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use isotherm_storage::{SnapshotCf, SnapshotFile, codec};
use isotherm_types::{NodeId, RangeDescriptor, RangeId, Timestamp};
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const HEADER: u8 = 1;
const FILE: u8 = 2;
const DATA: u8 = 3;
const END: u8 = 4;
const DEDUP: u8 = 5;
const DONE: u8 = 6;
const SAFE_POINT: u8 = 7;

const CHUNK_BYTES: usize = 256 << 10;
/// Chunks read ahead of the network: what a snapshot holds in memory at most.
const CHUNKS_AHEAD: usize = 4;

/// Everything about a snapshot that is not rows.
#[derive(Debug, Serialize, Deserialize)]
pub struct Preamble {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    pub(crate) header: SnapshotHeader,
}

static NEXT_DIR: AtomicU64 = AtomicU64::new(0);

/// Produces the chunks of outgoing snapshots.
pub struct SnapshotSource {
    ctx: Arc<StoreContext>,
}

impl SnapshotSource {
    /// For the replicas of one store.
    pub fn new(ctx: Arc<StoreContext>) -> Self {
        Self { ctx }
    }
}

impl SnapshotSender for SnapshotSource {
    type SnapshotData = SnapshotData;
    type Room = Room;

    fn admit(
        &self,
        to: NodeId,
        header: FrameHeader,
    ) -> BoxFuture<'static, Result<Room, SendError>> {
        let ctx = self.ctx.clone();
        Box::pin(async move { ask_for_room(&ctx, to, header).await })
    }

    fn chunks(
        &self,
        room: Room,
        vote: Vote,
        meta: SnapshotMeta,
        data: SnapshotData,
    ) -> io::Result<BoxStream<'static, Bytes>> {
        let SnapshotData::Outgoing(outgoing) = data else {
            return Err(io::Error::other("only the current snapshot can be sent"));
        };
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let ctx = self.ctx.clone();
        tokio::task::spawn_blocking(move || {
            // Until the last file is read and deleted.
            let _room = room;
            let dir = new_dir(&ctx, "out");
            let sent = dir.and_then(|dir| {
                let sent = produce(&ctx, &dir, vote, meta, *outgoing, &sender);
                let _ = std::fs::remove_dir_all(&dir);
                sent
            });
            if let Err(error) = sent {
                // The stream ends without `DONE`: the receiver throws it away. One that is down, or
                // busy with other snapshots, is asked again and again: nothing to wake anybody for.
                if error.kind() == io::ErrorKind::BrokenPipe {
                    tracing::debug!(error = %error, "a snapshot was not taken");
                } else {
                    tracing::warn!(error = %error, "a snapshot was not sent to its end");
                }
            }
        });
        Ok(ReceiverStream::new(chunks).boxed())
    }
}

fn new_dir(ctx: &StoreContext, what: &str) -> io::Result<PathBuf> {
    let number = NEXT_DIR.fetch_add(1, Ordering::Relaxed);
    let dir = ctx.staging.join(format!("{what}-{number}"));
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn chunk(kind: u8, body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(body.len() + 1);
    bytes.put_u8(kind);
    bytes.put_slice(body);
    bytes.freeze()
}

fn produce(
    ctx: &StoreContext,
    dir: &std::path::Path,
    vote: Vote,
    meta: SnapshotMeta,
    outgoing: Outgoing,
    sender: &mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let sent_bytes = metrics::counter!("isotherm_snapshot_sent_bytes_total");
    let send = |kind, body: &[u8]| {
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the receiver went away");
        sender.blocking_send(chunk(kind, body)).map_err(gone)?;
        sent_bytes.increment(body.len() as u64);
        Ok::<_, io::Error>(())
    };
    let Outgoing { header, data } = outgoing;
    let export = data.export(&header.descriptor.span, dir, ctx.tuning.snapshot_file_bytes);
    // After its iterators were made: whatever they lack was dropped under this one or a lower one.
    let safe_point = ctx.data.safe_point();
    send(HEADER, &codec::encode(&Preamble { vote, meta, header: header.clone() }))?;
    send(SAFE_POINT, &codec::encode(&safe_point))?;
    let mut files = 0u32;
    let mut buffer = vec![0; CHUNK_BYTES];
    for file in export {
        let file = file.map_err(|error| {
            let host = ctx.host().and_then(|store| store.replica(header.descriptor.id));
            host.inspect(|replica| replica.disk_failed(&error));
            io::Error::other(error)
        })?;
        send(FILE, &[file.cf as u8])?;
        let mut reader = std::fs::File::open(&file.path)?;
        let mut crc = 0;
        loop {
            let n = reader.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            crc = crc32c::crc32c_append(crc, &buffer[..n]);
            ctx.snapshot_pace.pass(n);
            send(DATA, &buffer[..n])?;
        }
        send(END, &crc.to_be_bytes())?;
        std::fs::remove_file(&file.path)?;
        files += 1;
    }
    let memory = &header.applied.memory;
    let own = (header.descriptor.id, Timestamp::MAX);
    let mut records: Vec<DedupRecord> = Vec::new();
    let mut bytes = 0;
    for (origin, upto) in memory.origins.iter().map(|o| (o.range, o.upto)).chain([own]) {
        for row in data.dedup_rows(origin, memory.floor) {
            let (ts, row) = row.map_err(io::Error::other)?;
            if ts > upto {
                break;
            }
            bytes += row.len();
            records.push((origin, ts, row));
            if bytes > CHUNK_BYTES {
                send(DEDUP, &codec::encode(&std::mem::take(&mut records)))?;
                bytes = 0;
            }
        }
    }
    send(DEDUP, &codec::encode(&records))?;
    send(DONE, &files.to_be_bytes())
}

/// Receives a snapshot for `replica`: reserves its span, stages it on disk, has it installed.
/// `Ok` is a promise that it is installed.
pub async fn receive(
    replica: &Arc<Replica>,
    instance: &Instance,
    mut chunks: BoxStream<'static, Result<Bytes, SendError>>,
) -> Result<Bytes, String> {
    let first = next(&mut chunks).await?;
    let body = first.strip_prefix(&[HEADER]).ok_or("a snapshot starts with its header")?;
    let preamble: Preamble = codec::decode(body).map_err(|e| e.to_string())?;
    let header = &preamble.header;
    if header.descriptor.id != replica.range {
        return Err("a snapshot of another range".into());
    }
    if header.descriptor.replica(replica.id).is_none() {
        // Its leader has not applied yet that this replica was added: the next one will name it.
        return Err("the snapshot is from before this replica was added".into());
    }
    // Before anything is staged: a span that overlaps another range here is refused, and openraft
    // sees a transport error, not a success.
    let spans = &replica.ctx.spans;
    let swallowed = Swallowed::end(replica, &header.descriptor).await?;
    let reserved = spans.reserve_over(replica.range, &header.descriptor.span, &swallowed.ranges());
    if replica.ctx.faults.promise_snapshots() == 1 && reserved.is_err() {
        let response = SnapshotResponse::new(preamble.vote);
        return Ok(codec::encode(&response).into());
    }
    reserved.map_err(|e| e.to_string())?;
    let mut staging = Staging { replica: replica.clone(), dir: None, is_installing: false };
    let dir = new_dir(&replica.ctx, "in").map_err(|e| e.to_string())?;
    staging.dir = Some(dir.clone());
    let (staged, safe_point) = stage(header.clone(), dir, &mut chunks).await?;
    raise(&replica.ctx, safe_point).await?;
    let snapshot =
        Snapshot { meta: preamble.meta, snapshot: SnapshotData::Staged(Box::new(staged)) };
    staging.is_installing = true;
    let installed = instance.raft.install_full_snapshot(preamble.vote, snapshot).await;
    let response = installed.map_err(|e| e.to_string())?;
    // It is installed, or was no news to openraft: then nothing else clears it away.
    staging.is_installing = false;
    let _ = tokio::task::spawn_blocking(move || drop(staging)).await;
    drop(swallowed);
    Ok(codec::encode(&response).into())
}

/// The span that is reserved and the files that are staged for a snapshot on its way. Dropped, both are
/// given up: the replica has what it had before, which never overlaps anything. Not so while it is being
/// installed: that goes on when whoever waited for it is gone, and one that was cut off needs the files.
struct Staging {
    replica: Arc<Replica>,
    dir: Option<PathBuf>,
    is_installing: bool,
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.is_installing {
            return;
        }
        if let Some(dir) = &self.dir {
            // An install removes it itself.
            let _ = std::fs::remove_dir_all(dir);
        }
        // Under the core's lock: a split that is just applied changes spans and descriptor together.
        let core = self.replica.core.lock();
        self.replica.ctx.spans.restore(self.replica.range, &core.descriptor.span);
    }
}

/// Replicas here whose range the sender's range has absorbed: the snapshot brings what became of their
/// rows. They are ended, and nobody else touches them until the snapshot is installed or given up. Their
/// own rows stay until then: without it this replica comes to the merge in its log and needs them.
struct Swallowed {
    replicas: Vec<(Arc<Replica>, Claim)>,
}

impl Swallowed {
    async fn end(replica: &Replica, by: &RangeDescriptor) -> Result<Self, String> {
        let store = replica.ctx.host().ok_or("the store is ending")?;
        let mut replicas = Vec::new();
        let all = store.superseded_by(by);
        check_swallowed(all.len())?;
        for gone in all {
            let claim = store.claim(gone.range);
            let claim = claim.ok_or("a merged range is just being created or destroyed here")?;
            tracing::info!(range_id = %gone.range, by = %by.id, "replica ended: a snapshot of the range that absorbed its range is on its way");
            gone.end().await;
            replicas.push((gone, claim));
        }
        Ok(Self { replicas })
    }

    fn ranges(&self) -> Vec<RangeId> {
        self.replicas.iter().map(|(replica, _)| replica.range).collect()
    }
}

/// Before the install: whoever reads here must not miss what the sender had dropped.
async fn raise(ctx: &Arc<StoreContext>, to: Timestamp) -> Result<(), String> {
    let ctx = ctx.clone();
    let raised = tokio::task::spawn_blocking(move || ctx.raise_safe_point(to)).await;
    raised.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

async fn next(chunks: &mut BoxStream<'static, Result<Bytes, SendError>>) -> Result<Bytes, String> {
    match chunks.next().await {
        Some(Ok(chunk)) => Ok(chunk),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("the snapshot ended early".into()),
    }
}

/// The marker of an install names all files: so many at most.
fn check_count(so_far: usize) -> Result<(), String> {
    if so_far < STAGED_FILES_MAX {
        return Ok(());
    }
    Err(format!("a snapshot has more than {STAGED_FILES_MAX} files of one kind"))
}

/// The marker of an install names them as well.
fn check_swallowed(count: usize) -> Result<(), String> {
    if count <= SWALLOWED_MAX {
        return Ok(());
    }
    // The word of meta destroys them one by one meanwhile.
    Err(format!("{count} ranges that were absorbed are still here"))
}

async fn stage(
    header: SnapshotHeader,
    dir: PathBuf,
    chunks: &mut BoxStream<'static, Result<Bytes, SendError>>,
) -> Result<(StagedSnapshot, Timestamp), String> {
    let io = |e: io::Error| format!("staging a snapshot failed: {e}");
    let applied = header.applied.checked().map_err(|e| e.to_string())?;
    let header = SnapshotHeader { applied, ..header };
    let mut staged =
        StagedSnapshot { header, dir: dir.clone(), files: Vec::new(), dedup_files: Vec::new() };
    let mut open: Option<(tokio::fs::File, SnapshotFile, u32)> = None;
    let mut safe_point = None;
    loop {
        let chunk = next(chunks).await?;
        let (kind, body) = chunk.split_first().ok_or("an empty chunk")?;
        match (*kind, open.take()) {
            (SAFE_POINT, None) if staged.files.is_empty() => {
                safe_point = Some(codec::decode(body).map_err(|e| e.to_string())?);
            }
            (FILE, None) => {
                let cf = body.first().copied().and_then(SnapshotCf::from_u8);
                let cf = cf.ok_or("a file of an unknown column family")?;
                let path = dir.join(format!("{:06}.sst", staged.files.len()));
                let file = tokio::fs::File::create(&path).await.map_err(io)?;
                open = Some((file, SnapshotFile { cf, path, bytes: 0 }, 0));
            }
            (DATA, Some((mut file, mut entry, crc))) => {
                file.write_all(body).await.map_err(io)?;
                entry.bytes += body.len() as u64;
                open = Some((file, entry, crc32c::crc32c_append(crc, body)));
            }
            (END, Some((mut file, entry, crc))) => {
                check_count(staged.files.len())?;
                if body != crc.to_be_bytes() {
                    return Err("a file of the snapshot was damaged on its way".into());
                }
                file.flush().await.map_err(io)?;
                file.sync_all().await.map_err(io)?;
                staged.files.push(entry);
            }
            (DEDUP, None) => {
                check_count(staged.dedup_files.len())?;
                let path = dir.join(format!("{:06}.rows", staged.dedup_files.len()));
                let mut file = tokio::fs::File::create(&path).await.map_err(io)?;
                file.write_all(body).await.map_err(io)?;
                file.sync_all().await.map_err(io)?;
                staged.dedup_files.push(path);
            }
            (DONE, None) => {
                if body != (staged.files.len() as u32).to_be_bytes() {
                    return Err("files of the snapshot are missing".into());
                }
                let synced = std::fs::File::open(&dir).and_then(|d| d.sync_all());
                synced.map_err(io)?;
                let safe_point = safe_point.ok_or("the snapshot names no safe point")?;
                return Ok((staged, safe_point));
            }
            (kind, _) => return Err(format!("chunk {kind} is out of place")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_too_many_is_refused() {
        assert!(check_count(STAGED_FILES_MAX - 1).is_ok(), "the last one");
        let refused = check_count(STAGED_FILES_MAX);
        assert!(refused.is_err_and(|why| why.contains("more than 16384 files")));
    }

    #[test]
    fn one_absorbed_range_too_many_is_refused() {
        assert!(check_swallowed(SWALLOWED_MAX).is_ok(), "as many as the marker has room for");
        let refused = check_swallowed(SWALLOWED_MAX + 1);
        assert!(refused.is_err_and(|why| why.starts_with("1025 ranges")));
    }
}
