//! openraft's side of the log: reading.
//!
//! What was appended lately comes from memory; what is below comes from disk, on a blocking
//! thread.

use super::state::Shared;
use crate::entry_codec::decode_entry;
use crate::type_config::{Entry, TypeConfig, Vote};
use futures::{Stream, StreamExt, stream};
use openraft::OptionalSend;
use openraft::storage::RaftLogReader;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes of entries that one read for replication, or one step of apply, returns at most (beyond
/// the first entry).
const READ_BYTES_MAX: usize = 1 << 20;

/// Reads one log.
#[derive(Clone)]
pub struct LogReader {
    shared: Arc<Shared>,
}

/// How far a read got.
enum Attempt {
    Read(Vec<Entry>),
    /// A truncation or purge came in between.
    Again,
}

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The entries of `from .. to` that the log has: all of them, or with a byte bound the first
    /// ones, at least one.
    async fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        loop {
            if let Attempt::Read(entries) = self.try_read(from, to, bytes_max).await? {
                return Ok(entries);
            }
        }
    }

    async fn try_read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Attempt> {
        let (from, disk_to, mut newer, truncations) = {
            let state = self.shared.state.lock();
            let (from, to) = (from.max(state.first_index()), to.min(state.next_index()));
            let in_memory = state.tail.first();
            if from >= to {
                return Ok(Attempt::Read(Vec::new()));
            }
            if from >= in_memory {
                return Ok(Attempt::Read(state.tail.read(from, to, bytes_max)));
            }
            // With a bound, what is on disk is enough of an answer.
            let whole = bytes_max == usize::MAX;
            let newer = if whole { state.tail.read(from, to, bytes_max) } else { Vec::new() };
            (from, to.min(in_memory), newer, state.truncations)
        };
        let shared = self.shared.clone();
        let load = move || shared.engine.entries(shared.key, from, disk_to, bytes_max);
        let records = tokio::task::spawn_blocking(load).await.map_err(io::Error::other)?;
        let records = records.map_err(|error| {
            self.note_damage(error.is_damage());
            io::Error::other(error)
        })?;
        let unchanged = {
            let state = self.shared.state.lock();
            state.truncations == truncations && state.first_index() <= from
        };
        if !unchanged {
            return Ok(Attempt::Again);
        }
        let mut entries = Vec::with_capacity(records.len() + newer.len());
        for (expected, record) in (from..).zip(records) {
            if record.index != expected {
                return Err(self.hole(expected));
            }
            entries.push(decode_entry(record.bytes)?);
        }
        let next = from + entries.len() as u64;
        if entries.is_empty() || (bytes_max == usize::MAX && next != disk_to) {
            return Err(self.hole(next));
        }
        // After disk entries only: never a gap between the two.
        if next == disk_to {
            entries.append(&mut newer);
        }
        Ok(Attempt::Read(entries))
    }

    fn note_damage(&self, is_damage: bool) {
        self.shared.is_damaged.fetch_or(is_damage, Ordering::AcqRel);
    }

    fn hole(&self, index: u64) -> io::Error {
        self.note_damage(true);
        let key = self.shared.key;
        io::Error::other(format!(
            "entry {index} is missing in the log of replica {} of {}",
            key.replica, key.range
        ))
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(i) => *i,
        Bound::Excluded(i) => i.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(i) => i.saturating_add(1),
        Bound::Excluded(i) => *i,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (from, to) = bounds(&range);
        self.read(from, to, usize::MAX).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.state.lock().vote)
    }

    /// In steps, so that a replica that catches up does not hold all it has to apply in memory.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = bounds(&range);
        let start = Steps { reader: self.clone(), from, to, read: VecDeque::new() };
        stream::try_unfold(start, Steps::next).boxed()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, READ_BYTES_MAX).await
    }
}

/// A read in steps.
struct Steps {
    reader: LogReader,
    from: u64,
    to: u64,
    read: VecDeque<Entry>,
}

impl Steps {
    async fn next(mut self) -> io::Result<Option<(Entry, Self)>> {
        if self.read.is_empty() && self.from < self.to {
            self.read = self.reader.read(self.from, self.to, READ_BYTES_MAX).await?.into();
        }
        let Some(entry) = self.read.pop_front() else { return Ok(None) };
        self.from = entry.log_id.index + 1;
        Ok(Some((entry, self)))
    }
}
