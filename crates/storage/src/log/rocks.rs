//! The log engine over RocksDB.

use super::engine::{LogEngine, LogOp, LogRecord, ReplicaKey, StateKind};
use super::groups::{self, Opened};
use super::options::LogOptions;
use super::pending::{Overlay, Pending};
use super::progress::Progress;
use super::writer::{Message, Numbers, Writer};
use super::{files, keys};
use crate::metrics as names;
use crate::{Result, StorageError};
use bytes::Bytes;
use parking_lot::Mutex;
use rocksdb::{DB, DBRawIterator, ReadOptions, Snapshot};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// A [`LogEngine`] in one RocksDB instance, whose write-ahead file is the log that is synced.
pub struct RocksLog {
    db: Arc<DB>,
    pending: Arc<Mutex<Pending>>,
    queue: Sender<Message>,
    sync_delay_us: Arc<AtomicU64>,
    progress: Arc<Progress>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for RocksLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksLog").field("path", &self.db.path()).finish_non_exhaustive()
    }
}

impl RocksLog {
    /// Opens the log in `dir`, creating it if there is none, and starts its writer thread.
    pub fn open(dir: &Path, options: LogOptions) -> Result<Self> {
        let Opened { db, secret, last } =
            groups::open(dir, &options.database(), options.accepts_loss)?;
        let db = Arc::new(db);
        if options.prepares_files {
            files::prepare(&db, dir, options.write_buffer_bytes)?;
        }
        // Unbounded, and bounded all the same: each group has a few entries in flight. Blocking a
        // group here would block the task that its elections run in.
        let (queue, receiver) = mpsc::channel();
        let pending = Arc::new(Mutex::new(Pending::default()));
        let sync_delay_us = Arc::new(AtomicU64::new(micros(options.sync_delay)));
        let progress = Arc::new(Progress::new());
        let writer = Writer {
            db: db.clone(),
            queue: receiver,
            pending: pending.clone(),
            options,
            sync_delay_us: sync_delay_us.clone(),
            progress: progress.clone(),
            secret,
            numbers: Numbers { written: last, durable: last, said: last },
        };
        let writer = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || isotherm_task::guarded_thread("log writer", || writer.run()))?;
        Ok(Self { db, pending, queue, sync_delay_us, progress, writer: Mutex::new(Some(writer)) })
    }

    /// Waits until nothing runs in the background: its files stay as they are until the next write.
    #[cfg(test)]
    pub(super) fn settle(&self) -> Result<()> {
        Ok(self.db.wait_for_compact(&rocksdb::WaitForCompactOptions::default())?)
    }

    /// Sets [`LogOptions::sync_delay`] while running.
    pub fn set_sync_delay(&self, delay: Duration) {
        self.sync_delay_us.store(micros(delay), Ordering::Relaxed);
    }

    /// An iterator over the entries of `r` in `[from, to)` as `snapshot` has them.
    fn iter<'a>(
        snapshot: &'a Snapshot<'a>,
        r: ReplicaKey,
        from: u64,
        to: u64,
    ) -> DBRawIterator<'a> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(keys::entry(r, from));
        // `to` at its maximum means "to the end": an index that high is never reached.
        options.set_iterate_upper_bound(keys::entry(r, to));
        snapshot.raw_iterator_opt(options)
    }
}

fn micros(delay: Duration) -> u64 {
    u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)
}

fn record(iter: &DBRawIterator<'_>) -> Result<Option<LogRecord>> {
    match iter.item() {
        Some((key, value)) => {
            let bytes = Bytes::copy_from_slice(value);
            Ok(Some(LogRecord { index: keys::index_of(key)?, bytes }))
        }
        None => {
            iter.status()?;
            Ok(None)
        }
    }
}

/// The start of `records` that has at most `bytes_max` bytes, and at least one record.
fn limit(records: impl Iterator<Item = LogRecord>, bytes_max: usize) -> Vec<LogRecord> {
    let mut bytes = 0;
    let mut out = Vec::new();
    for record in records {
        bytes += record.bytes.len();
        if bytes > bytes_max && !out.is_empty() {
            break;
        }
        out.push(record);
    }
    out
}

