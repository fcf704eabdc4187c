//! The one thread that writes the log.

use super::engine::{Done, LogOp, LogRecord, ReplicaKey, StateKind};
use super::keys;
use super::options::LogOptions;
use super::pending::{Pending, Seq};
use crate::metrics as names;
use crate::{Result, StorageError};
use parking_lot::Mutex;
use rocksdb::{DB, WriteBatch, WriteOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// What the writer is sent.
pub(super) enum Message {
    Op(Seq, LogOp),
    NodeState { key: Vec<u8>, bytes: Vec<u8>, done: Done },
    Stop,
}

/// Drains everything that waits into one batch, syncs once, calls every callback; again.
///
/// It holds no lock while it writes and syncs.
pub(super) struct Writer {
    pub db: Arc<DB>,
    pub queue: Receiver<Message>,
    pub pending: Arc<Mutex<Pending>>,
    pub options: LogOptions,
    /// In microseconds: [`LogOptions::sync_delay`], as it may be changed later.
    pub sync_delay_us: Arc<AtomicU64>,
}

/// What one sync covers.
#[derive(Default)]
struct Group {
    batch: WriteBatch,
    ops: Vec<(Option<Seq>, Ended)>,
    bytes: usize,
    appends: u64,
    is_synced: bool,
}

/// An operation in the batch, kept for what follows the write.
enum Ended {
    Op(LogOp),
    NodeState(Done),
}

impl Writer {
    /// Runs until told to stop, or until a write fails.
    pub fn run(self) {
        let mut failed: Option<Arc<StorageError>> = None;
        let mut stop = false;
        while !stop {
            let Ok(first) = self.queue.recv() else { return };
            let mut group = Group::default();
            stop = group.take(first);
            while !stop && !group.is_full(&self.options) {
                let Ok(next) = self.queue.try_recv() else { break };
                stop = group.take(next);
            }
            metrics::gauge!(names::LOG_QUEUE_BYTES).decrement(group.bytes as f64);
            if failed.is_none()
                && let Err(error) = self.write(&mut group)
            {
                // First of all: nothing may be acknowledged, or tried again, after this.
                (self.options.on_fatal)(&error);
                failed = Some(Arc::new(error));
            }
            self.finish(group, failed.as_ref());
        }
        // Whatever raced with the stop is answered, not dropped.
        while let Ok(late) = self.queue.try_recv() {
            let done = match late {
                Message::Op(_, op) => op.into_done(),
                Message::NodeState { done, .. } => Some(done),
                Message::Stop => None,
            };
            if let Some(done) = done {
                done(Err(Arc::new(StorageError::Closed)));
            }
        }
    }

    fn write(&self, group: &mut Group) -> Result<()> {
        if group.ops.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        #[cfg(feature = "faults")]
        let is_synced = group.is_synced && !self.options.skip_sync;
        #[cfg(not(feature = "faults"))]
        let is_synced = group.is_synced;
        if is_synced {
            let delay = Duration::from_micros(self.sync_delay_us.load(Ordering::Relaxed));
            if !delay.is_zero() {
                std::thread::sleep(delay);
            }
            if group.batch.is_empty() {
                // Only barriers: an empty write would not reach the file, and what unsynced
                // operations left there is part of what a barrier promises.
                self.db.flush_wal(true)?;
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(is_synced);
        self.db.write_opt(std::mem::take(&mut group.batch), &options)?;
        metrics::counter!(names::LOG_APPENDS).increment(group.appends);
        metrics::counter!(names::LOG_BYTES).increment(group.bytes as u64);
        if is_synced {
            metrics::counter!(names::LOG_SYNCS).increment(1);
            let seconds = started.elapsed().as_secs_f64();
            metrics::histogram!(names::LOG_SYNC_SECONDS).record(seconds);
        }
        Ok(())
    }

    fn finish(&self, group: Group, failed: Option<&Arc<StorageError>>) {
        if failed.is_none() {
            let mut pending = self.pending.lock();
            for (seq, ended) in &group.ops {
                if let (Some(seq), Ended::Op(op)) = (seq, ended) {
                    pending.written(*seq, op);
                }
            }
        }
        for (_, ended) in group.ops {
            let done = match ended {
                Ended::Op(op) => op.into_done(),
                Ended::NodeState(done) => Some(done),
            };
            if let Some(done) = done {
                done(match failed {
                    Some(error) => Err(error.clone()),
                    None => Ok(()),
                });
            }
        }
    }
}

impl Group {
    fn is_full(&self, options: &LogOptions) -> bool {
        self.ops.len() >= options.ops_max || self.bytes >= options.bytes_max
    }

    /// Adds what a message asks for; whether it was the last.
    fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Stop => return true,
            Message::NodeState { key, bytes, done } => {
                self.batch.put(key, bytes);
                self.is_synced = true;
                self.ops.push((None, Ended::NodeState(done)));
            }
            Message::Op(seq, op) => {
                self.bytes += op.size_bytes();
                self.is_synced |= op.is_synced();
                self.add(&op);
                self.ops.push((Some(seq), Ended::Op(op)));
            }
        }
        false
    }

    fn add(&mut self, op: &LogOp) {
        let batch = &mut self.batch;
        let mut delete_from = |replica: &ReplicaKey, from| {
            batch.delete_range(&keys::entry(*replica, from)[..], &keys::entries_end(*replica));
        };
        match op {
            LogOp::Append { replica, records, .. } => {
                self.appends += records.len() as u64;
                for LogRecord { index, bytes } in records {
                    batch.put(keys::entry(*replica, *index), bytes);
                }
            }
            LogOp::Vote { replica, bytes, .. } => {
                batch.put(keys::state(*replica, StateKind::Vote), bytes);
            }
            LogOp::Committed { replica, bytes } => {
                batch.put(keys::state(*replica, StateKind::Committed), bytes);
            }
            LogOp::TruncateAfter { replica, index, .. } => {
                if let Some(from) = index.checked_add(1) {
                    delete_from(replica, from);
                }
            }
            LogOp::Purge { replica, upto, purged } => {
                let end = keys::entry(*replica, upto.saturating_add(1));
                batch.delete_range(keys::entry(*replica, 0), end);
                batch.put(keys::state(*replica, StateKind::Purged), purged);
            }
            LogOp::PutState { replica, kind, bytes, .. } => {
                batch.put(keys::state(*replica, *kind), bytes);
            }
            LogOp::DeleteState { replica, kind, .. } => {
                batch.delete(keys::state(*replica, *kind));
            }
            LogOp::DeleteReplica { replica, keep, .. } => {
                delete_from(replica, 0);
                for kind in StateKind::ALL.into_iter().filter(|kind| !keep.contains(kind)) {
                    batch.delete(keys::state(*replica, kind));
                }
            }
            LogOp::Barrier { .. } => {}
        }
    }
}
