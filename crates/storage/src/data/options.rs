//! Settings of the data engine and what becomes of them in RocksDB.

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, Options};

/// Settings of the data engine.
#[derive(Debug, Clone, Copy)]
pub struct DataOptions {
    /// Uncompressed blocks kept in memory, all column families together.
    pub block_cache_bytes: usize,
    /// One memtable of `live` or `history`. Well above what the flush task lets pile up, so that
    /// RocksDB rarely flushes on its own.
    pub write_buffer_bytes: usize,
    /// Threads for flushes and compactions.
    pub background_jobs: usize,
    /// Table files kept open.
    pub open_files_max: usize,
}

impl Default for DataOptions {
    fn default() -> Self {
        Self {
            block_cache_bytes: 256 << 20,
            write_buffer_bytes: 128 << 20,
            background_jobs: 2,
            open_files_max: 1024,
        }
    }
}

impl DataOptions {
    pub(crate) fn database(&self) -> Options {
        let mut o = Options::default();
        o.create_if_missing(true);
        o.create_missing_column_families(true);
        // Without the write-ahead log, families flushed one by one would come back from a crash
        // at different points: an applied state newer or older than the rows it speaks of.
        o.set_atomic_flush(true);
        o.set_max_background_jobs(to_c_int(self.background_jobs));
        o.set_max_open_files(to_c_int(self.open_files_max));
        quiet(&mut o);
        o
    }

    pub(crate) fn family(&self, cf: super::db::Cf, cache: &Cache) -> Options {
        use super::db::Cf;
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(cache);
        table.set_format_version(6);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        if cf == Cf::Live {
            // Point reads of absent keys; `history` and `local` are read by seeks.
            table.set_bloom_filter(10.0, false);
        }
        let mut o = Options::default();
        o.set_block_based_table_factory(&table);
        o.set_compression_per_level(&compression());
        o.set_level_compaction_dynamic_level_bytes(false);
        o.set_max_write_buffer_number(4);
        o.set_write_buffer_size(match cf {
            Cf::Live | Cf::History => self.write_buffer_bytes,
            Cf::Local | Cf::Lock | Cf::Agg => self.write_buffer_bytes / 4,
        });
        o
    }
}

/// None where data is young and rewritten soon, lz4 from level 2 on.
fn compression() -> [DBCompressionType; 7] {
    use DBCompressionType::{Lz4, None};
    [None, None, Lz4, Lz4, Lz4, Lz4, Lz4]
}

/// Keeps RocksDB's own log files few and small.
pub(crate) fn quiet(o: &mut Options) {
    o.set_keep_log_file_num(2);
    o.set_max_log_file_size(8 << 20);
    o.set_stats_dump_period_sec(0);
}

pub(crate) fn to_c_int(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
