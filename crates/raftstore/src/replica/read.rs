//! Reads by the leader.
//!
//! Order of steps (ARCHITECTURE.md, "Reads"): settle what is on its way, confirm leadership and
//! wait for apply, take a RocksDB snapshot, and only then check the span against the applied
//! descriptor and the gate of a proposed split. A split that could let somebody else write the
//! keys is either not proposed yet when the snapshot is taken (then the snapshot is newest), or
//! the check sees it. Reads at a timestamp check the safe point before and after
//! (`store/safe_point.rs`).

use super::Replica;
use crate::heat::ScannedRows;
use crate::store::{RangeError, SliceBudget};
use isotherm_storage::{DataSnapshot, Row, Scanned};
use isotherm_types::{Key, KeyRange, Timestamp, limits};
use std::sync::Arc;

/// Point reads are answered until they come to so many bytes of values.
const ANSWER_BYTES: usize = 1 << 20;
/// As many of them at a time: they are read on the async threads.
const ANSWER_ROWS: usize = 512;

/// A read of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointRead {
    /// Which key.
    pub key: Key,
    /// As of when; `None`: the newest value.
    pub at: Option<Timestamp>,
}

/// A read of one page of a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRead {
    /// What is still wanted; the part inside the range is answered.
    pub span: KeyRange,
    /// As of when; `None`: a timestamp is requested and returned.
    pub at: Option<Timestamp>,
    /// Most rows (0: the limit of [`limits`]).
    pub max_keys: u32,
    /// Most bytes of keys and values (0: likewise).
    pub max_bytes: u32,
    /// From the end of the span downwards.
    pub reverse: bool,
    /// Leave the values out.
    pub keys_only: bool,
}

/// One page of a span, at one timestamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The timestamp that it shows.
    pub at: Timestamp,
    /// The part of the span that it answers completely.
    pub covered: KeyRange,
    /// Rows in key order (or the reverse of it).
    pub rows: Vec<(Key, Row)>,
}

impl Replica {
    /// Reads several keys; all at their newest or each at its own timestamp. Answers the first ones
    /// only, at least one, if all of them would be more than `ANSWER_BYTES`.
    pub async fn read_many(
        self: &Arc<Self>,
        version: u64,
        reads: &[PointRead],
    ) -> Result<Vec<Option<Row>>, RangeError> {
        let reads = &reads[..reads.len().min(ANSWER_ROWS)];
        let mark = self.pending.mark();
        for read in reads {
            match read.at {
                None => self.pending.settle_key(&read.key).await,
                Some(at) => {
                    self.ctx.check_issued(at).await?;
                    self.ctx.check_safe_point(at)?;
                    self.pending.settle(mark, at).await;
                }
            }
        }
        let spans: Vec<_> = reads.iter().map(|r| &r.key[..]).collect();
        let snapshot = self.snapshot_for(
            version,
            |span| spans.iter().all(|k| span.contains(k)),
            || reads.iter().map(|r| KeyRange::point(&r.key)).collect(),
        );
        let snapshot = snapshot.await?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for read in reads {
            let row = snapshot.get(&read.key, read.at).map_err(|e| self.read_failed(e))?;
            bytes += row.as_ref().map_or(0, |row: &Row| row.value.len());
            rows.push(row);
            if bytes >= ANSWER_BYTES {
                break;
            }
        }
        let reads = &reads[..rows.len()];
        reads.iter().filter_map(|r| r.at).try_for_each(|at| self.ctx.check_safe_point(at))?;
        self.heat.note_reads(reads.iter().map(|read| &read.key), bytes);
        Ok(rows)
    }

    /// Reads one page.
    pub async fn read_page(
        self: &Arc<Self>,
        version: u64,
        read: PageRead,
    ) -> Result<Page, RangeError> {
        let (span, at) = (read.span.clone(), read.at);
        let page = self.read_span(version, &span, at, move |snapshot, span, at, budget| {
            page_of(snapshot, span, at, &read, budget)
        });
        let (page, examined) = page.await?;
        let bytes: usize = page.rows.iter().map(|(key, row)| key.len() + row.value.len()).sum();
        let mut seen = ScannedRows::default();
        page.rows.iter().for_each(|(key, _)| seen.see(key));
        self.heat.note_scan(examined, bytes as u64, &seen);
        Ok(page)
    }

