//! Giving back the space of what nobody reads any more.
//!
//! Compaction filters drop garbage when a compaction happens to pass, and on a node that is written
//! to lightly none does. RocksDB's own periodic compaction would rewrite everything, current data
//! included, over and over; so this task compacts only spans in which enough has become garbage to
//! be worth it. How much there is, is counted when it is written (`Core::garbage`), and for what
//! lay on disk before the process began, by one look at each range.
//!
//! ```text
//! look ─► owed ──(safe point passes `until`)──► worth it? ─► compact, owed = 0
//!           ▲                                      │ no
//!           └── what was written since ◄───────────┘
//! ```
//!
//! One span at a time, on a blocking thread, and after each a pause as long as it took: at most half
//! of a disk's time goes into this.

use super::{DiskRoom, Store};
use crate::replica::Replica;
use isotherm_storage::Garbage;
use isotherm_types::{RangeId, Timestamp};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Garbage must also be at least this part of the data that a compaction would read.
const WORTH_PART: u64 = 8;

/// Least garbage that is worth a compaction while the disk has little room.
const WORTH_WITHOUT_ROOM: u64 = 64 << 10;

/// What is known of a range's garbage.
///
/// Invariant: everything in `owed` ended at or before `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Book {
    owed: Garbage,
    until: Timestamp,
    /// The range's counter when `owed` was last added to.
    counted: Garbage,
}

impl Book {
    fn new(found: Garbage, counted: Garbage, until: Timestamp) -> Self {
        Self { owed: found, until, counted }
    }

    /// Whether the counter began anew: the state was replaced by one from elsewhere.
    fn is_of_another_state(&self, counter: Garbage) -> bool {
        counter.history_bytes < self.counted.history_bytes
            || counter.tombstone_bytes < self.counted.tombstone_bytes
    }

    /// Adds what was written since.
    fn add(&mut self, counter: Garbage, last_ts: Timestamp) {
        self.owed += counter.since(self.counted);
        self.counted = counter;
        self.until = self.until.max(last_ts);
    }
}

fn is_worth(garbage_bytes: u64, bytes_min: u64, size: impl FnOnce() -> u64) -> bool {
    garbage_bytes >= bytes_min.max(1) && garbage_bytes >= size() / WORTH_PART
}

impl Store {
    /// Runs until the store stops.
    pub(super) async fn run_collection(self: Arc<Self>) {
        let stop = self.ctx.stop.clone();
        let interval = self.ctx.tuning.collect_interval;
        let mut books: HashMap<RangeId, Book> = HashMap::new();
        while stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
            let replicas = self.all();
            let hosted: HashSet<RangeId> = replicas.iter().map(|r| r.range).collect();
            books.retain(|range, _| hosted.contains(range));
            for replica in replicas {
                let turn = self.see_to(&replica, books.get(&replica.range).copied());
                match stop.run_until_cancelled(turn).await {
                    None => return,
                    Some(Some(book)) => drop(books.insert(replica.range, book)),
                    Some(None) => {}
                }
            }
        }
    }

    /// One range: a first look, or a collection if one is due. None: it is busy, next time.
    async fn see_to(&self, replica: &Arc<Replica>, book: Option<Book>) -> Option<Book> {
        let (counter, last_ts) = {
            let replica = replica.clone();
            let look = move || replica.core_in_turn().map(|c| (c.garbage, c.applied.last_ts));
            tokio::task::spawn_blocking(look).await.ok()??
        };
        let span = replica.descriptor().span.clone();
        let data = self.ctx.data.clone();
        let begun = Instant::now();
        let Some(mut book) = book.filter(|book| !book.is_of_another_state(counter)) else {
            let survey = tokio::task::spawn_blocking(move || data.survey(&span)).await.ok()?;
            let found = survey
                .inspect_err(|error| {
                    replica.disk_failed(error);
                    let range_id = replica.range;
                    tracing::error!(%range_id, %error, "the garbage of a range cannot be counted");
                })
                .ok()?;
            self.rest(begun.elapsed()).await;
            return Some(Book::new(found, counter, last_ts));
        };
        if book.until > self.safe_point() {
            return Some(book);
        }
        let Garbage { history_bytes, tombstone_bytes } = book.owed;
        let is_due = |garbage_bytes, size: &dyn Fn() -> u64| match self.ctx.disk_room() {
            DiskRoom::Enough => is_worth(garbage_bytes, self.ctx.tuning.collect_bytes, size),
            // Room is worth more than the work.
            DiskRoom::Little => is_worth(garbage_bytes, WORTH_WITHOUT_ROOM, || 0),
            // A compaction needs room itself before it makes any.
            DiskRoom::None => false,
        };
        let history = is_due(history_bytes, &|| data.history_size(&span));
        let tombstones = is_due(tombstone_bytes, &|| data.live_size(&span));
        if history || tombstones {
            let compact = move || {
                if history {
                    data.collect_history(&span);
                }
                if tombstones {
                    data.collect_tombstones(&span);
                }
            };
            tokio::task::spawn_blocking(compact).await.ok()?;
            let took = begun.elapsed();
            metrics::counter!("isotherm_collections_total").increment(1);
            metrics::histogram!("isotherm_collection_seconds").record(took.as_secs_f64());
            let (history, tombstones) = (
                history.then(|| std::mem::take(&mut book.owed.history_bytes)),
                tombstones.then(|| std::mem::take(&mut book.owed.tombstone_bytes)),
            );
            tracing::debug!(
                range_id = %replica.range,
                history_bytes = history.unwrap_or(0),
                tombstone_bytes = tombstones.unwrap_or(0),
                ms = took.as_millis() as u64,
                "old versions collected"
            );
            self.rest(took).await;
        }
        book.add(counter, last_ts);
        Some(book)
    }

    async fn rest(&self, as_long_as: Duration) {
        tokio::time::sleep(as_long_as.min(PAUSE_MAX)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn garbage(history_bytes: u64, tombstone_bytes: u64) -> Garbage {
        Garbage { history_bytes, tombstone_bytes }
    }

    #[test]
    fn what_is_written_later_is_owed_only_until_later() {
        let mut book = Book::new(garbage(100, 7), garbage(5, 5), Timestamp(10));
        assert!(!book.is_of_another_state(garbage(5, 6)));
        book.add(garbage(25, 6), Timestamp(30));
        assert_eq!((book.owed, book.until), (garbage(120, 8), Timestamp(30)));
        assert!(book.is_of_another_state(garbage(30, 0)), "a counter never falls");
    }

    #[test]
    fn little_garbage_in_much_data_waits_for_more() {
        assert!(!is_worth(0, 0, || 0));
        assert!(!is_worth(99, 100, || 0));
        assert!(is_worth(100, 100, || 800));
        assert!(!is_worth(100, 100, || 1000));
    }
}
