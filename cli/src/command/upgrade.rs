//! Upgrades of a cluster, process by process, and the step that makes one final.

use super::client;
use crate::args::{Global, UpgradeCommand};
use crate::failure::{CONDITION, Failure};
use crate::output::{self, Format};
use isotherm_client::{Client, ErrorKind, ProcessVersion, UpgradeStatus};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Between two looks at ranges that are being raised.
const POLL: Duration = Duration::from_millis(200);

pub async fn run(global: &Global, command: UpgradeCommand) -> Result<(), Failure> {
    let client = client(global)?;
    match command {
        UpgradeCommand::Status => show(global, &client.admin().upgrade_status().await?),
        UpgradeCommand::Finalize => finalize(global, &client).await,
    }
}

fn process_json(process: &ProcessVersion) -> Value {
    json!({
        "kind": process.kind,
        "id": process.id,
        "address": process.address,
        "software": process.software,
        "supports": process.supports.map(|version| version.0),
    })
}

/// What the operator does next, in one sentence.
fn advice(status: &UpgradeStatus) -> String {
    let (now, to) = (status.cluster_version, status.supported_by_all);
    let newest = status.processes.iter().filter_map(|p| p.supports).max().unwrap_or(now);
    if !status.blockers.is_empty() {
        return format!("not ready: {}", status.blockers.join("; "));
    }
    if to > now {
        return format!(
            "ready: `isotherm upgrade finalize` raises the cluster to version {to}; until then every \
             process can go back to the older software"
        );
    }
    let behind: Vec<_> = status
        .processes
        .iter()
        .filter(|p| p.supports.is_some_and(|version| version < newest))
        .map(|p| format!("{} {}", p.kind, p.id))
        .collect();
    if behind.is_empty() {
        return format!(
            "up to date: every process supports version {now}, and the cluster uses it"
        );
    }
    format!("under way: restart with the newer software: {}", behind.join(", "))
}

fn show(global: &Global, status: &UpgradeStatus) -> Result<(), Failure> {
    match global.format() {
        Format::Json => output::json(&json!({
            "cluster_version": status.cluster_version.0,
            "supported_by_all": status.supported_by_all.0,
            "replicas_behind": status.replicas_behind,
            "blockers": status.blockers,
            "can_finalize": status.blockers.is_empty()
                && status.supported_by_all > status.cluster_version,
            "processes": status.processes.iter().map(process_json).collect::<Vec<_>>(),
        })),
        Format::Table => {
            output::line(&format!("cluster version {}", status.cluster_version))?;
            output::line(&advice(status))?;
            let row = |p: &ProcessVersion| {
                vec![
                    format!("{} {}", p.kind, p.id),
                    p.address.clone(),
                    if p.software.is_empty() { "-".to_owned() } else { p.software.clone() },
                    p.supports.map_or("no answer".to_owned(), |version| version.to_string()),
                ]
            };
            let rows = status.processes.iter().map(row).collect();
            output::table(&["PROCESS", "ADDRESS", "SOFTWARE", "SUPPORTS"], rows)
        }
    }
}

/// Raises the cluster version, and waits until every replica follows it.
async fn finalize(global: &Global, client: &Client) -> Result<(), Failure> {
    let admin = client.admin();
    let before = admin.upgrade_status().await?.cluster_version;
    let version = admin.finalize_upgrade().await?;
    let deadline = Instant::now() + global.timeout();
    let behind = loop {
        let status = match admin.upgrade_status().await {
            Ok(status) => Some(status),
            Err(error) if error.kind == ErrorKind::Unavailable => None,
            Err(error) => return Err(error.into()),
        };
        match status {
            Some(status) if status.replicas_behind == 0 => break 0,
            Some(status) if Instant::now() > deadline => break status.replicas_behind,
            None if Instant::now() > deadline => {
                return Err(Failure::new(
                    CONDITION,
                    "the cluster version was raised; how many replicas follow it is not known: see `isotherm upgrade status`",
                ));
            }
            _ => tokio::time::sleep(POLL).await,
        }
    };
    match global.plain() {
        Format::Json => output::json(&json!({
            "from": before.0, "cluster_version": version.0, "replicas_behind": behind,
        })),
        Format::Table if before == version => {
            output::line(&format!("nothing to do: the cluster is at version {version}"))
        }
        Format::Table if behind > 0 => output::line(&format!(
            "the cluster is at version {version}; {behind} replicas are still being raised"
        )),
        Format::Table => output::line(&format!("the cluster is at version {version}")),
    }
}
