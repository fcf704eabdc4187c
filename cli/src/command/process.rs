//! The processes of a cluster: a member of the meta service, a node.

use crate::args::{Global, Meta, Node};
use crate::failure::{Failure, REFUSED, UNEXPECTED, USAGE};
use isotherm_meta::{BootstrapConfig, MetaConfig};
use isotherm_node::{NodeConfig, NodeError, NodeTuning};
use isotherm_telemetry::{LogFormat, init_logs, raise_file_limit};
use std::collections::BTreeMap;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn start_logs(global: &Global) -> Result<(), Failure> {
    let format = if global.log_json { LogFormat::Json } else { LogFormat::Text };
    init_logs(format, global.log_filter()).map_err(Failure::usage)
}

/// Cancelled by SIGTERM, by Ctrl-C, and by SIGHUP unless that is ignored, as `nohup` has it. A second signal
/// ends the process at once.
pub fn stop_signal() -> Result<CancellationToken, Failure> {
    let stop = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = match is_hangup_ignored() {
        true => None,
        false => Some(signal(SignalKind::hangup())?),
    };
    let told = stop.clone();
    tokio::spawn(async move {
        let mut next = async || {
            let hung_up = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
                _ = hung_up => {}
            }
        };
        next().await;
        told.cancel();
        next().await;
        std::process::exit(130);
    });
    Ok(stop)
}

/// As this process was started.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut ignored = status.lines().filter_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.next().and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // SIGHUP is signal 1, the lowest bit.
    mask.is_some_and(|mask| mask & 1 == 1)
}

pub async fn meta(global: &Global, args: Meta) -> Result<(), Failure> {
    start_logs(global)?;
    raise_file_limit();
    let own = args.advertise.clone().unwrap_or_else(|| args.listen.to_string());
    let peers = if args.join.is_empty() { vec![(args.id, own)] } else { members(&args.join)? };
    let config = MetaConfig {
        id: args.id,
        listen: args.listen,
        http: args.http,
        advertise: args.advertise,
        data_dir: args.data_dir,
        peers,
        bootstrap: BootstrapConfig {
            nodes: args.bootstrap_nodes,
            ranges: args.bootstrap_ranges,
            replicas: args.replicas,
        },
        disk_reserve_bytes: args.disk_reserve_bytes,
        disk_stall_limit_ms: args.disk_stall_limit.map(|d| d.as_millis() as u64),
    };
    let stop = stop_signal()?;
    isotherm_meta::run(config, stop).await.map_err(|error| {
        let code = match &error {
            isotherm_meta::MetaError::Config { .. } => USAGE,
            _ => UNEXPECTED,
        };
        Failure::new(code, chain(&error))
    })
}

fn members(join: &[String]) -> Result<Vec<(u64, String)>, Failure> {
    let wrong = |given: &String| {
        Failure::usage(format!("{given:?} does not name a member: write ID=HOST:PORT"))
    };
    let member = |given: &String| {
        let (id, address) = given.split_once('=').ok_or_else(|| wrong(given))?;
        let id = id.trim().parse().map_err(|_| wrong(given))?;
        Ok((id, address.trim().to_owned()))
    };
    join.iter().map(member).collect()
}

pub async fn node(global: &Global, args: Node) -> Result<(), Failure> {
    let Some(data_dir) = args.data_dir else {
        return Err(Failure::usage(
            "give a node its data directory: isotherm node --data-dir DIR (see isotherm node --help)",
        ));
    };
    start_logs(global)?;
    raise_file_limit();
    let defaults = NodeTuning::default();
    let tuning = NodeTuning {
        block_cache_bytes: args.block_cache_bytes.unwrap_or(defaults.block_cache_bytes),
        flush_bytes: args.flush_bytes.unwrap_or(defaults.flush_bytes),
        flush_interval_ms: args
            .flush_interval
            .map_or(defaults.flush_interval_ms, |d| d.as_millis() as u64),
        log_retain_bytes: args.log_retain_bytes.unwrap_or(defaults.log_retain_bytes),
        snapshot_bytes_per_second: args
            .snapshot_bytes_per_second
            .unwrap_or(defaults.snapshot_bytes_per_second),
        log_retain_node_bytes: args.log_retain_node_bytes.unwrap_or(defaults.log_retain_node_bytes),
        log_sync_delay_us: args.log_sync_delay.map_or(0, |d| d.as_micros() as u64),
        disk_reserve_bytes: args.disk_reserve_bytes,
        disk_stall_limit_ms: args
            .disk_stall_limit
            .map_or(defaults.disk_stall_limit_ms, |d| d.as_millis() as u64),
        read_quorum: args.read_quorum,
        stream_idle_ms: args.stream_idle.map_or(defaults.stream_idle_ms, |d| d.as_millis() as u64),
        request_memory_bytes: args.request_memory_bytes.unwrap_or(defaults.request_memory_bytes),
    };
    let config = NodeConfig {
        listen: args.listen,
        http: args.http,
        advertise: args.advertise,
        data_dir,
        meta: global.meta.clone(),
        labels: labels(&args.label)?,
        clear_damage: args.clear_damage,
        tuning,
    };
    let stop = stop_signal()?;
    isotherm_node::run(config, stop).await.map_err(|error| {
        let code = match &error {
            NodeError::Config(_) | NodeError::Address(_) => USAGE,
            NodeError::Refused(_) => REFUSED,
            _ => UNEXPECTED,
        };
        Failure::new(code, chain(&error))
    })
}

fn labels(given: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let label = |given: &String| match given.split_once('=') {
        Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
        None => Err(Failure::usage(format!("{given:?} is not a label: write NAME=VALUE"))),
    };
    given.iter().map(label).collect()
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
