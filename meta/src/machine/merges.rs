//! Merges of neighbours, as operations beside the moves.
//!
//! What is agreed is the order, the epochs that it is for, and its end; how far it has come the two ranges
//! say themselves (ADR 0011). While a merge has not ended nothing else is ordered of its ranges, so whatever
//! stands still in the cluster belongs to a merge that somebody drives to its end.

use super::apply::refused;
use super::command::Reply;
use super::operations::{ENDED_MAX, OperationState, Undo};
use super::state::MetaMachine;
use isotherm_types::{NodeId, RangeDescriptor, RangeEpoch, RangeId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A merge of a range with its right neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merge {
    /// Its number, of the same row as those of moves.
    pub id: u64,
    /// The range that absorbs the other.
    pub left: RangeId,
    /// The range that goes.
    pub right: RangeId,
    /// Of the left one: the only epoch at which it absorbs.
    pub left_epoch: RangeEpoch,
    /// Of the right one: the only epoch at which it is frozen.
    pub right_epoch: RangeEpoch,
    /// Where it stands.
    pub state: OperationState,
    /// By the clock of who proposed it, as all times here.
    pub started_ms: u64,
    /// It is undone after this.
    pub deadline_ms: u64,
    /// 0: it has not ended.
    pub ended_ms: u64,
}

/// What is agreed of merges.
///
/// Invariant: a range is in at most one operation, merge or move, that has not ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merges {
    by_id: BTreeMap<u64, Merge>,
}

/// A change of merges. New variants are added at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MergeCommand {
    /// Begins a merge with the right neighbour.
    Begin {
        /// The range that absorbs it.
        left: RangeId,
        /// The neighbour, as the proposer saw it.
        right: RangeId,
        /// The proposer's clock.
        now_ms: u64,
        /// Undone after that long.
        limit_ms: u64,
    },
    /// Begins to undo a merge; one that is being undone already stays as it is.
    Undo {
        /// Which.
        id: u64,
        /// Why.
        why: Undo,
    },
    /// A merge has ended.
    End {
        /// Which.
        id: u64,
        /// How.
        state: OperationState,
        /// The proposer's clock.
        now_ms: u64,
    },
}

impl Merges {
    /// All of them, by number.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Merge> {
        self.by_id.values()
    }

    /// Those that have not ended.
    pub fn running(&self) -> impl Iterator<Item = &Merge> {
        self.iter().filter(|m| !m.state.has_ended())
    }

    /// One of them.
    pub fn get(&self, id: u64) -> Option<&Merge> {
        self.by_id.get(&id)
    }

    /// The one that `range` is in.
    pub fn of(&self, range: RangeId) -> Option<&Merge> {
        self.running().find(|m| m.left == range || m.right == range)
    }

    fn forget_old(&mut self) {
        let ended = |m: &&Merge| m.state.has_ended();
        let count = self.by_id.values().filter(ended).count();
        let old = self.by_id.values().filter(ended).take(count.saturating_sub(ENDED_MAX));
        let old: Vec<u64> = old.map(|m| m.id).collect();
        old.iter().for_each(|id| {
            self.by_id.remove(id);
        });
    }
}

fn nodes(d: &RangeDescriptor) -> BTreeSet<NodeId> {
    d.replicas.iter().map(|r| r.node).collect()
}

impl MetaMachine {
    /// Merges, running and ended.
    pub fn merges(&self) -> &Merges {
        &self.merges
    }

    pub(super) fn apply_merge(&mut self, command: MergeCommand) -> Reply {
        match command {
            MergeCommand::Begin { left, right, now_ms, limit_ms } => {
                self.begin_merge(left, right, now_ms, limit_ms)
            }
            MergeCommand::Undo { id, why } => {
                let Some(merge) = self.merges.by_id.get_mut(&id) else {
                    return refused(format!("there is no operation {id}"));
                };
                if merge.state.has_ended() {
                    return refused(format!("operation {id} has ended"));
                }
                if merge.state == OperationState::Running {
                    merge.state = OperationState::Undoing(why);
                }
                Reply::Operation { id }
            }
            MergeCommand::End { id, state, now_ms } => {
                let found = self.merges.by_id.get_mut(&id);
                if let Some(merge) = found.filter(|m| !m.state.has_ended()) {
                    (merge.state, merge.ended_ms) = (state, now_ms);
                    self.merges.forget_old();
                }
                Reply::Operation { id }
            }
        }
    }

    /// Why nothing else may be ordered of `range`, if so.
    pub(super) fn busy(&self, range: RangeId) -> Option<String> {
        let moves = |o: &&super::Operation| o.range == range && !o.state.has_ended();
        if let Some(other) = self.operations.iter().find(moves) {
            return Some(format!("operation {} moves a replica of {range} already", other.id));
        }
        let merge = self.merges.of(range)?;
        let Merge { id, left, right, .. } = merge;
        Some(format!("operation {id} merges {right} into {left} just now"))
    }

    fn begin_merge(&mut self, left: RangeId, right: RangeId, now_ms: u64, limit_ms: u64) -> Reply {
        let missing = |range| refused(format!("there is no range {range}"));
        let Some(l) = self.ranges.get(left) else { return missing(left) };
        let Some(r) = self.ranges.get(right) else { return missing(right) };
        if l.span.end().is_empty() || l.span.end() != r.span.start() {
            return refused(format!("{right} is not the right neighbour of {left}"));
        }
        if let Some(changing) = [l, r].into_iter().find(|d| !d.is_settled()) {
            return refused(format!("the members of {} are changing", changing.id));
        }
        let (on_left, on_right) = (nodes(l), nodes(r));
        if on_left != on_right {
            let list = |nodes: &BTreeSet<NodeId>| {
                nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            };
            return refused(format!(
                "{left} is on {} and {right} on {}: move their replicas to the same nodes first",
                list(&on_left),
                list(&on_right)
            ));
        }
        if let Some(why) = [left, right].into_iter().find_map(|range| self.busy(range)) {
            return refused(why);
        }
        let (left_epoch, right_epoch) = (l.epoch, r.epoch);
        let id = self.operations.give_number();
        let merge = Merge {
            id,
            left,
            right,
            left_epoch,
            right_epoch,
            state: OperationState::Running,
            started_ms: now_ms,
            deadline_ms: now_ms.saturating_add(limit_ms),
            ended_ms: 0,
        };
        self.merges.by_id.insert(id, merge);
        Reply::Operation { id }
    }
}
