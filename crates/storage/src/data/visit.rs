//! Every row of a span, without building any of them.

use super::engine::{HISTORY, LIVE};
use super::row::{Kind, RawRow};
use super::snapshot::DataSnapshot;
use crate::Result;
use crate::key::{self, bounds};
use isotherm_types::{Key, KeyRange, Timestamp};
use rocksdb::{DBRawIterator, ReadOptions};
use std::ops::ControlFlow;

/// A row that a visit came to.
#[derive(Debug, Clone, Copy)]
pub struct Visited<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its value as of the timestamp of the visit; none if it has none.
    pub value: Option<&'a [u8]>,
    /// What it took to find that out.
    pub cost: u64,
}

/// What a row costs whatever its size: in units of one byte that is read.
const ROW_COST: u64 = 64;
/// What a look into `history` costs: it seeks.
const SEEK_COST: u64 = 1024;

/// What examining a row of `bytes` costs.
pub(super) fn cost(bytes: usize, has_sought: bool) -> u64 {
    ROW_COST + bytes as u64 + if has_sought { SEEK_COST } else { 0 }
}

impl DataSnapshot {
    /// Shows every row of `span` that it examines to `see`, visible as of `at` or not, in key order,
    /// until it breaks; returns the key that it broke at (which was seen). `is_large` keeps the
    /// blocks out of the cache: rows that are read once must not push out those that are read
    /// often.
    pub fn visit(
        &self,
        span: &KeyRange,
        at: Timestamp,
        is_large: bool,
        mut see: impl FnMut(Visited<'_>) -> ControlFlow<()>,
    ) -> Result<Option<Key>> {
        let mut live = self.iterate_with(LIVE, bounds(span), options(is_large));
        live.seek_to_first();
        let mut history: Option<DBRawIterator<'_>> = None;
        let mut unescaped = Vec::new();
        while let Some((encoded, bytes)) = live.item() {
            let row = RawRow::decode(bytes)?;
            let visible = |row: RawRow<'_>| row.kind == Kind::Value;
            let step = if row.ts <= at {
                let value = visible(row).then_some(row.value);
                let key = key::borrow(encoded, &mut unescaped)?;
                see(Visited { key, value, cost: cost(bytes.len(), false) })
            } else {
                let history = history.get_or_insert_with(|| {
                    self.iterate_with(HISTORY, bounds(span), options(is_large))
                });
                let row = super::snapshot::raw_version_at(history, encoded, at)?;
                let value = row.filter(|row| visible(*row)).map(|row| row.value);
                let read = bytes.len() + value.map_or(0, <[u8]>::len);
                let key = key::borrow(encoded, &mut unescaped)?;
                see(Visited { key, value, cost: cost(read, true) })
            };
            if step.is_break() {
                return Ok(Some(Key::copy_from_slice(key::borrow(encoded, &mut unescaped)?)));
            }
            live.next();
        }
        live.status()?;
        Ok(None)
    }

    /// Keys that cut `span` into about `parts` parts of equal size on disk; none where too little is
    /// on disk to tell.
    pub fn cuts(&self, span: &KeyRange, parts: usize) -> Result<Vec<Key>> {
        let (Some(first), Some(last)) = (self.edge(span, true)?, self.edge(span, false)?) else {
            return Ok(Vec::new());
        };
        // Between two keys eight bytes after what they share decide.
        let shared = first.iter().zip(&last).take_while(|(a, b)| a == b).count();
        let number = |key: &[u8]| {
            let mut bytes = [0; 8];
            let rest = &key[shared..];
            let len = rest.len().min(8);
            bytes[..len].copy_from_slice(&rest[..len]);
            u64::from_be_bytes(bytes)
        };
        let (low, high) = (number(&first), number(&last));
        let key_at = |number: u64| Key::from([&first[..shared], &number.to_be_bytes()].concat());
        let size_to = |number: u64| match KeyRange::new(first.clone(), key_at(number)) {
            Ok(span) => self.approximate_size(&span),
            Err(_) => 0,
        };
        let whole = size_to(high);
        let mut cuts = Vec::new();
        for part in 1..parts as u64 {
            let wanted = whole / parts as u64 * part;
            let (mut below, mut above) = (low, high);
            while below < above {
                let middle = below + (above - below) / 2;
                if size_to(middle) < wanted { below = middle + 1 } else { above = middle }
            }
            let cut = key_at(below);
            if wanted > 0
                && cut > *span.start()
                && span.is_before_end(&cut)
                && cuts.last() < Some(&cut)
            {
                cuts.push(cut);
            }
        }
        Ok(cuts)
    }

    /// The first or the last key of a span, visible or not.
    fn edge(&self, span: &KeyRange, is_first: bool) -> Result<Option<Key>> {
        let mut live = self.iterate(LIVE, bounds(span));
        if is_first {
            live.seek_to_first()
        } else {
            live.seek_to_last()
        }
        let key = live.key().map(key::decode_whole).transpose()?;
        live.status()?;
        Ok(key.map(Key::from))
    }
}

fn options(is_large: bool) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(!is_large);
    // Read ahead grows by itself up to this; seeks inside a cached span cost nothing.
    options.set_readahead_size(if is_large { 2 << 20 } else { 0 });
    options
}
