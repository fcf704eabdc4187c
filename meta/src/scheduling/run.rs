//! The loop: look, decide, order.

use super::view::Views;
use crate::machine::{Command, NodeIntent, Reply};
use crate::member::Meta;
use crate::settings;
use isotherm_proto::WireError;
use isotherm_scheduler::{Action, ClusterView, Liveness, RangeView, Scheduler};
use isotherm_task::guarded;
use isotherm_types::NodeId;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Between two looks at the cluster while something is warm or under way, and otherwise.
const TICK: Duration = Duration::from_millis(250);
const TICK_IDLE: Duration = Duration::from_secs(1);
/// A look that comes that late: this process stood still, and what nodes sent meanwhile is yet to be
/// read.
const STOOD_STILL_AFTER: Duration = Duration::from_secs(5);
/// From this many cores on a range is worth a closer look.
const WARM_CORES: f64 = 0.005;

type Ordered = (Action, Result<String, WireError>);

/// Schedules as the leader of `term`, until dropped.
pub(crate) async fn run(meta: Arc<Meta>, term: u64) {
    let mut views = Views::new(Instant::now());
    let mut ordered: JoinSet<Ordered> = JoinSet::new();
    *meta.scheduler.lock() = Scheduler::new(meta.scheduler_settings());
    *meta.seen.lock() = None;
    // Whether nodes could be heard at the last look, and when that was.
    let (mut heard, mut looked) = (true, Instant::now());
    loop {
        let pause = if meta.is_calm() && ordered.is_empty() { TICK_IDLE } else { TICK };
        tokio::select! {
            Some(Ok((action, result))) = ordered.join_next(), if !ordered.is_empty() => {
                meta.take_result(&action, result, views.clock(Instant::now()));
            }
            () = tokio::time::sleep(pause) => {
                let now = Instant::now();
                let hears = meta.group.is_acknowledged();
                if hears && (!heard || now.duration_since(looked) > STOOD_STILL_AFTER) {
                    meta.registry.lock().excuse_silence(now);
                }
                (heard, looked) = (hears, now);
                // Without a quorum nothing can be ordered, and nodes are heard elsewhere.
                if !hears {
                    continue;
                }
                if let Some(view) = views.view(&meta, now) {
                    let unled = view.ranges.iter().filter(|range| range.leader.is_none());
                    let unled = unled.map(|range| range.descriptor.id);
                    let unheard = view.ranges.iter().filter(|range| is_unheard(range, &view));
                    let unheard = unheard.map(|range| range.descriptor.id);
                    meta.registry.lock().look(unled, unheard, now);
                    for action in meta.schedule(&view) {
                        let meta = meta.clone();
                        ordered.spawn(guarded("decided action", async move {
                            let result = meta.order(term, &action).await;
                            (action, result)
                        }));
                    }
                    meta.finish_decommissions(term, &view).await;
                    *meta.seen.lock() = Some(view);
                }
            }
        }
    }
}

/// Whether a range is led, and its leader does not hear of a replica whose node is there.
fn is_unheard(range: &RangeView, view: &ClusterView) -> bool {
    let is_up = |node| view.nodes.get(&node).is_some_and(|n| n.liveness == Liveness::Up);
    range.leader.is_some()
        && range.descriptor.voters().any(|r| !range.live.contains(&r.id) && is_up(r.node))
}

impl Meta {
    fn scheduler_settings(&self) -> isotherm_scheduler::Settings {
        let machine = self.group.machine().read();
        let first_ranges = machine.founding().map_or(1, |f| f.ranges);
        settings::scheduler(machine.settings(), first_ranges)
    }

    /// Whether nothing is warm and nothing under way.
    fn is_calm(&self) -> bool {
        let machine = self.group.machine().read();
        let is_moving = machine.operations().iter().any(|o| !o.state.has_ended())
            || machine.merges().running().next().is_some();
        let leaves = |n| machine.intent(n) == NodeIntent::Decommissioning;
        let is_leaving = machine.nodes().keys().any(|n| leaves(*n));
        !is_moving && !is_leaving && !self.registry.lock().loads().are_warm(WARM_CORES)
    }

    /// Decides, and keeps what was decided; the actions.
    fn schedule(&self, view: &ClusterView) -> Vec<Action> {
        let started = Instant::now();
        let decisions = {
            let mut scheduler = self.scheduler.lock();
            scheduler.set(self.scheduler_settings());
            scheduler.decide(view)
        };
        metrics::histogram!(crate::metrics::DECIDE_SECONDS).record(started.elapsed());
        let mut journal = self.journal.lock();
        let mut actions = Vec::new();
        for decision in decisions {
            if let Some(action) = &decision.action {
                let rule = format!("{:?}", decision.rule);
                tracing::info!(range_id = %decision.range, rule, %action, reason = decision.reason, "decided");
                metrics::counter!(crate::metrics::DECISIONS, "rule" => rule).increment(1);
                actions.push(action.clone());
            }
            journal.note(decision, started);
        }
        actions
    }

    fn take_result(&self, action: &Action, result: Result<String, WireError>, now_ms: u64) {
        let result = result.map_err(|error| error.0.message);
        if let Err(error) = &result {
            tracing::info!(range_id = %action.range(), %action, error, "decision not carried out");
        }
        let said = result.as_ref().map(|_| ()).map_err(String::as_str);
        self.scheduler.lock().note_result(action, now_ms, said);
        self.journal.lock().note_outcome(action, result);
    }

    /// A node that was to lose all its replicas, and has, is gone for good.
    async fn finish_decommissions(&self, term: u64, view: &ClusterView) {
        let emptied: Vec<NodeId> = {
            let machine = self.group.machine().read();
            let leaving = view.nodes.keys().filter(|node| {
                machine.intent(**node) == NodeIntent::Decommissioning
                    && !machine.ranges().iter().any(|d| d.replica_on(**node).is_some())
                    && !machine.operations().iter().any(|o| !o.state.has_ended() && o.to == **node)
            });
            leaving.copied().collect()
        };
        for node in emptied {
            let command = Command::SetIntent { node, intent: NodeIntent::Decommissioned };
            if let Ok(Reply::Done) = self.propose(command, Some(term)).await {
                tracing::info!(node_id = %node, "node decommissioned");
            }
        }
    }
}
