//! The newest decisions about each range, for people. In memory only: they explain the present.

use isotherm_scheduler::{Action, Decision, Rule};
use isotherm_types::RangeId;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// Decisions that are kept of a range.
const KEPT_MAX: usize = 16;
/// Ranges of which decisions are kept; beyond that those that nothing was decided about lately go.
const RANGES_MAX: usize = 20_000;

/// A decision, when it was made, and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct Noted {
    pub(crate) at: Instant,
    pub(crate) decision: Decision,
    /// None: not known yet, or there was nothing to do.
    pub(crate) outcome: Option<Result<String, String>>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    by_range: HashMap<RangeId, VecDeque<Noted>>,
}

impl Journal {
    /// Notes a decision. Of decisions by the same rule to do nothing only the newest is kept.
    pub(crate) fn note(&mut self, decision: Decision, now: Instant) {
        if self.by_range.len() >= RANGES_MAX && !self.by_range.contains_key(&decision.range) {
            self.forget_oldest();
        }
        let noted = self.by_range.entry(decision.range).or_default();
        let is_idle = |d: &Decision, rule: Rule| d.action.is_none() && d.rule == rule;
        if decision.action.is_none() {
            noted.retain(|known| !is_idle(&known.decision, decision.rule));
        }
        noted.push_back(Noted { at: now, decision, outcome: None });
        while noted.len() > KEPT_MAX {
            noted.pop_front();
        }
    }

    /// What became of an action.
    pub(crate) fn note_outcome(&mut self, action: &Action, outcome: Result<String, String>) {
        let noted = self.by_range.get_mut(&action.range());
        let open = noted.into_iter().flatten().rev().find(|noted| {
            noted.outcome.is_none() && noted.decision.action.as_ref() == Some(action)
        });
        if let Some(noted) = open {
            noted.outcome = Some(outcome);
        }
    }

    /// The decisions about one range, the newest first.
    pub(crate) fn of(&self, range: RangeId) -> impl Iterator<Item = &Noted> {
        self.by_range.get(&range).into_iter().flatten().rev()
    }

    /// The decision about a range that says most: the newest action, or else why there was none.
    pub(crate) fn newest(&self, range: RangeId) -> Option<&Noted> {
        let acted = self.of(range).find(|noted| noted.decision.action.is_some());
        acted.or_else(|| self.of(range).next())
    }

    fn forget_oldest(&mut self) {
        let newest = |noted: &VecDeque<Noted>| noted.back().map(|n| n.at);
        let mut times: Vec<_> = self.by_range.values().filter_map(newest).collect();
        times.sort();
        let Some(cut) = times.get(times.len() / 2).copied() else { return };
        self.by_range.retain(|_, noted| newest(noted) > Some(cut));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isotherm_types::NodeId;

    fn decision(action: Option<Action>, reason: &str) -> Decision {
        Decision { range: RangeId(1), rule: Rule::Split, action, reason: reason.to_owned() }
    }

    #[test]
    fn idle_decisions_replace_each_other_and_actions_stay() {
        let (mut journal, now) = (Journal::default(), Instant::now());
        let transfer = Action::Transfer { range: RangeId(1), to: NodeId(2) };
        journal.note(decision(None, "first"), now);
        journal.note(decision(Some(transfer.clone()), "act"), now);
        journal.note(decision(None, "second"), now);
        let reasons: Vec<_> = journal.of(RangeId(1)).map(|n| n.decision.reason.clone()).collect();
        assert_eq!(reasons, ["second", "act"]);
        journal.note_outcome(&transfer, Err("no".to_owned()));
        assert!(journal.of(RangeId(1)).any(|n| n.outcome == Some(Err("no".to_owned()))));
        for _ in 0..100 {
            journal.note(decision(Some(transfer.clone()), "again"), now);
        }
        assert_eq!(journal.of(RangeId(1)).count(), KEPT_MAX);
    }
}
