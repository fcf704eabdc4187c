//! A span in key order, as of one timestamp.

use super::engine::{HISTORY, LIVE};
use super::row::{RawRow, Row};
use super::snapshot::{DataSnapshot, version_at};
use super::visit::cost;
use crate::Result;
use crate::key::{bounds, decode_whole};
use bytes::Bytes;
use isotherm_types::{Key, KeyRange, Timestamp};
use rocksdb::DBRawIterator;
use std::ops::ControlFlow;

/// What a step of a scan comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scanned {
    /// A visible row.
    Row(Key, Row),
    /// This key was examined and is not visible, and no more was to be spent.
    Stopped(Key),
    /// There are no more rows.
    End,
}

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

    /// The next visible row. `spend` is told what each examined row cost, visible or not; when it
    /// breaks at one that is not visible, the scan stops there.
    pub fn next_within(
        &mut self,
        mut spend: impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Scanned> {
        while let Some((key, value)) = self.live.item() {
            let live = RawRow::decode(value)?;
            let has_sought = live.ts > self.at;
            let read = value.len();
            let row = if live.ts <= self.at {
                let value = if self.keys_only { &[][..] } else { live.value };
                RawRow { value, ..live }.visible()
            } else {
                let history = self
                    .history
                    .get_or_insert_with(|| self.snapshot.iterate(HISTORY, bounds(&self.span)));
                version_at(history, key, self.at)?
            };
            let older = row.as_ref().filter(|_| has_sought).map_or(0, |row| row.value.len());
            let is_over = spend(cost(read + older, has_sought)).is_break();
            let key = match row {
                None if !is_over => None,
                _ => Some(Key::from(decode_whole(key)?)),
            };
            self.step();
            match (key, row) {
                (Some(key), Some(mut row)) => {
                    if self.keys_only {
                        row.value = Bytes::new();
                    }
                    return Ok(Scanned::Row(key, row));
                }
                (Some(key), None) => return Ok(Scanned::Stopped(key)),
                (None, _) => {}
            }
        }
        self.live.status()?;
        Ok(Scanned::End)
    }
}

impl Iterator for MvccScan<'_> {
    type Item = Result<(Key, Row)>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_within(|_| ControlFlow::Continue(())) {
            Ok(Scanned::Row(key, row)) => Some(Ok((key, row))),
            Ok(Scanned::Stopped(_) | Scanned::End) => None,
            Err(error) => Some(Err(error)),
        }
    }
}