impl LogEngine for RocksLog {
    fn submit(&self, op: LogOp) {
        metrics::gauge!(names::LOG_QUEUE_BYTES).increment(op.size_bytes() as f64);
        // Numbered and queued as one step, so that the order is the same here and at the writer.
        let mut pending = self.pending.lock();
        let seq = pending.submit(&op);
        let sent = self.queue.send(Message::Op(seq, op));
        drop(pending);
        if let Err(returned) = sent
            && let Message::Op(_, op) = returned.0
            && let Some(done) = op.into_done()
        {
            done(Err(Arc::new(StorageError::Closed)));
        }
    }

    fn entries(
        &self,
        r: ReplicaKey,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<Vec<LogRecord>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let pending = self.pending.lock();
        let Overlay { mut rows, cut, first } = pending.overlay(r, from, to);
        let from = from.max(first);
        let as_records = |rows: std::collections::BTreeMap<u64, Bytes>| {
            limit(rows.into_iter().map(|(index, bytes)| LogRecord { index, bytes }), bytes_max)
        };
        if rows.contains_key(&from) && rows.len() as u64 == to.saturating_sub(from) {
            // The usual case while entries are replicated as they are appended.
            drop(pending);
            return Ok(as_records(rows));
        }
        let snapshot = self.db.snapshot();
        drop(pending);
        let mut iter = Self::iter(&snapshot, r, from, to.min(cut).max(from));
        iter.seek_to_first();
        let mut bytes = 0;
        while bytes <= bytes_max
            && let Some(found) = record(&iter)?
        {
            bytes += found.bytes.len();
            rows.entry(found.index).or_insert(found.bytes);
            iter.next();
        }
        Ok(as_records(rows))
    }

    fn last(&self, r: ReplicaKey) -> Result<Option<LogRecord>> {
        let pending = self.pending.lock();
        let (last, Overlay { cut, first, .. }) = pending.last(r);
        let snapshot = self.db.snapshot();
        drop(pending);
        let mut iter = Self::iter(&snapshot, r, first, cut.max(first));
        iter.seek_to_last();
        let written = record(&iter)?;
        Ok(match (last, written) {
            (Some(last), Some(written)) if written.index > last.index => Some(written),
            (last, written) => last.or(written),
        })
    }

    fn first_index(&self, r: ReplicaKey) -> Result<Option<u64>> {
        let pending = self.pending.lock();
        let (pending_first, Overlay { cut, first, .. }) = pending.first(r);
        let snapshot = self.db.snapshot();
        drop(pending);
        let mut iter = Self::iter(&snapshot, r, first, cut.max(first));
        iter.seek_to_first();
        let written = record(&iter)?.map(|record| record.index);
        Ok([pending_first, written].into_iter().flatten().min())
    }

    fn state(&self, r: ReplicaKey, kind: StateKind) -> Result<Option<Vec<u8>>> {
        Ok(self.db.get(keys::state(r, kind))?)
    }

    fn replicas(&self) -> Result<Vec<ReplicaKey>> {
        let mut found = BTreeSet::new();
        let mut iter = self.db.raw_iterator();
        for first in [keys::first_state(), keys::first_entry()] {
            iter.seek(first);
            while let Some(key) = iter.key()
                && key.starts_with(&first)
            {
                let Some(replica) = keys::replica_of(key) else {
                    let why = format!("{}", key.escape_ascii());
                    return Err(StorageError::corrupt("log key", why));
                };
                found.insert(replica);
                let next = keys::after_replica(key);
                iter.seek(next);
            }
            iter.status()?;
        }
        Ok(found.into_iter().collect())
    }

    fn node_state(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.db.get(keys::node(key))?)
    }

    fn put_node_state(&self, key: &str, bytes: Vec<u8>) -> Result<()> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let done = Box::new(move |result| {
            let _ = sender.send(result);
        });
        let message = Message::NodeState { key: keys::node(key), bytes, done };
        self.queue.send(message).map_err(|_| StorageError::Closed)?;
        match receiver.recv() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(StorageError::Io(std::io::Error::other(error))),
            Err(_) => Err(StorageError::Closed),
        }
    }

    fn waiting(&self) -> Duration {
        self.progress.waiting()
    }

    fn close(&self) {
        let Some(writer) = self.writer.lock().take() else { return };
        let _ = self.queue.send(Message::Stop);
        if writer.join().is_err() {
            tracing::error!("the log writer panicked");
        }
    }
}

impl Drop for RocksLog {
    fn drop(&mut self) {
        self.close();
    }
}
