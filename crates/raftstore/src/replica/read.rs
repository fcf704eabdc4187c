//! Reads by the leader.
//!
//! Order of steps (ARCHITECTURE.md, "Reads"): settle what is on its way, confirm leadership and
//! wait for apply, take a RocksDB snapshot, and only then check the span against the applied
//! descriptor and the gate of a proposed split. A split that could let somebody else write the
//! keys is either not proposed yet when the snapshot is taken (then the snapshot is newest), or
//! the check sees it. Reads at a timestamp check the safe point before and after
//! (`store/safe_point.rs`).

use super::Replica;
use crate::store::RangeError;
use isotherm_storage::{DataSnapshot, Row};
use isotherm_types::{Key, KeyRange, Timestamp, limits};
use std::sync::Arc;

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

/// Values after which a read of several keys stops, in bytes; one alone may have more.
const READ_BYTES_MAX: usize = 1 << 20;

impl Replica {
    /// Reads several keys; all at their newest or each at its own timestamp. Returns the rows of all of
    /// them, or of the first ones, at least one, if their values are many bytes.
    pub async fn read_many(
        self: &Arc<Self>,
        version: u64,
        reads: &[PointRead],
    ) -> Result<Vec<Option<Row>>, RangeError> {
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
        let internal = |e: isotherm_storage::StorageError| RangeError::Internal(e.to_string());
        let (mut rows, mut bytes) = (Vec::with_capacity(reads.len()), 0);
        for read in reads {
            let row = snapshot.get(&read.key, read.at).map_err(internal)?;
            bytes += row.as_ref().map_or(0, |row: &Row| row.value.len());
            rows.push(row);
            if bytes >= READ_BYTES_MAX {
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
        let page = self.read_span(version, &span, at, move |snapshot, span, at| {
            page_of(snapshot, span, at, &read)
        });
        let page = page.await?;
        let bytes: usize = page.rows.iter().map(|(key, row)| key.len() + row.value.len()).sum();
        let key = page.rows.first().map_or(page.covered.start(), |(key, _)| key);
        self.heat.note_scan(page.rows.len() as u64, bytes as u64, key);
        Ok(page)
    }

    /// Shows a snapshot to `read` that holds, of the part of `span` inside the range, everything up
    /// to `at` (or to a timestamp requested now), together with that part and timestamp. `read` runs
    /// on a scan thread and is to be short.
    pub async fn read_span<T: Send + 'static>(
        self: &Arc<Self>,
        version: u64,
        span: &KeyRange,
        at: Option<Timestamp>,
        read: impl FnOnce(&DataSnapshot, KeyRange, Timestamp) -> isotherm_storage::Result<T>
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
        let read = self.ctx.scans.run(move || read(&snapshot, span, at)).await?;
        let read = read.map_err(|e| RangeError::Internal(e.to_string()))?;
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

fn page_of(
    snapshot: &DataSnapshot,
    span: KeyRange,
    at: Timestamp,
    read: &PageRead,
) -> Result<Page, isotherm_storage::StorageError> {
    let or_max = |asked: usize, max: usize| if asked == 0 { max } else { asked.min(max) };
    let keys_max = or_max(read.max_keys as usize, limits::SCAN_PAGE_KEYS_MAX as usize);
    let bytes_max = or_max(read.max_bytes as usize, limits::SCAN_PAGE_BYTES_MAX);
    let (mut rows, mut bytes) = (Vec::new(), 0);
    let mut covered = span.clone();
    for row in snapshot.scan(&span, at, read.reverse, read.keys_only) {
        let (key, row) = row?;
        bytes += key.len() + row.value.len();
        rows.push((key, row));
        if rows.len() >= keys_max || bytes >= bytes_max {
            let (last, _) = rows.last().expect("just pushed");
            let point = KeyRange::point(last);
            // Reversed, the page reaches down to its last key; forward, up to and with it.
            let cut = if read.reverse {
                KeyRange::new(last.clone(), span.end().clone())
            } else {
                KeyRange::new(span.start().clone(), point.end().clone())
            };
            covered = cut.expect("a row of the span lies inside it");
            break;
        }
    }
    Ok(Page { at, covered, rows })
}
