//! Why a node does not run.

use isotherm_raftstore::StoreError;
use isotherm_storage::{Identity, StorageError};
use isotherm_transport::TransportError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use thiserror::Error;

/// Why a node does not start, or stopped.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The address is taken, or not of this machine.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The data directory cannot be used.
    #[error("cannot open the data directory: {0}")]
    Storage(#[from] StorageError),
    /// What is on disk is not what was written there.
    #[error(
        "the data in {} are damaged ({what}): this node stays out, and its replicas are built \
         again on other nodes. Have the disk checked; then give the node an empty data directory, or \
         start it once with --clear-damage, which has every replica in this one built again",
        path.display()
    )]
    Damaged {
        /// Which directory.
        path: PathBuf,
        /// What was found.
        what: String,
        /// Which node that is, if it is known.
        identity: Option<Identity>,
    },
    /// The replicas in it cannot be started.
    #[error("cannot start the replicas: {0}")]
    Store(#[from] StoreError),
    /// The meta service does not want this node.
    #[error("the meta service refused this node: {0}")]
    Refused(String),
    /// A server ended by itself.
    #[error("the server ended: {0}")]
    Serve(String),
    /// An address that is none.
    #[error(transparent)]
    Address(#[from] TransportError),
    /// Something is missing in the configuration.
    #[error("{0}")]
    Config(String),
}
