//! What is hot, what was decided and why, and what operators want of nodes.

use super::admin::unexpected;
use super::ranges::first_within;
use crate::machine::{Command, NodeIntent, Reply};
use crate::member::Meta;
use crate::registry::load_message;
use crate::scheduling::Noted;
use isotherm_proto::WireError;
use isotherm_proto::internal as pb;
use isotherm_proto::internal::error::Code;
use isotherm_scheduler::Decision;
use isotherm_types::limits::{self, HOT_MAX, LISTED_BYTES_MAX};
use isotherm_types::{NodeId, RangeId};
use std::time::{Duration, Instant};

/// Ranges in one answer unless the request says otherwise.
const HOT_DEFAULT: usize = 20;

pub(super) fn decision_message(
    decision: &Decision,
    ago: Duration,
    outcome: String,
) -> pb::Decision {
    let mut message = pb::Decision {
        range_id: decision.range.get(),
        rule: format!("{:?}", decision.rule),
        action: decision.action.as_ref().map(ToString::to_string).unwrap_or_default(),
        reason: decision.reason.clone(),
        ms_ago: u64::try_from(ago.as_millis()).unwrap_or(u64::MAX),
        outcome,
    };
    for text in [&mut message.action, &mut message.reason, &mut message.outcome] {
        limits::cut_text(text);
    }
    message
}

fn noted_message(noted: &Noted) -> pb::Decision {
    let outcome = match &noted.outcome {
        None => String::new(),
        Some(Ok(what) | Err(what)) => what.clone(),
    };
    decision_message(&noted.decision, noted.at.elapsed(), outcome)
}

/// The first of `hot`: as many as are `asked` for (0: the default), and as may be in one answer. The keys that
/// were sampled may be long.
pub(super) fn listed(hot: impl IntoIterator<Item = pb::HotRange>, asked: u32) -> Vec<pb::HotRange> {
    let limit = match asked as usize {
        0 => HOT_DEFAULT,
        asked => asked.min(HOT_MAX),
    };
    first_within(hot.into_iter().take(limit), LISTED_BYTES_MAX)
}

impl Meta {
    pub(super) fn explain_range(
        &self,
        request: pb::ExplainRangeRequest,
    ) -> Result<pb::ExplainRangeResponse, WireError> {
        self.leading()?;
        let range = RangeId(request.range_id);
        if self.group.machine().read().ranges().get(range).is_none() {
            let why = format!("there is no range {range}: it may have been merged into another");
            return Err(WireError::new(Code::NotFound, why));
        }
        let mut decisions = Vec::new();
        match &*self.seen.lock() {
            Some(view) => {
                let now = self.scheduler.lock().explain(view, range);
                let now = now.iter().map(|d| decision_message(d, Duration::ZERO, String::new()));
                decisions.extend(now);
            }
            None => decisions.push(pb::Decision {
                range_id: range.get(),
                reason: "this meta leader took over a moment ago and decides nothing yet"
                    .to_owned(),
                ..pb::Decision::default()
            }),
        }
        let known: Vec<String> = decisions.iter().map(|d| d.reason.clone()).collect();
        {
            let journal = self.journal.lock();
            let noted = journal.of(range).map(noted_message);
            decisions.extend(noted.filter(|d| !known.contains(&d.reason)));
        }
        let registry = self.registry.lock();
        let load = registry.loads().of(range).map(|said| load_message(range, &said.load, true));
        Ok(pb::ExplainRangeResponse { error: None, decisions, load })
    }

    pub(super) fn hot(&self, request: &pb::HotRequest) -> Result<pb::HotResponse, WireError> {
        self.leading()?;
        let machine = self.group.machine().read();
        let registry = self.registry.lock();
        let states = registry.states(machine.nodes(), Instant::now());
        let loads = machine.ranges().iter().filter_map(|d| {
            let load = &registry.loads().of(d.id)?.load;
            (load.fast.cores > 0.0).then_some((d, load))
        });
        let mut loads: Vec<_> = loads.collect();
        loads.sort_by(|(_, a), (_, b)| b.fast.cores.total_cmp(&a.fast.cores));
        let journal = self.journal.lock();
        let hot = loads.into_iter().map(|(d, load)| {
            let alive = |node: &NodeId| states.get(node).is_some_and(|s| s.counts_as_alive());
            let leader = registry.leader(d.id).map(|l| l.node).filter(alive);
            pb::HotRange {
                range_id: d.id.get(),
                start: d.span.start().clone(),
                end: d.span.end().clone(),
                leader_node: leader.map_or(0, NodeId::get),
                load: Some(load_message(d.id, load, true)),
                decision: journal.newest(d.id).map(noted_message),
            }
        });
        Ok(pb::HotResponse { error: None, ranges: listed(hot, request.limit) })
    }

    /// Whether another node than `node` is there and wanted to lead.
    fn may_others_lead(&self, node: NodeId) -> bool {
        let machine = self.group.machine().read();
        let states = self.registry.lock().states(machine.nodes(), Instant::now());
        machine.nodes().keys().any(|other| {
            *other != node
                && machine.intent(*other) == NodeIntent::Active
                && states.get(other).is_some_and(|state| state.counts_as_alive())
        })
    }

    pub(super) async fn set_intent(
        &self,
        request: pb::SetIntentRequest,
    ) -> Result<pb::SetIntentResponse, WireError> {
        self.leading()?;
        let node = NodeId(request.node_id);
        let intent = match request.intent.as_str() {
            "active" => NodeIntent::Active,
            "draining" => NodeIntent::Draining,
            "decommissioning" => NodeIntent::Decommissioning,
            other => {
                let why = format!("{other:?} is none of active, draining, decommissioning");
                return Err(WireError::new(Code::Invalid, why));
            }
        };
        if !self.group.machine().read().nodes().contains_key(&node) {
            let why = format!("there is no node {node}");
            return Err(WireError::new(Code::NotFound, why));
        }
        if intent == NodeIntent::Draining && !self.may_others_lead(node) {
            let why = format!(
                "node {node} is the last that may lead: its ranges would have no leader. Start or undrain \
                 another node first"
            );
            return Err(WireError::new(Code::Condition, why));
        }
        match self.propose(Command::SetIntent { node, intent }, None).await? {
            Reply::Done => {
                tracing::info!(node_id = %node, %intent, "the operator wants something of a node");
                Ok(pb::SetIntentResponse { error: None })
            }
            other => Err(unexpected(&other)),
        }
    }
}
