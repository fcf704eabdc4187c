//! Settings of the log engine and what becomes of them in RocksDB.

use crate::StorageError;
use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options};
use std::sync::Arc;
use std::time::Duration;

/// What to do when the log could not be written.
pub type OnFatal = Arc<dyn Fn(&StorageError) + Send + Sync>;

/// Settings of the log engine.
#[derive(Clone)]
pub struct LogOptions {
    /// Most operations in one sync.
    pub ops_max: usize,
    /// Most bytes in one sync; one larger operation still goes, alone.
    pub bytes_max: usize,
    /// One memtable, and with it one write-ahead file: recycling starts when the first is full.
    pub write_buffer_bytes: usize,
    /// Whether opening fills two write-ahead files first, so that recycling has begun when the first
    /// entry comes. Takes some tens of milliseconds, and as much disk as two memtables.
    pub prepares_files: bool,
    /// Blocks of old entries kept in memory.
    pub block_cache_bytes: usize,
    /// Waited before each sync, to see what a slower disk would do.
    pub sync_delay: Duration,
    /// Opens a log that lost what was synced. Whoever sets it has to see to it that no replica on it
    /// counts for what it acknowledged.
    pub accepts_loss: bool,
    /// Called once, on the writer thread, before any callback learns of the failure. By default it
    /// ends the process: what was written may or may not be on disk, and only a restart that
    /// reads it back can tell.
    pub on_fatal: OnFatal,
    /// Acknowledges without syncing.
    #[cfg(feature = "faults")]
    pub skip_sync: bool,
}

impl std::fmt::Debug for LogOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogOptions")
            .field("ops_max", &self.ops_max)
            .field("bytes_max", &self.bytes_max)
            .field("write_buffer_bytes", &self.write_buffer_bytes)
            .field("prepares_files", &self.prepares_files)
            .field("sync_delay", &self.sync_delay)
            .finish_non_exhaustive()
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            ops_max: 4096,
            bytes_max: 8 << 20,
            write_buffer_bytes: 16 << 20,
            prepares_files: false,
            block_cache_bytes: 16 << 20,
            sync_delay: Duration::ZERO,
            accepts_loss: false,
            on_fatal: Arc::new(abort),
            #[cfg(feature = "faults")]
            skip_sync: std::env::var("ISOTHERM_FAULT_SKIP_SYNC").is_ok_and(|v| v == "1"),
        }
    }
}

fn abort(error: &StorageError) {
    tracing::error!(%error, "writing the log failed: the process ends");
    std::process::abort();
}

impl LogOptions {
    pub(super) fn database(&self) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_lru_cache(self.block_cache_bytes));
        let mut o = Options::default();
        o.set_block_based_table_factory(&table);
        o.create_if_missing(true);
        // Entries are read once or twice and purged; their values are compressed for nothing.
        o.set_compression_type(DBCompressionType::None);
        o.set_write_buffer_size(self.write_buffer_bytes);
        o.set_max_write_buffer_number(4);
        o.set_max_background_jobs(2);
        o.set_max_open_files(crate::files::open_files_max(256));
        // Syncing a file that is overwritten takes half as long as syncing one that grows: its
        // blocks and its length are on disk already.
        //
        // RocksDB turns recycling off again (db_impl_open.cc, SanitizeOptions) under
        // kTolerateCorruptedTailRecords and kAbsoluteConsistency, which take the remains of the
        // former log behind the end of the new one for corruption, and with WAL_ttl_seconds or
        // WAL_size_limit_MB, which archive old files. Point-in-time recovery, set here though it is
        // the default, keeps it on: records carry their file's number, and recovery ends at the
        // first that is torn or of a former file. All that was synced lies before it. Should a disk
        // damage a synced record, recovery ends there too, without a word: `groups.rs` is how that is
        // noticed.
        o.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        o.set_recycle_log_file_num(4);
        o.set_keep_log_file_num(4);
        o
    }
}
