//! What is known of the cluster at one instant.

use crate::RangeLoad;
use isotherm_types::{Key, NodeId, RangeDescriptor, RangeId, ReplicaId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It sends heartbeats.
    Up,
    /// It does not, since this instant.
    Down {
        /// Milliseconds on the clock of the view.
        since_ms: u64,
    },
    /// Not known yet: nothing is concluded from it, nothing is placed on it.
    Unknown,
}

/// What the operator wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Intent {
    /// To serve.
    #[default]
    Active,
    /// To lead nothing; its replicas stay.
    Draining,
    /// To lose all its replicas, and then to go.
    Decommissioning,
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    /// Which.
    pub id: NodeId,
    /// Whether it is there.
    pub liveness: Liveness,
    /// What is wanted of it.
    pub intent: Intent,
    /// Such as `zone` → `a`: replicas of a range spread over different values of each label.
    pub labels: Arc<BTreeMap<String, String>>,
    /// The CPU that it may use, in cores.
    pub capacity_cores: f64,
    /// The CPU that it uses, in cores, averaged over about a second.
    pub load_cores: f64,
    /// Size of its disk.
    pub disk_total_bytes: u64,
    /// What is free of it.
    pub disk_free_bytes: u64,
    /// Whether it takes no writes: its disk is nearly full.
    pub is_read_only: bool,
}

/// One range.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeView {
    /// Span, epoch and replicas, as the map has them.
    pub descriptor: Arc<RangeDescriptor>,
    /// Who leads it, if that is known and the node is there.
    pub leader: Option<NodeId>,
    /// The replicas that its leader hears from.
    pub live: Vec<ReplicaId>,
    /// What it costs its leader.
    pub load: RangeLoad,
    /// How large it is on disk, about.
    pub size_bytes: u64,
    /// Whether all live replicas applied the last split of its lineage: it may split again.
    pub may_split: bool,
    /// A key with about half of its bytes on each side, if somebody looked: where a range that is
    /// too large is cut. Without it the median of the load sample has to do.
    pub middle: Option<Key>,
}

/// A move (or addition) of a replica that was ordered and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingMove {
    /// Of which range.
    pub range: RangeId,
    /// Which node loses its replica; none: one is only added.
    pub from: Option<NodeId>,
    /// Which node gets one.
    pub to: NodeId,
    /// When it was ordered, on the clock of the view.
    pub started_ms: u64,
}

/// A merge that was ordered and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingMerge {
    /// The range that absorbs the other.
    pub left: RangeId,
    /// The one that goes.
    pub right: RangeId,
    /// When it was ordered, on the clock of the view.
    pub started_ms: u64,
}

/// The cluster at one instant.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClusterView {
    /// A clock that does not jump, in milliseconds; only differences mean anything.
    pub now_ms: u64,
    /// All nodes, by id.
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// All ranges in key order; they tile the key space.
    pub ranges: Vec<RangeView>,
    /// What is under way.
    pub moves: Vec<PendingMove>,
    /// Likewise; nothing else is ordered of their ranges.
    pub merges: Vec<PendingMerge>,
    /// How many replicas each range should have, at most one per node.
    pub replicas_wanted: usize,
}
