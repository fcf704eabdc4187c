//! Nodes: what is known of them, and what is wanted of them.

use super::wait::Wait;
use super::{client, heat};
use crate::args::{Global, NodeAdmin};
use crate::failure::{Failure, NOT_FOUND};
use crate::output::{self, Format};
use isotherm_client::{Client, NodeStatus, RangeLocation};
use isotherm_types::{KeyRange, NodeId, RangeId};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Between two looks at a node that is waited for.
const POLL: Duration = Duration::from_millis(300);
/// Between two looks at why it takes long.
const LOOK: Duration = Duration::from_secs(1);
/// The rule of the scheduler that empties nodes.
const EVACUATION: &str = "Evacuate";

pub fn node_json(node: &NodeStatus) -> Value {
    json!({
        "id": node.id.get(),
        "address": node.address,
        "http_address": node.http_address,
        "state": node.state,
        "ranges": node.replicas,
        "leaders": node.leaders,
        "intent": node.intent,
        "load": node.load,
        "capacity_cores": node.capacity_cores,
        "labels": node.labels,
        "last_heartbeat_ms": node.last_heartbeat.as_millis() as u64,
        "disk": {"total_bytes": node.disk_total_bytes, "free_bytes": node.disk_free_bytes},
        "version": node.version,
    })
}

pub fn node_row(node: &NodeStatus) -> Vec<String> {
    vec![
        node.id.to_string(),
        node.address.clone(),
        if node.intent == "active" || node.intent == node.state {
            node.state.clone()
        } else {
            format!("{}, {}", node.state, node.intent)
        },
        node.replicas.to_string(),
        node.leaders.to_string(),
        format!("{} of {:.1}", heat::cores(node.load), node.capacity_cores),
        output::bytes(node.disk_free_bytes),
        format!("{:.1} s ago", node.last_heartbeat.as_secs_f64()),
    ]
}

pub const NODE_HEADER: [&str; 8] =
    ["NODE", "ADDRESS", "STATE", "RANGES", "LEADERS", "CORES", "DISK FREE", "HEARD"];

pub async fn run(global: &Global, command: NodeAdmin) -> Result<(), Failure> {
    let client = client(global)?;
    match command {
        NodeAdmin::List => {
            let nodes = client.admin().nodes().await?;
            match global.format() {
                Format::Json => output::json(&nodes.iter().map(node_json).collect()),
                Format::Table => output::table(&NODE_HEADER, nodes.iter().map(node_row).collect()),
            }
        }
        NodeAdmin::Show { id } => show(global, &find(&client, id).await?),
        NodeAdmin::Drain { id, wait } => {
            want(global, &client, id, "draining", wait.then_some(Left::Leaders)).await
        }
        NodeAdmin::Decommission { id, wait } => {
            want(global, &client, id, "decommissioning", wait.then_some(Left::Replicas)).await
        }
        NodeAdmin::Undrain { id } | NodeAdmin::Recommission { id } => {
            want(global, &client, id, "active", None).await
        }
    }
}

async fn find(client: &Client, id: u64) -> Result<NodeStatus, Failure> {
    let nodes = client.admin().nodes().await?;
    let found = nodes.into_iter().find(|node| node.id == NodeId(id));
    found.ok_or_else(|| Failure::new(NOT_FOUND, format!("there is no node {id}")))
}

fn show(global: &Global, node: &NodeStatus) -> Result<(), Failure> {
    match global.format() {
        Format::Json => output::json(&node_json(node)),
        Format::Table => output::table(&NODE_HEADER, vec![node_row(node)]),
    }
}

/// What must go before a node is as it is wanted.
#[derive(Clone, Copy)]
enum Left {
    Leaders,
    Replicas,
}

/// Says what is wanted of a node and, if asked, waits until it is so.
async fn want(
    global: &Global,
    client: &Client,
    id: u64,
    intent: &str,
    until_none: Option<Left>,
) -> Result<(), Failure> {
    let Some(left) = until_none else {
        client.admin().set_intent(NodeId(id), intent).await?;
        return show(global, &find(client, id).await?);
    };
    let mut wait = Wait::new(global);
    wait.step(client.admin().set_intent(NodeId(id), intent)).await?;
    let mut obstacle = Obstacle::default();
    let mut none_seen = 0;
    loop {
        let node = wait.step(find(client, id)).await?;
        let (count, what) = match left {
            Left::Leaders => (node.leaders, "leadership"),
            Left::Replicas => (node.replicas, "replica"),
        };
        none_seen = if count == 0 { none_seen + 1 } else { 0 };
        let is_done = match left {
            // Leaderships come and go: none three times in a row.
            Left::Leaders => none_seen > 2,
            Left::Replicas => node.state == "decommissioned",
        };
        if is_done {
            return show(global, &node);
        }
        if node.intent == "active" {
            let why = format!("node {id} was made active again while it was waited for");
            return Err(Failure::new(crate::failure::CONDITION, why));
        }
        let mut progress = format!("node {id}: {} left", output::count(count as usize, what));
        if node.state == "down" {
            progress = format!("{progress}; the node is down");
        }
        if let Some(why) = &obstacle.why {
            progress = format!("{progress}; {why}");
        }
        wait.say(progress);
        if count > 0 && obstacle.is_due() {
            // Why it takes long is a courtesy: without an answer the wait goes on.
            let look = async {
                obstacle.look(client, NodeId(id), left).await;
                Ok::<_, Failure>(())
            };
            wait.step(look).await?;
        }
        wait.pause(POLL).await?;
    }
}

/// What holds up one of the ranges that a node still has to lose, as the scheduler explains it.
#[derive(Default)]
struct Obstacle {
    range: Option<RangeId>,
    why: Option<String>,
    looked: Option<Instant>,
}

impl Obstacle {
    fn is_due(&self) -> bool {
        self.looked.is_none_or(|at| at.elapsed() >= LOOK)
    }

    async fn look(&mut self, client: &Client, node: NodeId, left: Left) {
        self.looked = Some(Instant::now());
        let is_left = |range: &RangeLocation| match left {
            Left::Leaders => range.leader == Some(node),
            Left::Replicas => range.descriptor.replica_on(node).is_some(),
        };
        let known = match self.range.take() {
            Some(range) => client.admin().range(range).await.ok().filter(is_left),
            None => None,
        };
        let found = match known {
            Some(found) => Some(found),
            None => {
                let all = client.admin().ranges(&KeyRange::all()).await.unwrap_or_default();
                all.into_iter().find(is_left)
            }
        };
        let Some(range) = found.map(|found| found.descriptor.id) else { return };
        self.range = Some(range);
        if let Ok(explained) = client.admin().explain(range).await {
            let all = explained.decisions;
            let mut now = all.iter().filter(|d| d.age.is_zero());
            // Where no rule is asked, as when the scheduler is switched off, one reason stands for all.
            let only = now.next().filter(|_| now.next().is_none());
            let said = all.iter().find(|d| d.rule == EVACUATION).or(only);
            self.why = said.map(|decision| format!("{range}: {}", decision.reason));
        }
    }
}
