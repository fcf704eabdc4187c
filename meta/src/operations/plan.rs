//! The next step of an operation, from what is known of the range.

use crate::machine::{Operation, OperationState, Undo};
use isotherm_types::{Key, NodeId, RangeDescriptor, ReplicaId, ReplicaRole};
use std::fmt;

/// One step on one range, which its leader carries out. Each is safe to ask twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A replica that does not vote yet.
    AddLearner { node: NodeId, replica: ReplicaId },
    /// The learner votes in the place of another, once it has caught up.
    ReplaceVoter { promote: ReplicaId, drop: ReplicaId },
    /// The learner goes.
    RemoveLearner { replica: ReplicaId },
    /// Another node leads. Nothing of a move asks for it: a leader that is to go hands over itself.
    TransferLeader { to: NodeId },
    /// It is cut. Nothing of a move asks for it.
    Split { keys: Vec<Key> },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddLearner { node, replica } => write!(f, "add learner {replica} on {node}"),
            Self::ReplaceVoter { promote, drop } => {
                write!(f, "let replica {promote} vote in the place of {drop}")
            }
            Self::RemoveLearner { replica } => write!(f, "remove learner {replica}"),
            Self::TransferLeader { to } => write!(f, "hand leadership to {to}"),
            Self::Split { keys } => write!(f, "cut at {} keys", keys.len()),
        }
    }
}

/// What is to be done about an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// This step.
    Do(Step),
    /// Wait for this.
    Wait(&'static str),
    /// Turn round.
    Undo(Undo),
    /// Nothing more: it ended so.
    End(OperationState),
}

fn failed(why: &str) -> Next {
    Next::End(OperationState::Failed(why.to_owned()))
}

/// What is to be done about a move of which the range is `d` now.
pub(crate) fn next(move_: &Operation, d: Option<&RangeDescriptor>, now_ms: u64) -> Next {
    use ReplicaRole::{Incoming, Learner, Outgoing, Voter};
    let Some(d) = d else { return failed("the range is gone") };
    let Operation { added, removed, to, .. } = *move_;
    let replace = Next::Do(Step::ReplaceVoter { promote: added, drop: removed });
    let role = |id: ReplicaId| d.replica(id).map(|r| r.role);
    // Where none goes, it is as if the one that does were there until all is done.
    let is_addition = removed.get() == 0;
    let going = if is_addition && role(added) != Some(Voter) { Some(Voter) } else { role(removed) };
    let undoing = match move_.state {
        OperationState::Undoing(why) => Some(why),
        _ => None,
    };
    match (role(added), going) {
        (Some(Voter), None) => Next::End(OperationState::Done),
        // Two sets vote: there is only one way out, forward.
        (Some(Incoming), _) => replace,
        (Some(Voter | Outgoing), _) => failed("both replicas vote: somebody else changed them"),
        (Some(Learner), _) if undoing.is_some() => Next::Do(Step::RemoveLearner { replica: added }),
        (None, _) if let Some(why) = undoing => Next::End(match why {
            Undo::Cancelled => OperationState::Cancelled,
            Undo::TimedOut => OperationState::Failed("it was not done in time".to_owned()),
            Undo::Pointless => {
                OperationState::Failed("the replica that was to move is gone".to_owned())
            }
        }),
        (_, None | Some(Learner)) => Next::Undo(Undo::Pointless),
        _ if now_ms >= move_.deadline_ms => Next::Undo(Undo::TimedOut),
        (Some(Learner), Some(Voter)) => replace,
        (None, _) if d.has_passed(added) => failed("somebody else removed the new replica"),
        (None, _) if !d.is_settled() => Next::Wait("another change of the range's members"),
        (None, _) if d.replica_on(to).is_some() => failed("the node got another replica of it"),
        (None, _) => Next::Do(Step::AddLearner { node: to, replica: added }),
        (Some(Learner), Some(Incoming | Outgoing)) => {
            Next::Wait("another change of the range's members")
        }
    }
}

/// What an operation that has ended left behind: a learner that was added by an order which was
/// still on its way when it ended.
pub(crate) fn leftover(ended: &Operation, d: Option<&RangeDescriptor>) -> Option<Step> {
    let replica = d?.replica(ended.added)?;
    let is_left = replica.role == ReplicaRole::Learner && ended.state.has_ended();
    is_left.then_some(Step::RemoveLearner { replica: ended.added })
}

#[cfg(test)]
mod tests {
    use super::*;
    use isotherm_types::{KeyRange, RangeId, ReplicaDescriptor};

    const ROLES: [ReplicaRole; 4] =
        [ReplicaRole::Voter, ReplicaRole::Learner, ReplicaRole::Incoming, ReplicaRole::Outgoing];

    fn move_in(state: OperationState) -> Operation {
        Operation {
            id: 1,
            range: RangeId(5),
            from: NodeId(3),
            removed: ReplicaId(3),
            to: NodeId(4),
            added: ReplicaId(4),
            state,
            started_ms: 0,
            deadline_ms: 1000,
            ended_ms: 0,
        }
    }

