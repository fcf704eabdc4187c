//! Settings of the calling side.

use crate::Incarnations;
use isotherm_types::NodeId;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Who calls.
#[derive(Debug, Clone)]
pub struct PeersOptions {
    /// The cluster; 0 as long as it is not known, which the other side then does not check.
    pub cluster: Arc<AtomicU64>,
    /// This process.
    pub from: NodeId,
    /// Which start of it this is, and what is known of those of others.
    pub incarnations: Incarnations,
}
