//! Numbers of the groups that are synced together, by which a log that lost some of them is told from
//! one whose end is torn.
//!
//! Recovery reads a write-ahead file up to the first record that is not whole. After a loss of power
//! that is the end of what was being written; after a flipped bit it is in the middle, and everything
//! behind it is gone: entries that were acknowledged, and votes. Both look the same to RocksDB.
//!
//! ```text
//!   group 7            group 8            group 9
//!   [mark: 7, 6 | …]   [mark: 8, 7 | …]   [mark: 9, 8 | …]
//! ```
//! Every group begins with a mark: its own number, and the last group that was known to be on disk when
//! it was written. So whoever reads the mark of group 9 anywhere in the files knows that group 8 was
//! synced. The number of a group is also stored under a key, so that what was recovered says how far it
//! goes. If that is less than what some mark says was synced, the log lost it. What was never synced is
//! never missed: no mark speaks of it.
//!
//! Marks are also looked for behind what cannot be read, where the bytes are anybody's: of values that
//! clients wrote, in remains of a file that is overwritten. So a mark carries the secret of its log, drawn
//! at random when the log begins, and counts only with it.
//!
//! A log that is idle writes a mark of its own, so that the last group is covered too.

use super::keys;
use crate::{Result, StorageError};
use rocksdb::{DB, Options, WriteBatch, WriteOptions};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

/// The record that holds the number of the last group.
const GROUP: &str = "group";
/// The record that holds the log's secret.
const SECRET: &str = "group-secret";

/// A block of a write-ahead file (RocksDB, db/log_format.h). Records are cut at its end.
const BLOCK_BYTES: usize = 32 << 10;
/// Checksum 4, length 2, type 1, number of the file 4.
const HEADER_BYTES: usize = 11;
const FULL: u8 = 5;
const FIRST: u8 = 6;
const LAST: u8 = 8;
/// Sequence number 8, count 4.
const BATCH_HEADER_BYTES: usize = 12;
/// The type of what is written to the file and nowhere else (db/dbformat.h, `kTypeLogData`).
const LOG_DATA: u8 = 3;

const MAGIC: [u8; 8] = *b"isogroup";
pub(crate) const MARK_BYTES: usize = 40;

/// Tells the marks of a log from whatever looks like one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Secret([u8; 16]);

impl Secret {
    /// The secret of `db`; none if it was only ever written by software without groups.
    fn of(db: &DB) -> Result<Option<Self>> {
        let Some(bytes) = db.get(keys::node(SECRET))? else { return Ok(None) };
        let bytes = bytes.try_into();
        let bytes = bytes.map_err(|_| StorageError::corrupt("log", "its secret is none"))?;
        Ok(Some(Self(bytes)))
    }

    /// The secret of `db`, which gets one if it has none. In a table when it returns: what damages the
    /// files of a log leaves it alone.
    fn of_or_new(db: &DB) -> Result<Self> {
        if let Some(secret) = Self::of(db)? {
            return Ok(secret);
        }
        // Keyed by the operating system's randomness.
        let half = || RandomState::new().hash_one(0_u8);
        let drawn = (u128::from(half()) << 64) | u128::from(half());
        let secret = Self(drawn.to_le_bytes());
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        db.put_opt(keys::node(SECRET), secret.0, &synced)?;
        db.flush()?;
        Ok(secret)
    }
}

/// What a group begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub secret: Secret,
    /// The group's own.
    pub number: u64,
    /// The last group that is known to be on disk.
    pub durable: u64,
}

impl Mark {
    /// Begins the batch of a group.
    pub fn begin(self, batch: &mut WriteBatch) {
        let mut mark = [0; MARK_BYTES];
        mark[..8].copy_from_slice(&MAGIC);
        mark[8..24].copy_from_slice(&self.secret.0);
        mark[24..32].copy_from_slice(&self.number.to_le_bytes());
        mark[32..].copy_from_slice(&self.durable.to_le_bytes());
        batch.put_log_data(mark);
        batch.put(keys::node(GROUP), self.number.to_le_bytes());
    }

