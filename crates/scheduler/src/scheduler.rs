//! The rules in their order, and what is remembered between two views.

use crate::{Action, ClusterView, Decision, Settings};
use isotherm_types::RangeId;

/// Decides, and remembers what it decided: effects that are booked until views show them, since
/// when ranges are cold, when what was changed.
#[derive(Debug, Default)]
pub struct Scheduler {
    settings: Settings,
}

impl Scheduler {
    /// One that knows nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// From now on these limits.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// What to do, and about which ranges nothing is done for which reason. The same memory and
    /// the same view give the same decisions.
    pub fn decide(&mut self, _view: &ClusterView) -> Vec<Decision> {
        Vec::new()
    }

    /// Why nothing is done about `range` just now, or what is; as seen in `view`.
    pub fn explain(&self, _view: &ClusterView, _range: RangeId) -> Vec<Decision> {
        Vec::new()
    }

    /// What became of an action: one that was refused or lost is no longer booked.
    pub fn note_result(&mut self, _action: &Action, _now_ms: u64, _result: Result<(), &str>) {}
}