    /// Shows a snapshot to `read` that holds, of the part of `span` inside the range, everything up
    /// to `at` (or to a timestamp requested now), together with that part and timestamp. `read` runs
    /// on a scan thread and is to end when its budget is spent.
    pub async fn read_span<T: Send + 'static>(
        self: &Arc<Self>,
        version: u64,
        span: &KeyRange,
        at: Option<Timestamp>,
        read: impl FnOnce(
            &DataSnapshot,
            KeyRange,
            Timestamp,
            &mut SliceBudget<'_>,
        ) -> isotherm_storage::Result<T>
        + Send
        + 'static,
    ) -> Result<T, RangeError> {
        let mark = self.pending.mark();
        let at = match at {
            Some(at) => {
                self.ctx.check_issued(at).await?;
                at
            }
            None => self.ctx.timestamp().await?,
        };
        self.ctx.check_safe_point(at)?;
        let span = self.descriptor().span.intersect(span);
        let Some(span) = span else { return Err(self.epoch_mismatch()) };
        // Batches that requested their timestamp before this read arrived may lie at or below `at`.
        let settle = self.pending.settle(mark, at);
        tokio::time::timeout(self.ctx.tuning.oracle_timeout * 2, settle)
            .await
            .map_err(|_| RangeError::NotLeader { leader: None })?;
        let snapshot =
            self.snapshot_for(version, |owned| owned.covers(&span), || vec![span.clone()]).await?;
        let read = self.ctx.scans.run(move |budget| read(&snapshot, span, at, budget)).await?;
        let read = read.map_err(|error| self.read_failed(error))?;
        self.ctx.check_safe_point(at)?;
        Ok(read)
    }

    /// A snapshot of the data that this replica may answer from as the leader.
    async fn snapshot_for(
        self: &Arc<Self>,
        version: u64,
        covers: impl Fn(&KeyRange) -> bool,
        spans: impl Fn() -> Vec<KeyRange>,
    ) -> Result<DataSnapshot, RangeError> {
        let leadership = self.confirm_leadership().await?;
        let snapshot = self.ctx.data.snapshot();
        if self.stop.is_cancelled() {
            // It is being destroyed: the snapshot may lack rows that others still serve.
            return Err(RangeError::NotLeader { leader: None });
        }
        let descriptor = self.descriptor();
        if descriptor.epoch.version != version || !covers(&descriptor.span) {
            return Err(self.epoch_mismatch());
        }
        if self.is_frozen() && self.ctx.faults.read_while_frozen() == 0 {
            // Whoever absorbs it may take writes of these keys from now on.
            return Err(Self::standing_still());
        }
        if self.gate.lock().is_some()
            && spans().iter().any(|span| self.is_gated(leadership.term, span))
        {
            return Err(RangeError::Busy { retry_after: std::time::Duration::from_millis(20) });
        }
        Ok(snapshot)
    }

    /// The refusal of a request that was routed by another epoch.
    pub(crate) fn epoch_mismatch(&self) -> RangeError {
        RangeError::EpochMismatch { current: vec![(*self.descriptor()).clone()] }
    }
}

