//! Nodes: what is known of them, and what is wanted of them.

use super::{client, heat};
use crate::args::{Global, NodeAdmin};
use crate::failure::{Failure, NOT_FOUND};
use crate::output::{self, Format};
use indicatif::{ProgressBar, ProgressStyle};
use isotherm_client::{Client, NodeStatus};
use isotherm_types::NodeId;
use serde_json::{Value, json};
use std::time::Duration;

/// Between two looks at a node that is waited for.
const POLL: Duration = Duration::from_millis(300);

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
    client.admin().set_intent(NodeId(id), intent).await?;
    let mut node = find(client, id).await?;
    if let Some(left) = until_none {
        let bar =
            if output::is_talkative() { ProgressBar::no_length() } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{spinner} {msg}  {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        let mut none_seen = 0;
        loop {
            let (count, what) = match left {
                Left::Leaders => (node.leaders, "leaderships"),
                Left::Replicas => (node.replicas, "replicas"),
            };
            let is_done = match left {
                // Leaderships come and go: none twice in a row.
                Left::Leaders => none_seen >= 2,
                Left::Replicas => node.state == "decommissioned",
            };
            if is_done {
                break;
            }
            none_seen = if count == 0 { none_seen + 1 } else { 0 };
            bar.set_message(format!("node {id}: {count} {what} left"));
            bar.tick();
            tokio::time::sleep(POLL).await;
            node = find(client, id).await?;
            if node.intent == "active" {
                bar.finish_and_clear();
                let why = format!("node {id} was made active again while it was waited for");
                return Err(Failure::new(crate::failure::CONDITION, why));
            }
        }
        bar.finish_and_clear();
    }
    show(global, &node)
}