    /// The mark at the start of a batch.
    fn of(payload: &[u8]) -> Option<Self> {
        let data =
            payload.get(BATCH_HEADER_BYTES..)?.strip_prefix(&[LOG_DATA, MARK_BYTES as u8])?;
        let data = data.get(..MARK_BYTES)?.strip_prefix(&MAGIC)?;
        let (secret, data) = data.split_first_chunk::<16>()?;
        let (number, data) = data.split_first_chunk::<8>()?;
        let durable = data.first_chunk::<8>()?;
        let [number, durable] = [*number, *durable].map(u64::from_le_bytes);
        Some(Self { secret: Secret(*secret), number, durable })
    }
}

/// The last group that `db` has; 0 if it has none, or was written by software without groups.
fn recovered(db: &DB) -> Result<u64> {
    let Some(bytes) = db.get(keys::node(GROUP))? else { return Ok(0) };
    let bytes = bytes.try_into();
    let bytes = bytes.map_err(|_| StorageError::corrupt("log", "the number of a group is none"))?;
    Ok(u64::from_le_bytes(bytes))
}

/// A log that is open, and where it goes on.
pub(super) struct Opened {
    pub db: DB,
    pub secret: Secret,
    /// The number of the last group. It is on disk, as everything that was recovered.
    pub last: u64,
}

/// Opens the log in `dir`. Refused with [`StorageError::LostLog`] if it lacks a group that was synced.
pub(super) fn open(dir: &Path, options: &Options, accepts_loss: bool) -> Result<Opened> {
    let found = look(dir)?;
    if found.has_hole && !accepts_loss {
        // To open a log for writing is to drop what is behind the hole: the next start would find
        // nothing wrong. Reading leaves the files as they are.
        let db = DB::open_for_read_only(options, dir, false)?;
        found.check(Secret::of(&db)?, recovered(&db)?)?;
    }
    let db = DB::open(options, dir)?;
    let secret = Secret::of_or_new(&db)?;
    let last = recovered(&db)?;
    if !accepts_loss {
        found.check(Some(secret), last)?;
    }
    let last = last.max(found.durable(secret));
    Ok(Opened { db, secret, last })
}

/// What the files of a log say before it is opened.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// The last group that some mark says was synced, by the secret of the mark.
    durable: HashMap<Secret, u64>,
    /// Something that cannot be read lies before something that can.
    has_hole: bool,
    /// The last group of which all is there.
    last: Option<u64>,
}

impl Found {
    fn durable(&self, secret: Secret) -> u64 {
        self.durable.get(&secret).copied().unwrap_or(0)
    }

    fn check(&self, secret: Option<Secret>, last: u64) -> Result<()> {
        let durable = secret.map_or(0, |secret| self.durable(secret));
        if last < durable {
            return Err(StorageError::LostLog { found: last, durable });
        }
        Ok(())
    }

    /// Adds what one file says, whose records carry `number`.
    fn add(&mut self, bytes: &[u8], number: u32) {
        let (mut is_broken, mut begun) = (false, None);
        for block in bytes.chunks(BLOCK_BYTES) {
            let mut rest = block;
            while rest.len() >= HEADER_BYTES {
                let Some((kind, payload)) = record(rest, number) else {
                    // The end of what was written, or something that was damaged: then whole records
                    // follow, somewhere.
                    is_broken = true;
                    rest = &rest[1..];
                    continue;
                };
                self.has_hole |= is_broken;
                if matches!(kind, FULL | FIRST) {
                    begun = Mark::of(payload);
                    begun.into_iter().for_each(|mark| self.says(mark));
                }
                if matches!(kind, FULL | LAST)
                    && let Some(mark) = begun.take()
                {
                    self.has(mark);
                }
                rest = &rest[HEADER_BYTES + payload.len()..];
            }
        }
    }

    fn says(&mut self, mark: Mark) {
        let durable = self.durable.entry(mark.secret).or_default();
        *durable = mark.durable.max(*durable);
    }

    fn has(&mut self, mark: Mark) {
        // The end of a file can be damaged as well, and then the next one goes on behind a hole.
        self.has_hole |= self.last.is_some_and(|last| mark.number != last + 1);
        self.last = Some(mark.number);
    }
}

