//! A set of writes that become visible together.

use super::Garbage;
use super::engine::{DataEngine, HISTORY, LIVE, LOCAL};
use crate::key::{LocalKey, bounds};
use isotherm_types::{KeyRange, RangeId, Timestamp};

/// Writes to `data`; nothing happens before [`DataEngine::write`].
#[derive(Debug, Default)]
pub struct DataBatch {
    ops: Vec<Op>,
    bytes: usize,
    garbage: Garbage,
}

#[derive(Debug)]
enum Op {
    Put(&'static str, Vec<u8>, Vec<u8>),
    Delete(&'static str, Vec<u8>),
    DeleteRange(&'static str, Vec<u8>, Vec<u8>),
}

impl DataBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    fn put(&mut self, cf: &'static str, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += key.len() + value.len();
        self.ops.push(Op::Put(cf, key, value));
    }

    pub(super) fn put_live(&mut self, key: Vec<u8>, row: Vec<u8>) {
        self.put(LIVE, key, row);
    }

    pub(super) fn put_tombstone(&mut self, key: Vec<u8>, row: Vec<u8>) {
        self.garbage.tombstone_bytes += (key.len() + row.len()) as u64;
        self.put(LIVE, key, row);
    }

    pub(super) fn put_history(&mut self, key: Vec<u8>, row: Vec<u8>) {
        self.garbage.history_bytes += (key.len() + row.len()) as u64;
        self.put(HISTORY, key, row);
    }

    /// Sets a `local` row.
    pub fn put_local(&mut self, key: &LocalKey, value: &[u8]) {
        self.put(LOCAL, key.encode(), value.to_vec());
    }

    /// Removes a `local` row.
    pub fn delete_local(&mut self, key: &LocalKey) {
        self.ops.push(Op::Delete(LOCAL, key.encode()));
    }

    /// Removes the remembered results of `origin` below `ts`.
    pub fn delete_dedup_below(&mut self, origin: RangeId, ts: Timestamp) {
        let first = LocalKey::Dedup { origin, ts: Timestamp::ZERO }.encode();
        let end = LocalKey::Dedup { origin, ts }.encode();
        self.ops.push(Op::DeleteRange(LOCAL, first, end));
    }

    /// Removes every user row of a span.
    pub fn delete_span(&mut self, span: &KeyRange) {
        let std::ops::Range { start, end } = bounds(span);
        for cf in [LIVE, HISTORY, "lock", "agg"] {
            self.ops.push(Op::DeleteRange(cf, start.clone(), end.clone()));
        }
    }

    /// Bytes of keys and values, for cutting.
    pub fn size_bytes(&self) -> usize {
        self.bytes
    }

    /// Its user rows: their keys as they are stored, and their bytes.
    pub(super) fn user_rows(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.ops.iter().filter_map(|op| match op {
            Op::Put(LIVE | HISTORY, key, value) => {
                Some((key.as_slice(), (key.len() + value.len()) as u64))
            }
            _ => None,
        })
    }

    /// What of it will be garbage some day.
    pub fn garbage(&self) -> Garbage {
        self.garbage
    }

    pub(super) fn into_rocksdb(self, engine: &DataEngine) -> rocksdb::WriteBatch {
        let mut batch = rocksdb::WriteBatch::default();
        for op in self.ops {
            match op {
                Op::Put(cf, key, value) => batch.put_cf(engine.cf(cf), key, value),
                Op::Delete(cf, key) => batch.delete_cf(engine.cf(cf), key),
                Op::DeleteRange(cf, start, end) => {
                    batch.delete_range_cf(engine.cf(cf), start, end);
                }
            }
        }
        batch
    }
}