    /// Replicas 1 and 2, and 3 and 4 as told.
    fn range(third: Option<ReplicaRole>, fourth: Option<ReplicaRole>) -> RangeDescriptor {
        let nodes = [NodeId(1), NodeId(2)];
        let mut d = RangeDescriptor::first(RangeId(5), KeyRange::all(), &nodes);
        for (id, role) in [(3, third), (4, fourth)] {
            let replica = |role| ReplicaDescriptor { id: ReplicaId(id), node: NodeId(id), role };
            d.replicas.extend(role.map(replica));
            if role.is_some() {
                d.next_replica_id = ReplicaId(id + 1);
            }
        }
        d.next_replica_id = d.next_replica_id.max(ReplicaId(4));
        d
    }

    #[test]
    fn a_move_is_planned_from_the_descriptor_alone() {
        use ReplicaRole::{Incoming, Learner, Outgoing, Voter};
        let move_ = move_in(OperationState::Running);
        let plan = |third, fourth| next(&move_, Some(&range(third, fourth)), 10);
        let add = Next::Do(Step::AddLearner { node: NodeId(4), replica: ReplicaId(4) });
        let replace = Next::Do(Step::ReplaceVoter { promote: ReplicaId(4), drop: ReplicaId(3) });
        assert_eq!(plan(Some(Voter), None), add);
        assert_eq!(plan(Some(Voter), Some(Learner)), replace);
        assert_eq!(plan(Some(Outgoing), Some(Incoming)), replace);
        assert_eq!(plan(None, Some(Voter)), Next::End(OperationState::Done));
        assert_eq!(plan(None, None), Next::Undo(Undo::Pointless));
        let mut passed = range(Some(Voter), None);
        passed.next_replica_id = ReplicaId(5);
        assert!(matches!(next(&move_, Some(&passed), 10), Next::End(OperationState::Failed(_))));
        assert!(matches!(next(&move_, None, 10), Next::End(OperationState::Failed(_))));
    }

    #[test]
    fn an_addition_is_a_move_of_which_nothing_goes() {
        use ReplicaRole::{Incoming, Learner, Voter};
        let mut addition = move_in(OperationState::Running);
        (addition.from, addition.removed) = (NodeId(0), ReplicaId(0));
        let plan = |fourth| next(&addition, Some(&range(None, fourth)), 10);
        let add = Next::Do(Step::AddLearner { node: NodeId(4), replica: ReplicaId(4) });
        let promote = Next::Do(Step::ReplaceVoter { promote: ReplicaId(4), drop: ReplicaId(0) });
        assert_eq!(plan(None), add);
        assert_eq!(plan(Some(Learner)), promote);
        assert_eq!(plan(Some(Incoming)), promote);
        assert_eq!(plan(Some(Voter)), Next::End(OperationState::Done));
    }

    #[test]
    fn what_is_undone_loses_its_learner_and_what_is_past_that_goes_on() {
        use ReplicaRole::{Incoming, Learner, Outgoing, Voter};
        let late = |third, fourth| {
            next(&move_in(OperationState::Running), Some(&range(third, fourth)), 1000)
        };
        assert_eq!(late(Some(Voter), Some(Learner)), Next::Undo(Undo::TimedOut));
        assert_eq!(late(None, Some(Voter)), Next::End(OperationState::Done));
        let undoing = move_in(OperationState::Undoing(Undo::Cancelled));
        let plan = |third, fourth| next(&undoing, Some(&range(third, fourth)), 10);
        let remove = Step::RemoveLearner { replica: ReplicaId(4) };
        assert_eq!(plan(Some(Voter), Some(Learner)), Next::Do(remove.clone()));
        assert_eq!(plan(Some(Voter), None), Next::End(OperationState::Cancelled));
        assert!(matches!(
            plan(Some(Outgoing), Some(Incoming)),
            Next::Do(Step::ReplaceVoter { .. })
        ));
        let cancelled = move_in(OperationState::Cancelled);
        assert_eq!(leftover(&cancelled, Some(&range(Some(Voter), Some(Learner)))), Some(remove));
        assert_eq!(leftover(&cancelled, Some(&range(Some(Voter), None))), None);
        assert_eq!(leftover(&undoing, Some(&range(Some(Voter), Some(Learner)))), None);
    }

    /// Whatever the descriptor and the state: a voter is never asked to be removed as a learner,
    /// and nothing is added twice.
    #[test]
    fn no_plan_harms_a_voter() {
        let roles = || ROLES.into_iter().map(Some).chain([None]);
        let states = [OperationState::Running, OperationState::Undoing(Undo::TimedOut)];
        for (third, fourth) in roles().flat_map(|a| roles().map(move |b| (a, b))) {
            for (state, now) in states.iter().flat_map(|s| [(s, 10), (s, 2000)]) {
                let planned = next(&move_in(state.clone()), Some(&range(third, fourth)), now);
                match planned {
                    Next::Do(Step::RemoveLearner { .. }) => {
                        assert_eq!(fourth, Some(ReplicaRole::Learner));
                    }
                    Next::Do(Step::AddLearner { .. }) => assert_eq!(fourth, None),
                    Next::End(OperationState::Done) => {
                        assert_eq!((third, fourth), (None, Some(ReplicaRole::Voter)));
                    }
                    _ => {}
                }
            }
        }
    }
}
