//! What happens to processes at night: disks fill up, strangers knock, directories are mixed up, replicas
//! were away for too long.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{client, eventually, replicas_are_equal};
use isotherm_client::{Client, ErrorKind};
use isotherm_testkit::{
    ClusterOptions, DiskError, Member, ProcessCluster, http, isotherm_binary, tail,
};
use isotherm_types::{KeyRange, NodeId};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const NODE: Member = Member::Node(0);

async fn started(options: &ClusterOptions) -> (ProcessCluster, Client) {
    ready(ProcessCluster::start(options).unwrap()).await
}

/// With disks of its own, or nothing where no disk can be mounted: skipped, and it says so.
async fn started_on_disks(options: &ClusterOptions) -> Option<(ProcessCluster, Client)> {
    match ProcessCluster::start(options) {
        Ok(cluster) => Some(ready(cluster).await),
        Err(error) => match error.downcast_ref::<DiskError>() {
            Some(DiskError::Unsupported { reason }) => {
                isotherm_testkit::skip(reason);
                None
            }
            _ => panic!("{error:?}"),
        },
    }
}

async fn ready(mut cluster: ProcessCluster) -> (ProcessCluster, Client) {
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let client = client(&cluster);
    (cluster, client)
}

fn alone() -> ClusterOptions {
    ClusterOptions { nodes: 1, replicas: 1, ranges: 2, ..ClusterOptions::default() }
}

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Takes all room of the disk that `beside` lies on, but for `left` bytes.
fn fill(beside: &Path, left: u64) -> std::path::PathBuf {
    let disk = beside.parent().unwrap();
    let space = rustix::fs::statvfs(disk).unwrap();
    let free = space.f_bavail * space.f_frsize;
    let path = disk.join("ballast");
    let file = std::fs::File::create(&path).unwrap();
    let flags = rustix::fs::FallocateFlags::empty();
    rustix::fs::fallocate(&file, flags, 0, free.saturating_sub(left)).unwrap();
    path
}

/// Stops all writes of the disk that `beside` lies on, until it is dropped.
struct Frozen(std::path::PathBuf);

impl Frozen {
    fn new(beside: &Path) -> Self {
        let disk = beside.parent().unwrap().to_owned();
        let frozen = Command::new("fsfreeze").arg("-f").arg(&disk).status().unwrap();
        assert!(frozen.success(), "{}", disk.display());
        Self(disk)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.0).status();
    }
}

/// How long a put takes from now on, repeated until it is done.
async fn time_of_a_put(client: &Client, key: &str) -> Duration {
    let begun = Instant::now();
    eventually(Duration::from_secs(20), async || {
        client.put(key.to_owned(), "v").await.map(|_| ()).map_err(|e| e.to_string())
    })
    .await;
    begun.elapsed()
}

/// The disk of one process hangs: whatever it led is led by another one soon. When it answers again,
/// all is well.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_costs_its_process_the_leaderships() {
    let options = ClusterOptions {
        meta_nodes: 3,
        ranges: 4,
        disk_mib: Some(600),
        ..ClusterOptions::default()
    };
    let Some((mut cluster, client)) = started_on_disks(&options).await else { return };
    client.put("k", "v").await.unwrap();
    let leader = client.admin().status().await.unwrap().meta_leader;
    let meta = Member::Meta(usize::try_from(leader).unwrap() - 1);
    let led_by_others = async || {
        let status = client.admin().status().await.map_err(|e| e.to_string())?;
        if status.meta_leader == leader { Err("it still leads".to_owned()) } else { Ok(()) }
    };
    {
        let _frozen = Frozen::new(&cluster.process(meta).spec().data_dir);
        // Its window of timestamps may last a while: what it needs its disk for shows it.
        let (begun, mut led_after, mut worst) = (Instant::now(), None, Duration::ZERO);
        while led_after.is_none() || begun.elapsed() < Duration::from_secs(10) {
            worst = worst.max(time_of_a_put(&client, "k").await);
            if led_after.is_none() && led_by_others().await.is_ok() {
                led_after = Some(begun.elapsed());
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "it still leads");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        eprintln!(
            "meta leader's disk hangs: another leads after {led_after:?}, the slowest put took {worst:?}"
        );
        assert!(worst < Duration::from_secs(5), "{worst:?}");
    }
    let node = Member::Node(0);
    {
        let _frozen = Frozen::new(&cluster.process(node).spec().data_dir);
        let keys = ["a", "h", "p", "z", "\u{7f}"];
        let begun = Instant::now();
        futures::future::join_all(keys.map(|key| time_of_a_put(&client, key))).await;
        let took = begun.elapsed();
        eprintln!("a node's disk hangs: puts on all ranges took {took:?}");
        assert!(took < Duration::from_secs(8), "{took:?}");
        assert_eq!(cluster.ended().unwrap(), []);
    }
    cluster.wait_ready(Duration::from_secs(30)).await.unwrap();
    assert_eq!(cluster.ended().unwrap(), []);
    replicas_are_equal(&client).await;
}

