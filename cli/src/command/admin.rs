//! What operators look at and change.

use super::node::{NODE_HEADER, node_json, node_row};
use super::{client, heat, operation};
use crate::args::{ConfigCommand, Global, RangeCommand, RangeName};
use crate::failure::{Failure, NOT_FOUND, UNHEALTHY};
use crate::output::{self, Format};
use isotherm_client::{Client, ClientError, RangeLocation};
use isotherm_types::{KeyRange, NodeId, RangeDescriptor, RangeId, ReplicaRole};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// Nodes report a split with their next heartbeat.
const APPEARS_WITHIN: Duration = Duration::from_secs(2);
const APPEAR_POLL: Duration = Duration::from_millis(20);

pub async fn status(global: &Global) -> Result<(), Failure> {
    let status = client(global)?.admin().status().await?;
    let healthy = status.problems.is_empty() && status.bootstrapped;
    match global.format() {
        Format::Json => output::json(&json!({
            "healthy": healthy,
            "problems": status.problems,
            "cluster_id": output::digits(status.cluster_id),
            "bootstrapped": status.bootstrapped,
            "meta": {
                "leader": status.meta_leader,
                "members": status.meta_members.iter()
                    .map(|m| json!({"id": m.id, "address": m.address})).collect::<Vec<_>>(),
            },
            "nodes": status.nodes.iter().map(node_json).collect::<Vec<_>>(),
            "ranges": {
                "total": status.ranges_total,
                "unavailable": status.ranges_unavailable,
                "under_replicated": status.ranges_under_replicated,
            },
        }))?,
        Format::Table => {
            output::line(if healthy { "healthy" } else { "NOT HEALTHY" })?;
            for problem in &status.problems {
                output::line(&format!("  ! {problem}"))?;
            }
            let (total, unavailable, under) =
                (status.ranges_total, status.ranges_unavailable, status.ranges_under_replicated);
            output::line(&format!(
                "ranges: {total} total, {unavailable} unavailable, {under} under-replicated"
            ))?;
            let members: Vec<_> = status
                .meta_members
                .iter()
                .map(|m| {
                    let leads = if m.id == status.meta_leader { " (leads)" } else { "" };
                    format!("{} at {}{leads}", m.id, m.address)
                })
                .collect();
            output::line(&format!("meta: {}", members.join(", ")))?;
            output::line("")?;
            output::table(&NODE_HEADER, status.nodes.iter().map(node_row).collect())?;
        }
    }
    if healthy { Ok(()) } else { Err(Failure::silent(UNHEALTHY)) }
}

fn range_json(global: &Global, range: &RangeLocation) -> Value {
    let d = &range.descriptor;
    let mut object = Map::new();
    object.insert("id".to_owned(), d.id.get().into());
    global.encoding().field(&mut object, "start", d.span.start());
    global.encoding().field(&mut object, "end", d.span.end());
    let epoch = json!({"version": d.epoch.version, "conf_ver": d.epoch.conf_ver});
    object.insert("epoch".to_owned(), epoch);
    object.insert("leader".to_owned(), range.leader.map(|n| n.get()).into());
    let replica = |r: &isotherm_types::ReplicaDescriptor| {
        let role = match r.role {
            ReplicaRole::Voter => "voter",
            ReplicaRole::Learner => "learner",
            ReplicaRole::Incoming => "incoming",
            ReplicaRole::Outgoing => "outgoing",
        };
        let live = range.live_replicas.contains(&r.id);
        json!({"id": r.id.get(), "node": r.node.get(), "role": role, "live": live})
    };
    object.insert("replicas".to_owned(), d.replicas.iter().map(replica).collect());
    object.insert("load".to_owned(), heat::load_json(&range.load));
    object.insert("size".to_owned(), range.size_bytes.into());
    object.into()
}

