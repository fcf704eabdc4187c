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
    /// Votes in the new of the two sets of a change that is under way.
    Incoming,
    /// Votes in the old of the two sets of a change that is under way.
    Outgoing,
}

impl ReplicaRole {
    /// Whether it votes now.
    pub fn votes(self) -> bool {
        self != Self::Learner
    }

    /// Whether leadership may be handed to it: it votes, and still will after the change.
    pub fn may_lead(self) -> bool {
        matches!(self, Self::Voter | Self::Incoming)
    }
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
        self.replicas.iter().filter(|r| r.role.votes())
    }

    /// Whether no change of members is under way: every replica is a voter.
    pub fn is_settled(&self) -> bool {
        self.replicas.iter().all(|r| r.role == ReplicaRole::Voter)
    }

    /// Whether `id` was a replica, or could have become one, and never will be (again): ids only
    /// rise.
    pub fn has_passed(&self, id: ReplicaId) -> bool {
        id < self.next_replica_id && self.replica(id).is_none()
    }

    /// Whether `newer`, another copy of this range's descriptor, proves to the replica `id`, which
    /// knows this one, that it was removed. An older copy never does: it may be from before the
    /// replica was added.
    pub fn is_removed_by(&self, id: ReplicaId, newer: &Self) -> bool {
        // One that applied its own removal knows a descriptor without itself: it was a member up to
        // the one before.
        let conf_ver = self.epoch.conf_ver;
        let member_until = if self.has_passed(id) { conf_ver.saturating_sub(1) } else { conf_ver };
        newer.id == self.id && newer.epoch.conf_ver > member_until && newer.has_passed(id)
    }

    /// Whether `by`, the descriptor of another range, proves that the range of this one was absorbed
    /// and is gone for good.
    ///
    /// A range keeps its first key for life, and the ranges that own a key one after the other have
    /// strictly rising versions: so a higher version over the first key of this one came later.
    pub fn is_superseded_by(&self, by: &Self) -> bool {
        by.id != self.id
            && by.span.contains(self.span.start())
            && by.epoch.version > self.epoch.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(conf_ver: u64, replicas: &[u64], next: u64) -> RangeDescriptor {
        let replica = |id: &u64| ReplicaDescriptor {
            id: ReplicaId(*id),
            node: NodeId(*id),
            role: ReplicaRole::Voter,
        };
        RangeDescriptor {
            id: RangeId(1),
            span: KeyRange::all(),
            epoch: RangeEpoch { version: 1, conf_ver },
            replicas: replicas.iter().map(replica).collect(),
            next_replica_id: ReplicaId(next),
        }
    }

    #[test]
    fn only_a_newer_descriptor_without_it_removes_a_replica() {
        let (before, with, after) = (
            descriptor(1, &[1, 2, 3], 4),
            descriptor(4, &[1, 2, 4], 5),
            descriptor(7, &[1, 2, 5], 6),
        );
        let (old, new) = (ReplicaId(3), ReplicaId(4));
        assert!(!with.is_removed_by(new, &before), "from before it was added");
        assert!(!with.is_removed_by(new, &with));
        assert!(with.is_removed_by(new, &after));
        assert!(before.is_removed_by(old, &with));
        assert!(with.is_removed_by(old, &with), "it applied its own removal");
        assert!(with.is_removed_by(old, &after));
        assert!(!with.is_removed_by(old, &before));
        let elsewhere = RangeDescriptor { id: RangeId(2), ..after };
        assert!(!before.is_removed_by(old, &elsewhere), "of another range");
    }

    #[test]
    fn a_range_is_superseded_by_a_later_owner_of_its_first_key_only() {
        let range = |id, start: &str, end: &str, version| {
            let span = KeyRange::new(start.to_owned(), end.to_owned()).expect("ordered");
            let epoch = RangeEpoch { version, conf_ver: 1 };
            RangeDescriptor { epoch, ..RangeDescriptor::first(RangeId(id), span, &[NodeId(1)]) }
        };
        let right = range(2, "m", "t", 4);
        assert!(right.is_superseded_by(&range(1, "a", "t", 5)));
        assert!(right.is_superseded_by(&range(3, "m", "o", 7)), "a child of who absorbed it");
        assert!(!right.is_superseded_by(&range(1, "a", "t", 4)), "at the same version");
        assert!(!right.is_superseded_by(&range(1, "a", "t", 3)), "from before it was cut off");
        assert!(!right.is_superseded_by(&range(1, "a", "m", 9)), "its left neighbour");
        assert!(!right.is_superseded_by(&range(1, "n", "t", 9)), "not over its first key");
        assert!(!right.is_superseded_by(&range(2, "m", "z", 9)), "itself");
    }
}