/// Flips a bit in what was written to the log in the middle of a node's life.
fn flip_in_log(data_dir: &Path, text: &str) {
    for entry in std::fs::read_dir(data_dir.join("raft")).unwrap().flatten() {
        let path = entry.path();
        let mut bytes = std::fs::read(&path).unwrap();
        let found = bytes.windows(text.len()).position(|window| window == text.as_bytes());
        if let Some(at) = found {
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            return;
        }
    }
    panic!("{text} is not in the log");
}

/// A log that lost what was synced keeps its node out, which says what to do; told so, it counts all its
/// replicas as lost and gets them again.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_the_log_keeps_the_node_out_until_that_is_cleared() {
    let options = ClusterOptions { ranges: 2, ..ClusterOptions::default() };
    let (mut cluster, client) = started(&options).await;
    for n in 0..50 {
        client.put(format!("k{n}"), format!("value-{n:03}-of-the-log")).await.unwrap();
    }
    let member = Member::Node(1);
    cluster.kill(&[member]).unwrap();
    flip_in_log(&cluster.process(member).spec().data_dir, "value-020-of-the-log");
    for _ in 0..2 {
        cluster.start_member(member).unwrap();
        let process = cluster.process_mut(member);
        let ended = process.wait_ended(Duration::from_secs(20)).await.unwrap();
        let log = tail(process.log(), 8);
        assert!(ended.is_some_and(|status| !status.success()), "{log}");
        assert!(log.contains("--clear-damage") && log.contains("stays out"), "{log}");
    }
    client.put("meanwhile", "v").await.unwrap();
    let env = &mut cluster.process_mut(member).spec_mut().env;
    env.insert("ISOTHERM_CLEAR_DAMAGE".to_owned(), "1".to_owned());
    cluster.start_member(member).unwrap();
    let lost = client.admin().ranges(&KeyRange::all()).await.unwrap();
    let lost: Vec<_> = lost.iter().map(|r| r.descriptor.clone()).collect();
    eventually(Duration::from_secs(90), async || {
        let ranges = client.admin().ranges(&KeyRange::all()).await.map_err(|e| e.to_string())?;
        let is_new = |range: &isotherm_client::RangeLocation| {
            let before = lost.iter().find(|d| d.id == range.descriptor.id);
            before.is_some_and(|before| range.descriptor.epoch.conf_ver > before.epoch.conf_ver)
        };
        let ill = ranges.iter().filter(|r| !is_new(r) || r.live_replicas.len() != 3).count();
        if ill == 0 { Ok(()) } else { Err(format!("{ill} ranges: {ranges:?}")) }
    })
    .await;
    replicas_are_equal(&client).await;
    for n in 0..50 {
        let row = client.get(format!("k{n}")).await.unwrap().unwrap();
        assert_eq!(row.value, format!("value-{n:03}-of-the-log"));
    }
}

