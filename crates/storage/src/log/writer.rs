//! The one thread that writes the log.

use super::engine::{Done, LogOp, LogRecord, ReplicaKey, StateKind};
use super::groups::{Mark, Secret};
use super::keys;
use super::options::LogOptions;
use super::pending::{Pending, Seq};
use super::progress::Progress;
use crate::metrics as names;
use crate::{Result, StorageError};
use parking_lot::Mutex;
use rocksdb::{DB, WriteBatch, WriteOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// A log that is idle for that long says which group was synced last.
const IDLE: Duration = Duration::from_millis(100);

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
    pub progress: Arc<Progress>,
    pub secret: Secret,
    pub numbers: Numbers,
}

/// Numbers of groups (`groups.rs`).
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Numbers {
    /// The last group that was written.
    pub written: u64,
    /// The last one that is on disk.
    pub durable: u64,
    /// The last of which a later group says so.
    pub said: u64,
}

/// What one sync covers.
#[derive(Default)]
struct Group {
    ops: Vec<(Option<Seq>, Ended)>,
    bytes: usize,
    appends: u64,
    is_synced: bool,
}

/// An operation in the batch, kept for what follows the write.
enum Ended {
    Op(LogOp),
    NodeState { key: Vec<u8>, bytes: Vec<u8>, done: Done },
}

impl Writer {
    /// Runs until told to stop, or until a write fails.
    pub fn run(mut self) {
        let mut failed: Option<Arc<StorageError>> = None;
        let mut stop = false;
        while !stop {
            let owes = failed.is_none() && self.numbers.said < self.numbers.durable;
            let first = match if owes { self.queue.recv_timeout(IDLE) } else { self.next() } {
                Ok(first) => first,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    // Not synced: nobody waits for it.
                    if let Err(error) = self.write(&mut Group::default()) {
                        failed = Some(self.fail(error));
                    }
                    continue;
                }
            };
            let mut group = Group::default();
            stop = group.take(first);
            while !stop && !group.is_full(&self.options) {
                let Ok(next) = self.queue.try_recv() else { break };
                stop = group.take(next);
            }
            metrics::gauge!(names::LOG_QUEUE_BYTES).decrement(group.bytes as f64);
            if failed.is_none()
                && !group.ops.is_empty()
                && let Err(error) = self.write(&mut group)
            {
                failed = Some(self.fail(error));
            }
            self.finish(group, failed.as_ref());
        }
        let owes = failed.is_none() && self.numbers.said < self.numbers.durable;
        if owes && let Err(error) = self.write(&mut Group::default()) {
            self.fail(error);
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

    fn next(&self) -> std::result::Result<Message, RecvTimeoutError> {
        self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
    }

    /// First of all: nothing may be acknowledged, or tried again, after this.
    fn fail(&self, error: StorageError) -> Arc<StorageError> {
        (self.options.on_fatal)(&error);
        Arc::new(error)
    }

    fn write(&mut self, group: &mut Group) -> Result<()> {
        let started = Instant::now();
        let progress = self.progress.clone();
        let _writing = progress.begin();
        #[cfg(feature = "faults")]
        let is_synced = group.is_synced && !self.options.skip_sync;
        #[cfg(not(feature = "faults"))]
        let is_synced = group.is_synced;
        if is_synced {
            let delay = Duration::from_micros(self.sync_delay_us.load(Ordering::Relaxed));
            if !delay.is_zero() {
                std::thread::sleep(delay);
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(is_synced);
        let number = self.numbers.written + 1;
        let mut batch = WriteBatch::default();
        Mark { secret: self.secret, number, durable: self.numbers.durable }.begin(&mut batch);
        group.add_all(&mut batch);
        // Also without anything to write, a mark reaches the file, and what unsynced operations left
        // there is part of what a barrier promises.
        self.db.write_opt(batch, &options)?;
        self.numbers = Numbers {
            written: number,
            durable: if is_synced { number } else { self.numbers.durable },
            said: self.numbers.durable,
        };
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
                Ended::NodeState { done, .. } => Some(done),
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
                self.is_synced = true;
                self.ops.push((None, Ended::NodeState { key, bytes, done }));
            }
            Message::Op(seq, op) => {
                self.bytes += op.size_bytes();
                self.is_synced |= op.is_synced();
                if let LogOp::Append { records, .. } = &op {
                    self.appends += records.len() as u64;
                }
                self.ops.push((Some(seq), Ended::Op(op)));
            }
        }
        false
    }

    /// Puts what it covers into `batch`, in order.
    fn add_all(&self, batch: &mut WriteBatch) {
        for (_, ended) in &self.ops {
            match ended {
                Ended::Op(op) => add(batch, op),
                Ended::NodeState { key, bytes, .. } => batch.put(key, bytes),
            }
        }
    }
}

fn add(batch: &mut WriteBatch, op: &LogOp) {
    match op {
        LogOp::Append { replica, records, .. } => {
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
                delete_from(batch, *replica, from);
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
            delete_from(batch, *replica, 0);
            for kind in StateKind::ALL.into_iter().filter(|kind| !keep.contains(kind)) {
                batch.delete(keys::state(*replica, kind));
            }
        }
        LogOp::Barrier { .. } => {}
    }
}

fn delete_from(batch: &mut WriteBatch, replica: ReplicaKey, from: u64) {
    batch.delete_range(&keys::entry(replica, from)[..], &keys::entries_end(replica));
}
