//! A consistent view of the engine, and MVCC reads in it.

use super::engine::{DataEngine, HISTORY, LIVE, LOCAL};
use super::export::SnapshotExport;
use super::row::{Kind, RawRow, Row};
use super::scan::MvccScan;
use crate::key::{self, LocalKey, bounds};
use crate::{Result, StorageError};
use isotherm_types::{KeyRange, RangeId, Timestamp};
use rocksdb::{DBRawIterator, IteratorMode, ReadOptions, Snapshot};
use std::ops::Range;
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// Everything as of one moment. Owned: it can be sent to other threads and kept.
pub struct DataSnapshot {
    // Declared before the engine, so that it is dropped before it.
    inner: Snapshot<'static>,
    engine: DataEngine,
}

/// A hash over the newest values of a span.
///
/// Older versions and tombstones stay out: each node drops them when its own compactions come to
/// them, and no safe point can be agreed on that every replica is certain not to have passed when
/// it sums. What is left is what every replica must have at one applied index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum {
    /// xxh3 over the raw keys and rows of the values in `live`, in order.
    pub hash: u64,
    /// How many rows went in.
    pub rows: u64,
}

impl DataSnapshot {
    #[allow(unsafe_code)]
    pub(super) fn new(engine: DataEngine) -> Self {
        let inner = engine.db.snapshot();
        // SAFETY: the snapshot borrows the `DB` inside `engine.db: Arc<DB>`, whose address does not
        // change. This struct holds a clone of that `Arc` for as long as the snapshot lives, and
        // drops the snapshot first (fields drop in the order of their declaration). The extended
        // lifetime never leaves this struct: every borrow handed out is tied to `&self`.
        let inner = unsafe { std::mem::transmute::<Snapshot<'_>, Snapshot<'static>>(inner) };
        Self { inner, engine }
    }

    pub(super) fn iterate(&self, cf: &str, bounds: Range<Vec<u8>>) -> DBRawIterator<'_> {
        self.iterate_with(cf, bounds, ReadOptions::default())
    }

    pub(super) fn iterate_with(
        &self,
        cf: &str,
        bounds: Range<Vec<u8>>,
        mut options: ReadOptions,
    ) -> DBRawIterator<'_> {
        options.set_iterate_lower_bound(bounds.start);
        options.set_iterate_upper_bound(bounds.end);
        self.inner.raw_iterator_cf_opt(self.engine.cf(cf), options)
    }

    /// Bytes that a span takes on disk, roughly.
    pub fn approximate_size(&self, span: &KeyRange) -> u64 {
        self.engine.approximate_size(span)
    }

    /// Key `key` at `at`, or at its newest.
    pub fn get(&self, key: &[u8], at: Option<Timestamp>) -> Result<Option<Row>> {
        key::with_encoded(key, |encoded| self.get_encoded(encoded, at))
    }

    fn get_encoded(&self, encoded: &[u8], at: Option<Timestamp>) -> Result<Option<Row>> {
        let found = self.inner.get_pinned_cf(self.engine.cf(LIVE), encoded)?;
        let Some(bytes) = found else { return Ok(None) };
        let live = RawRow::decode(&bytes)?;
        match at {
            Some(at) if live.ts > at => {
                let bounds = key::history(encoded, at)..key::history_end(encoded);
                version_at(&mut self.iterate(HISTORY, bounds), encoded, at)
            }
            _ => Ok(live.visible()),
        }
    }

    /// A span in key order, as of `at`.
    pub fn scan(
        &self,
        span: &KeyRange,
        at: Timestamp,
        reverse: bool,
        keys_only: bool,
    ) -> MvccScan<'_> {
        MvccScan::new(self, span, at, reverse, keys_only)
    }

    /// A `local` row.
    pub fn local(&self, key: &LocalKey) -> Result<Option<Vec<u8>>> {
        Ok(self.inner.get_cf(self.engine.cf(LOCAL), key.encode())?)
    }

    /// Remembered results of `origin` above `above`, ascending.
    pub fn dedup_rows(
        &self,
        origin: RangeId,
        above: Timestamp,
    ) -> impl Iterator<Item = Result<(Timestamp, Vec<u8>)>> + '_ {
        let bounds = LocalKey::dedup_from(origin, Timestamp(above.get().saturating_add(1)));
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(bounds.start);
        options.set_iterate_upper_bound(bounds.end);
        let rows = self.inner.iterator_cf_opt(self.engine.cf(LOCAL), options, IteratorMode::Start);
        rows.map(|row| {
            let (key, value) = row?;
            let ts = key.last_chunk::<8>();
            let ts = ts.ok_or_else(|| StorageError::corrupt("local key", "wrong length"))?;
            Ok((Timestamp(u64::from_be_bytes(*ts)), value.into_vec()))
        })
    }

    /// A hash over the newest values of a span.
    pub fn checksum(&self, span: &KeyRange) -> Result<Checksum> {
        let mut hash = Xxh3::new();
        let mut rows = 0;
        let mut it = self.iterate(LIVE, bounds(span));
        it.seek_to_first();
        while let Some((key, value)) = it.item() {
            if RawRow::decode(value)?.kind == Kind::Value {
                hash.update(&(key.len() as u32).to_be_bytes());
                hash.update(key);
                hash.update(&(value.len() as u32).to_be_bytes());
                hash.update(value);
                rows += 1;
            }
            it.next();
        }
        it.status()?;
        Ok(Checksum { hash: hash.digest(), rows })
    }

    /// Writes the rows of a span into files, one at a time as the iterator is asked; the consumer
    /// deletes them.
    pub fn export<'a>(
        &'a self,
        span: &KeyRange,
        dir: &Path,
        file_bytes_max: u64,
    ) -> SnapshotExport<'a> {
        SnapshotExport::new(self, span, dir, file_bytes_max)
    }
}

/// The version of `encoded` at `at`, from an iterator over `history`.
pub(super) fn version_at(
    history: &mut DBRawIterator<'_>,
    encoded: &[u8],
    at: Timestamp,
) -> Result<Option<Row>> {
    Ok(raw_version_at(history, encoded, at)?.and_then(|row| row.visible()))
}

/// The same with its parts still in place.
pub(super) fn raw_version_at<'i>(
    history: &'i mut DBRawIterator<'_>,
    encoded: &[u8],
    at: Timestamp,
) -> Result<Option<RawRow<'i>>> {
    history.seek(key::history(encoded, at));
    if !history.valid() {
        history.status()?;
        return Ok(None);
    }
    let Some((key, value)) = history.item() else { return Ok(None) };
    let Some(start) = key::history_start(key, encoded) else { return Ok(None) };
    let row = RawRow::decode(value)?;
    let end = row.ts;
    Ok((end > at).then_some(RawRow { ts: start, ..row }))
}
