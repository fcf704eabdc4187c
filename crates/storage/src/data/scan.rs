//! A span in key order, as of one timestamp.

use super::engine::{HISTORY, LIVE};
use super::row::{RawRow, Row};
use super::snapshot::{DataSnapshot, version_at};
use crate::Result;
use crate::key::{bounds, decode_whole};
use bytes::Bytes;
use isotherm_types::{Key, KeyRange, Timestamp};
use rocksdb::DBRawIterator;

/// Iterates the visible rows of a span. Current data meets exactly one row per key, however often
/// keys were overwritten; only keys that are newer than the timestamp look into `history`.
pub struct MvccScan<'a> {
    snapshot: &'a DataSnapshot,
    span: KeyRange,
    at: Timestamp,
    reverse: bool,
    keys_only: bool,
    live: DBRawIterator<'a>,
    history: Option<DBRawIterator<'a>>,
}

impl<'a> MvccScan<'a> {
    pub(super) fn new(
        snapshot: &'a DataSnapshot,
        span: &KeyRange,
        at: Timestamp,
        reverse: bool,
        keys_only: bool,
    ) -> Self {
        let mut live = snapshot.iterate(LIVE, bounds(span));
        if reverse {
            live.seek_to_last();
        } else {
            live.seek_to_first();
        }
        Self { snapshot, span: span.clone(), at, reverse, keys_only, live, history: None }
    }

    fn step(&mut self) {
        if self.reverse {
            self.live.prev();
        } else {
            self.live.next();
        }
    }

    fn next_visible(&mut self) -> Result<Option<(Key, Row)>> {
        while let Some((key, value)) = self.live.item() {
            let live = RawRow::decode(value)?;
            let row = if live.ts <= self.at {
                let value = if self.keys_only { &[][..] } else { live.value };
                RawRow { value, ..live }.visible()
            } else {
                let history = self
                    .history
                    .get_or_insert_with(|| self.snapshot.iterate(HISTORY, bounds(&self.span)));
                version_at(history, key, self.at)?
            };
            let found = match row {
                Some(row) => Some((Key::from(decode_whole(key)?), row)),
                None => None,
            };
            self.step();
            if let Some((key, mut row)) = found {
                if self.keys_only {
                    row.value = Bytes::new();
                }
                return Ok(Some((key, row)));
            }
        }
        self.live.status()?;
        Ok(None)
    }
}

impl Iterator for MvccScan<'_> {
    type Item = Result<(Key, Row)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_visible().transpose()
    }
}
