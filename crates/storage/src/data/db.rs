//! The open database, and snapshots and iterators that own their share of it.
//!
//! The rocksdb crate ties handles, snapshots and iterators to a borrow of the database; here they
//! must outlive the call that made them (a page of a scan, a snapshot that is sent to a follower).
//! This file holds the only `unsafe` of the crate: [`DataDb::db_static`] lengthens that borrow, and
//! every value that uses the longer borrow sits in a struct that also holds the `Arc` behind it.

use super::options::DataOptions;
use crate::Result;
use rocksdb::{
    Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBPinnableSlice, DBRawIteratorWithThreadMode,
    ReadOptions, SnapshotWithThreadMode,
};
use std::path::Path;
use std::sync::Arc;

/// A column family of the data engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cf {
    Live,
    History,
    Local,
    Lock,
    Agg,
}

impl Cf {
    pub const ALL: [Cf; 5] = [Cf::Live, Cf::History, Cf::Local, Cf::Lock, Cf::Agg];
    /// Those keyed by enc(user key): a span of them is deleted together.
    pub const BY_USER_KEY: [Cf; 4] = [Cf::Live, Cf::History, Cf::Lock, Cf::Agg];

    pub fn name(self) -> &'static str {
        match self {
            Cf::Live => "live",
            Cf::History => "history",
            Cf::Local => "local",
            Cf::Lock => "lock",
            Cf::Agg => "agg",
        }
    }
}

/// The open database with its handles.
///
/// Invariant: `handles` point into `db` and are handed out only for the life of `&self`.
pub(crate) struct DataDb {
    /// In the order of [`Cf::ALL`].
    handles: [&'static ColumnFamily; 5],
    /// An `Arc`, not a `Box`: a box claims to be the only way to what it holds.
    db: Arc<DB>,
}

impl DataDb {
    pub fn open(dir: &Path, options: &DataOptions) -> Result<Self> {
        let cache = Cache::new_lru_cache(options.block_cache_bytes);
        let families = Cf::ALL
            .map(|cf| ColumnFamilyDescriptor::new(cf.name(), options.family(cf, &cache)));
        let db = Arc::new(DB::open_cf_descriptors(&options.database(), dir, families)?);
        let at_rest = Self::db_static(&db);
        let handles = Cf::ALL.map(|cf| {
            at_rest.cf_handle(cf.name()).expect("every column family was just opened or created")
        });
        Ok(Self { handles, db })
    }

    pub fn db(&self) -> &DB {
        &self.db
    }

    pub fn cf(&self, cf: Cf) -> &ColumnFamily {
        self.handles[cf as usize]
    }

    /// The database, for as long as the caller keeps `db` (or a clone of it).
    #[allow(unsafe_code)]
    fn db_static(db: &Arc<DB>) -> &'static DB {
        // SAFETY: the pointer is valid as long as one clone of the `Arc` lives, at one address. The
        // function is private to this file, and each of its three users stores what it makes of
        // the reference beside an owner of that `Arc`, in a field declared, and so dropped, before
        // it: `handles` before `db` (handles have no destructor at all), `OwnedSnapshot::snapshot`
        // before `OwnedSnapshot::db`, `OwnedIter::iter` before `OwnedIter::snapshot`. None of them
        // gives the long reference, or a value that carries it, to its callers: what they return
        // borrows from `&self`. Nothing ever takes `&mut DB` or unwraps the `Arc`.
        unsafe { &*Arc::as_ptr(db) }
    }
}

/// One point of the database's history. While it lives, versions that it can see are kept.
pub(crate) struct OwnedSnapshot {
    snapshot: SnapshotWithThreadMode<'static, DB>,
    db: Arc<DataDb>,
}

impl OwnedSnapshot {
    pub fn new(db: Arc<DataDb>) -> Self {
        let snapshot = DataDb::db_static(&db.db).snapshot();
        Self { snapshot, db }
    }

    pub fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<DBPinnableSlice<'_>>> {
        Ok(self.snapshot.get_pinned_cf(self.db.cf(cf), key)?)
    }

    pub fn multi_get(
        &self,
        cf: Cf,
        keys: &[Vec<u8>],
        sorted: bool,
    ) -> Vec<std::result::Result<Option<DBPinnableSlice<'_>>, rocksdb::Error>> {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        self.db.db().batched_multi_get_cf_opt(self.db.cf(cf), keys, sorted, &options)
    }

    /// An iterator that sees this snapshot only, and keeps it alive.
    pub fn iter(self: &Arc<Self>, cf: Cf, mut options: ReadOptions) -> OwnedIter {
        options.set_snapshot(&self.snapshot);
        let db = DataDb::db_static(&self.db.db);
        let iter = db.raw_iterator_cf_opt(self.db.cf(cf), options);
        OwnedIter { iter, snapshot: self.clone() }
    }
}

/// A raw iterator over one snapshot.
pub(crate) struct OwnedIter {
    iter: DBRawIteratorWithThreadMode<'static, DB>,
    #[allow(dead_code, reason = "owns what `iter` reads")]
    snapshot: Arc<OwnedSnapshot>,
}

impl OwnedIter {
    pub fn seek(&mut self, key: &[u8]) {
        self.iter.seek(key);
    }

    pub fn seek_to_first(&mut self) {
        self.iter.seek_to_first();
    }

    pub fn seek_to_last(&mut self) {
        self.iter.seek_to_last();
    }

    pub fn next(&mut self) {
        self.iter.next();
    }

    pub fn prev(&mut self) {
        self.iter.prev();
    }

    /// The row under the iterator; none at the end. An error ends an iteration too.
    pub fn item(&self) -> Result<Option<(&[u8], &[u8])>> {
        match self.iter.item() {
            Some(item) => Ok(Some(item)),
            None => {
                self.iter.status()?;
                Ok(None)
            }
        }
    }
}
