//! What the paths of reads and writes count.

use super::{Sampler, ScannedRows};
use isotherm_types::Key;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What one operation costs its leader, in units of one point read. Measured with eight ranges on
/// three nodes that share two cores (`benches/README.md`): six times as many gets as puts, of which
/// the leader carries about half.
pub(super) mod cost {
    pub const READ: f64 = 1.0;
    pub const WRITE: f64 = 3.0;
    /// At a follower.
    pub const FOLLOWED_WRITE: f64 = 1.5;
    pub const SCANNED_ROW: f64 = 0.02;
    /// What moves eight KiB costs about as much as a read.
    pub const BYTE: f64 = 1.0 / 8192.0;
}

/// Everything that was counted of one replica since it was made. Only differences mean anything.
#[derive(Debug)]
pub struct Heat {
    pub(super) born: Instant,
    reads: AtomicU64,
    scanned: AtomicU64,
    /// Rows of scans that were offered to the sample.
    drawn: AtomicU64,
    writes: AtomicU64,
    appends: AtomicU64,
    refused: AtomicU64,
    bytes: AtomicU64,
    /// The highest key that was written to here.
    highest: Mutex<Key>,
    pub(super) sampler: Sampler,
}

impl Default for Heat {
    fn default() -> Self {
        Self {
            born: Instant::now(),
            reads: AtomicU64::default(),
            scanned: AtomicU64::default(),
            drawn: AtomicU64::default(),
            writes: AtomicU64::default(),
            appends: AtomicU64::default(),
            refused: AtomicU64::default(),
            bytes: AtomicU64::default(),
            highest: Mutex::default(),
            sampler: Sampler::default(),
        }
    }
}

/// The counters at one instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub reads: u64,
    pub scanned: u64,
    pub drawn: u64,
    pub writes: u64,
    pub appends: u64,
    pub refused: u64,
    pub bytes: u64,
}

impl Heat {
    /// Keys that were read, with the bytes that they came to.
    pub fn note_reads<'a>(&self, keys: impl ExactSizeIterator<Item = &'a Key>, bytes: usize) {
        self.reads.fetch_add(keys.len() as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.sampler.offer(keys, cost::READ);
    }

    /// A part of a scan or an aggregate: so many rows were examined, and `seen` are some of those that
    /// were there. What it cost is spread over them: a span has no first key that carries it, and
    /// where no row was there is no key to name.
    pub fn note_scan(&self, rows: u64, bytes: u64, seen: &ScannedRows) {
        self.scanned.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let keys = seen.kept();
        self.drawn.fetch_add(keys.len() as u64, Ordering::Relaxed);
        let cost = cost::READ + cost::SCANNED_ROW * rows as f64;
        self.sampler.offer_scanned(keys.iter(), cost / keys.len().max(1) as f64);
    }

    /// Keys that the leader is about to write.
    pub fn note_proposed<'a>(&self, keys: impl ExactSizeIterator<Item = &'a Key> + Clone) {
        let mut appends = 0;
        {
            let mut highest = self.highest.lock();
            for key in keys.clone().filter(|key| **key > *highest).collect::<Vec<_>>() {
                if *key > *highest {
                    // A copy: it would keep the whole message of a request.
                    *highest = Key::copy_from_slice(key);
                    appends += 1;
                }
            }
        }
        self.appends.fetch_add(appends, Ordering::Relaxed);
        self.sampler.offer(keys, cost::WRITE);
    }

    /// Operations that were applied, here as a leader or as a follower.
    pub fn note_applied(&self, ops: u64, bytes: u64) {
        self.writes.fetch_add(ops, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// An operation that was refused because there were too many: demand all the same.
    pub fn note_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn counted(&self) -> Counted {
        Counted {
            reads: self.reads.load(Ordering::Relaxed),
            scanned: self.scanned.load(Ordering::Relaxed),
            drawn: self.drawn.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            appends: self.appends.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

impl Counted {
    /// What was added since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            reads: self.reads.saturating_sub(earlier.reads),
            scanned: self.scanned.saturating_sub(earlier.scanned),
            drawn: self.drawn.saturating_sub(earlier.drawn),
            writes: self.writes.saturating_sub(earlier.writes),
            appends: self.appends.saturating_sub(earlier.appends),
            refused: self.refused.saturating_sub(earlier.refused),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }

    /// What it cost, in units of a point read; what was refused is not part of it.
    pub fn units(&self, is_leader: bool) -> f64 {
        let write = if is_leader { cost::WRITE } else { cost::FOLLOWED_WRITE };
        self.reads as f64 * cost::READ
            + self.scanned as f64 * cost::SCANNED_ROW
            + self.writes as f64 * write
            + self.bytes as f64 * cost::BYTE
    }

    /// What was refused or waits would have cost; taken for writes, which are what queues.
    pub fn unserved_units(&self, queued: u64) -> f64 {
        (self.refused + queued) as f64 * cost::WRITE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_of_a_scan_is_spread_over_the_rows_that_it_came_by() {
        let heat = Heat::default();
        let mut seen = ScannedRows::default();
        (0..1_000).for_each(|n: u32| seen.see(&n.to_be_bytes()));
        heat.note_scan(1_000, 0, &seen);
        let sample = heat.sampler.sample();
        let all: f64 = sample.iter().map(|taken| taken.weight).sum();
        assert!((all - 21.0).abs() < 1e-9, "a read and a thousand rows: {all}");
        assert!(sample.iter().all(|taken| taken.is_scanned && taken.weight < all / 10.0));
        // Of a span without a row no key is named.
        let heat = Heat::default();
        heat.note_scan(0, 0, &ScannedRows::default());
        assert!(heat.sampler.sample().is_empty());
    }

    #[test]
    fn the_highest_key_does_not_keep_the_request_that_it_came_with() {
        let (request, heat) = (bytes::Bytes::from(vec![7; 1 << 20]), Heat::default());
        heat.note_proposed([&request.slice(..8)].into_iter());
        assert_eq!(heat.counted().appends, 1);
        assert!(request.is_unique(), "nobody else holds the megabyte");
    }
}