fn range_row(global: &Global, range: &RangeLocation) -> Vec<String> {
    let d = &range.descriptor;
    let bound = |key: &[u8], none: &str| {
        if key.is_empty() { none.to_owned() } else { global.encoding().show(key) }
    };
    let nodes: Vec<_> = d.replicas.iter().map(|r| r.node.to_string()).collect();
    vec![
        d.id.to_string(),
        bound(d.span.start(), "-inf"),
        bound(d.span.end(), "+inf"),
        d.epoch.to_string(),
        range.leader.map_or("-".to_owned(), |n| n.to_string()),
        nodes.join(","),
        format!("{}/{}", range.live_replicas.len(), d.replicas.len()),
        // No leader of it has said yet.
        match (range.leader, range.size_bytes) {
            (None, 0) => "-".to_owned(),
            (_, size) => output::bytes(size),
        },
        heat::cores(range.load.fast.cores),
    ]
}

const RANGE_HEADER: [&str; 9] =
    ["RANGE", "START", "END", "EPOCH", "LEADER", "REPLICAS", "LIVE", "SIZE", "CORES"];

fn show_ranges(global: &Global, ranges: &[RangeLocation]) -> Result<(), Failure> {
    match global.format() {
        Format::Json => output::json(&ranges.iter().map(|r| range_json(global, r)).collect()),
        Format::Table => {
            output::table(&RANGE_HEADER, ranges.iter().map(|r| range_row(global, r)).collect())
        }
    }
}

/// A range's id as it is printed: `r7`, or the number alone.
fn parse_id(text: &str) -> Option<RangeId> {
    text.strip_prefix('r').unwrap_or(text).parse().ok().map(RangeId)
}

/// A range by its id (`r7` or `7`), or else by one of its keys. Text that looks like an id is
/// never taken for a key, so that a command cannot show another range than the one that was meant.
async fn find(
    global: &Global,
    client: &Client,
    name: &RangeName,
) -> Result<RangeLocation, Failure> {
    let by_key = async |key: &str| {
        Ok::<_, Failure>(client.admin().range_of_key(&global.encoding().parse(key)?).await?)
    };
    let text = match (&name.key, &name.id_or_key) {
        (Some(key), _) => return by_key(key).await,
        (None, Some(text)) => text,
        (None, None) => return Err(Failure::usage("say which range: its id, or --key KEY")),
    };
    if !is_number(text.strip_prefix('r').unwrap_or(text)) {
        return by_key(text).await;
    }
    let none = || {
        let why =
            format!("there is no range {text}; for the range of the key {text:?} say --key {text}");
        Failure::new(NOT_FOUND, why)
    };
    match client.admin().range(parse_id(text).ok_or_else(none)?).await {
        Err(ClientError { kind: isotherm_client::ErrorKind::NotFound, .. }) => Err(none()),
        found => Ok(found?),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit())
}

pub async fn range(global: &Global, command: RangeCommand) -> Result<(), Failure> {
    let client = client(global)?;
    match command {
        RangeCommand::List { node, hot } => {
            let mut ranges = client.admin().ranges(&KeyRange::all()).await?;
            if hot {
                ranges.retain(|r| r.load.fast.cores > 0.0);
                ranges.sort_by(|a, b| b.load.fast.cores.total_cmp(&a.load.fast.cores));
            }
            if let Some(node) = node {
                ranges.retain(|r| r.descriptor.replica_on(NodeId(node)).is_some());
            }
            show_ranges(global, &ranges)
        }
        RangeCommand::Show(name) => {
            let range = find(global, &client, &name).await?;
            match global.format() {
                Format::Json => output::json(&range_json(global, &range)),
                Format::Table => show_ranges(global, &[range]),
            }
        }
        RangeCommand::Split { key } => {
            let begun = Instant::now();
            let pieces = client.admin().split(global.encoding().parse(&key)?).await?;
            let left = global.timeout().saturating_sub(begun.elapsed());
            appear(&client, &pieces, left.min(APPEARS_WITHIN)).await;
            let as_location = |descriptor: RangeDescriptor| RangeLocation {
                live_replicas: descriptor.replicas.iter().map(|r| r.id).collect(),
                descriptor,
                leader: None,
                size_bytes: 0,
                load: isotherm_client::RangeLoad::default(),
            };
            let pieces: Vec<_> = pieces.into_iter().map(as_location).collect();
            show_ranges(global, &pieces)
        }
        RangeCommand::TransferLeader { id, to } => {
            let wrong = || Failure::usage(format!("{id:?} is not a range's id, such as r7"));
            let range = parse_id(&id).ok_or_else(wrong)?;
            client.admin().transfer_leader(range, NodeId(to)).await?;
            match global.format() {
                Format::Json => output::json(&json!({"range": range.get(), "leader": to})),
                Format::Table => output::line(&format!("{range} is led by n{to}")),
            }
        }
        RangeCommand::Move { id, from, to, within, wait } => {
            let wrong = || Failure::usage(format!("{id:?} is not a range's id, such as r7"));
            let range = parse_id(&id).ok_or_else(wrong)?;
            let (from, to) = (NodeId(from), NodeId(to));
            let admin = client.admin();
            let order = admin.move_range(range, from, to, within);
            operation::follow(global, &client, order, wait).await
        }
        RangeCommand::Merge { id, within, wait } => {
            let wrong = || Failure::usage(format!("{id:?} is not a range's id, such as r7"));
            let range = parse_id(&id).ok_or_else(wrong)?;
            let admin = client.admin();
            operation::follow(global, &client, admin.merge_ranges(range, within), wait).await
        }
        RangeCommand::Explain(name) => {
            let range = find(global, &client, &name).await?.descriptor.id;
            heat::explain(global, &client, range).await
        }
        RangeCommand::Checksum(name) => checksum(global, &client, &name).await,
    }
}

