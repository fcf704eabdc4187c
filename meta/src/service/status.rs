//! How the cluster is: first what is wrong, the most serious first.

use crate::machine::{MetaMachine, NodeIntent, NodeRecord};
use crate::member::Meta;
use crate::registry::{NodeState, RangeCounts, Registry};
use isotherm_proto::WireError;
use isotherm_proto::internal as pb;
use isotherm_types::{ClusterId, NodeId, RangeId};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A link that is down that long is more than a hiccup.
const LINK_DOWN_AFTER: Duration = Duration::from_secs(2);

fn names<T: std::fmt::Display>(ids: &[T], total: u64) -> String {
    let named: Vec<_> = ids.iter().map(ToString::to_string).collect();
    let more = if total > ids.len() as u64 { ", …" } else { "" };
    format!("{}{more}", named.join(", "))
}

fn node_status(
    id: NodeId,
    record: &NodeRecord,
    registry: &Registry,
    state: NodeState,
    intent: NodeIntent,
    now: Instant,
) -> pb::NodeStatus {
    let heartbeat = registry.presence(id).and_then(|p| p.heartbeat);
    let silent = heartbeat.map(|(at, _)| now.saturating_duration_since(at));
    let numbers = heartbeat.map(|(_, h)| h).unwrap_or_default();
    pb::NodeStatus {
        id: id.get(),
        address: record.details.address.clone(),
        http_address: record.details.http_address.clone(),
        // One that has nothing more to lose need not be there.
        state: match intent {
            NodeIntent::Decommissioned => intent.to_string(),
            _ => state.to_string(),
        },
        replicas: numbers.replicas,
        // A node that is down leads nothing, whatever it said last.
        leaders: if state.counts_as_alive() { numbers.leaders } else { 0 },
        labels: record.details.labels.clone().into_iter().collect(),
        last_heartbeat_ms_ago: silent
            .map_or(0, |silent| u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)),
        disk_total_bytes: numbers.disk_total_bytes,
        disk_free_bytes: numbers.disk_free_bytes,
        load: numbers.load,
        version: record.details.version.clone(),
        intent: intent.to_string(),
        capacity_cores: numbers.capacity_cores,
    }
}

/// What status and the list of nodes are made of.
struct View<'a> {
    machine: &'a MetaMachine,
    registry: &'a Registry,
    states: HashMap<NodeId, NodeState>,
    now: Instant,
}

impl View<'_> {
    fn nodes(&self) -> Vec<pb::NodeStatus> {
        let nodes = self.machine.nodes().iter();
        nodes
            .map(|(id, record)| {
                let intent = self.machine.intent(*id);
                node_status(*id, record, self.registry, self.states[id], intent, self.now)
            })
            .collect()
    }

    fn in_state(&self, state: NodeState) -> Vec<NodeId> {
        let is_gone = |id| self.machine.intent(id) == NodeIntent::Decommissioned;
        let states = self.states.iter().filter(|(id, s)| **s == state && !is_gone(**id));
        let mut nodes: Vec<_> = states.map(|(id, _)| *id).collect();
        nodes.sort();
        nodes
    }

    fn bootstrap_problem(&self) -> Option<String> {
        if self.machine.is_bootstrapped() {
            return None;
        }
        let awaited = self.machine.founding().map_or(0, |f| f.nodes);
        let up = self.in_state(NodeState::Up).len();
        Some(format!(
            "not bootstrapped: waiting for {} of {awaited} nodes",
            awaited.saturating_sub(up)
        ))
    }

    fn range_problem(what: &str, count: u64, total: u64, ids: &[RangeId]) -> Option<String> {
        (count > 0).then(|| format!("{count} of {total} ranges {what}: {}", names(ids, count)))
    }

    fn node_problems(&self) -> impl Iterator<Item = String> {
        let since = |id: &NodeId| {
            let secs = |at: Instant| self.now.saturating_duration_since(at).as_secs();
            match self.registry.presence(*id).map(|presence| presence.heartbeat) {
                None => "not heard of since this meta leader took over".to_owned(),
                Some(Some((at, _))) => format!("no heartbeat for {} s", secs(at)),
                Some(None) => {
                    let started = secs(self.registry.silent_since(*id, self.now));
                    format!("it started {started} s ago and has not sent a heartbeat yet")
                }
            }
        };
        let damaged = self.registry.damaged_nodes();
        self.in_state(NodeState::Down)
            .into_iter()
            .map(|id| {
                let address = &self.machine.nodes()[&id].details.address;
                match damaged.get(&id) {
                    Some(what) => format!(
                        "node {id} ({address}) stays out because its data are damaged: have its \
                         disk checked, then start it with an empty data directory (or once with \
                         --clear-damage); found was: {what}"
                    ),
                    None => format!("node {id} ({address}) is down: {}", since(&id)),
                }
            })
            .collect::<Vec<_>>()
            .into_iter()
    }
}

