//! What can go wrong on disk.

use rocksdb::ErrorKind;
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
    /// The data engine takes no writes any more: what is in memory cannot be flushed, or what is on
    /// disk cannot be compacted. It stays so until it is opened again.
    #[error("the data engine takes no writes: {source}")]
    EngineStopped {
        /// Why.
        source: rocksdb::Error,
    },
    /// The log ends before groups that were synced.
    #[error(
        "the log lost entries or votes that were on disk: it ends at group {found} of {durable} \
         that were synced"
    )]
    LostLog {
        /// The last group that can be read.
        found: u64,
        /// The last one that is known to have been on disk.
        durable: u64,
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
    /// Whether bytes on disk are not what was written there, or cannot be read at all: reading them
    /// again will not help. What a checksum vouches for, but this software does not understand, is
    /// something else: newer software may have written it.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::LostLog { .. } => true,
            Self::RocksDb(error) | Self::EngineStopped { source: error } => is_damage(error),
            Self::Io(error) | Self::File { source: error, .. } => is_unreadable(error),
            Self::Corrupt { .. }
            | Self::Incompatible { .. }
            | Self::InUse { .. }
            | Self::Closed => false,
        }
    }

    /// Whether the whole engine stands still because of damage, not one replica.
    pub fn stops_engine(&self) -> bool {
        matches!(self, Self::EngineStopped { source } if is_damage(source))
    }

    pub(crate) fn corrupt(what: &'static str, why: impl Into<String>) -> Self {
        Self::Corrupt { what, why: why.into() }
    }

    /// For `map_err` on file operations.
    pub(crate) fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

fn is_damage(error: &rocksdb::Error) -> bool {
    match error.kind() {
        ErrorKind::Corruption => true,
        // A sector that the disk cannot read (EIO).
        ErrorKind::IOError => error.to_string().contains("Input/output error"),
        _ => false,
    }
}

fn is_unreadable(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    error.raw_os_error() == Some(EIO)
}
