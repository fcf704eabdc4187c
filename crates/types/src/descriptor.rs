//! The descriptor of a range: what it spans, where its replicas are, at which epoch.

use crate::{KeyRange, NodeId, RangeEpoch, RangeId, ReplicaId};
use serde::{Deserialize, Serialize};

/// What a replica may do in its Raft group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReplicaRole {
    /// Votes and counts for the quorum.
    Voter,
    /// Receives the log, does not vote.
    Learner,
}

/// One replica in a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReplicaDescriptor {
    /// Never used again inside this range.
    pub id: ReplicaId,
    /// Where it lives.
    pub node: NodeId,
    /// Voter or learner.
    pub role: ReplicaRole,
}

/// Id, span, epoch and replicas of one range.
///
/// The range's own Raft group is its authority; meta's map and every cache are copies. Invariants:
/// * at one epoch there is one descriptor;
/// * no two replicas share a node;
/// * every replica id is below `next_replica_id`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RangeDescriptor {
    /// Which range.
    pub id: RangeId,
    /// What it spans.
    pub span: KeyRange,
    /// Version of span and membership.
    pub epoch: RangeEpoch,
    /// All replicas, ascending by id.
    pub replicas: Vec<ReplicaDescriptor>,
    /// The id that the next replica gets.
    pub next_replica_id: ReplicaId,
}

impl RangeDescriptor {
    /// A new range with one voter per node, replica ids from 1.
    pub fn first(id: RangeId, span: KeyRange, nodes: &[NodeId]) -> Self {
        let replicas: Vec<_> = (1..)
            .zip(nodes)
            .map(|(id, &node)| ReplicaDescriptor {
                id: ReplicaId(id),
                node,
                role: ReplicaRole::Voter,
            })
            .collect();
        let next_replica_id = ReplicaId(replicas.len() as u64 + 1);
        Self { id, span, epoch: RangeEpoch::FIRST, replicas, next_replica_id }
    }

    /// The replica on `node`.
    pub fn replica_on(&self, node: NodeId) -> Option<&ReplicaDescriptor> {
        self.replicas.iter().find(|r| r.node == node)
    }

    /// The replica `id`.
    pub fn replica(&self, id: ReplicaId) -> Option<&ReplicaDescriptor> {
        self.replicas.iter().find(|r| r.id == id)
    }

    /// The replicas that vote.
    pub fn voters(&self) -> impl Iterator<Item = &ReplicaDescriptor> {
        self.replicas.iter().filter(|r| r.role == ReplicaRole::Voter)
    }
}
