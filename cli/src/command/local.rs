//! `up` and `down`: a local cluster of real processes.
//!
//! `DIR/cluster.json` says what belongs to the cluster: every process with its addresses, its data
//! directory, its log and its command line. `up` on a directory starts whatever of that is not
//! running and leaves the rest alone.

use super::process::stop_signal;
use crate::args::{Down, Global, Up};
use crate::environment::OF_ONE_PROCESS;
use crate::failure::{Failure, UNEXPECTED, UNREACHABLE};
use crate::output::{self, Format};
use isotherm_client::{Client, ClientOptions, NodeStatus};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Very many ranges may take longer: so long for each.
const READY_EACH: Duration = Duration::from_millis(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
/// How long a node may take to register, and meta to say which nodes there are.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(15);
/// The state of a node that never comes back.
const DECOMMISSIONED: &str = "decommissioned";
/// What `--nodes` is if nothing is said.
const DEFAULT_NODES: usize = 3;
const NODES_FROM: u16 = 10;
const HTTP_PORT_OFFSET: u16 = 1000;
/// Lines of a log that are shown when its process ends early.
const TAIL_LINES: usize = 5;

/// Processes of a local cluster, as `up` takes them.
const NODES_MAX: usize = 90;
const META_MAX: usize = 5;
/// `cluster.json`, in bytes: of each process the paths of program, data and log, each at most twice, where
/// in JSON a byte can take six, and what else it is called with.
const CLUSTER_BYTES_MAX: usize = (NODES_MAX + META_MAX) * (5 * 6 * 4096 + 4096);

/// `cluster.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Cluster {
    meta: Vec<Process>,
    nodes: Vec<Process>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Process {
    id: u64,
    address: String,
    http: String,
    pid: u32,
    data_dir: PathBuf,
    log: PathBuf,
    argv: Vec<String>,
}

impl Cluster {
    /// Those of its processes that serve at `addresses`.
    fn only(&self, addresses: &[String]) -> Self {
        let only = |all: &[Process]| {
            all.iter().filter(|p| addresses.contains(&p.address)).cloned().collect()
        };
        Self { meta: only(&self.meta), nodes: only(&self.nodes) }
    }
}

impl Process {
    /// Whether it runs: its pid may belong to somebody else by now.
    fn is_running(&self) -> bool {
        let Ok(line) = fs::read(format!("/proc/{}/cmdline", self.pid)) else { return false };
        let running: Vec<_> = line.split(|b| *b == 0).filter(|a| !a.is_empty()).collect();
        running.len() == self.argv.len()
            && running.iter().zip(&self.argv).skip(1).all(|(a, b)| *a == b.as_bytes())
    }

    fn start(&mut self) -> Result<(), Failure> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.argv[0]);
        for name in OF_ONE_PROCESS {
            command.env_remove(name);
        }
        let child = command
            .args(&self.argv[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for us: we stop it in order.
            .process_group(0)
            .spawn();
        let child =
            child.map_err(|e| Failure::new(UNEXPECTED, format!("{}: {e}", self.argv[0])))?;
        self.pid = child.id();
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid as i32).filter(|_| self.is_running()) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Whether it is there at all, also in the moment after its start in which the kernel does not
    /// show its command line yet.
    fn is_there(&self) -> bool {
        // A child of ours that ended stays a zombie until it is waited for.
        reap();
        let exists =
            Pid::from_raw(self.pid as i32).is_some_and(|pid| test_kill_process(pid).is_ok());
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        exists && (self.is_running() || (line.is_empty() && !self.is_zombie()))
    }

    fn is_zombie(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The state follows the name, which is in parentheses.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
    }

    fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(TAIL_LINES).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// Collects children that ended.
fn reap() {
    use rustix::process::{WaitOptions, wait};
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

fn cluster_path(dir: &Path) -> PathBuf {
    dir.join("cluster.json")
}

/// What is in the file, up to one byte more than it can have.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(CLUSTER_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

fn load(dir: &Path) -> Result<Option<Cluster>, Failure> {
    let path = cluster_path(dir);
    match read_bounded(&path) {
        Ok(text) if text.len() > CLUSTER_BYTES_MAX => {
            let why = format!("{} has more than {CLUSTER_BYTES_MAX} bytes", path.display());
            Err(Failure::new(UNEXPECTED, why))
        }
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|e| Failure::new(UNEXPECTED, format!("{} is damaged: {e}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn save(dir: &Path, cluster: &Cluster) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(cluster).map_err(|e| Failure::new(UNEXPECTED, e))?;
    let tmp = dir.join("cluster.json.tmp");
    fs::write(&tmp, text)?;
    Ok(fs::rename(tmp, cluster_path(dir))?)
}

fn plan(args: &Up, dir: &Path, log_filter: &str) -> Result<Cluster, Failure> {
    if !(1..=NODES_MAX).contains(&args.nodes) {
        return Err(Failure::usage("--nodes: 1 to 90 nodes are possible"));
    }
    if ![1, 3, 5].contains(&args.meta_nodes) {
        return Err(Failure::usage("--meta-nodes: 1 or 3 members are possible"));
    }
    let exe = std::env::current_exe()?.to_string_lossy().into_owned();
    let port = |offset: u16| {
        let port = args.base_port.checked_add(offset).filter(|p| *p < u16::MAX - HTTP_PORT_OFFSET);
        port.ok_or_else(|| Failure::usage("--base-port: too high"))
    };
    let process = |kind: &str, id: u64, port: u16, mut rest: Vec<String>| {
        let data_dir = dir.join(format!("{kind}-{id}"));
        let address = format!("127.0.0.1:{port}");
        let mut argv = vec![exe.clone(), kind.to_owned()];
        argv.extend(["--listen".to_owned(), address.clone()]);
        argv.extend(["--data-dir".to_owned(), data_dir.to_string_lossy().into_owned()]);
        argv.extend(["--log".to_owned(), log_filter.to_owned()]);
        argv.append(&mut rest);
        Process {
            id,
            address,
            http: format!("127.0.0.1:{}", port + HTTP_PORT_OFFSET),
            pid: 0,
            log: dir.join(format!("{kind}-{id}.log")),
            data_dir,
            argv,
        }
    };
    let meta_ports = (0..args.meta_nodes as u16).map(port).collect::<Result<Vec<_>, Failure>>()?;
    let joined: Vec<_> =
        (1..).zip(&meta_ports).map(|(id, p): (u64, _)| format!("{id}=127.0.0.1:{p}")).collect();
    let addresses: Vec<_> = meta_ports.iter().map(|p| format!("127.0.0.1:{p}")).collect();
    let meta = (1..).zip(&meta_ports).map(|(id, p)| {
        let rest = [
            ("--id", id.to_string()),
            ("--join", joined.join(",")),
            ("--bootstrap-nodes", args.nodes.to_string()),
            ("--bootstrap-ranges", args.ranges.to_string()),
            ("--replicas", args.replicas.to_string()),
        ];
        process("meta", id, *p, rest.into_iter().flat_map(|(k, v)| [k.to_owned(), v]).collect())
    });
    let meta = meta.collect();
    let node = |i: u16| {
        let rest = vec!["--meta".to_owned(), addresses.join(",")];
        Ok(process("node", u64::from(i) + 1, port(NODES_FROM + i)?, rest))
    };
    let nodes = (0..args.nodes as u16).map(node).collect::<Result<Vec<_>, Failure>>()?;
    Ok(Cluster { meta, nodes })
}

pub async fn up(global: &Global, args: Up) -> Result<(), Failure> {
    let stop = stop_signal()?;
    fs::create_dir_all(&args.dir)
        .map_err(|e| Failure::usage(format!("{}: {e}", args.dir.display())))?;
    let dir = args.dir.canonicalize()?;
    let known = load(&dir)?;
    let is_new = known.is_none();
    let mut cluster = match known {
        Some(cluster) => cluster,
        None => plan(&args, &dir, &global.log)?,
    };
    if !is_new && args.nodes != DEFAULT_NODES && args.nodes != cluster.nodes.len() {
        let (shown, has) = (dir.display(), cluster.nodes.len());
        output::say(&format!(
            "{shown} holds a cluster of {has} nodes: --nodes {} is not looked at",
            args.nodes
        ));
    }
    let mut start = Start { dir: &dir, started: Vec::new() };
    let begun = tokio::select! {
        begun = start.run(&mut cluster, is_new, args.ranges) => begun,
        () = stop.cancelled() => Err(Failure::new(UNEXPECTED, "stopped before it was ready")),
    };
    if let Err(failure) = begun {
        // What ran before is left alone.
        if is_new || !args.detach {
            stop_all(&cluster.only(&start.started)).await;
        }
        return Err(failure);
    }
    let started = start.started.len();
    let meta: Vec<_> = cluster.meta.iter().map(|m| m.address.clone()).collect();
    match global.plain() {
        Format::Json => output::json(&json!({
            "ready": true,
            "meta": meta,
            "nodes": cluster.nodes.iter().map(|n| n.address.clone()).collect::<Vec<_>>(),
            "dir": dir,
            "started": started,
        }))?,
        Format::Table => {
            let (nodes, members) = (cluster.nodes.len(), cluster.meta.len());
            output::line(&format!(
                "ready: {nodes} nodes, {members} meta, {started} started; --meta {}; data in {}",
                meta.join(","),
                dir.display()
            ))?;
        }
    }
    if args.detach {
        return Ok(());
    }
    stop.cancelled().await;
    output::say("stopping");
    stop_all(&cluster).await;
    Ok(())
}

/// One start of a cluster.
struct Start<'a> {
    dir: &'a Path,
    /// The addresses of the processes that it started.
    started: Vec<String>,
}

impl Start<'_> {
    /// Starts what does not run and waits until all of it serves. Meta comes first: it knows which nodes
    /// are gone for good. The nodes of a new cluster come one after the other, so that their ids ascend as
    /// their addresses do.
    async fn run(
        &mut self,
        cluster: &mut Cluster,
        is_new: bool,
        ranges: usize,
    ) -> Result<(), Failure> {
        for member in &mut cluster.meta {
            self.start(member)?;
        }
        save(self.dir, cluster)?;
        let client = admin_client(cluster)?;
        let deadline = Instant::now() + REGISTER_TIMEOUT;
        if !is_new && cluster.nodes.iter().any(|node| !node.is_running()) {
            let nodes = retry(deadline, || async { client.admin().nodes().await.ok() }).await;
            let is_gone = |node: &Process| {
                let known = nodes.iter().flatten().find(|n| n.address == node.address);
                known.is_some_and(|n| n.state == DECOMMISSIONED)
            };
            cluster.nodes.retain(|node| node.is_running() || !is_gone(node));
        }
        for i in 0..cluster.nodes.len() {
            self.start(&mut cluster.nodes[i])?;
            save(self.dir, cluster)?;
            if is_new {
                let node = &cluster.nodes[i];
                let is_known = || async {
                    let nodes = client.admin().nodes().await.ok()?;
                    nodes.iter().any(|n| n.address == node.address).then_some(())
                };
                // One that does not register is reported below, with its log.
                retry(Instant::now() + REGISTER_TIMEOUT, is_known).await;
            }
        }
        wait_ready(&client, cluster, ranges).await?;
        // As the cluster has them: a node that was emptied came back as another.
        if let Ok(nodes) = client.admin().nodes().await {
            let ids = nodes.iter().filter(|n| n.state != DECOMMISSIONED);
            for known in ids {
                let of = cluster.nodes.iter_mut().find(|node| node.address == known.address);
                of.into_iter().for_each(|node| node.id = known.id.get());
            }
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
async fn wait_ready(client: &Client, cluster: &Cluster, ranges: usize) -> Result<(), Failure> {
    let each = READY_EACH * u32::try_from(ranges).unwrap_or(u32::MAX);
    let patience = READY_TIMEOUT.max(each);
    let deadline = Instant::now() + patience;
    let mut why = "nothing answers".to_owned();
    while Instant::now() < deadline {
        for process in cluster.meta.iter().chain(&cluster.nodes) {
            if !process.is_there() {
                let (log, tail) = (process.log.display(), process.tail());
                let message = format!("{} ended; {log} says:\n{tail}", process.address);
                return Err(Failure::new(UNEXPECTED, message));
            }
        }
        match client.admin().status().await {
            Ok(status) => {
                let is_up = |n: &&NodeStatus| n.state == "up" || n.state == "read-only";
                let up = status.nodes.iter().filter(is_up).count();
                if status.bootstrapped && up >= cluster.nodes.len() && all_ready(cluster).await {
                    return Ok(());
                }
                why =
                    status.problems.first().cloned().unwrap_or_else(|| "not all ready".to_owned());
            }
            Err(error) => why = error.message,
        }
        tokio::time::sleep(POLL).await;
    }
    Err(Failure::new(UNREACHABLE, format!("not ready after {patience:?}: {why}")))
}

async fn all_ready(cluster: &Cluster) -> bool {
    for process in cluster.meta.iter().chain(&cluster.nodes) {
        if !is_ready(&process.http).await {
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

/// Stops nodes first, so that they can hand over and say goodbye, then meta.
async fn stop_all(cluster: &Cluster) {
    for group in [&cluster.nodes, &cluster.meta] {
        group.iter().for_each(|p| p.signal(Signal::TERM));
        let deadline = Instant::now() + STOP_TIMEOUT;
        while group.iter().any(Process::is_there) && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
        for process in group.iter().filter(|p| p.is_there()) {
            output::say(&format!("{} does not stop, killing it", process.address));
            process.signal(Signal::KILL);
        }
    }
}

pub async fn down(args: Down) -> Result<(), Failure> {
    let Some(cluster) = load(&args.dir)? else {
        let shown = args.dir.display();
        return Err(Failure::new(
            UNEXPECTED,
            format!("{shown} holds no cluster.json: nothing to stop"),
        ));
    };
    let running = cluster.meta.iter().chain(&cluster.nodes).filter(|p| p.is_running()).count();
    stop_all(&cluster).await;
    output::line(&format!("{running} processes stopped; the data stays in {}", args.dir.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use isotherm_types::sizes::{SizeRow, with_rows};

    #[test]
    fn the_document_has_a_row_for_the_file() {
        let row = SizeRow {
            name: "cluster.json".to_owned(),
            bytes_max: CLUSTER_BYTES_MAX,
            why: "90 nodes and 5 members by their paths and arguments (`cli/src/command/local.rs`)"
                .to_owned(),
        };
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/sizes.md");
        let document = fs::read_to_string(path).unwrap();
        let wanted = with_rows(&document, "cli", &[row]).unwrap();
        if std::env::var_os("WRITE_SIZES").is_some() {
            fs::write(path, wanted).unwrap();
        } else {
            assert!(document == wanted, "run this test with WRITE_SIZES=1");
        }
    }

    #[test]
    fn the_largest_file_is_read_and_one_byte_more_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        // What JSON writes at its longest: control characters.
        let path = "\u{1}".repeat(4095);
        let process = Process {
            id: u64::MAX,
            address: "127.0.0.1:65535".to_owned(),
            http: "127.0.0.1:65535".to_owned(),
            pid: u32::MAX,
            data_dir: path.clone().into(),
            log: path.clone().into(),
            argv: [path.clone(), path]
                .into_iter()
                .chain(vec!["--argument".to_owned(); 40])
                .collect(),
        };
        let cluster =
            Cluster { meta: vec![process.clone(); META_MAX], nodes: vec![process; NODES_MAX] };
        save(dir.path(), &cluster).unwrap();
        assert_eq!(load(dir.path()).unwrap().unwrap().nodes.len(), NODES_MAX);
        let path = cluster_path(dir.path());
        let mut text = fs::read(&path).unwrap();
        assert!(text.len() <= CLUSTER_BYTES_MAX, "{} bytes", text.len());
        text.resize(CLUSTER_BYTES_MAX, b' ');
        fs::write(&path, &text).unwrap();
        assert!(load(dir.path()).unwrap().is_some(), "the largest");
        text.push(b' ');
        fs::write(&path, &text).unwrap();
        let Err(refused) = load(dir.path()) else { panic!("one byte more") };
        assert!(refused.message.contains("more than"), "{}", refused.message);
    }
}