impl Meta {
    fn with_view<T>(&self, look: impl FnOnce(&View<'_>) -> T) -> T {
        let machine = self.group.machine().read();
        let registry = self.registry.lock();
        let now = Instant::now();
        let states = registry.states(machine.nodes(), now);
        look(&View { machine: &machine, registry: &registry, states, now })
    }

    pub(super) fn list_nodes(&self) -> Result<pb::ListNodesResponse, WireError> {
        self.leading()?;
        Ok(pb::ListNodesResponse { error: None, nodes: self.with_view(|view| view.nodes()) })
    }

    pub(super) async fn status(&self) -> Result<pb::StatusResponse, WireError> {
        self.confirmed_leading().await?;
        let members = self.member_list();
        Ok(self.with_view(|view| {
            let counts = RangeCounts::of(
                view.machine.ranges(),
                view.registry,
                &view.states,
                view.machine.replicas_wanted(),
            );
            pb::StatusResponse {
                error: None,
                cluster_id: view.machine.cluster().map_or(0, ClusterId::get),
                bootstrapped: view.machine.is_bootstrapped(),
                problems: self.problems(view, &counts),
                leader: self.me.get(),
                members,
                nodes: view.nodes(),
                ranges_total: counts.total,
                ranges_unavailable: counts.unavailable,
                ranges_under_replicated: counts.under_replicated,
            }
        }))
    }

    fn problems(&self, view: &View<'_>, counts: &RangeCounts) -> Vec<String> {
        let mut problems = Vec::new();
        problems.extend(view.bootstrap_problem());
        let total = counts.total;
        let ids = &counts.unavailable_ids;
        problems.extend(View::range_problem("are unavailable", counts.unavailable, total, ids));
        problems.extend(view.node_problems());
        let (ids, count) = (&counts.lacking_ids, counts.lacking);
        problems.extend(View::range_problem("are under-replicated", count, total, ids));
        for (id, ranges) in view.registry.damaged_ranges() {
            let which = names(&ranges[..ranges.len().min(10)], ranges.len() as u64);
            problems.push(format!(
                "node {id} cannot read its replicas of ranges {which}: have its disk checked; they \
                 are removed and built again as soon as all others of these ranges are there"
            ));
        }
        for id in view.in_state(NodeState::ReadOnly) {
            problems.push(format!("node {id} is read-only: its disk is nearly full"));
        }
        if *self.is_disk_full.borrow() {
            let me = self.me.get();
            problems.push(format!("the disk of meta member {me}, which leads, is nearly full"));
        }
        problems.extend(self.member_problem());
        problems.extend(self.clock_problem());
        let unheard = view.in_state(NodeState::Unknown);
        if !unheard.is_empty() {
            let which = names(&unheard, unheard.len() as u64);
            problems.push(format!(
                "this meta leader took over a moment ago and has not heard of {which} yet"
            ));
        }
        problems
    }

    fn member_problem(&self) -> Option<String> {
        let others = self.members.iter().filter(|(id, _)| *id != self.me);
        let lost: Vec<_> = others
            .filter(|(id, _)| {
                let down = self.peers.link_down_since(*id);
                down.is_some_and(|since| since.elapsed() > LINK_DOWN_AFTER)
            })
            .map(|(id, address)| format!("{} ({address})", id.get()))
            .collect();
        let members = self.members.len();
        (!lost.is_empty()).then(|| {
            let which = lost.join(", ");
            format!("{} of {members} meta members cannot be reached: {which}", lost.len())
        })
    }

    fn clock_problem(&self) -> Option<String> {
        let skew = self.oracle.skew_secs()?;
        let (secs, where_) = (skew.unsigned_abs(), if skew < 0 { "behind" } else { "ahead of" });
        Some(format!(
            "timestamps are {secs} s {where_} the clock of meta member {}: a clock jumped; \
             timestamps follow it slowly",
            self.me.get()
        ))
    }
}
