//! The rules in their order, and what is remembered between two views.

use crate::explain::explain;
use crate::memory::Memory;
use crate::pass::Pass;
use crate::{Action, ClusterView, Decision, Settings, rules};
use isotherm_types::RangeId;

/// An order that was refused is not repeated for this long.
const REFUSED_PAUSE_MS: u64 = 2_000;

/// Decides, and remembers what it decided: effects that are booked until views show them, since
/// when ranges are cold, when what was changed.
#[derive(Debug, Default)]
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
    pub fn decide(&mut self, view: &ClusterView) -> Vec<Decision> {
        self.memory.observe(view, &self.settings);
        if !self.settings.enabled {
            return Vec::new();
        }
        let mut pass = Pass::new(view, &self.settings, &mut self.memory);
        rules::repair(&mut pass);
        rules::evacuate(&mut pass);
        rules::placement(&mut pass);
        rules::split(&mut pass);
        rules::merge(&mut pass);
        rules::leader_load(&mut pass);
        rules::replica_load(&mut pass);
        rules::count(&mut pass);
        rules::disk(&mut pass);
        pass.decisions
    }

    /// Why nothing is done about `range` just now, or what is; as seen in `view`.
    pub fn explain(&mut self, view: &ClusterView, range: RangeId) -> Vec<Decision> {
        let pass = Pass::new(view, &self.settings, &mut self.memory);
        explain(&pass, range)
    }

    /// What became of an action: one that was refused or lost is no longer booked, and not repeated
    /// at once.
    pub fn note_result(&mut self, action: &Action, now_ms: u64, result: Result<(), &str>) {
        self.memory.finish(action, now_ms, result.err(), REFUSED_PAUSE_MS);
    }
}
