//! How a range's descriptor follows its membership.
//!
//! A membership entry says all that the descriptor says of replicas: who votes in which set, and
//! where each lives. So the descriptor after it is a function of the descriptor before and the
//! entry, the same on every replica, and `conf_ver` counts membership entries: whoever names a
//! `conf_ver` names exactly one of them. The version half stays: entries that change it are
//! refused while the members change ([`super::Core`]).

use crate::type_config::Membership;
use isotherm_types::{RangeDescriptor, ReplicaDescriptor, ReplicaId, ReplicaRole};
use std::collections::{BTreeMap, BTreeSet};

/// The descriptor of a range after `membership` was applied to one described by `before`.
pub fn described(before: &RangeDescriptor, membership: &Membership) -> RangeDescriptor {
    let sets = membership.get_joint_config();
    let role = |id: &u64| {
        let is_in = |set: Option<&BTreeSet<u64>>| set.is_some_and(|set| set.contains(id));
        match (is_in(sets.first()), is_in(sets.last())) {
            (true, true) => ReplicaRole::Voter,
            (true, false) => ReplicaRole::Outgoing,
            (false, true) => ReplicaRole::Incoming,
            (false, false) => ReplicaRole::Learner,
        }
    };
    let replicas: Vec<_> = membership
        .nodes()
        .map(|(id, host)| ReplicaDescriptor {
            id: ReplicaId(*id),
            node: host.node(),
            role: role(id),
        })
        .collect();
    let newest = replicas.iter().map(|r| r.id.get()).max().unwrap_or(0);
    RangeDescriptor {
        epoch: before.epoch.next_conf_ver(),
        replicas,
        next_replica_id: before.next_replica_id.max(ReplicaId(newest + 1)),
        id: before.id,
        span: before.span.clone(),
    }
}

/// The uniform membership that a joint one ends in; itself if it is uniform.
pub fn uniform(membership: &Membership) -> Membership {
    let sets = membership.get_joint_config();
    let Some(last) = sets.last() else { return membership.clone() };
    let leaves = |id: &u64| !last.contains(id) && sets.iter().any(|set| set.contains(id));
    let stay = membership.nodes().filter(|(id, _)| !leaves(id)).map(|(id, host)| (*id, *host));
    let stay: BTreeMap<_, _> = stay.collect();
    Membership::new(vec![last.clone()], stay).expect("every voter of the last set stays")
}

/// Whether two sets vote.
pub fn is_joint(membership: &Membership) -> bool {
    membership.get_joint_config().len() > 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::type_config::Host;
    use isotherm_types::{KeyRange, NodeId, RangeEpoch, RangeId};

    fn membership(sets: &[&[u64]], all: &[u64]) -> Membership {
        let sets = sets.iter().map(|set| set.iter().copied().collect::<BTreeSet<_>>()).collect();
        let hosts: BTreeMap<_, _> = all.iter().map(|id| (*id, Host(id + 10))).collect();
        Membership::new(sets, hosts).unwrap()
    }

    #[test]
    fn a_move_shows_in_the_descriptor_step_by_step() {
        let nodes = [NodeId(11), NodeId(12), NodeId(13)];
        let first = RangeDescriptor::first(RangeId(1), KeyRange::all(), &nodes);
        let roles = |d: &RangeDescriptor| d.replicas.iter().map(|r| r.role).collect::<Vec<_>>();
        use ReplicaRole::{Incoming, Learner, Outgoing, Voter};
        let with_learner = described(&first, &membership(&[&[1, 2, 3]], &[1, 2, 3, 7]));
        assert_eq!(with_learner.epoch, RangeEpoch { version: 1, conf_ver: 2 });
        assert_eq!(roles(&with_learner), [Voter, Voter, Voter, Learner]);
        assert_eq!(with_learner.next_replica_id, ReplicaId(8));
        assert_eq!(with_learner.replica(ReplicaId(7)).unwrap().node, NodeId(17));
        let joint = membership(&[&[1, 2, 3], &[1, 2, 7]], &[1, 2, 3, 7]);
        let both = described(&with_learner, &joint);
        assert_eq!(roles(&both), [Voter, Voter, Outgoing, Incoming]);
        let after = described(&both, &uniform(&joint));
        assert_eq!(roles(&after), [Voter, Voter, Voter]);
        assert!(after.has_passed(ReplicaId(3)) && after.is_settled());
        assert_eq!(after.next_replica_id, ReplicaId(8), "an id is never used again");
    }

    #[test]
    fn a_joint_membership_keeps_its_learners() {
        let joint = membership(&[&[1, 2], &[2, 3]], &[1, 2, 3, 9]);
        let after = uniform(&joint);
        assert_eq!(after.voter_ids().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(after.learner_ids().collect::<Vec<_>>(), [9]);
        assert_eq!(uniform(&after), after);
    }
}