/// Below the reserve a node refuses writes, says why, still reads, and still deletes; above it, it
/// writes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_refuses_writes_and_still_reads() {
    let options = ClusterOptions { disk_mib: Some(600), ..alone() };
    let Some((cluster, client)) = started_on_disks(&options).await else { return };
    client.put("k", "before").await.unwrap();
    // Below the reserve of 30 MiB, above the last quarter of it.
    let ballast = fill(&cluster.process(NODE).spec().data_dir, 16 << 20);
    eventually(Duration::from_secs(20), async || match client.put("k", "during").await {
        Err(e) if e.kind == ErrorKind::DiskFull => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    client.put("gone", "x").await.unwrap_err();
    client.delete("gone").await.unwrap();
    let value = client.get("k").await.unwrap().unwrap().value;
    assert!(value == "before" || value == "during", "what was acknowledged last: {value:?}");
    eventually(Duration::from_secs(10), async || {
        let status = client.admin().status().await.unwrap();
        let is_said = status.problems.iter().any(|p| p.contains("disk is nearly full"));
        if is_said { Ok(()) } else { Err(format!("{:?}", status.problems)) }
    })
    .await;
    std::fs::remove_file(ballast).unwrap();
    eventually(Duration::from_secs(20), async || {
        client.put("k", "after").await.map(|_| ()).map_err(|e| e.to_string())
    })
    .await;
    assert_eq!(client.get("k").await.unwrap().unwrap().value, "after");
}

/// Without a reserve the disk fills to the last byte: the process says so and ends, and whatever it
/// acknowledged is there when there is room again.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_ends_the_process_and_loses_nothing() {
    let env = env(&[("ISOTHERM_DISK_RESERVE_BYTES", "0"), ("ISOTHERM_FLUSH_BYTES", "1048576")]);
    let options = ClusterOptions { disk_mib: Some(600), env, ..alone() };
    let Some((mut cluster, client)) = started_on_disks(&options).await else { return };
    let ballast = fill(&cluster.process(NODE).spec().data_dir, 6 << 20);
    let value = "v".repeat(60_000);
    let (mut acknowledged, mut ended) = (0, None);
    let deadline = Instant::now() + Duration::from_secs(90);
    // A put that got no answer is tried again under the same key, until the process has ended.
    while ended.is_none() && Instant::now() < deadline {
        let put = client.put(format!("k{acknowledged}"), value.clone());
        if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(3), put).await {
            acknowledged += 1;
        }
        let process = cluster.process_mut(NODE);
        ended = process.wait_ended(Duration::ZERO).await.unwrap_or(None);
    }
    assert!(acknowledged > 0, "nothing was acknowledged");
    let process = cluster.process(NODE);
    let log = tail(process.log(), 8);
    assert!(ended.is_some_and(|status| !status.success()), "{log}");
    assert!(log.contains("No space left"), "{log}");
    std::fs::remove_file(ballast).unwrap();
    cluster.start_member(NODE).unwrap();
    cluster.wait_ready(Duration::from_secs(30)).await.unwrap();
    for n in 0..acknowledged {
        let row = client.get(format!("k{n}")).await.unwrap();
        assert!(row.is_some_and(|row| row.value == value), "k{n} of {acknowledged} is lost");
    }
}

/// Says `bytes`, and listens to what comes back for a moment.
async fn knock(address: SocketAddr, bytes: &[u8]) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return };
    let _ = stream.write_all(bytes).await;
    let mut answer = vec![0; 4096];
    let _ = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut answer)).await;
}

