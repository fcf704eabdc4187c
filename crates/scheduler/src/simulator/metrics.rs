//! What a run did.

use crate::{Action, Rule};
use isotherm_types::{NodeId, RangeId};
use std::collections::{BTreeMap, HashMap};

/// What was ordered, and how much of it was of no use.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Orders by rule and kind.
    pub orders: BTreeMap<(Rule, &'static str), usize>,
    /// Hand-overs and moves that were to even something out and did not: with what nodes really
    /// carry at the instant of the order, everything under way counted as done, the node that gets
    /// something would have no less of it afterwards than the node that gives it had before.
    pub useless: usize,
    /// Hand-overs and moves that were to even something out.
    pub evening: usize,
    /// Of these, the ones that brought a range back to a node that it had left to even something
    /// out, less than [`RETURN_MS`] before.
    pub returns: usize,
    /// What was of no use, by rule.
    pub useless_by: BTreeMap<Rule, usize>,
    /// Orders that failed, by reason.
    pub failed: BTreeMap<&'static str, usize>,
    /// Passes of the scheduler.
    pub passes: u32,
    /// What they took together, on the clock of the machine.
    pub all_passes: std::time::Duration,
    /// The longest pass of the scheduler, on the clock of the machine.
    pub slowest_pass: std::time::Duration,
    left: HashMap<(RangeId, NodeId), u64>,
}

/// Going back within this time is to and fro.
pub const RETURN_MS: u64 = 60_000;

impl Metrics {
    /// How many orders of a kind there were.
    pub fn count(&self, kind: &str) -> usize {
        self.orders.iter().filter(|((_, of), _)| *of == kind).map(|(_, count)| count).sum()
    }

    /// How many orders of a rule there were.
    pub fn by(&self, rule: Rule) -> usize {
        self.orders.iter().filter(|((of, _), _)| *of == rule).map(|(_, count)| count).sum()
    }

    /// The share of what was to even something out, and did not.
    pub fn useless_share(&self) -> f64 {
        self.useless as f64 / self.evening.max(1) as f64
    }

    pub(super) fn note(&mut self, rule: Rule, action: &Action) {
        let kind = match action {
            Action::Split { .. } => "split",
            Action::Merge { .. } => "merge",
            Action::Transfer { .. } => "transfer",
            Action::Move { .. } => "move",
            Action::Add { .. } => "add",
            Action::CancelMove { .. } => "cancel",
        };
        *self.orders.entry((rule, kind)).or_default() += 1;
    }

    /// Something goes from a node to another one, to even something out.
    pub(super) fn note_evening(
        &mut self,
        rule: Rule,
        range: RangeId,
        from: NodeId,
        to: NodeId,
        now_ms: u64,
        is_useful: bool,
    ) {
        self.evening += 1;
        self.useless += usize::from(!is_useful);
        *self.useless_by.entry(rule).or_default() += usize::from(!is_useful);
        let before = self.left.get(&(range, to));
        self.returns += usize::from(before.is_some_and(|at| now_ms - at < RETURN_MS));
        self.left.insert((range, from), now_ms);
    }
}
