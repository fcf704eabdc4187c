//! The meta service is away, founded again, or knows better than a node that it should run.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

mod common;

use common::{client, eventually, ranges, replicas_are_equal};
use isotherm_client::{Client, ClientOptions, ErrorKind};
use isotherm_proto::internal::error::Code;
use isotherm_proto::internal::meta_service_client::MetaServiceClient;
use isotherm_proto::internal::range_service_client::RangeServiceClient;
use isotherm_proto::internal::{
    ListRoutesRequest, OpenSessionRequest, RangeRequest, RangeRequests, RangeTimestampRequest,
    TimestampsRequest, WriteBatch, WriteOp, range_request, range_response, write_op,
};
use isotherm_proto::v1::GetRequest;
use isotherm_proto::v1::kv_client::KvClient;
use isotherm_testkit::{ClusterOptions, Member, ProcessCluster, isotherm_binary, tail};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const META: Member = Member::Meta(0);
/// Long enough that everything has noticed it, and a restart falls into it; `ISOTHERM_META_OUTAGE_SECONDS` says
/// otherwise.
fn outage() -> Duration {
    let seconds = std::env::var("ISOTHERM_META_OUTAGE_SECONDS");
    Duration::from_secs(seconds.ok().map_or(10, |text| text.parse().unwrap()))
}
/// A node that can start without the meta service waits for it this long first, and then for elections.
const RESTART: Duration = Duration::from_secs(20);
/// Keys all over the key space, so that all ranges are used.
const IDLE: [&str; 6] = ["!", "5", "A", "Z", "a", "~"];

async fn started(options: &ClusterOptions) -> (ProcessCluster, Client) {
    let mut cluster = ProcessCluster::start(options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let client = client(&cluster);
    for key in IDLE {
        client.put(key, "idle").await.unwrap();
    }
    (cluster, client)
}

/// A client that gives up soon, so that errors are seen.
fn impatient(cluster: &ProcessCluster) -> Client {
    Client::connect(ClientOptions {
        meta: cluster.meta_addresses(),
        timeout: Duration::from_secs(1),
        ..ClientOptions::default()
    })
    .unwrap()
}

/// Clients that increment counters, each its own, and go on whatever they are told.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    /// What clients were told instead.
    errors: Arc<Mutex<Vec<(ErrorKind, String)>>>,
    tasks: Vec<tokio::task::JoinHandle<(u64, u64)>>,
}

impl Load {
    async fn start(cluster: &ProcessCluster, clients: usize) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let errors: Arc<Mutex<Vec<_>>> = Arc::default();
        let client = impatient(cluster);
        let task = |n: usize| {
            let (stop, done, errors) = (stop.clone(), done.clone(), errors.clone());
            let client = client.clone();
            tokio::spawn(async move {
                let (mut acknowledged, mut unknown) = (0, 0);
                while !stop.load(Ordering::SeqCst) {
                    let first = char::from(b'!' + (n * 37 % 94) as u8);
                    match client.incr(format!("{first}/{n}"), 1).await {
                        Ok(_) => {
                            acknowledged += 1;
                            done.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(error) => {
                            unknown += u64::from(!error.is_definite());
                            errors.lock().unwrap().push((error.kind, error.message));
                        }
                    }
                }
                (acknowledged, unknown)
            })
        };
        let tasks = (0..clients).map(task).collect();
        Self { stop, done, errors, tasks }
    }

    async fn passes(&self, more: u64, within: Duration) {
        let until = self.done.load(Ordering::SeqCst) + more;
        eventually(within, async || match self.done.load(Ordering::SeqCst) {
            done if done >= until => Ok(()),
            done => Err(format!("{done} of {until}: {:?}", self.errors.lock().unwrap().last())),
        })
        .await;
    }

    /// Stops, and compares each counter with what its client was told.
    async fn finish(self, client: &Client) {
        self.stop.store(true, Ordering::SeqCst);
        for (n, task) in self.tasks.into_iter().enumerate() {
            let (acknowledged, unknown) = task.await.unwrap();
            let first = char::from(b'!' + (n * 37 % 94) as u8);
            let row = client.get(format!("{first}/{n}")).await.unwrap().unwrap();
            let counted: u64 = std::str::from_utf8(&row.value).unwrap().parse().unwrap();
            let possible = acknowledged..=acknowledged + unknown;
            assert!(possible.contains(&counted), "client {n}: {counted}, not in {possible:?}");
        }
    }
}

