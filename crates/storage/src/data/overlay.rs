//! The writes of one write batch on their way: operations and entries read through it.

use super::engine::LIVE;
use super::row::{Kind, RawRow, Row};
use super::{DataBatch, DataEngine};
use crate::{Result, key};
use bytes::Bytes;
use isotherm_types::{Key, Timestamp};
use std::collections::HashMap;

/// Pending writes over the engine.
///
/// Rules (each has a test in `tests.rs`): overwriting a value moves it to `history` with the new
/// version's timestamp as its end; a version whose start equals its end is never written;
/// tombstones never enter `history`; overwriting a tombstone or deleting an absent key writes no
/// history row; each key's final version is written once.
pub struct Overlay {
    engine: DataEngine,
    rows: HashMap<Key, Slot>,
    /// Of what is pending.
    bytes: usize,
    /// Of what was read.
    read_bytes: usize,
}

struct Slot {
    current: Option<Version>,
    changed: bool,
    history: Vec<(Version, Timestamp)>,
}

impl Slot {
    fn value_len(&self) -> usize {
        self.current.as_ref().map_or(0, |version| version.value.len())
    }
}

#[derive(Clone)]
struct Version {
    kind: Kind,
    ts: Timestamp,
    index: u32,
    value: Bytes,
}

impl Version {
    fn decode(bytes: &[u8]) -> Result<Self> {
        let raw = RawRow::decode(bytes)?;
        let value = Bytes::copy_from_slice(raw.value);
        Ok(Self { kind: raw.kind, ts: raw.ts, index: raw.index, value })
    }

    fn encode(&self, ts: Timestamp) -> Vec<u8> {
        RawRow { kind: self.kind, ts, index: self.index, value: &self.value }.encode()
    }
}

impl Overlay {
    /// Nothing pending yet.
    pub fn new(engine: &DataEngine) -> Self {
        Self { engine: engine.clone(), rows: HashMap::new(), bytes: 0, read_bytes: 0 }
    }

    /// Reads many keys at once, so that later reads of them meet memory.
    pub fn prefetch<'a>(&mut self, keys: impl Iterator<Item = &'a [u8]>) -> Result<()> {
        let mut wanted: Vec<&[u8]> = keys.filter(|k| !self.rows.contains_key(*k)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let encoded: Vec<Vec<u8>> = wanted.iter().map(|k| key::encode(k)).collect();
        let engine = self.engine.clone();
        let found = engine.db.batched_multi_get_cf(engine.cf(LIVE), encoded.iter(), true);
        for (user_key, row) in wanted.into_iter().zip(found) {
            let current = row?.map(|bytes| Version::decode(&bytes)).transpose()?;
            self.keep(user_key, current);
        }
        Ok(())
    }

    fn keep(&mut self, user_key: &[u8], current: Option<Version>) {
        self.read_bytes += user_key.len() + current.as_ref().map_or(0, |v| v.value.len());
        let slot = Slot { current, changed: false, history: Vec::new() };
        self.rows.insert(Key::copy_from_slice(user_key), slot);
    }

    fn slot(&mut self, user_key: &[u8]) -> Result<&mut Slot> {
        if !self.rows.contains_key(user_key) {
            let row = self.engine.db.get_pinned_cf(self.engine.cf(LIVE), key::encode(user_key))?;
            let current = row.map(|bytes| Version::decode(&bytes)).transpose()?;
            self.keep(user_key, current);
        }
        Ok(self.rows.get_mut(user_key).expect("inserted above"))
    }

    /// The newest version, pending ones included; a tombstone is absence.
    pub fn get(&mut self, user_key: &[u8]) -> Result<Option<Row>> {
        let current = self.slot(user_key)?.current.as_ref();
        let visible = current.filter(|v| v.kind == Kind::Value);
        Ok(visible.map(|v| Row { value: v.value.clone(), ts: v.ts, index: v.index }))
    }

    /// Bytes of the newest value, pending ones included; 0 if there is none.
    pub fn value_bytes(&mut self, user_key: &[u8]) -> Result<u64> {
        let current = self.slot(user_key)?.current.as_ref();
        Ok(current.filter(|v| v.kind == Kind::Value).map_or(0, |v| v.value.len() as u64))
    }

    /// Sets a value, or removes it (`None`).
    pub fn set(
        &mut self,
        user_key: &Key,
        value: Option<Bytes>,
        ts: Timestamp,
        index: u32,
    ) -> Result<()> {
        let slot = self.slot(user_key)?;
        let exists = slot.current.as_ref().is_some_and(|v| v.kind == Kind::Value);
        if value.is_none() && !exists {
            return Ok(());
        }
        let kind = if value.is_some() { Kind::Value } else { Kind::Tombstone };
        let version = Version { kind, ts, index, value: value.unwrap_or_default() };
        let mut bytes = user_key.len() + version.value.len();
        let old = slot.current.replace(version);
        slot.changed = true;
        if let Some(old) = old.filter(|v| v.kind == Kind::Value) {
            assert!(old.ts <= ts, "a version at {ts} does not go over one at {}", old.ts);
            if old.ts < ts {
                bytes += user_key.len() + old.value.len();
                slot.history.push((old, ts));
            }
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Bytes that are pending, roughly.
    pub fn pending_bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that it holds, roughly: what is pending and what was read.
    pub fn size_bytes(&self) -> usize {
        self.bytes + self.read_bytes
    }

    /// Moves everything that is pending into `batch`. What was only read stays: it is what the engine has,
    /// as long as nobody else writes these keys.
    pub fn drain_into(&mut self, batch: &mut DataBatch) {
        for (user_key, slot) in self.rows.extract_if(|_, slot| slot.changed) {
            let encoded = key::encode(&user_key);
            for (old, end) in slot.history {
                batch.put_history(key::history(&encoded, old.ts), old.encode(end));
            }
            let newest = slot.current.expect("a changed key has a version");
            let row = newest.encode(newest.ts);
            match newest.kind {
                Kind::Value => batch.put_live(encoded, row),
                Kind::Tombstone => batch.put_tombstone(encoded, row),
            }
        }
        self.bytes = 0;
        let read = |(key, slot): (&Key, &Slot)| key.len() + slot.value_len();
        self.read_bytes = self.rows.iter().map(read).sum();
    }
}
