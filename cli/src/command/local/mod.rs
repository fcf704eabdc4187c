//! `up` and `down`: a local cluster of real processes.
//!
//! `DIR/cluster.json` says what belongs to the cluster: every process with its addresses, its data
//! directory, its log and its command line. `up` on a directory starts whatever of that is not
//! running and leaves the rest alone. While processes are started or stopped the command holds the lock of
//! the directory; a command that is killed leaves what the next one finds by its command line.

mod cluster;
mod lock;
mod ports;
mod process;
mod start;

use super::process::stop_signal;
use crate::args::{Down, Global, Up};
use crate::failure::{CONDITION, Failure, INTERRUPTED, NOT_FOUND, UNEXPECTED};
use crate::output::{self, Format};
use cluster::{Cluster, cluster_path, load, save};
use lock::DirectoryLock;
use process::Process;
use rustix::process::Signal;
use serde_json::json;
use start::Start;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the kernel may take to end a process that was killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a foreground `up` that is to stop waits for another command on its directory.
const STOP_PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
/// Between two looks of a foreground `up` at its processes.
const LOOK: Duration = Duration::from_millis(500);

pub async fn up(global: &Global, args: Up) -> Result<(), Failure> {
    let stop = stop_signal()?;
    fs::create_dir_all(&args.dir)
        .map_err(|e| Failure::usage(format!("{}: {e}", args.dir.display())))?;
    let dir = args.dir.canonicalize()?;
    let lock = DirectoryLock::take(&dir, "up", global.timeout(), &stop).await?;
    let known = load(&dir)?;
    let is_new = known.is_none();
    let mut cluster = match known {
        Some(cluster) => {
            cluster.check_place(&dir)?;
            cluster.check_flags(&dir, &args)?;
            cluster
        }
        None => Cluster::plan(&args, &dir, global.log_filter())?,
    };
    cluster.find_running();
    if let Some(filter) = &global.log {
        cluster.set_log_filter(filter);
    }
    check_ports(&cluster)?;
    let absent = |path: &&PathBuf| !path.exists();
    let made: Vec<_> = cluster.processes().map(|p| &p.data_dir).filter(absent).cloned().collect();
    let mut start = Start { dir: &dir, limit: global.timeout, started: Vec::new() };
    let begun = tokio::select! {
        begun = start.run(&mut cluster) => begun,
        () = stop.cancelled() => Err(Failure::new(INTERRUPTED, "stopped before it was ready")),
    };
    if let Err(failure) = begun {
        if is_new {
            stop_all(&cluster, STOP_TIMEOUT).await?;
            forget(&dir, &made)?;
        } else if !args.detach || stop.is_cancelled() {
            // What ran before is left alone.
            stop_all(&cluster.only(&start.started), STOP_TIMEOUT).await?;
        }
        return Err(failure);
    }
    let started = start.started.len();
    drop(lock);
    say_ready(global, &dir, &cluster, started)?;
    if args.detach { Ok(()) } else { attend(&dir, cluster, &stop).await }
}

fn say_ready(
    global: &Global,
    dir: &Path,
    cluster: &Cluster,
    started: usize,
) -> Result<(), Failure> {
    let meta: Vec<_> = cluster.meta.iter().map(|m| m.address.clone()).collect();
    match global.plain() {
        Format::Json => output::json(&json!({
            "ready": true,
            "meta": meta,
            "nodes": cluster.nodes.iter().map(|n| n.address.clone()).collect::<Vec<_>>(),
            "cluster_id": cluster.cluster_id,
            "dir": dir,
            "started": started,
        })),
        Format::Table => output::line(&format!(
            "ready: {}, {} meta, {started} started; --meta {}; data in {}",
            output::count(cluster.nodes.len(), "node"),
            cluster.meta.len(),
            meta.join(","),
            dir.display()
        )),
    }
}

/// Whether the addresses of what is to be started are free. Otherwise the process there would answer for
/// the cluster of this directory.
fn check_ports(cluster: &Cluster) -> Result<(), Failure> {
    let wanted = cluster.processes().filter(|process| !process.is_running());
    let mut wanted = wanted.flat_map(|process| [&process.address, &process.http]);
    let Some(taken) = wanted.find(|address| ports::is_taken(address)) else { return Ok(()) };
    let owner = ports::owner(taken).unwrap_or_else(|| "another process".to_owned());
    let why = format!(
        "{taken} is in use by {owner}: nothing was started. Stop it, or take another --base-port for a \
         new cluster"
    );
    Err(Failure::new(CONDITION, why))
}

