//! The agreed state.

use super::command::{Founding, NodeDetails};
use super::merges::Merges;
use super::nodes::NodeIntent;
use super::operations::Operations;
use isotherm_types::{
    ClusterId, ClusterVersion, Incarnation, NodeId, RaftTiming, RangeDescriptor, RangeMap,
    Timestamp,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Number of the one order to seed: the bootstrap.
pub const SEED_NUMBER: u64 = 1;

/// A node as it last announced itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its last start.
    pub incarnation: Incarnation,
    /// What it said then.
    pub details: NodeDetails,
}

/// One leadership of the group. One term may see several leaders, each with a higher member id than
/// the one before: only both parts together name one, and their order is that of leaderships.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Reign {
    /// The term.
    pub term: u64,
    /// Who leads.
    pub member: NodeId,
}

/// The timestamps that one leadership may issue.
///
/// Invariants: `low` is above everything that an earlier leadership was ever given, and `high`
/// never decreases, so whatever the leader issues in `low..=high` is above whatever earlier leaders
/// issued, however late those still answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Window {
    /// Whose entries allocated it.
    pub reign: Reign,
    /// The first.
    pub low: Timestamp,
    /// The last.
    pub high: Timestamp,
}

/// The state machine of the meta group.
///
/// Invariants:
/// * nothing happens before the cluster is founded, and it is founded once;
/// * ids and incarnations are never given twice;
/// * the range map is empty or tiles the key space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaMachine {
    pub(super) cluster: Option<ClusterId>,
    pub(super) timing: Option<RaftTiming>,
    pub(super) founding: Option<Founding>,
    pub(super) ranges: RangeMap,
    /// The first ranges as they were founded, until every node confirmed them.
    pub(super) seeds: Vec<RangeDescriptor>,
    pub(super) nodes: BTreeMap<NodeId, NodeRecord>,
    pub(super) nodes_given: u64,
    pub(super) ranges_given: u64,
    pub(super) incarnations_given: u64,
    pub(super) window: Window,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) operations: Operations,
    /// Never falls, and lies below what was issued.
    pub(super) safe_point: Timestamp,
    /// Of nodes that are not just to serve.
    pub(super) intents: BTreeMap<NodeId, NodeIntent>,
    pub(super) merges: Merges,
    /// Which rules and formats the cluster uses. Never falls.
    pub(super) version: ClusterVersion,
}

impl Default for MetaMachine {
    fn default() -> Self {
        Self {
            cluster: None,
            timing: None,
            founding: None,
            ranges: RangeMap::default(),
            seeds: Vec::new(),
            nodes: BTreeMap::new(),
            nodes_given: 0,
            ranges_given: 0,
            incarnations_given: 0,
            window: Window::default(),
            settings: BTreeMap::new(),
            operations: Operations::default(),
            safe_point: Timestamp::ZERO,
            intents: BTreeMap::new(),
            merges: Merges::default(),
            version: ClusterVersion::FIRST,
        }
    }
}

impl MetaMachine {
    /// Which rules and formats the cluster uses.
    pub fn version(&self) -> ClusterVersion {
        self.version
    }

    /// Starts of nodes so far.
    pub fn starts(&self) -> u64 {
        self.incarnations_given
    }

    /// The cluster, once founded.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// The clocks of the data ranges.
    pub fn timing(&self) -> Option<RaftTiming> {
        self.timing
    }

    /// How the cluster begins.
    pub fn founding(&self) -> Option<&Founding> {
        self.founding.as_ref()
    }

    /// The partition map; empty before the bootstrap.
    pub fn ranges(&self) -> &RangeMap {
        &self.ranges
    }

    /// Whether the first ranges exist.
    pub fn is_bootstrapped(&self) -> bool {
        !self.ranges.is_empty()
    }

    /// The ranges that nodes must still create.
    pub fn seeds(&self) -> &[RangeDescriptor] {
        &self.seeds
    }

    /// The first ranges that `node` must still create: those whose replica there the map still names as it
    /// was founded. One that was moved away or absorbed since is not founded twice.
    pub fn seeds_of(&self, node: NodeId) -> impl Iterator<Item = &RangeDescriptor> {
        let is_due = move |seed: &&RangeDescriptor| {
            let founded = seed.replica_on(node);
            let now = self.ranges.get(seed.id).and_then(|d| d.replica_on(node));
            founded.is_some_and(|founded| now.is_some_and(|now| now.id == founded.id))
        };
        self.seeds.iter().filter(is_due)
    }

    /// All nodes.
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeRecord> {
        &self.nodes
    }

    /// What may be issued, and by which term.
    pub fn window(&self) -> Window {
        self.window
    }

    /// The oldest timestamp that can be read: history that ended before may be gone.
    pub fn safe_point(&self) -> Timestamp {
        self.safe_point
    }

    /// The settings that are not at their defaults.
    pub fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }
}
