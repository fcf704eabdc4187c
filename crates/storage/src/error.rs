//! What can go wrong on disk.

use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Result of an operation on disk.
pub type Result<T> = std::result::Result<T, StorageError>;

/// An error of the disk, of the database on it, or of what was found there.
///
/// None of them is an answer to a client: whoever gets one stops what it was doing for the
/// replica concerned, and on the log the process stops (see [`crate::RocksLog`]).
#[derive(Debug, Error)]
pub enum StorageError {
    /// The disk or the file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The disk or the file system refused, at a known place.
    #[error("cannot access {path}")]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// RocksDB refused.
    #[error(transparent)]
    RocksDb(#[from] rocksdb::Error),
    /// Bytes that this software did not write, or that changed since.
    #[error("corrupt {what}: {why}")]
    Corrupt {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A directory of another kind of process, or of newer software.
    #[error("cannot use {path}: {why}")]
    Incompatible {
        /// Which directory.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// Another process has the directory open.
    #[error("{path} is in use by another process")]
    InUse {
        /// Which directory.
        path: PathBuf,
    },
    /// The log was closed, or an earlier write of it failed: nothing more is written.
    #[error("the log is closed")]
    Closed,
}

impl StorageError {
    pub(crate) fn corrupt(what: &'static str, why: impl Into<String>) -> Self {
        Self::Corrupt { what, why: why.into() }
    }

    /// For `map_err` on file operations.
    pub(crate) fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