fn look(dir: &Path) -> Result<Found> {
    let mut found = Found::default();
    for (number, path) in files(dir)? {
        let bytes = std::fs::read(&path).map_err(StorageError::at(&path))?;
        found.add(&bytes, number as u32);
    }
    Ok(found)
}

/// The write-ahead files in `dir`, the oldest first.
fn files(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StorageError::at(dir)(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(StorageError::at(dir))?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".log"));
        if let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files)
}

/// The whole record of file `number` at the start of `bytes`: its type and payload.
fn record(bytes: &[u8], number: u32) -> Option<(u8, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let [c0, c1, c2, c3, l0, l1, kind, n0, n1, n2, n3] = *header;
    let is_ours = (FULL..=LAST).contains(&kind) && u32::from_le_bytes([n0, n1, n2, n3]) == number;
    let payload = rest.get(..usize::from(u16::from_le_bytes([l0, l1]))).filter(|_| is_ours)?;
    let sum = crc32c::crc32c_append(crc32c::crc32c(&header[6..]), payload);
    // As RocksDB stores it (util/crc32c.h, `Mask`).
    let masked = sum.rotate_right(15).wrapping_add(0xa282_ead8);
    (masked == u32::from_le_bytes([c0, c1, c2, c3])).then_some((kind, payload))
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A record of file `number`, as RocksDB writes it.
    pub fn encode(kind: u8, number: u32, payload: &[u8]) -> Vec<u8> {
        let mut checked = vec![kind];
        checked.extend(number.to_le_bytes());
        checked.extend(payload);
        let sum = crc32c::crc32c(&checked);
        let masked = sum.rotate_right(15).wrapping_add(0xa282_ead8);
        let mut bytes = masked.to_le_bytes().to_vec();
        bytes.extend(u16::try_from(payload.len()).unwrap().to_le_bytes());
        bytes.extend(checked);
        bytes
    }

    /// A batch that begins with a mark.
    pub fn batch(mark: Mark) -> Vec<u8> {
        let mut batch = WriteBatch::default();
        mark.begin(&mut batch);
        batch.data().to_vec()
    }

    fn group(number: u64) -> Vec<u8> {
        batch(Mark { secret: Secret([7; 16]), number, durable: number - 1 })
    }

    fn found(files: &[(u32, Vec<Vec<u8>>)]) -> Found {
        let mut found = Found::default();
        files.iter().for_each(|(number, records)| found.add(&records.concat(), *number));
        found
    }

    #[test]
    fn a_hole_is_seen_within_a_file_and_at_its_end() {
        let full = |file, number| encode(FULL, file, &group(number));
        let damaged = |mut record: Vec<u8>| {
            *record.last_mut().unwrap() ^= 1;
            record
        };
        let whole = found(&[(4, vec![full(4, 1), full(4, 2)]), (5, vec![full(5, 3)])]);
        assert!(!whole.has_hole && whole.durable(Secret([7; 16])) == 2);
        let torn = found(&[(4, vec![full(4, 1), full(4, 2)]), (5, vec![damaged(full(5, 3))])]);
        assert!(!torn.has_hole, "the end may be torn");
        // What is left of the file that was overwritten is of another number.
        let old = found(&[(4, vec![full(4, 1), full(3, 9), full(3, 10)])]);
        assert!(!old.has_hole && old.durable(Secret([7; 16])) == 0);
        let within = found(&[(4, vec![damaged(full(4, 1)), full(4, 2)])]);
        assert!(within.has_hole);
        let at_its_end =
            found(&[(4, vec![full(4, 1), damaged(full(4, 2))]), (5, vec![full(5, 3)])]);
        assert!(at_its_end.has_hole && at_its_end.durable(Secret([7; 16])) == 2);
        // Of a group in several records the first alone is not enough.
        let cut =
            vec![full(4, 1), encode(FIRST, 4, &group(2)), damaged(encode(LAST, 4, b"the rest"))];
        assert!(found(&[(4, cut), (5, vec![full(5, 3)])]).has_hole);
    }
}
