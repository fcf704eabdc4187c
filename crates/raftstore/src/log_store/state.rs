//! What all handles of one log share.

use super::sizes::LogSizes;
use super::tail::Tail;
use crate::entry_codec::{encode_entry, encode_message};
use crate::type_config::{Entry, IoFlushed, LogId, Vote};
use isotherm_storage::{Done, LogEngine, LogOp, LogRecord, ReplicaKey};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use tokio::sync::watch;

/// Bytes of entries that one log keeps in memory, beside what is not on disk yet.
const TAIL_BYTES_MAX: usize = 4 << 20;
/// The same, while all logs of the process together hold more than [`TAILS_BYTES_MAX`].
const TAIL_BYTES_MIN: usize = 64 << 10;
/// Bytes in memory over all logs from which each keeps only the minimum.
const TAILS_BYTES_MAX: i64 = 256 << 20;

/// Bytes in memory over all logs of the process.
static TAILS_BYTES: AtomicI64 = AtomicI64::new(0);

/// One log, shared by its store, its readers and its views.
pub(super) struct Shared {
    pub(super) engine: Arc<dyn LogEngine>,
    pub(super) key: ReplicaKey,
    /// Of the replica; raised when a newer instance takes over.
    pub(super) generation: Arc<AtomicU64>,
    /// Of this instance.
    pub(super) own_generation: u64,
    pub(super) state: Mutex<State>,
    /// A part of it cannot be read.
    pub(super) is_damaged: AtomicBool,
    /// Index up to which the log is durable here; what a snapshot or the recovered log covers is.
    pub(super) flushed: watch::Sender<u64>,
}

/// The log as it is in memory: what is submitted counts as done.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    /// `committed` is newer than what was submitted.
    pub(super) committed_unsaved: bool,
    pub(super) purged: Option<LogId>,
    /// Where the log began, as long as nothing is purged: an empty log takes any first entry.
    pub(super) start: u64,
    /// The last entry, or what was purged if there is none.
    pub(super) last: Option<LogId>,
    pub(super) tail: Tail,
    pub(super) sizes: LogSizes,
    /// Truncations on their way to the disk: the last index that each leaves. A callback that
    /// arrives now belongs to an append before them, whose entries above are gone.
    pub(super) cuts: VecDeque<u64>,
    /// Truncations so far: a read from disk that one overlapped is done again.
    pub(super) truncations: u64,
    pub(super) closed: bool,
    counted_bytes: usize,
}

impl State {
    /// Index after the last entry.
    pub(super) fn next_index(&self) -> u64 {
        self.last.map_or(0, |id| id.index + 1)
    }

    /// Index of the first entry that there is, or would be.
    pub(super) fn first_index(&self) -> u64 {
        self.purged.map_or(self.start, |id| id.index + 1)
    }

    fn count_bytes(&mut self) {
        let now = self.tail.bytes();
        TAILS_BYTES.fetch_add(now as i64 - self.counted_bytes as i64, Ordering::Relaxed);
        self.counted_bytes = now;
    }
}

impl Drop for State {
    fn drop(&mut self) {
        TAILS_BYTES.fetch_sub(self.counted_bytes as i64, Ordering::Relaxed);
    }
}

impl Shared {
    /// Refuses work of an instance that was replaced.
    pub(super) fn check_owner(&self, state: &State) -> io::Result<()> {
        let newest = self.generation.load(Ordering::Acquire);
        if state.closed || newest != self.own_generation {
            let (range, replica) = (self.key.range, self.key.replica);
            return Err(io::Error::other(format!(
                "instance {} of replica {replica} of {range} was replaced by {newest}",
                self.own_generation
            )));
        }
        Ok(())
    }

    /// Appends `entries` in memory and submits them; `callback` is called after their sync.
    pub(super) fn append(
        self: &Arc<Self>,
        entries: Vec<Entry>,
        callback: IoFlushed,
    ) -> io::Result<()> {
        let Some(first) = entries.first().map(|e| e.log_id) else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let records: Vec<_> = entries
            .iter()
            .map(|e| LogRecord { index: e.log_id.index, bytes: encode_entry(e) })
            .collect();
        let mut state = self.state.lock();
        self.check_owner(&state)?;
        self.check_contiguous(&state, &entries)?;
        if state.last.is_none() {
            state.tail.restart(first.index);
            state.start = first.index;
        }
        let mut last = first.index;
        for (entry, record) in entries.into_iter().zip(&records) {
            last = record.index;
            state.last = Some(entry.log_id);
            state.sizes.push(record.index, record.bytes.len());
            state.tail.push(entry, record.bytes.len());
        }
        self.trim(&mut state);
        let log = self.clone();
        let done: Done = Box::new(move |result| match result {
            Ok(()) => {
                log.note_flushed(last);
                callback.io_completed(Ok(()));
            }
            Err(error) => callback.io_completed(Err(io::Error::other(error))),
        });
        self.submit_committed(&mut state);
        self.engine.submit(LogOp::Append { replica: self.key, records, done });
        Ok(())
    }