/// The beginning of a span (its end, reversed): up to the limits of the read, or to the last row that
/// was examined when the budget was spent, visible or not. Also says how many rows were examined.
fn page_of(
    snapshot: &DataSnapshot,
    span: KeyRange,
    at: Timestamp,
    read: &PageRead,
    budget: &mut SliceBudget<'_>,
) -> Result<(Page, u64), isotherm_storage::StorageError> {
    let or_max = |asked: usize, max: usize| if asked == 0 { max } else { asked.min(max) };
    let keys_max = or_max(read.max_keys as usize, limits::SCAN_PAGE_KEYS_MAX as usize);
    let bytes_max = or_max(read.max_bytes as usize, limits::SCAN_PAGE_BYTES_MAX);
    let (mut rows, mut bytes, mut examined) = (Vec::new(), 0, 0);
    let mut scan = snapshot.scan(&span, at, read.reverse, read.keys_only);
    let last = loop {
        let mut is_over = false;
        let scanned = scan.next_within(|cost| {
            examined += 1;
            let spent = budget.spend(cost);
            is_over = spent.is_break();
            spent
        });
        match scanned? {
            Scanned::Row(key, row) => {
                bytes += key.len() + row.value.len();
                rows.push((key.clone(), row));
                if is_over || rows.len() >= keys_max || bytes >= bytes_max {
                    break Some(key);
                }
            }
            Scanned::Stopped(key) => break Some(key),
            Scanned::End => break None,
        }
    };
    let covered = match last {
        None => span,
        // Reversed, the page reaches down to its last key; forward, up to and with it.
        Some(last) if read.reverse => {
            KeyRange::new(last, span.end().clone()).expect("a row of the span lies inside it")
        }
        Some(last) => KeyRange::new(span.start().clone(), KeyRange::point(&last).end().clone())
            .expect("a row of the span lies inside it"),
    };
    Ok((Page { at, covered, rows }, examined))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use isotherm_storage::{DataBatch, DataEngine, DataOptions, Overlay};
    use std::time::Duration;

    /// A scan as of a time before most rows were written gets on, page by page, although it finds
    /// next to nothing: each page covers what was examined.
    #[test]
    fn pages_over_rows_that_are_not_visible_get_on_and_end() {
        let tmp = tempfile::tempdir().unwrap();
        let engine = DataEngine::open(tmp.path(), &DataOptions::default()).unwrap();
        let mut overlay = Overlay::new(&engine);
        for n in 0..2_000_u32 {
            let key = Key::from(format!("k{n:05}"));
            // Two rows are old enough to be seen.
            let ts = if matches!(n, 700 | 1_500) { 1 } else { 9 };
            overlay.set(&key, Some(Key::from_static(b"v")), Timestamp(ts), 0).unwrap();
        }
        let mut batch = DataBatch::new();
        overlay.drain_into(&mut batch);
        engine.write(batch).unwrap();
        let snapshot = engine.snapshot();
        for reverse in [false, true] {
            let at = Some(Timestamp(5));
            let span = KeyRange::all();
            let mut read =
                PageRead { span, at, max_keys: 1, max_bytes: 0, reverse, keys_only: false };
            let (mut pages, mut found, mut all) = (0, Vec::new(), 0);
            loop {
                // No time at all: a page ends at the first look at the clock.
                let nobody = || false;
                let mut budget = SliceBudget::new(Duration::ZERO, &nobody);
                let span = read.span.clone();
                let (page, examined) =
                    page_of(&snapshot, span.clone(), Timestamp(5), &read, &mut budget).unwrap();
                (pages, all) = (pages + 1, all + examined);
                assert!(pages < 500 && examined < 300, "page {pages}: {examined} rows");
                found.extend(page.rows.into_iter().map(|(key, _)| key));
                let (start, end) = if reverse {
                    (span.start().clone(), page.covered.start().clone())
                } else {
                    (page.covered.end().clone(), span.end().clone())
                };
                if page.covered == span || (reverse && end.is_empty()) {
                    break;
                }
                read.span = KeyRange::new(start, end).unwrap();
            }
            let mut expected = ["k00700", "k01500"].map(Key::from);
            if reverse {
                expected.reverse();
            }
            assert_eq!(found, expected);
            assert!(pages > 8 && all == 2_000, "{pages} pages of {all} rows");
        }
    }

    /// However much is asked for, a page has so many rows, and ends with the row that fills its bytes.
    #[test]
    fn a_page_has_as_many_rows_and_bytes_as_it_may() {
        let tmp = tempfile::tempdir().unwrap();
        let engine = DataEngine::open(tmp.path(), &DataOptions::default()).unwrap();
        let mut overlay = Overlay::new(&engine);
        let rows_max = limits::SCAN_PAGE_KEYS_MAX;
        for n in 0..=rows_max {
            let key = Key::from(format!("few{n:05}"));
            overlay.set(&key, Some(Key::from_static(b"v")), Timestamp(1), 0).unwrap();
        }
        // Three rows that have one byte less than a page, and three that fill one; after each a small one.
        let third = limits::SCAN_PAGE_BYTES_MAX / 3 - 2;
        let last = limits::SCAN_PAGE_BYTES_MAX - 2 * (third + 2) - 2;
        let less = [("x1", third), ("x2", third), ("x3", last - 1), ("x4", 1)];
        let full = [("y1", third), ("y2", third), ("y3", last), ("y4", 1)];
        for (key, bytes) in less.into_iter().chain(full) {
            let value = Key::from(vec![b'v'; bytes]);
            overlay.set(&Key::from(key), Some(value), Timestamp(1), 0).unwrap();
        }
        let mut batch = DataBatch::new();
        overlay.drain_into(&mut batch);
        engine.write(batch).unwrap();
        let snapshot = engine.snapshot();
        let rows = |from: &str, max_keys: u32, max_bytes: u32| {
            let span = KeyRange::new(from.to_owned(), Key::new()).unwrap();
            let (reverse, keys_only) = (false, false);
            let read =
                PageRead { span: span.clone(), at: None, max_keys, max_bytes, reverse, keys_only };
            let is_abandoned = || false;
            let mut budget = SliceBudget::new(Duration::from_secs(3600), &is_abandoned);
            let page = page_of(&snapshot, span, Timestamp(1), &read, &mut budget).unwrap().0;
            page.rows.len()
        };
        for asked in [0, rows_max, rows_max + 1, u32::MAX] {
            assert_eq!(rows("few", asked, 0), rows_max as usize, "{asked} were asked for");
        }
        for asked in [0, limits::SCAN_PAGE_BYTES_MAX as u32, u32::MAX] {
            assert_eq!(rows("x", 0, asked), 4, "one more begins below the limit");
            assert_eq!(rows("y", 0, asked), 3, "full");
        }
    }
}
