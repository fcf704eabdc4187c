//! Opening, writing, flushing.

use super::collector::{Collectors, Family};
use super::export::{SnapshotCf, SnapshotFile};
use super::row::{Kind, RawRow};
use super::unflushed::Unflushed;
use super::{DataBatch, DataSnapshot, Garbage};
use crate::key::{LocalKey, bounds};
use crate::metrics as names;
use crate::{Result, StorageError};
use isotherm_types::{KeyRange, RangeId, Timestamp};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB,
    DBCompressionType, FlushOptions, IngestExternalFileOptions, IteratorMode, Options, ReadOptions,
    ReadTier, WriteOptions,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

pub(super) const LIVE: &str = "live";
pub(super) const HISTORY: &str = "history";
pub(super) const LOCAL: &str = "local";
const LOCK: &str = "lock";
const AGG: &str = "agg";
const ALL: [&str; 5] = [LIVE, HISTORY, LOCAL, LOCK, AGG];

/// Sizes of the data engine.
#[derive(Debug, Clone)]
pub struct DataOptions {
    /// Block cache over all column families.
    pub block_cache_bytes: usize,
    /// Size of one memtable.
    pub write_buffer_bytes: usize,
    /// Threads for flushes and compactions.
    pub background_jobs: i32,
}

impl Default for DataOptions {
    fn default() -> Self {
        Self { block_cache_bytes: 256 << 20, write_buffer_bytes: 64 << 20, background_jobs: 2 }
    }
}

/// The state machines of all ranges of a node. Cheap to clone.
#[derive(Clone)]
pub struct DataEngine {
    pub(super) db: Arc<DB>,
    /// Versions that ended at or before it may be dropped. Only rises while the engine is open.
    safe_point: Arc<AtomicU64>,
    unflushed: Arc<Unflushed>,
}

/// How far [`DataEngine::verify`] has come in a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyPosition {
    is_history: bool,
    key: Vec<u8>,
}

fn table_options(cache: &Cache, bloom: bool) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(16 << 10);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(5);
    if bloom {
        table.set_bloom_filter(10.0, false);
    }
    table
}

fn cf_options(
    name: &str,
    options: &DataOptions,
    cache: &Cache,
    safe_point: &Arc<AtomicU64>,
) -> Options {
    let mut cf = Options::default();
    let small = name == LOCK || name == AGG;
    cf.set_write_buffer_size(if small { 1 << 20 } else { options.write_buffer_bytes });
    cf.set_max_write_buffer_number(4);
    cf.set_target_file_size_base(64 << 20);
    cf.set_level_compaction_dynamic_level_bytes(true);
    cf.set_compression_per_level(&[
        DBCompressionType::None,
        DBCompressionType::None,
        DBCompressionType::Lz4,
        DBCompressionType::Lz4,
        DBCompressionType::Lz4,
        DBCompressionType::Lz4,
        DBCompressionType::Lz4,
    ]);
    cf.set_block_based_table_factory(&table_options(cache, name == LIVE));
    let family = match name {
        LIVE => Some(Family::Live),
        HISTORY => Some(Family::History),
        _ => None,
    };
    if let Some(family) = family {
        let safe_point = safe_point.clone();
        cf.set_compaction_filter_factory(Collectors { family, safe_point });
    }
    cf
}

impl DataEngine {
    /// Opens the engine in `dir`, creating it if it is not there. Its safe point is 0: nothing is
    /// dropped before [`DataEngine::raise_safe_point`] is called.
    pub fn open(dir: &Path, options: &DataOptions) -> Result<Self> {
        let cache = Cache::new_lru_cache(options.block_cache_bytes);
        let mut db = Options::default();
        db.create_if_missing(true);
        db.create_missing_column_families(true);
        db.set_atomic_flush(true);
        db.set_max_background_jobs(options.background_jobs);
        db.set_bytes_per_sync(1 << 20);
        db.set_keep_log_file_num(4);
        db.set_max_open_files(crate::files::open_files_max(4096));
        let safe_point = Arc::new(AtomicU64::new(0));
        let families = ALL.map(|name| {
            ColumnFamilyDescriptor::new(name, cf_options(name, options, &cache, &safe_point))
        });
        let db = DB::open_cf_descriptors(&db, dir, families)?;
        Ok(Self { db: Arc::new(db), safe_point, unflushed: Arc::default() })
    }

    pub(super) fn cf(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("every column family is created at open")
    }

    /// Writes a batch, atomically, to memory only: a flush makes it durable.
    pub fn write(&self, batch: DataBatch) -> Result<()> {
        metrics::counter!(names::DATA_WRITE_BYTES).increment(batch.size_bytes() as u64);
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.unflushed.note(batch.user_rows());
        let written = self.db.write_opt(batch.into_rocksdb(self), &options);
        written.map_err(|source| StorageError::EngineStopped { source })
    }

