//! A span as SST files, for a replica elsewhere.

use super::engine::{HISTORY, LIVE};
use super::snapshot::DataSnapshot;
use crate::Result;
use crate::key::bounds;
use isotherm_types::KeyRange;
use rocksdb::{DBCompressionType, DBRawIterator, Options, SstFileWriter};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The column families that travel in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum SnapshotCf {
    /// Newest versions.
    Live = 0,
    /// Older versions.
    History = 1,
}

impl SnapshotCf {
    /// From its number on the wire.
    pub fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Live),
            1 => Some(Self::History),
            _ => None,
        }
    }
}

/// One SST file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotFile {
    /// Where its rows belong.
    pub cf: SnapshotCf,
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// Writes a span into files, one per step.
pub struct SnapshotExport<'a> {
    parts: Vec<(SnapshotCf, DBRawIterator<'a>)>,
    dir: PathBuf,
    file_bytes_max: u64,
    number: usize,
}

impl<'a> SnapshotExport<'a> {
    pub(super) fn new(
        snapshot: &'a DataSnapshot,
        span: &KeyRange,
        dir: &Path,
        file_bytes_max: u64,
    ) -> Self {
        let part = |cf, name| {
            let mut it = snapshot.iterate(name, bounds(span));
            it.seek_to_first();
            (cf, it)
        };
        // Taken from the end: live first.
        let parts = vec![part(SnapshotCf::History, HISTORY), part(SnapshotCf::Live, LIVE)];
        Self { parts, dir: dir.to_owned(), file_bytes_max, number: 0 }
    }

    fn next_file(&mut self) -> Result<Option<SnapshotFile>> {
        loop {
            let Some((cf, rows)) = self.parts.last_mut() else { return Ok(None) };
            if !rows.valid() {
                rows.status()?;
                self.parts.pop();
                continue;
            }
            let path = self.dir.join(format!("{:06}.sst", self.number));
            self.number += 1;
            let mut options = Options::default();
            options.set_compression_type(DBCompressionType::Lz4);
            let mut writer = SstFileWriter::create(&options);
            writer.open(&path)?;
            let mut bytes = 0;
            while let Some((key, value)) = rows.item() {
                writer.put(key, value)?;
                bytes += (key.len() + value.len()) as u64;
                rows.next();
                if bytes >= self.file_bytes_max {
                    break;
                }
            }
            rows.status()?;
            writer.finish()?;
            let bytes = std::fs::metadata(&path)?.len();
            return Ok(Some(SnapshotFile { cf: *cf, path, bytes }));
        }
    }
}

impl Iterator for SnapshotExport<'_> {
    type Item = Result<SnapshotFile>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_file().transpose()
    }
}
