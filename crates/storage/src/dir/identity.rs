//! Who the process is that owns a data directory.

use isotherm_types::{ClusterId, NodeId, RaftTiming};
use serde::{Deserialize, Serialize};

/// Given by the cluster once, remembered for ever: a directory is of one node of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Which node of it, or which member of its meta service.
    pub node: NodeId,
    /// The clocks of its Raft groups, fixed at bootstrap.
    pub timing: RaftTiming,
}
