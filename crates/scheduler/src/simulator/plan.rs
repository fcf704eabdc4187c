//! Judges orders by what is true, not by what was reported.

use super::simulation::{Event, Simulation};
use crate::{Action, Rule};
use isotherm_types::{NodeId, RangeId};
use std::collections::{BTreeMap, HashMap};

/// What nodes carry in truth once everything under way is done, to judge orders by.
pub(super) struct Plan {
    cores: BTreeMap<NodeId, f64>,
    leaders: BTreeMap<NodeId, usize>,
    replicas: BTreeMap<NodeId, usize>,
}

impl Plan {
    /// With everything that is under way in `run`.
    pub(super) fn of(run: &Simulation) -> Self {
        let mut moved: HashMap<RangeId, NodeId> = HashMap::new();
        for event in run.events.values() {
            if let Event::Effect(Action::Transfer { range, to }) = event {
                moved.insert(*range, *to);
            }
        }
        let mut plan = Self {
            cores: run.view.nodes.keys().map(|&id| (id, 0.0)).collect(),
            leaders: BTreeMap::new(),
            replicas: BTreeMap::new(),
        };
        for (range, truth) in run.view.ranges.iter().zip(&run.truth) {
            let id = range.descriptor.id;
            if let Some(leader) = moved.get(&id).copied().or(range.leader) {
                *plan.cores.entry(leader).or_default() += truth.demand.0;
                *plan.leaders.entry(leader).or_default() += 1;
            }
            for replica in &range.descriptor.replicas {
                *plan.replicas.entry(replica.node).or_default() += 1;
            }
        }
        for pending in &run.view.moves {
            plan.move_replica(pending.from, pending.to);
        }
        plan
    }

    fn move_replica(&mut self, from: Option<NodeId>, to: NodeId) {
        if let Some(from) = from {
            *self.replicas.entry(from).or_default() -= 1;
        }
        *self.replicas.entry(to).or_default() += 1;
    }

    /// Counts `action` as of use or not, and as done.
    pub(super) fn judge(&mut self, run: &mut Simulation, rule: Rule, action: &Action) {
        let Some(&i) = run.index.get(&action.range()) else { return };
        let (range, now) = (action.range(), run.now_ms());
        let (leader, cores) = (run.view.ranges[i].leader, run.truth[i].demand.0);
        let share = |run: &Simulation, id: NodeId, cores: f64| {
            cores / run.view.nodes.get(&id).map_or(1.0, |node| node.capacity_cores)
        };
        let lowers_heat = |plan: &Self, run: &Simulation, from: NodeId, to: NodeId| {
            share(run, to, plan.cores[&to] + cores) < share(run, from, plan.cores[&from])
        };
        let fewer = |of: &BTreeMap<NodeId, usize>, from: NodeId, to: NodeId| {
            let count = |id| of.get(&id).copied().unwrap_or(0);
            count(to) + 1 < count(from)
        };
        match (action, leader) {
            (Action::Transfer { to, .. }, Some(from)) => {
                let is_useful = match rule {
                    Rule::Count => fewer(&self.leaders, from, *to),
                    _ => lowers_heat(self, run, from, *to),
                };
                if matches!(rule, Rule::Count | Rule::LeaderLoad) {
                    run.metrics.note_evening(rule, range, from, *to, now, is_useful);
                }
                *self.cores.entry(from).or_default() -= cores;
                *self.cores.entry(*to).or_default() += cores;
                *self.leaders.entry(from).or_default() -= 1;
                *self.leaders.entry(*to).or_default() += 1;
            }
            (Action::Move { from, to, .. }, Some(leads)) => {
                let is_useful = match rule {
                    Rule::ReplicaLoad => lowers_heat(self, run, leads, *to),
                    _ => fewer(&self.replicas, *from, *to),
                };
                if matches!(rule, Rule::Count | Rule::ReplicaLoad) {
                    run.metrics.note_evening(rule, range, *from, *to, now, is_useful);
                }
                self.move_replica(Some(*from), *to);
            }
            (Action::Add { to, .. }, _) => self.move_replica(None, *to),
            _ => {}
        }
    }
}
