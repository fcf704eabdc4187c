//! Write-ahead files that are there before they are needed.
//!
//! RocksDB writes a new file where the disk has no blocks for it yet: every sync then waits for the
//! file system to record the new blocks too, twice as long as for a file that is overwritten. It
//! overwrites the files that it has done with, once there are some: on a node with little to write
//! that takes hours. So a log that is opened first fills two files with nothing, one that is in use
//! while the other waits, and begins overwriting with the first entry.

use super::keys;
use crate::Result;
use rocksdb::{DB, WriteBatch, WriteOptions};
use std::path::Path;

const CHUNK_BYTES: usize = 1 << 20;
/// How many times what is written has to be free: otherwise the space is worth more than the time.
const FREE_FACTOR: u64 = 16;
const FILES: u64 = 2;

/// Fills files of `bytes` each in `dir`, the directory of `db`, which nobody uses yet.
pub(super) fn prepare(db: &DB, dir: &Path, bytes: usize) -> Result<()> {
    let disk = rustix::fs::statvfs(dir).map_err(std::io::Error::from)?;
    let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free_bytes < bytes as u64 * FILES * FREE_FACTOR {
        tracing::info!(free_bytes, "no write-ahead files are prepared: the disk has little space");
        return Ok(());
    }
    // Not zeros: RocksDB takes a header of zeros for padding and reads on behind it. What is found
    // beyond the last whole record must end the log.
    let filling = vec![0xff; CHUNK_BYTES];
    for _ in 0..FILES {
        for _ in 0..bytes.div_ceil(CHUNK_BYTES) {
            let mut batch = WriteBatch::default();
            // It goes to the file and nowhere else.
            batch.put_log_data(&filling);
            db.write(batch)?;
        }
        // A flush begins another file, and frees this one, if there is anything to flush.
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        db.put_opt(keys::node(PREPARED), [], &synced)?;
        db.flush()?;
    }
    Ok(())
}

/// The record that is flushed. Nobody reads it.
const PREPARED: &str = "prepared";