    /// A consistent view of everything, as of now.
    pub fn snapshot(&self) -> DataSnapshot {
        DataSnapshot::new(self.clone())
    }

    /// Makes everything written so far durable, atomically over all column families (an atomic
    /// flush covers only those named). Blocking.
    pub fn flush(&self) -> Result<()> {
        let families: Vec<_> = ALL.iter().map(|name| self.cf(name)).collect();
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let started = Instant::now();
        self.unflushed.begin_flush();
        let flushed = self.db.flush_cfs_opt(&families.iter().collect::<Vec<_>>(), &options);
        flushed.map_err(|source| StorageError::EngineStopped { source })?;
        self.unflushed.end_flush();
        metrics::counter!(names::DATA_FLUSHES).increment(1);
        metrics::histogram!(names::DATA_FLUSH_SECONDS).record(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Bytes that are in memory only.
    pub fn unflushed_bytes(&self) -> u64 {
        let size = |name| {
            let property = rocksdb::properties::CUR_SIZE_ALL_MEM_TABLES;
            self.db.property_int_value_cf(self.cf(name), property).ok().flatten().unwrap_or(0)
        };
        ALL.into_iter().map(size).sum()
    }

    /// Says in the metrics what the engine has memory for. Looks at every open file: once in seconds, not
    /// more often.
    pub fn note_memory(&self) {
        use rocksdb::properties as of;
        let int = |name, property| {
            self.db.property_int_value_cf(self.cf(name), property).ok().flatten().unwrap_or(0)
        };
        let sum = |property| ALL.into_iter().map(|name| int(name, property)).sum::<u64>();
        let parts = [
            // One cache serves all column families.
            ("block_cache", int(LIVE, of::BLOCK_CACHE_USAGE)),
            ("block_cache_pinned", int(LIVE, of::BLOCK_CACHE_PINNED_USAGE)),
            // With those that are flushed and that an iterator still reads.
            ("memtables", sum(of::SIZE_ALL_MEM_TABLES)),
            ("tables", sum(of::ESTIMATE_TABLE_READERS_MEM)),
        ];
        for (part, bytes) in parts {
            metrics::gauge!(names::DATA_MEMORY_BYTES, "part" => part).set(bytes as f64);
        }
    }

    /// A `local` row as a crash would leave it: memtables are not read.
    pub fn durable_local(&self, key: &LocalKey) -> Result<Option<Vec<u8>>> {
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::Persisted);
        Ok(self.db.get_cf_opt(self.cf(LOCAL), key.encode(), &options)?)
    }

    /// A `local` row.
    pub fn local(&self, key: &LocalKey) -> Result<Option<Vec<u8>>> {
        Ok(self.db.get_cf(self.cf(LOCAL), key.encode())?)
    }

    /// Every range that has a descriptor here.
    pub fn local_ranges(&self) -> Result<Vec<RangeId>> {
        let mut options = ReadOptions::default();
        let bounds = LocalKey::descriptors();
        options.set_iterate_lower_bound(bounds.start);
        options.set_iterate_upper_bound(bounds.end);
        let rows = self.db.iterator_cf_opt(self.cf(LOCAL), options, IteratorMode::Start);
        let mut ranges = Vec::new();
        for row in rows {
            let (key, _) = row?;
            match LocalKey::decode(&key)? {
                LocalKey::Descriptor(range) => ranges.push(range),
                other => {
                    let why = format!("{other:?} among descriptors");
                    return Err(StorageError::corrupt("local key", why));
                }
            }
        }
        Ok(ranges)
    }

    /// Deletes every user row of a span.
    pub fn delete_span(&self, span: &KeyRange) -> Result<()> {
        let mut batch = DataBatch::new();
        batch.delete_span(span);
        self.write(batch)
    }

    /// Takes files in. Each file's content must lie in a span that was deleted and flushed before.
    /// Consumes the files. Blocking.
    pub fn ingest(&self, files: &[SnapshotFile]) -> Result<()> {
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        for (cf, name) in [(SnapshotCf::Live, LIVE), (SnapshotCf::History, HISTORY)] {
            let paths: Vec<_> = files.iter().filter(|f| f.cf == cf).map(|f| &f.path).collect();
            if !paths.is_empty() {
                self.db.ingest_external_file_cf_opts(self.cf(name), &options, paths)?;
            }
        }
        Ok(())
    }

    /// Bytes that a span takes on disk, roughly.
    pub fn approximate_size(&self, span: &KeyRange) -> u64 {
        self.live_size(span) + self.history_size(span)
    }

    /// The same and what a span takes in memory only, roughly: what is written is in files after the next
    /// flush.
    pub fn approximate_size_with_memory(&self, span: &KeyRange) -> u64 {
        self.approximate_size(span) + self.unflushed.within(&bounds(span))
    }

    /// Bytes that the newest versions of a span take on disk, roughly.
    pub fn live_size(&self, span: &KeyRange) -> u64 {
        self.size_of(LIVE, span)
    }

    /// Bytes that the older versions of a span take on disk, roughly.
    pub fn history_size(&self, span: &KeyRange) -> u64 {
        self.size_of(HISTORY, span)
    }

    fn size_of(&self, family: &str, span: &KeyRange) -> u64 {
        let std::ops::Range { start, end } = bounds(span);
        let range = rocksdb::Range::new(&start, &end);
        self.db.get_approximate_sizes_cf(self.cf(family), &[range]).into_iter().sum()
    }

    /// Versions that ended at or before it may be gone.
    pub fn safe_point(&self) -> Timestamp {
        Timestamp(self.safe_point.load(Ordering::SeqCst))
    }

    /// Lets compactions drop what nobody reads at or above `to`. Whoever calls this has synced the
    /// safe point before: after a restart nobody must be answered from what is missing.
    pub fn raise_safe_point(&self, to: Timestamp) {
        self.safe_point.fetch_max(to.get(), Ordering::SeqCst);
    }

    /// Compacts the older versions of a span, down to the last level. Blocking, for long.
    pub fn collect_history(&self, span: &KeyRange) {
        self.compact(HISTORY, span);
    }

    /// Compacts the newest versions of a span, which drops tombstones. Blocking, for long.
    pub fn collect_tombstones(&self, span: &KeyRange) {
        self.compact(LIVE, span);
    }

    fn compact(&self, family: &str, span: &KeyRange) {
        let std::ops::Range { start, end } = bounds(span);
        let mut options = CompactOptions::default();
        // Automatic compactions go on beside it.
        options.set_exclusive_manual_compaction(false);
        self.db.compact_range_cf_opt(self.cf(family), Some(start), Some(end), &options);
    }

    /// What a look at every row of a span finds of garbage, whether it may be dropped yet or not.
    /// Blocking; leaves the block cache alone.
    pub fn survey(&self, span: &KeyRange) -> Result<Garbage> {
        let std::ops::Range { start, end } = bounds(span);
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(start);
        options.set_iterate_upper_bound(end);
        options.fill_cache(false);
        let mut rows = self.db.raw_iterator_cf_opt(self.cf(LIVE), options);
        rows.seek_to_first();
        let mut tombstone_bytes = 0;
        while let Some((key, value)) = rows.item() {
            if RawRow::decode(value)?.kind == Kind::Tombstone {
                tombstone_bytes += (key.len() + value.len()) as u64;
            }
            rows.next();
        }
        rows.status()?;
        Ok(Garbage { history_bytes: self.history_size(span), tombstone_bytes })
    }

    /// Reads every row of a span from `from` on (a position that an earlier call returned) and checks
    /// its blocks, up to about `bytes_max`. Returns the bytes that were read and where to go on; none:
    /// the span is done. Blocking; leaves the block cache alone.
    pub fn verify(
        &self,
        span: &KeyRange,
        from: Option<VerifyPosition>,
        bytes_max: u64,
    ) -> Result<(u64, Option<VerifyPosition>)> {
        let std::ops::Range { start, end } = bounds(span);
        let (mut family, mut first) = match from {
            Some(VerifyPosition { is_history, key }) => (usize::from(is_history), key),
            None => (0, start.clone()),
        };
        let mut bytes = 0;
        while let Some(name) = [LIVE, HISTORY].get(family) {
            let mut options = ReadOptions::default();
            options.set_iterate_upper_bound(end.clone());
            options.set_verify_checksums(true);
            options.fill_cache(false);
            let mut rows = self.db.raw_iterator_cf_opt(self.cf(name), options);
            rows.seek(&first);
            while let Some((key, value)) = rows.item() {
                if bytes >= bytes_max {
                    let next = VerifyPosition { is_history: family == 1, key: key.to_vec() };
                    return Ok((bytes, Some(next)));
                }
                bytes += (key.len() + value.len()) as u64;
                rows.next();
            }
            rows.status()?;
            (family, first) = (family + 1, start.clone());
        }
        Ok((bytes, None))
    }

    /// Drops whole files that hold rows of a span and of nothing else, without reading them, other than
    /// those of the newest level, which RocksDB keeps. What is left of the span is for the caller to
    /// delete. Nobody may read the span meanwhile.
    pub fn drop_files(&self, span: &KeyRange) -> Result<()> {
        let std::ops::Range { start, mut end } = bounds(span);
        // RocksDB counts the end in, and the first key of the next span must not be: no key lies between
        // this one and the end (keys end with 0x00 0x01).
        if end.ends_with(&[0, 1]) {
            end.pop();
            end.push(0);
        }
        for name in [LIVE, HISTORY] {
            self.db.delete_file_in_range_cf(self.cf(name), &start, &end)?;
        }
        Ok(())
    }

    /// Ends compactions that run, and begins no more: they would hold up the end of the process.
    /// Nothing can be flushed after it.
    pub fn stop_compactions(&self) {
        self.db.cancel_all_background_work(false);
    }
}