/// Removes what a first `up` has made that was never ready, so that the next one can begin with other
/// flags. The logs stay: they say why.
fn forget(dir: &Path, made: &[PathBuf]) -> Result<(), Failure> {
    fs::remove_file(cluster_path(dir)).or_else(absent_is_fine)?;
    made.iter().try_for_each(|path| Ok(fs::remove_dir_all(path).or_else(absent_is_fine)?))
}

fn absent_is_fine(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Stays with a cluster until it is told to stop it, or until nothing of it runs any more.
async fn attend(dir: &Path, cluster: Cluster, stop: &CancellationToken) -> Result<(), Failure> {
    let mut cluster = cluster;
    while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        if cluster.processes().any(Process::is_there) {
            continue;
        }
        // Another command may have stopped it, and perhaps started it again.
        match load(dir)? {
            Some(now) if now.processes().any(Process::is_there) => cluster = now,
            Some(now) if now.processes().any(|process| process.pid != 0) => {
                return Err(Failure::new(UNEXPECTED, "all processes of the cluster have ended"));
            }
            _ => {
                output::say("the cluster was stopped by another command");
                return Ok(());
            }
        }
    }
    output::say("stopping");
    let never = CancellationToken::new();
    let _lock = DirectoryLock::take(dir, "up", STOP_PATIENCE, &never).await?;
    let mut cluster = load(dir)?.unwrap_or(cluster);
    cluster.find_running();
    stop_all(&cluster, STOP_TIMEOUT).await?;
    cluster.note_stopped();
    save(dir, &cluster)
}

/// Stops nodes first, so that they can hand over and say goodbye, then meta; each gets `patience`, and is
/// killed then.
async fn stop_all(cluster: &Cluster, patience: Duration) -> Result<(), Failure> {
    for group in [&cluster.nodes, &cluster.meta] {
        for process in group {
            process.signal(Signal::TERM);
            // One that stands still would not hear it.
            process.signal(Signal::CONT);
        }
        wait_gone(group, patience).await;
        for process in group.iter().filter(|p| p.is_there()) {
            output::say(&format!("{} does not stop, killing it", process.address));
            process.signal(Signal::KILL);
        }
    }
    let all: Vec<_> = cluster.processes().cloned().collect();
    wait_gone(&all, KILL_TIMEOUT).await;
    let left: Vec<_> = all.iter().filter(|p| p.is_there()).map(|p| p.pid.to_string()).collect();
    if left.is_empty() {
        return Ok(());
    }
    let why = format!("the kernel does not end these processes: {}", left.join(", "));
    Err(Failure::new(UNEXPECTED, why))
}

async fn wait_gone(processes: &[Process], limit: Duration) {
    let deadline = Instant::now() + limit;
    while processes.iter().any(Process::is_there) && Instant::now() < deadline {
        tokio::time::sleep(POLL).await;
    }
}

pub async fn down(global: &Global, args: Down) -> Result<(), Failure> {
    let shown = args.dir.display();
    let none = || {
        let why = format!("{shown} holds no cluster.json: nothing to stop");
        Failure::new(NOT_FOUND, why)
    };
    // A directory that holds no cluster gets no lock either.
    if !cluster_path(&args.dir).exists() {
        return Err(none());
    }
    let dir = args.dir.canonicalize()?;
    let _lock =
        DirectoryLock::take(&dir, "down", global.timeout(), &CancellationToken::new()).await?;
    let mut cluster = load(&dir)?.ok_or_else(none)?;
    cluster.check_place(&dir)?;
    cluster.find_running();
    let running = cluster.processes().filter(|process| process.is_running()).count();
    stop_all(&cluster, STOP_TIMEOUT.min(global.timeout.unwrap_or(STOP_TIMEOUT))).await?;
    cluster.note_stopped();
    save(&dir, &cluster)?;
    match global.plain() {
        Format::Json => output::json(&json!({"stopped": running, "dir": dir})),
        Format::Table => {
            let stopped = output::count(running, "process");
            output::line(&format!("{stopped} stopped; the data stays in {shown}"))
        }
    }
}
