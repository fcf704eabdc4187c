//! One start of a local cluster, until all of it serves.

use super::cluster::{Cluster, save};
use super::process::Process;
use super::{POLL, ports};
use crate::failure::{CONDITION, Failure, UNREACHABLE};
use isotherm_client::{Client, ClientOptions, ClusterStatus, NodeStatus};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Very many ranges may take longer: so long for each.
const READY_EACH: Duration = Duration::from_millis(20);
/// How long a node may take to register, and meta to say which nodes there are.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(15);
/// The state of a node that never comes back.
const DECOMMISSIONED: &str = "decommissioned";

/// One start of a cluster.
pub struct Start<'a> {
    pub dir: &'a Path,
    /// How long it may take, if that was said.
    pub limit: Option<Duration>,
    /// The addresses of the processes that it started.
    pub started: Vec<String>,
}

impl Start<'_> {
    /// Starts what does not run and waits until all of it serves. Meta comes first: it knows which nodes
    /// are gone for good. The nodes of a new cluster come one after the other, so that their ids ascend as
    /// their addresses do. No node is started before it is certain that the process that answers at the addresses
    /// of meta is the meta of this directory: a node would join another cluster for good.
    pub async fn run(&mut self, cluster: &mut Cluster) -> Result<(), Failure> {
        let each = READY_EACH * u32::try_from(cluster.ranges()).unwrap_or(u32::MAX);
        let patience = self.limit.unwrap_or_else(|| READY_TIMEOUT.max(each));
        let deadline = Instant::now() + patience;
        // What a killed command has started must be found by the next one.
        save(self.dir, cluster)?;
        for i in 0..cluster.meta.len() {
            self.start(&mut cluster.meta[i])?;
            save(self.dir, cluster)?;
        }
        for member in &cluster.meta {
            serving(member, deadline, patience).await?;
        }
        let client = admin_client(cluster)?;
        let soon = || deadline.min(Instant::now() + REGISTER_TIMEOUT);
        if !cluster.is_unfinished && cluster.nodes.iter().any(|node| !node.is_running()) {
            let nodes = retry(soon(), || async { client.admin().nodes().await.ok() }).await;
            let is_gone = |node: &Process| {
                let known = nodes.iter().flatten().find(|n| n.address == node.address);
                known.is_some_and(|n| n.state == DECOMMISSIONED)
            };
            cluster.nodes.retain(|node| node.is_running() || !is_gone(node));
        }
        for i in 0..cluster.nodes.len() {
            self.start(&mut cluster.nodes[i])?;
            save(self.dir, cluster)?;
            if cluster.is_unfinished {
                let node = &cluster.nodes[i];
                let is_known = || async {
                    let nodes = client.admin().nodes().await.ok()?;
                    let found = nodes.iter().any(|n| n.address == node.address);
                    (found || !node.is_there()).then_some(())
                };
                // One that does not register is reported below, with its log.
                retry(soon(), is_known).await;
            }
        }
        let status = wait_ready(&client, cluster, deadline, patience).await?;
        let id = status.cluster_id.to_string();
        if cluster.cluster_id.as_ref().is_some_and(|known| *known != id) {
            let (shown, known) = (self.dir.display(), cluster.cluster_id.clone());
            let known = known.unwrap_or_default();
            let why =
                format!("{shown} holds cluster {known}, and cluster {id} answers at its addresses");
            return Err(Failure::new(CONDITION, why));
        }
        (cluster.cluster_id, cluster.is_unfinished) = (Some(id), false);
        // As the cluster has them: a node that was emptied came back as another.
        for known in status.nodes.iter().filter(|n| n.state != DECOMMISSIONED) {
            let of = cluster.nodes.iter_mut().find(|node| node.address == known.address);
            of.into_iter().for_each(|node| node.id = known.id.get());
        }
        save(self.dir, cluster)
    }

    fn start(&mut self, process: &mut Process) -> Result<(), Failure> {
        if !process.is_running() {
            process.start()?;
            self.started.push(process.address.clone());
        }
        Ok(())
    }
}

/// Waits until it is `process`, and no other, that answers at its address.
async fn serving(process: &Process, deadline: Instant, patience: Duration) -> Result<(), Failure> {
    loop {
        if process.is_serving() {
            return Ok(());
        }
        if !process.is_there() {
            return Err(process.ended());
        }
        if Instant::now() >= deadline {
            let address = &process.address;
            let why = match ports::owner(address) {
                Some(owner) => format!("{owner} answers at {address}"),
                None => format!("nothing answers at {address}"),
            };
            return Err(not_ready(patience, &why));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn not_ready(patience: Duration, why: &str) -> Failure {
    let patience = humantime::format_duration(patience);
    Failure::new(UNREACHABLE, format!("not ready after {patience}: {why}"))
}

fn admin_client(cluster: &Cluster) -> Result<Client, Failure> {
    let meta = cluster.meta.iter().map(|m| m.address.clone()).collect();
    let timeout = Duration::from_millis(500);
    Ok(Client::connect(ClientOptions { meta, timeout, ..ClientOptions::default() })?)
}

/// Asks until there is something, or until `deadline`.
async fn retry<T, F: Future<Output = Option<T>>>(
    deadline: Instant,
    mut ask: impl FnMut() -> F,
) -> Option<T> {
    loop {
        match ask().await {
            Some(found) => return Some(found),
            None if Instant::now() >= deadline => return None,
            None => tokio::time::sleep(POLL).await,
        }
    }
}

/// Waits until every process serves and every range has a leader.
async fn wait_ready(
    client: &Client,
    cluster: &Cluster,
    deadline: Instant,
    patience: Duration,
) -> Result<ClusterStatus, Failure> {
    let mut why = "nothing answers".to_owned();
    while Instant::now() < deadline {
        if let Some(ended) = cluster.processes().find(|process| !process.is_there()) {
            return Err(ended.ended());
        }
        match client.admin().status().await {
            Ok(status) => {
                let is_up = |n: &&NodeStatus| n.state == "up" || n.state == "read-only";
                let up = status.nodes.iter().filter(is_up).count();
                if status.bootstrapped && up >= cluster.nodes.len() && all_ready(cluster).await {
                    return Ok(status);
                }
                why =
                    status.problems.first().cloned().unwrap_or_else(|| "not all ready".to_owned());
            }
            Err(error) => why = error.message,
        }
        tokio::time::sleep(POLL).await;
    }
    Err(not_ready(patience, &why))
}

/// Whether every process says that it is ready, and is the one that was asked.
async fn all_ready(cluster: &Cluster) -> bool {
    for process in cluster.processes() {
        if !is_ready(&process.http).await || !process.is_serving() {
            return false;
        }
    }
    true
}

/// Asks `/ready`.
async fn is_ready(address: &str) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let ask = async {
        let mut socket = tokio::net::TcpStream::connect(address).await?;
        socket.write_all(b"GET /ready HTTP/1.0\r\n\r\n").await?;
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).await?;
        io::Result::Ok(answer.ends_with(b"200"))
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), ask).await, Ok(Ok(true)))
}
