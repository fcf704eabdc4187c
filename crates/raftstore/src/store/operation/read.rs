//! Reads, with their deadline.

use crate::replica::{Page, PageRead, PointRead};
use crate::store::{RangeError, SliceBudget, Store};
use isotherm_storage::{DataSnapshot, Row};
use isotherm_types::{KeyRange, RangeId, Timestamp};
use std::time::Duration;

fn late<T>(_: T) -> RangeError {
    RangeError::Unavailable("no quorum confirmed the read in time".into())
}

impl Store {
    /// Reads several keys of one range under one confirmation of leadership: the first ones, as many
    /// as fit into an answer of some bytes, and at least one. The caller comes back for the rest.
    pub async fn read_many(
        &self,
        range: RangeId,
        version: u64,
        reads: Vec<PointRead>,
        timeout: Duration,
    ) -> Result<Vec<Option<Row>>, RangeError> {
        let replica = self.find(range)?;
        let read = tokio::time::timeout(timeout, replica.read_many(version, &reads)).await;
        read.map_err(late)?.map_err(|e| self.with_neighbours(e))
    }

    /// Reads one key.
    pub async fn read(
        &self,
        range: RangeId,
        version: u64,
        read: PointRead,
        timeout: Duration,
    ) -> Result<Option<Row>, RangeError> {
        let mut rows = self.read_many(range, version, vec![read], timeout).await?;
        Ok(rows.pop().flatten())
    }

    /// Reads one page of a span.
    pub async fn scan(
        &self,
        range: RangeId,
        version: u64,
        read: PageRead,
        timeout: Duration,
    ) -> Result<Page, RangeError> {
        let replica = self.find(range)?;
        let page = tokio::time::timeout(timeout, replica.read_page(version, read)).await;
        page.map_err(late)?.map_err(|e| self.with_neighbours(e))
    }

    /// Shows a snapshot of a part of a range at `at` to `read`, on a scan thread. `read` is to
    /// end when its budget is spent: who has more to read comes back for the rest.
    pub async fn read_span<T: Send + 'static>(
        &self,
        range: RangeId,
        version: u64,
        span: &KeyRange,
        at: Timestamp,
        timeout: Duration,
        read: impl FnOnce(
            &DataSnapshot,
            KeyRange,
            Timestamp,
            &mut SliceBudget<'_>,
        ) -> isotherm_storage::Result<T>
        + Send
        + 'static,
    ) -> Result<T, RangeError> {
        let replica = self.find(range)?;
        let read = replica.read_span(version, span, Some(at), read);
        let read = tokio::time::timeout(timeout, read).await;
        read.map_err(late)?.map_err(|e| self.with_neighbours(e))
    }

    /// Cuts a span that holds much, so that its parts can be read at the same time.
    pub async fn cut_span(&self, span: KeyRange, part_bytes: u64) -> Vec<KeyRange> {
        let (data, whole) = (self.ctx.data.clone(), span.clone());
        let threads = self.scan_threads();
        let cut = move |_: &mut SliceBudget<'_>| {
            let parts = data.approximate_size(&whole) / part_bytes.max(1) + 1;
            let parts = usize::try_from(parts).unwrap_or(threads).min(threads);
            if parts < 2 {
                return None;
            }
            whole.split_at(&data.snapshot().cuts(&whole, parts).ok()?)
        };
        self.ctx.scans.run(cut).await.ok().flatten().unwrap_or_else(|| vec![span])
    }

    /// A key that cuts a span of more than `least_bytes` on disk into about halves.
    pub async fn middle(&self, span: KeyRange, least_bytes: u64) -> Option<isotherm_types::Key> {
        let data = self.ctx.data.clone();
        let cut = move |_: &mut SliceBudget<'_>| {
            let is_large = data.approximate_size(&span) > least_bytes;
            let cuts = is_large.then(|| data.snapshot().cuts(&span, 2).ok()).flatten()?;
            cuts.into_iter().next().filter(|key| span.contains(key) && *key != *span.start())
        };
        self.ctx.scans.run(cut).await.ok().flatten()
    }

    /// How many reads of many rows run at a time.
    pub fn scan_threads(&self) -> usize {
        self.ctx.scans.threads()
    }
}
