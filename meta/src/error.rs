//! Why a member does not run.

use isotherm_raftstore::GroupOpenError;
use isotherm_storage::StorageError;
use isotherm_types::{ClusterId, NodeId};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use thiserror::Error;

/// Why a member did not start, or ended before it was told to.
#[derive(Debug, Error)]
pub enum MetaError {
    /// The configuration makes no sense.
    #[error("the configuration of the meta member is not valid: {}", faults.join("; "))]
    Config {
        /// Everything that is wrong.
        faults: Vec<String>,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The data directory or the log cannot be used.
    #[error("cannot use the data directory {path}: {source}")]
    Storage {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: StorageError,
    },
    /// What is on disk is not what was written there.
    #[error(
        "the data in {} are damaged ({what}): this meta member stays out. Have the disk checked; then \
         start it with an empty data directory: it learns everything from the other members",
        path.display()
    )]
    Damaged {
        /// Which directory.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The data directory is another member's.
    #[error("the data directory {path} belongs to meta member {found}, not to {configured}")]
    OtherMember {
        /// Which directory.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who was to use it.
        configured: NodeId,
    },
    /// The data directory is of another cluster than the group it joined.
    #[error("the data directory {path} belongs to cluster {found}, the other members to {ours}")]
    OtherCluster {
        /// Which directory.
        path: PathBuf,
        /// Its cluster.
        found: ClusterId,
        /// The group's.
        ours: ClusterId,
    },
    /// The member's group does not start.
    #[error("the meta group does not start")]
    Open(#[from] GroupOpenError),
    /// A server ended by itself.
    #[error("the {what} server failed: {why}")]
    Server {
        /// Which.
        what: &'static str,
        /// Why.
        why: String,
    },
}
