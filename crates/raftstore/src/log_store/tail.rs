//! The newest part of a log, in memory.

use crate::type_config::Entry;
use std::collections::VecDeque;

/// Entries `first ..= last` of a log: whatever was appended lately.
///
/// Invariants:
/// * the entries are contiguous;
/// * every entry that is not known to be on disk is here (only [`Tail::trim`] drops entries that
///   the log still has, and it is told how far the disk is).
#[derive(Debug, Default)]
pub struct Tail {
    first: u64,
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
}

impl Tail {
    /// Index of the first entry here; of the next one to come if there is none.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Index after the last entry here.
    pub fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Bytes of all records here.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Empties the tail; `next` is the index of the next entry.
    pub fn restart(&mut self, next: u64) {
        self.entries.clear();
        self.first = next;
        self.bytes = 0;
    }

    /// Adds the entry after the last; `bytes` is the size of its record.
    pub fn push(&mut self, entry: Entry, bytes: usize) {
        assert_eq!(entry.log_id.index, self.end(), "the tail of a log is contiguous");
        self.entries.push_back((entry, bytes));
        self.bytes += bytes;
    }

    /// Drops every entry from `index` on.
    pub fn truncate_from(&mut self, index: u64) {
        if index <= self.first {
            return self.restart(index);
        }
        while self.end() > index {
            if let Some((_, bytes)) = self.entries.pop_back() {
                self.bytes -= bytes;
            }
        }
    }

    /// Drops every entry below `index`.
    pub fn purge_below(&mut self, index: u64) {
        if index >= self.end() {
            return self.restart(index);
        }
        while self.first < index {
            self.pop_front();
        }
    }

    /// Drops the oldest entries that the disk has (up to `flushed`) until at most `bytes_max` are
    /// left.
    pub fn trim(&mut self, flushed: u64, bytes_max: usize) {
        while self.bytes > bytes_max && self.first <= flushed && self.entries.len() > 1 {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some((_, bytes)) = self.entries.pop_front() {
            self.bytes -= bytes;
            self.first += 1;
        }
    }

    /// The entries of `from .. to` that are here, up to `bytes_max` but at least one.
    pub fn read(&self, from: u64, to: u64, bytes_max: usize) -> Vec<Entry> {
        let (from, to) = (from.max(self.first), to.min(self.end()));
        if from >= to {
            return Vec::new();
        }
        let mut bytes = 0;
        let range = (from - self.first) as usize..(to - self.first) as usize;
        let fits = |(_, size): &&(Entry, usize)| {
            let first = bytes == 0;
            bytes += size;
            first || bytes <= bytes_max
        };
        self.entries.range(range).take_while(fits).map(|(entry, _)| entry.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::type_config::{EntryPayload, LeaderId, LogId};

    fn tail(indexes: std::ops::Range<u64>) -> Tail {
        let mut tail = Tail::default();
        tail.restart(indexes.start);
        for index in indexes {
            let log_id = LogId::new(LeaderId { term: 1, node_id: 1 }, index);
            tail.push(Entry { log_id, payload: EntryPayload::Blank }, 10);
        }
        tail
    }

    fn indexes(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|e| e.log_id.index).collect()
    }

    #[test]
    fn trimming_keeps_what_is_not_on_disk() {
        let mut tail = tail(5..10);
        tail.trim(6, 0);
        assert_eq!((tail.first(), tail.end(), tail.bytes()), (7, 10, 30));
        tail.trim(9, 0);
        assert_eq!((tail.first(), tail.end(), tail.bytes()), (9, 10, 10), "one entry stays");
    }

    #[test]
    fn a_read_is_cut_at_the_byte_bound_but_never_empty() {
        let tail = tail(5..10);
        assert_eq!(indexes(&tail.read(6, 20, 25)), [6, 7]);
        assert_eq!(indexes(&tail.read(6, 20, 1)), [6]);
        assert_eq!(indexes(&tail.read(0, 7, 100)), [5, 6]);
        assert!(tail.read(10, 12, 100).is_empty());
    }

    #[test]
    fn truncating_and_purging_beyond_the_entries_moves_the_start() {
        let mut t = tail(5..10);
        t.truncate_from(8);
        assert_eq!((t.first(), t.end(), t.bytes()), (5, 8, 30));
        t.truncate_from(3);
        assert_eq!((t.first(), t.end(), t.bytes()), (3, 3, 0));
        let mut t = tail(5..10);
        t.purge_below(7);
        assert_eq!((t.first(), t.end()), (7, 10));
        t.purge_below(20);
        assert_eq!((t.first(), t.end(), t.bytes()), (20, 20, 0));
    }
}