/// Reads every idle key; the slowest.
async fn read_idle(client: &Client) -> Duration {
    let mut slowest = Duration::ZERO;
    for key in IDLE {
        let begun = Instant::now();
        assert_eq!(client.get(key).await.unwrap().unwrap().value, "idle");
        slowest = slowest.max(begun.elapsed());
    }
    slowest
}

/// Meta is gone for a while, under load: what needs no timestamp goes on, writes are refused soon and
/// may be tried again, and everything is back soon after meta is.
#[tokio::test(flavor = "multi_thread")]
async fn while_meta_is_away_reads_go_on_writes_fail_soon_and_all_is_back_with_it() {
    let (mut cluster, client) = started(&ClusterOptions::default()).await;
    let load = Load::start(&cluster, 8).await;
    load.passes(200, Duration::from_secs(20)).await;
    let hurried = impatient(&cluster);
    read_idle(&hurried).await;
    load.errors.lock().unwrap().clear();
    cluster.kill(&[META]).unwrap();
    let away = Instant::now();
    let (mut slowest, mut reads, mut hot) = (Duration::ZERO, 0, Duration::ZERO);
    let outage = outage();
    while away.elapsed() < outage {
        slowest = slowest.max(read_idle(&hurried).await);
        reads += IDLE.len();
        // A key that is being written.
        let begun = Instant::now();
        hurried.get("!/0").await.unwrap();
        hot = hot.max(begun.elapsed());
    }
    let errors = std::mem::take(&mut *load.errors.lock().unwrap());
    let busy = errors.iter().filter(|(kind, _)| *kind == ErrorKind::Busy).count();
    println!(
        "meta away for {outage:?}: {reads} reads, the slowest took {slowest:?} (of a key that is \
         written {hot:?}); {} writes were refused, {busy} of them as busy",
        errors.len()
    );
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    assert!(hot < Duration::from_secs(1), "{hot:?}");
    let is_refusal = |(kind, _): &&(ErrorKind, String)| {
        !matches!(kind, ErrorKind::Busy | ErrorKind::Unavailable | ErrorKind::Indeterminate)
    };
    assert_eq!(errors.iter().find(is_refusal), None);
    assert!(busy * 10 > errors.len() * 8, "{busy} of {}", errors.len());
    assert!(errors.iter().any(|(_, why)| why.contains("gives no timestamps")), "{errors:?}");

    cluster.start_member(META).unwrap();
    let meta = cluster.process_mut(META);
    meta.wait_ready(Instant::now() + Duration::from_secs(20)).await.unwrap();
    let back = Instant::now();
    load.passes(8, Duration::from_secs(2)).await;
    println!("writes went on {:?} after meta was ready", back.elapsed());
    cluster.wait_ready(Duration::from_secs(10)).await.unwrap();
    load.finish(&client).await;
    replicas_are_equal(&client).await;
    assert_eq!(cluster.log_alarms().unwrap(), []);
}

/// All nodes are started again while meta is away: they elect leaders and serve reads, also to a client
/// that knows no route, and register when meta is back.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_start_again_while_meta_is_away_lead_and_serve_reads() {
    let (mut cluster, client) = started(&ClusterOptions::default()).await;
    read_idle(&client).await;
    cluster.kill(&[META]).unwrap();
    let nodes = cluster.nodes();
    cluster.kill(&nodes).unwrap();
    for node in &nodes {
        cluster.start_member(*node).unwrap();
    }
    let begun = Instant::now();
    for key in IDLE {
        eventually(RESTART, async || match client.get(key).await {
            Ok(Some(row)) if row.value == "idle" => Ok(()),
            other => Err(format!("{key}: {other:?}")),
        })
        .await;
    }
    println!("reads went on {:?} after all nodes were started without meta", begun.elapsed());
    // The gateway of such a node has never heard of a route.
    for node in &nodes {
        let address = format!("http://{}", cluster.process(*node).spec().listen);
        let mut thin = KvClient::connect(address).await.unwrap();
        for key in IDLE {
            let get = GetRequest { key: key.into(), at: None };
            let got = thin.get(get).await.unwrap().into_inner();
            assert!(got.found && got.value == "idle", "{key} by {node}");
        }
    }
    let refused = impatient(&cluster).put("!", "no").await.unwrap_err();
    assert!(refused.is_definite(), "{refused}");
    cluster.start_member(META).unwrap();
    cluster.wait_ready(Duration::from_secs(30)).await.unwrap();
    client.put("new", "v").await.unwrap();
    for node in cluster.nodes() {
        let log = std::fs::read_to_string(cluster.process(node).log()).unwrap();
        assert!(log.contains("starting as at the last start"), "{log}");
    }
    replicas_are_equal(&client).await;
    assert_eq!(cluster.log_alarms().unwrap(), []);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A process beside the cluster; dropping it kills it.
struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a node over `dir` at another address; its log is beside the directory.
fn start_beside(cluster: &ProcessCluster, dir: &Path) -> (Beside, PathBuf) {
    let log = dir.with_extension("log");
    let output = std::fs::File::create(&log).unwrap();
    let child = Command::new(isotherm_binary().unwrap())
        .args(["node", "--listen", "127.0.0.1:0", "--data-dir", dir.to_str().unwrap()])
        .args(["--meta", &cluster.meta_addresses().join(",")])
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    (Beside(child), log)
}

/// A copy of a node's directory is started elsewhere: without meta it does not open its store; with meta
/// it takes the node's place, and the original ends by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_node_never_votes_beside_it() {
    let (mut cluster, client) = started(&ClusterOptions { ranges: 2, ..Default::default() }).await;
    let member = Member::Node(1);
    let spec = cluster.process(member).spec().clone();
    let clone_dir = cluster.dir().join("copy");
    cluster.kill(&[member]).unwrap();
    copy(&spec.data_dir, &clone_dir);
    cluster.start_member(member).unwrap();
    cluster.wait_ready(Duration::from_secs(30)).await.unwrap();
    cluster.kill(&[META]).unwrap();

    let (mut copied, log) = start_beside(&cluster, &clone_dir);
    let said = || std::fs::read_to_string(&log).unwrap();
    eventually(Duration::from_secs(20), async || match said() {
        log if log.contains("cannot start without the meta service") => Ok(()),
        log => Err(log),
    })
    .await;
    assert!(said().contains("copied") && !said().contains("node started"), "{}", said());
    read_idle(&client).await;
    assert_eq!(copied.0.try_wait().unwrap(), None);

    cluster.start_member(META).unwrap();
    let ended = cluster.process_mut(member).wait_ended(Duration::from_secs(30)).await.unwrap();
    assert_eq!(ended.and_then(|status| status.code()), Some(8));
    let log = tail(cluster.process(member).log(), 10);
    assert!(log.contains("ERROR") && log.contains("was started again as"), "{log}");
    eventually(Duration::from_secs(30), async || {
        client.put("after", "v").await.map(|_| ()).map_err(|e| e.to_string())
    })
    .await;
    assert!(said().contains("node started"), "{}", said());
    assert_eq!(copied.0.try_wait().unwrap(), None);
}

/// Meta was founded again at its address: nodes end instead of taking its timestamps, and clients say
/// what happened.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_clients_refuse_a_meta_service_that_was_founded_again() {
    let (mut cluster, client) = started(&ClusterOptions { ranges: 2, ..Default::default() }).await;
    cluster.kill(&[META]).unwrap();
    std::fs::remove_dir_all(&cluster.process(META).spec().data_dir).unwrap();
    cluster.start_member(META).unwrap();
    for node in cluster.nodes() {
        let ended = cluster.process_mut(node).wait_ended(Duration::from_secs(30)).await.unwrap();
        assert_eq!(ended.and_then(|status| status.code()), Some(8));
        let log = tail(cluster.process(node).log(), 10);
        assert!(log.contains("ERROR") && log.contains("founded again"), "{log}");
    }
    let begun = Instant::now();
    let refused = client.put("k", "v").await.unwrap_err();
    assert!(refused.message.contains("founded again"), "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let fresh = common::client(&cluster);
    assert!(ranges_are_none(&fresh).await);
}

/// The new cluster waits for its first nodes.
async fn ranges_are_none(client: &Client) -> bool {
    let status = client.admin().status().await.unwrap();
    !status.bootstrapped && status.ranges_total == 0
}

