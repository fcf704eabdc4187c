//! Nodes: their registration, and what operators want of them.

use super::apply::refused;
use super::command::{NodeDetails, Reply};
use super::state::{MetaMachine, NodeRecord};
use isotherm_types::{Incarnation, NodeId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What is wanted of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum NodeIntent {
    /// To serve.
    #[default]
    Active,
    /// To lead nothing; its replicas stay.
    Draining,
    /// To lose all its replicas.
    Decommissioning,
    /// It lost them all. It never comes back: what is on its disk is not part of the cluster.
    Decommissioned,
}

impl fmt::Display for NodeIntent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Decommissioning => "decommissioning",
            Self::Decommissioned => "decommissioned",
        })
    }
}

impl MetaMachine {
    /// What is wanted of `node`.
    pub fn intent(&self, node: NodeId) -> NodeIntent {
        self.intents.get(&node).copied().unwrap_or_default()
    }

    /// How many replicas a range should have: as founded, but no more than there are nodes to stay.
    pub fn replicas_wanted(&self) -> usize {
        let leaving = |node: &&NodeId| {
            matches!(self.intent(**node), NodeIntent::Decommissioning | NodeIntent::Decommissioned)
        };
        let staying = self.nodes.len() - self.nodes.keys().filter(leaving).count();
        self.founding.as_ref().map_or(0, |f| f.replicas).min(staying)
    }

    pub(super) fn set_intent(&mut self, node: NodeId, intent: NodeIntent) -> Reply {
        if !self.nodes.contains_key(&node) {
            return refused(format!("there is no node {node}"));
        }
        let now = self.intent(node);
        let is_named = |d: &isotherm_types::RangeDescriptor| d.replica_on(node).is_some();
        match (now, intent) {
            (now, intent) if now == intent => return Reply::Done,
            (NodeIntent::Decommissioned, _) => {
                return refused(format!("node {node} was decommissioned, which is for good"));
            }
            (NodeIntent::Decommissioning, NodeIntent::Decommissioned)
                if self.ranges.iter().any(is_named) =>
            {
                return refused(format!("node {node} still has replicas"));
            }
            (now, NodeIntent::Decommissioned) if now != NodeIntent::Decommissioning => {
                return refused(format!("node {node} was not to be decommissioned"));
            }
            (_, NodeIntent::Decommissioning) => {
                let stay = |n: &&NodeId| **n != node && self.intent(**n) == NodeIntent::Active;
                let staying = self.nodes.keys().filter(stay).count();
                if staying == 0 {
                    return refused(format!("node {node} is the last that serves"));
                }
                // One replica of a range per node: those of this node would have nowhere to go.
                let needs = |d: &isotherm_types::RangeDescriptor| d.voters().count();
                let needed = self.ranges.iter().filter(|d| is_named(d)).map(needs).max();
                if let Some(needed) = needed.filter(|needed| *needed > staying) {
                    return refused(format!(
                        "node {node} has replicas of ranges with {needed}, and only {staying} nodes \
                         would stay: add a node first"
                    ));
                }
            }
            (NodeIntent::Decommissioning, NodeIntent::Draining) => {
                return refused(format!(
                    "node {node} is being decommissioned, which takes its leaderships too; \
                     `node recommission {node}` ends that"
                ));
            }
            _ => {}
        }
        self.intents.insert(node, intent);
        Reply::Done
    }

    pub(super) fn register(&mut self, node: Option<NodeId>, details: NodeDetails) -> Reply {
        let id = match node {
            Some(id) if !self.nodes.contains_key(&id) => {
                return refused(format!("node {id} is not known to this cluster"));
            }
            Some(id) if self.intent(id) == NodeIntent::Decommissioned => {
                return refused(format!(
                    "node {id} was decommissioned: its data is not part of the cluster any more. \
                     Start it with an empty data directory to make a new node of it"
                ));
            }
            Some(id) => id,
            None => {
                self.forget_empty_nodes_at(&details.address);
                self.nodes_given += 1;
                NodeId(self.nodes_given)
            }
        };
        self.incarnations_given += 1;
        let incarnation = Incarnation(self.incarnations_given);
        self.nodes.insert(id, NodeRecord { incarnation, details });
        Reply::Node { id, incarnation }
    }

    /// A new node at the address of one that holds nothing: an attempt to register whose answer
    /// was lost, or a node that was emptied. Nobody misses it. One that was decommissioned is
    /// remembered, so that its disk is refused.
    fn forget_empty_nodes_at(&mut self, address: &str) {
        let (ranges, intents) = (&self.ranges, &self.intents);
        let holds = |node| ranges.iter().any(|d| d.replica_on(node).is_some());
        let is_gone = |node: &NodeId| intents.get(node) == Some(&NodeIntent::Decommissioned);
        self.nodes
            .retain(|id, record| record.details.address != address || holds(*id) || is_gone(id));
    }
}