/// Waits a little until the map of the cluster has what a split made: a command that follows finds it.
async fn appear(client: &Client, pieces: &[RangeDescriptor], limit: Duration) {
    let appeared = async {
        for piece in pieces {
            let is_known =
                |range: &RangeLocation| range.descriptor.epoch.version >= piece.epoch.version;
            while !client.admin().range(piece.id).await.as_ref().is_ok_and(is_known) {
                tokio::time::sleep(APPEAR_POLL).await;
            }
        }
    };
    // The split is done in any case.
    let _ = tokio::time::timeout(limit, appeared).await;
}

async fn checksum(global: &Global, client: &Client, name: &RangeName) -> Result<(), Failure> {
    let range = find(global, client, name).await?;
    let sums = client.admin().checksum(range.descriptor.id).await?;
    let agree = sums.iter().all(|s| s.checksum.is_ok())
        && sums.windows(2).all(|w| w[0].checksum == w[1].checksum && w[0].rows == w[1].rows);
    match global.format() {
        Format::Json => output::json(&json!({
            "range": range.descriptor.id.get(),
            "equal": agree,
            "applied_index": sums.first().map(|s| s.applied_index),
            "replicas": sums.iter().map(|s| json!({
                "node": s.node.get(),
                "replica": s.replica.get(),
                "checksum": s.checksum.as_ref().ok().map(|c| format!("{c:016x}")),
                "error": s.checksum.as_ref().err(),
                "rows": s.rows,
            })).collect::<Vec<_>>(),
        }))?,
        Format::Table => {
            let row = |s: &isotherm_client::ReplicaChecksum| {
                let sum = match &s.checksum {
                    Ok(sum) => format!("{sum:016x}"),
                    Err(why) => why.clone(),
                };
                vec![s.node.to_string(), s.applied_index.to_string(), s.rows.to_string(), sum]
            };
            output::table(
                &["NODE", "APPLIED", "ROWS", "CHECKSUM"],
                sums.iter().map(row).collect(),
            )?;
        }
    }
    if agree {
        Ok(())
    } else {
        Err(Failure::new(UNHEALTHY, "the replicas differ, or one is missing"))
    }
}

pub async fn config(global: &Global, command: ConfigCommand) -> Result<(), Failure> {
    let client = client(global)?;
    match command {
        ConfigCommand::Show => {
            let settings = client.admin().settings().await?;
            match global.format() {
                Format::Json => {
                    let all: Map<String, Value> =
                        settings.into_iter().map(|s| (s.name, s.value.into())).collect();
                    output::json(&all.into())
                }
                Format::Table => {
                    let row = |s: isotherm_client::Setting| {
                        vec![s.name, s.value, s.default_value, s.help]
                    };
                    let rows = settings.into_iter().map(row).collect();
                    output::table(&["SETTING", "VALUE", "DEFAULT", "MEANING"], rows)
                }
            }
        }
        ConfigCommand::Set { name, value } => Ok(client.admin().set_setting(&name, &value).await?),
    }
}