/// Somebody who knew these addresses as ones of another cluster: nothing that they ask for is done.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_done_of_what_is_meant_for_another_cluster() {
    let options = ClusterOptions { nodes: 1, replicas: 1, ranges: 1, ..Default::default() };
    let (cluster, client) = started(&options).await;
    let address = format!("http://{}", cluster.process(Member::Node(0)).spec().listen);
    let mut node = RangeServiceClient::connect(address).await.unwrap();
    let routes = node.list_routes(ListRoutesRequest::default()).await.unwrap().into_inner();
    let (own, other) = (routes.cluster_id, routes.cluster_id ^ 1);
    let session = node.open_session(OpenSessionRequest::default()).await.unwrap().into_inner();
    let range = ranges(&client).await.remove(0).descriptor;
    for (cluster_id, seq) in [(other, 1), (own, 2)] {
        let kind = Some(write_op::Kind::Put("v".into()));
        let batch = WriteBatch {
            session_issuer: session.session_issuer,
            session_number: session.session_number,
            seq,
            floor: 1,
            birth: session.ts,
            ops: vec![WriteOp { key: "k".into(), kind }],
            txn: 0,
        };
        let request = RangeRequest {
            id: 1,
            range_id: range.id.get(),
            version: range.epoch.version,
            timeout_ms: 5_000,
            body: Some(range_request::Body::Write(batch)),
        };
        let message = RangeRequests { requests: vec![request], cluster_id };
        let answers = node.stream(futures::stream::iter([message])).await.unwrap();
        let answer = answers.into_inner().message().await.unwrap().unwrap().responses.remove(0);
        let is_written = client.get("k").await.unwrap().is_some();
        match answer.body.unwrap() {
            range_response::Body::Error(error) => {
                assert!(cluster_id == other && !is_written, "{error:?}");
                assert_eq!(error.code(), Code::Incompatible, "{error:?}");
            }
            answer => assert!(cluster_id == own && is_written, "{cluster_id:x}: {answer:?}"),
        }
    }
    let cluster_id = other;
    assert!(node.timestamp(RangeTimestampRequest { cluster_id }).await.is_err());
    assert!(node.open_session(OpenSessionRequest { cluster_id }).await.is_err());
    let routes = ListRoutesRequest { cluster_id, ..ListRoutesRequest::default() };
    assert!(node.list_routes(routes).await.is_err());

    let address = format!("http://{}", cluster.meta_addresses()[0]);
    let mut meta = MetaServiceClient::connect(address).await.unwrap();
    let asked = [own, other].map(|cluster_id| TimestampsRequest { id: 1, count: 1, cluster_id });
    let answers = meta.timestamps(futures::stream::iter(asked)).await.unwrap();
    let mut answers = answers.into_inner();
    let given = answers.message().await.unwrap().unwrap();
    assert!(given.error.is_none() && given.first > 0, "{given:?}");
    let refused = answers.message().await.unwrap().unwrap();
    assert!(refused.error.is_some_and(|e| e.code() == Code::Incompatible) && refused.first == 0);
}

/// A copy took the place of a node that stood still: the node is told so when it goes on, and ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_node_that_was_replaced_ends_when_it_comes_back() {
    let (mut cluster, client) = started(&ClusterOptions { ranges: 2, ..Default::default() }).await;
    let member = Member::Node(2);
    let spec = cluster.process(member).spec().clone();
    let clone_dir = cluster.dir().join("copy");
    cluster.process_mut(member).pause().unwrap();
    copy(&spec.data_dir, &clone_dir);
    let _copied = start_beside(&cluster, &clone_dir);
    let is_replaced = async || {
        let nodes = client.admin().nodes().await.map_err(|e| e.to_string())?;
        let known = nodes.iter().filter(|n| n.state == "up").count();
        let old = nodes.iter().any(|n| n.address == spec.listen.to_string());
        if known == 3 && !old { Ok(()) } else { Err(format!("{nodes:?}")) }
    };
    eventually(Duration::from_secs(30), is_replaced).await;
    cluster.process_mut(member).resume().unwrap();
    let ended = cluster.process_mut(member).wait_ended(Duration::from_secs(20)).await.unwrap();
    assert_eq!(ended.and_then(|status| status.code()), Some(8));
    client.put("after", "v").await.unwrap();
    assert_eq!(ranges(&client).await.len(), 2);
}
