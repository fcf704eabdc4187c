//! Operations that take several steps, and the replica ids that they need.
//!
//! What is agreed is the order and its end; how far it has come is what the range's descriptor says.
//! So whoever leads next goes on from there, and a step done twice is done once.

use super::apply::refused;
use super::command::Reply;
use super::nodes::NodeIntent;
use super::state::MetaMachine;
use isotherm_types::{NodeId, RangeDescriptor, RangeId, RangeMap, ReplicaId, ReplicaRole};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Operations that have ended and are still listed.
pub(super) const ENDED_MAX: usize = 1000;

/// Why an operation is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Undo {
    /// Somebody asked for it.
    Cancelled,
    /// It was not done in time.
    TimedOut,
    /// The replica that was to go went otherwise.
    Pointless,
}

/// Where an operation stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationState {
    /// It is being carried out.
    Running,
    /// It is being undone, as far as that is possible.
    Undoing(Undo),
    /// It was carried out.
    Done,
    /// It was undone, or could not be carried out.
    Failed(String),
    /// It was undone because somebody asked for it.
    Cancelled,
}

impl OperationState {
    /// Whether nothing more happens.
    pub fn has_ended(&self) -> bool {
        !matches!(self, Self::Running | Self::Undoing(_))
    }
}

/// A move of one replica to another node, or an additional replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its number; never given twice.
    pub id: u64,
    /// Of which range.
    pub range: RangeId,
    /// From where; 0: none goes, one is only added.
    pub from: NodeId,
    /// Which replica goes; 0: none.
    pub removed: ReplicaId,
    /// To where.
    pub to: NodeId,
    /// Which replica comes.
    pub added: ReplicaId,
    /// Where it stands.
    pub state: OperationState,
    /// By the clock of who proposed it, as all times here.
    pub started_ms: u64,
    /// It is undone after this.
    pub deadline_ms: u64,
    /// 0: it has not ended.
    pub ended_ms: u64,
}

/// What is agreed of operations.
///
/// Invariants: at most one operation per range has not ended; no replica id is given twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operations {
    by_id: BTreeMap<u64, Operation>,
    given: u64,
    /// The next replica id of ranges of which some were given, unless the descriptor is further.
    replica_ids: BTreeMap<RangeId, ReplicaId>,
}

/// A change of operations. New variants are added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationCommand {
    /// Begins a move.
    Move {
        /// Of which range.
        range: RangeId,
        /// From where.
        from: NodeId,
        /// To where.
        to: NodeId,
        /// The proposer's clock.
        now_ms: u64,
        /// Undone after that long.
        limit_ms: u64,
    },
    /// Begins to undo an operation; one that is being undone already stays as it is.
    Undo {
        /// Which.
        id: u64,
        /// Why.
        why: Undo,
    },
    /// An operation has ended.
    End {
        /// Which.
        id: u64,
        /// How.
        state: OperationState,
        /// The proposer's clock.
        now_ms: u64,
    },
    /// Begins to add a replica.
    Add {
        /// To which range.
        range: RangeId,
        /// Where.
        to: NodeId,
        /// The proposer's clock.
        now_ms: u64,
        /// Undone after that long.
        limit_ms: u64,
    },
}

impl Operations {
    /// All of them, by number.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Operation> {
        self.by_id.values()
    }

    /// One of them.
    pub fn get(&self, id: u64) -> Option<&Operation> {
        self.by_id.get(&id)
    }

    /// A replica id that was never given in that range.
    fn replica_id(&mut self, d: &RangeDescriptor) -> ReplicaId {
        let next = self.replica_ids.entry(d.id).or_insert(d.next_replica_id);
        let given = d.next_replica_id.max(*next);
        *next = ReplicaId(given.get() + 1);
        given
    }

    /// A number that no operation has had.
    pub(super) fn give_number(&mut self) -> u64 {
        self.given += 1;
        self.given
    }

    /// How many ranges it keeps ids of.
    #[cfg(test)]
    pub(super) fn ids_kept(&self) -> usize {
        self.replica_ids.len()
    }

    /// Forgets the ids of ranges that are gone, and those that the range's descriptor has passed: what is
    /// given next is the same without them.
    fn forget_ids(&mut self, ranges: &RangeMap) {
        self.replica_ids
            .retain(|range, next| ranges.get(*range).is_some_and(|d| d.next_replica_id < *next));
    }

    fn forget_old(&mut self) {
        let ended = |o: &&Operation| o.state.has_ended();
        let count = self.by_id.values().filter(ended).count();
        let old: Vec<u64> = self
            .by_id
            .values()
            .filter(ended)
            .take(count.saturating_sub(ENDED_MAX))
            .map(|o| o.id)
            .collect();
        old.iter().for_each(|id| {
            self.by_id.remove(id);
        });
    }
}

impl MetaMachine {
    /// Operations, running and ended.
    pub fn operations(&self) -> &Operations {
        &self.operations
    }

    pub(super) fn apply_operation(&mut self, command: OperationCommand) -> Reply {
        match command {
            OperationCommand::Move { range, from, to, now_ms, limit_ms } => {
                self.start_move(range, Some(from), to, now_ms, limit_ms)
            }
            OperationCommand::Add { range, to, now_ms, limit_ms } => {
                self.start_move(range, None, to, now_ms, limit_ms)
            }
            OperationCommand::Undo { id, why } => {
                let Some(operation) = self.operations.by_id.get_mut(&id) else {
                    return refused(format!("there is no operation {id}"));
                };
                if operation.state.has_ended() {
                    return refused(format!("operation {id} has ended"));
                }
                if operation.state == OperationState::Running {
                    operation.state = OperationState::Undoing(why);
                }
                Reply::Operation { id }
            }
            OperationCommand::End { id, state, now_ms } => {
                let found = self.operations.by_id.get_mut(&id);
                if let Some(operation) = found.filter(|o| !o.state.has_ended()) {
                    (operation.state, operation.ended_ms) = (state, now_ms);
                    self.operations.forget_old();
                    self.operations.forget_ids(&self.ranges);
                }
                Reply::Operation { id }
            }
        }
    }

    fn start_move(
        &mut self,
        range: RangeId,
        from: Option<NodeId>,
        to: NodeId,
        now_ms: u64,
        limit_ms: u64,
    ) -> Reply {
        let Some(d) = self.ranges.get(range) else {
            return refused(format!("there is no range {range}"));
        };
        let mut removed = ReplicaId(0);
        if let Some(from) = from {
            match d.replica_on(from).filter(|r| r.role == ReplicaRole::Voter) {
                Some(voter) => removed = voter.id,
                None => return refused(format!("{range} has no voting replica on {from}")),
            }
        }
        if !self.nodes.contains_key(&to) {
            return refused(format!("there is no node {to}"));
        }
        if self.intent(to) != NodeIntent::Active {
            return refused(format!("node {to} is {}", self.intent(to)));
        }
        if d.replica_on(to).is_some() {
            return refused(format!("{range} has a replica on {to} already"));
        }
        if let Some(why) = self.busy(range) {
            return refused(why);
        }
        let added = self.operations.replica_id(d);
        let id = self.operations.give_number();
        let operation = Operation {
            id,
            range,
            from: from.unwrap_or_default(),
            removed,
            to,
            added,
            state: OperationState::Running,
            started_ms: now_ms,
            deadline_ms: now_ms.saturating_add(limit_ms),
            ended_ms: 0,
        };
        self.operations.by_id.insert(id, operation);
        Reply::Operation { id }
    }
}