/// Garbage on every port: nobody dies, nothing is logged that would wake a person, all is served.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_every_port_is_survived() {
    let (mut cluster, client) = started(&ClusterOptions { ranges: 2, ..Default::default() }).await;
    client.put("k", "v").await.unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mut noise: Vec<Vec<u8>> = (0..8)
        .map(|size| std::iter::repeat_with(|| random.u8(..)).take(1 << (2 * size)).collect())
        .collect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    noise.extend([
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"POST /isotherm.v1.Kv/Put HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        preface.to_vec(),
        // A frame of 16 MiB that never comes, settings of a wrong length, a window of nothing.
        [preface.as_slice(), b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"].concat(),
        [preface.as_slice(), b"\x00\x00\x05\x04\x00\x00\x00\x00\x00hello"].concat(),
        [preface.as_slice(), b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00"].concat(),
        vec![0; 1 << 20],
    ]);
    for member in cluster.members() {
        let process = cluster.process(member);
        for address in [process.spec().listen, process.http()] {
            for bytes in &noise {
                knock(address, bytes).await;
            }
        }
    }
    assert_eq!(cluster.ended().unwrap(), []);
    assert_eq!(client.get("k").await.unwrap().unwrap().value, "v");
    client.put("k", "w").await.unwrap();
    cluster.wait_ready(Duration::from_secs(10)).await.unwrap();
    assert_eq!(cluster.log_alarms().unwrap(), []);
}

/// Starts a process that should refuse to, and what it said.
fn refused(args: &[&str]) -> String {
    let output =
        Command::new(isotherm_binary().unwrap()).args(args).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(matches!(output.status.code(), Some(1..=8)), "{:?}: {said}", output.status);
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// A port or a directory that is in use, a directory of another kind, format or cluster: a clear error,
/// and nothing happens to it.
#[tokio::test(flavor = "multi_thread")]
async fn directories_and_ports_that_are_not_ours_are_refused() {
    let (cluster, client) = started(&alone()).await;
    client.put("k", "v").await.unwrap();
    let (mut other, _) = started(&alone()).await;
    let meta = cluster.meta_addresses().join(",");
    let spec = cluster.process(NODE).spec();
    let ours = spec.data_dir.to_str().unwrap().to_owned();
    let taken = spec.listen.to_string();
    let free = other.process(NODE).spec().listen.to_string();
    let foreign = other.process(NODE).spec().data_dir.clone();
    let foreign_meta = other.process(Member::Meta(0)).spec().data_dir.clone();
    let everybody = other.members();
    other.kill(&everybody).unwrap();
    let node = |listen: &str, dir: &Path| {
        let dir = dir.to_str().unwrap().to_owned();
        tokio::task::block_in_place(|| {
            refused(&["node", "--listen", listen, "--data-dir", &dir, "--meta", &meta])
        })
    };
    let fresh = cluster.dir().join("fresh");
    let said = node(&taken, &fresh);
    assert!(said.contains(&taken) && said.contains("in use"), "{said}");
    let said = node(&free, Path::new(&ours));
    assert!(said.contains("in use by another process"), "{said}");
    let said = node(&free, &foreign_meta);
    assert!(said.contains("belongs to a meta process"), "{said}");
    let said = node(&free, &foreign);
    assert!(said.contains("cluster"), "{said}");
    std::fs::write(foreign.join("FORMAT"), "isotherm node format 99\n").unwrap();
    let said = node(&free, &foreign);
    assert!(said.contains("use a newer release"), "{said}");
    let strange = cluster.dir().join("strange");
    std::fs::create_dir(&strange).unwrap();
    std::fs::write(strange.join("thesis.txt"), "precious").unwrap();
    let said = node(&free, &strange);
    assert!(said.contains("neither empty nor a data directory"), "{said}");
    assert_eq!(std::fs::read_dir(&strange).unwrap().count(), 1, "nothing was put there");
    assert_eq!(client.get("k").await.unwrap().unwrap().value, "v");
}

/// Clients that put values of `size` bytes until they are stopped.
struct Writers {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<u64>>,
}

impl Writers {
    fn start(client: &Client, clients: u64, size: usize) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let value = "v".repeat(size);
        let task = |n: u64| {
            let (client, stop, done) = (client.clone(), stop.clone(), done.clone());
            let value = value.clone();
            tokio::spawn(async move {
                let mut count = 0;
                while !stop.load(Ordering::SeqCst) {
                    client.put(format!("k/{n}/{count}"), value.clone()).await.unwrap();
                    count += 1;
                    done.fetch_add(1, Ordering::SeqCst);
                }
                count
            })
        };
        let tasks = (0..clients).map(task).collect();
        Self { stop, done, tasks }
    }

    /// Waits until so many more are acknowledged.
    async fn pass(&self, more: u64) {
        let until = self.done.load(Ordering::SeqCst) + more;
        eventually(Duration::from_secs(60), async || match self.done.load(Ordering::SeqCst) {
            done if done >= until => Ok(()),
            done => Err(format!("{done} of {until} puts")),
        })
        .await;
    }

    async fn finish(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        let mut sum = 0;
        for task in self.tasks {
            sum += task.await.unwrap();
        }
        sum
    }
}

async fn metric(address: SocketAddr, name: &str) -> f64 {
    let (_, text) = http::get(address, "/metrics", Duration::from_secs(5)).await.unwrap();
    let line = text.lines().find(|line| line.split([' ', '{']).next() == Some(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

/// The logs that a replica needs are gone when it comes back: it gets a snapshot, beside the writes, in
/// bounded memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_behind_the_logs_catches_up_by_snapshot_while_writes_go_on() {
    let env = env(&[("ISOTHERM_LOG_RETAIN_BYTES", "65536"), ("ISOTHERM_FLUSH_INTERVAL", "200ms")]);
    let options = ClusterOptions { ranges: 2, env, ..ClusterOptions::default() };
    let (mut cluster, client) = started(&options).await;
    client.admin().set_setting("scheduler.enabled", "false").await.unwrap();
    let member = Member::Node(2);
    let writers = Writers::start(&client, 8, 8_000);
    writers.pass(500).await;
    cluster.kill(&[member]).unwrap();
    writers.pass(4_000).await;
    cluster.start_member(member).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let address = cluster.process(member).http();
    eventually(Duration::from_secs(60), async || {
        match metric(address, "isotherm_snapshots_installed_total").await {
            installed if installed >= 1.0 => Ok(()),
            installed => Err(format!("{installed} snapshots")),
        }
    })
    .await;
    writers.pass(200).await;
    let written = writers.finish().await;
    assert!(written >= 4_700, "{written}");
    replicas_are_equal(&client).await;
    let memory = metric(address, "process_resident_memory_bytes").await;
    assert!(memory > 0.0 && memory < 500e6, "{memory} bytes");
}

/// A node whose directory was emptied is another node: its old id never comes back, its ranges lack a
/// replica until the scheduler builds one.
#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_directory_comes_back_as_a_new_node() {
    let options = ClusterOptions { ranges: 4, ..ClusterOptions::default() };
    let (mut cluster, client) = started(&options).await;
    client.admin().set_setting("scheduler.enabled", "false").await.unwrap();
    for n in 0..100 {
        client.put(format!("{n}"), "v").await.unwrap();
    }
    let member = Member::Node(1);
    let address = cluster.process(member).spec().listen.to_string();
    let nodes = client.admin().nodes().await.unwrap();
    let old = nodes.iter().find(|n| n.address == address).unwrap().id;
    cluster.kill(&[member]).unwrap();
    std::fs::remove_dir_all(&cluster.process(member).spec().data_dir).unwrap();
    cluster.start_member(member).unwrap();
    eventually(Duration::from_secs(30), async || {
        let status = client.admin().status().await.map_err(|e| e.to_string())?;
        let state = |id| status.nodes.iter().find(|n| n.id == id).map(|n| n.state.clone());
        let seen = (state(old), state(NodeId(4)), status.ranges_under_replicated);
        match &seen {
            (Some(old), Some(new), 4) if old == "down" && new == "up" => Ok(()),
            _ => Err(format!("{seen:?}")),
        }
    })
    .await;
    client.admin().set_setting("replica.dead_after", "1s").await.unwrap();
    client.admin().set_setting("scheduler.enabled", "true").await.unwrap();
    eventually(Duration::from_secs(60), async || {
        let ranges = client.admin().ranges(&KeyRange::all()).await.map_err(|e| e.to_string())?;
        let ill = ranges
            .iter()
            .filter(|r| r.descriptor.replica_on(old).is_some() || r.live_replicas.len() != 3);
        match ill.count() {
            0 => Ok(()),
            ill => Err(format!("{ill} ranges")),
        }
    })
    .await;
    replicas_are_equal(&client).await;
    for n in 0..100 {
        assert!(client.get(format!("{n}")).await.unwrap().is_some(), "{n}");
    }
}