    fn check_contiguous(&self, state: &State, entries: &[Entry]) -> io::Result<()> {
        let mut expected = state.last.map(|id| id.index + 1);
        for entry in entries {
            let index = entry.log_id.index;
            if expected.is_some_and(|expected| expected != index) {
                let (range, replica) = (self.key.range, self.key.replica);
                return Err(io::Error::other(format!(
                    "entry {index} does not follow the log of replica {replica} of {range}, \
                     which ends at {:?}",
                    state.last
                )));
            }
            expected = Some(index + 1);
        }
        Ok(())
    }

    /// Submits the commit mark ahead of something that is written anyway.
    pub(super) fn submit_committed(&self, state: &mut State) {
        if std::mem::take(&mut state.committed_unsaved) {
            let bytes = encode_message(&state.committed);
            self.engine.submit(LogOp::Committed { replica: self.key, bytes });
        }
    }

    /// Drops entries from memory that the disk has and that are too many.
    fn trim(&self, state: &mut State) {
        let crowded = TAILS_BYTES.load(Ordering::Relaxed) > TAILS_BYTES_MAX;
        let bytes_max = if crowded { TAIL_BYTES_MIN } else { TAIL_BYTES_MAX };
        let flushed = *self.flushed.borrow();
        state.tail.trim(flushed, bytes_max);
        state.count_bytes();
    }

    /// An append up to `index` was synced.
    fn note_flushed(&self, index: u64) {
        let state = self.state.lock();
        let kept = state.cuts.iter().copied().min().unwrap_or(u64::MAX);
        self.raise_flushed(index.min(kept));
    }

    fn raise_flushed(&self, index: u64) {
        self.flushed.send_if_modified(|flushed| {
            let raised = index > *flushed;
            *flushed = index.max(*flushed);
            raised
        });
    }

    /// Deletes every entry after `last` (all if `None`), in memory and, in order, on disk.
    pub(super) fn truncate_after(self: &Arc<Self>, last: Option<LogId>) -> io::Result<()> {
        let mut state = self.state.lock();
        self.check_owner(&state)?;
        let next = last.map_or(0, |id| id.index + 1).max(state.first_index());
        if next >= state.next_index() {
            return Ok(());
        }
        let kept = next.saturating_sub(1);
        let log = self.clone();
        let done: Done = Box::new(move |result| {
            // Callbacks come in the order of submission: those of what was cut are through. An
            // error may be reported from within `submit`, under our lock, and ends the log anyway.
            if result.is_ok() {
                log.state.lock().cuts.pop_front();
            }
        });
        if next == 0 {
            // "Everything after nothing" has no index: it is a purge that leaves no mark.
            let upto = state.next_index() - 1;
            self.engine.submit(LogOp::Purge { replica: self.key, upto, purged: Vec::new() });
            self.engine.submit(LogOp::Barrier { done });
        } else {
            self.engine.submit(LogOp::TruncateAfter { replica: self.key, index: kept, done });
        }
        state.cuts.push_back(kept);
        state.truncations += 1;
        state.tail.truncate_from(next);
        state.sizes.truncate_from(next);
        state.last = if next == state.first_index() { state.purged } else { last };
        state.count_bytes();
        self.flushed.send_if_modified(|flushed| {
            let lowered = *flushed > kept;
            *flushed = kept.min(*flushed);
            lowered
        });
        Ok(())
    }

    /// Drops every entry up to `upto`, which may lie beyond the last one: at once in memory, later
    /// on disk.
    pub(super) fn purge(&self, upto: LogId) -> io::Result<()> {
        let mut state = self.state.lock();
        self.check_owner(&state)?;
        if state.purged.is_some_and(|purged| purged.index >= upto.index) {
            return Ok(());
        }
        self.submit_committed(&mut state);
        let purged = encode_message(&upto);
        self.engine.submit(LogOp::Purge { replica: self.key, upto: upto.index, purged });
        state.purged = Some(upto);
        if state.last.is_none_or(|last| last.index <= upto.index) {
            state.last = Some(upto);
        }
        let next = upto.index + 1;
        if next > state.tail.first() {
            state.tail.purge_below(next);
        }
        state.sizes.purge_below(next);
        state.count_bytes();
        // Only what a snapshot covers is purged: it needs the log no more.
        self.raise_flushed(upto.index);
        Ok(())
    }
}
