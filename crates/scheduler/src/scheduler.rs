//! The rules in their order, and what is remembered between two views.

use crate::memory::Memory;
use crate::pass::Pass;
use crate::rules::{
    count, disk, evacuate, leader_load, merge, placement, repair, replica_load, split,
};
use crate::{Action, ClusterView, Decision, Settings};
use isotherm_types::RangeId;

/// Decides, and remembers what it decided: effects that are booked until views show them, since
/// when ranges are cold, when what was changed.
///
/// Invariants:
/// * for one range at most one action is under way;
/// * the same memory and the same view give the same decisions: no clock, no chance, and no map
///   whose order matters.
#[derive(Debug, Clone, Default)]
pub struct Scheduler {
    settings: Settings,
    memory: Memory,
}

impl Scheduler {
    /// One that knows nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, memory: Memory::default() }
    }

    /// From now on these limits.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// What to do, and about which ranges nothing is done for which reason. The same memory and
    /// the same view give the same decisions.
    ///
    /// Every action is booked as ordered: whoever calls carries all of them out, or says by
    /// [`Self::note_result`] that it did not. Of each rule a bounded number of refusals is listed;
    /// [`Self::explain`] has those of any range.
    pub fn decide(&mut self, view: &ClusterView) -> Vec<Decision> {
        self.pass(view, None)
    }

    /// What became of an action: one that was refused or lost is no longer booked, and nothing is
    /// ordered for its range for a while. One that went well stays booked until a view shows it.
    pub fn note_result(&mut self, action: &Action, now_ms: u64, result: Result<(), &str>) {
        if let Err(why) = result {
            self.memory.fail(action, now_ms, why);
        }
    }

    /// What every rule says about one range in `view`, as if it were decided now; changes nothing.
    pub fn explain(&self, view: &ClusterView, range: RangeId) -> Vec<Decision> {
        let mut copy = self.clone();
        let mut decisions = copy.pass(view, Some(range));
        crate::explain::unremarkable(&self.settings, &mut copy.memory, view, range, &mut decisions);
        decisions
    }

    /// One that takes its first view for what nodes carry.
    #[cfg(test)]
    pub(crate) fn warmed(self) -> Self {
        Self { memory: self.memory.warmed(), ..self }
    }

    fn pass(&mut self, view: &ClusterView, focus: Option<RangeId>) -> Vec<Decision> {
        self.memory.observe(view, &self.settings);
        if !self.settings.enabled {
            return Vec::new();
        }
        let mut pass = Pass::new(view, &self.settings, &mut self.memory, focus);
        for rule in [repair::run, evacuate::run, placement::run, split::run, merge::run] {
            rule(&mut pass);
        }
        if pass.memory.warms_up_ms(view.now_ms, &self.settings) == 0 {
            for rule in [leader_load::run, replica_load::run, count::run, disk::run] {
                rule(&mut pass);
            }
        }
        pass.decisions
    }
}
