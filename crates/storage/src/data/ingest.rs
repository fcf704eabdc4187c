//! Taking in the table files of a snapshot.

use super::engine::DataEngine;
use super::export::{SnapshotCf, SnapshotFile};
use crate::{Result, StorageError};
use rocksdb::{IngestExternalFileOptions, ReadOptions};
use std::collections::HashSet;

impl DataEngine {
    /// Takes in `files`, moving them out of where they lie. On disk when it returns.
    ///
    /// The caller has deleted and flushed the span before, and serves nothing of it yet: a crash in
    /// between leaves a part of the files taken in, and the whole is done again. A file of another
    /// length than told is refused before anything changes; a block whose checksum is wrong is
    /// found by reading back what came in, and fails the call.
    pub fn ingest(&self, files: &[SnapshotFile]) -> Result<()> {
        for file in files {
            let len = std::fs::metadata(&file.path).map_err(StorageError::at(&file.path))?.len();
            if len != file.bytes {
                let why = format!("{} has {len} bytes, not {}", file.path.display(), file.bytes);
                return Err(StorageError::corrupt("snapshot file", why));
            }
        }
        let before = self.table_files()?;
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        for cf in [SnapshotCf::Live, SnapshotCf::History] {
            let paths: Vec<_> = files.iter().filter(|f| f.cf == cf).map(|f| &f.path).collect();
            if !paths.is_empty() {
                let handle = self.db.cf(cf.cf());
                self.db.db().ingest_external_file_cf_opts(handle, &options, paths)?;
            }
        }
        self.read_back(&before)
    }

    fn table_files(&self) -> Result<HashSet<String>> {
        Ok(self.db.db().live_files()?.into_iter().map(|file| file.name).collect())
    }

    /// Reads every table file that is not in `before`, which verifies its checksums. The files may
    /// have crossed a network that checks less than it should, and RocksDB's own verification at
    /// ingest is not reachable from here.
    fn read_back(&self, before: &HashSet<String>) -> Result<()> {
        let db = self.db.db();
        for file in db.live_files()?.iter().filter(|file| !before.contains(&file.name)) {
            let (Some(first), Some(last)) = (&file.start_key, &file.end_key) else { continue };
            let Some(handle) = db.cf_handle(&file.column_family_name) else { continue };
            let mut options = ReadOptions::default();
            options.set_iterate_upper_bound([last, &[0][..]].concat());
            options.set_verify_checksums(true);
            options.fill_cache(false);
            options.set_readahead_size(1 << 20);
            let mut iter = db.raw_iterator_cf_opt(handle, options);
            iter.seek(first);
            while iter.valid() {
                iter.next();
            }
            iter.status()?;
        }
        Ok(())
    }
}
