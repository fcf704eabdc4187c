//! A few stores that form a cluster, and the way a client would use it.

use super::Net;
use super::crash_copy::copy_at_one_moment;
use crate::command::{WriteOp, WriteOutcome, WriteRequest};
use crate::replica::{PageRead, PointRead};
use crate::store::{OracleError, RangeError, Store, StoreOptions, StoreTuning, TimestampSource};
use bytes::Bytes;
use futures::future::BoxFuture;
use isotherm_storage::{
    Checksum, DataDir, DataEngine, DataOptions, LogEngine, LogOptions, RocksLog, Row,
};
use isotherm_types::{
    ClusterId, ClusterVersion, Key, KeyRange, NodeId, RaftTiming, RangeDescriptor, RangeEpoch,
    RangeId, SessionId, Timestamp, WriteId,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Physical part of the first timestamp.
pub const ORACLE_START_MS: u64 = 1_700_000_000_000;

/// Timestamps from a counter: a millisecond each.
pub struct Oracle {
    next: AtomicU64,
    /// While it is held for writing no timestamp arrives.
    pub gate: Arc<tokio::sync::RwLock<()>>,
    /// Known not to answer.
    pub is_down: AtomicBool,
}

impl Oracle {
    /// Time passes.
    pub fn skip_ms(&self, ms: u64) {
        self.next.fetch_add(ms, Ordering::SeqCst);
    }
}

impl TimestampSource for Oracle {
    fn timestamp(&self) -> BoxFuture<'static, Result<Timestamp, OracleError>> {
        let n = self.next.fetch_add(1, Ordering::SeqCst);
        let gate = self.gate.clone();
        Box::pin(async move {
            let _open = gate.read().await;
            Ok(Timestamp::from_physical_ms(ORACLE_START_MS + n))
        })
    }

    fn is_down(&self) -> bool {
        self.is_down.load(Ordering::SeqCst)
    }
}

struct Node {
    store: Arc<Store>,
    log: Arc<RocksLog>,
    // Held so that nobody else opens it.
    _dir: DataDir,
}

/// Several stores in one process.
pub struct Cluster {
    pub net: Arc<Net>,
    pub oracle: Arc<Oracle>,
    tuning: StoreTuning,
    root: tempfile::TempDir,
    nodes: BTreeMap<u64, Node>,
    paths: BTreeMap<u64, PathBuf>,
    crashes: u64,
    seq: AtomicU64,
}

/// A put.
pub fn put(key: &str, value: &str) -> WriteOp {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    WriteOp::Put { key, value }
}

fn timing() -> RaftTiming {
    RaftTiming { heartbeat_ms: 100, election_min_ms: 400, election_max_ms: 700 }
}

/// Opens a database. The last handle of the one before can outlive its store's stop for a moment;
/// between processes the kernel sees to that.
async fn open_when_free<T>(open: impl Fn() -> isotherm_storage::Result<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match open() {
            Ok(opened) => return opened,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Cluster {
    /// Starts stores 1 to `nodes`.
    pub async fn start(nodes: u64, tuning: StoreTuning) -> Self {
        let mut cluster = Self {
            net: Arc::default(),
            oracle: Arc::new(Oracle {
                next: AtomicU64::new(1),
                gate: Arc::default(),
                is_down: AtomicBool::new(false),
            }),
            tuning,
            root: tempfile::tempdir().unwrap(),
            nodes: BTreeMap::new(),
            paths: BTreeMap::new(),
            crashes: 0,
            seq: AtomicU64::new(1),
        };
        for node in 1..=nodes {
            let path = cluster.root.path().join(format!("n{node}"));
            cluster.paths.insert(node, path);
            cluster.start_node(node).await;
        }
        cluster
    }

    /// Starts one store over what is in its directory.
    pub async fn start_node(&mut self, node: u64) {
        let dir = DataDir::open(&self.paths[&node], "node").unwrap();
        let open_log = || RocksLog::open(dir.raft_dir(), LogOptions::default());
        let log = Arc::new(open_when_free(open_log).await);
        let small = DataOptions { block_cache_bytes: 8 << 20, ..DataOptions::default() };
        let data = open_when_free(|| DataEngine::open(dir.data_dir(), &small)).await;
        let options = StoreOptions {
            node: NodeId(node),
            cluster: ClusterId(7),
            timing: timing(),
            tuning: self.tuning.clone(),
        };
        let engine: Arc<dyn LogEngine> = log.clone();
        let sender = self.net.sender(NodeId(node));
        let store = Store::open(options, &dir, engine, data, sender, self.oracle.clone());
        let store = store.await.unwrap();
        self.net.attach(NodeId(node), store.clone());
        self.nodes.insert(node, Node { store, log, _dir: dir });
    }

    /// Stops one store in order.
    pub async fn stop_node(&mut self, node: u64) {
        self.net.detach(NodeId(node));
        let Node { store, log, .. } = self.nodes.remove(&node).unwrap();
        store.shutdown().await;
        drop(store);
        tokio::task::spawn_blocking(move || log.close()).await.unwrap();
    }

    /// Stops one store as if its process had been killed: only what is in files now counts.
    pub async fn crash_node(&mut self, node: u64) {
        self.net.isolate(NodeId(node), true);
        self.crashes += 1;
        let copy = self.root.path().join(format!("n{node}-{}", self.crashes));
        copy_at_one_moment(&self.paths[&node], &copy);
        self.stop_node(node).await;
        self.paths.insert(node, copy);
        self.net.isolate(NodeId(node), false);
    }

    /// Copies a stopped store's disk; [`Cluster::replace_disk`] puts the copy into its place.
    pub fn copy_disk(&mut self, node: u64) -> PathBuf {
        self.crashes += 1;
        let copy = self.root.path().join(format!("n{node}-{}", self.crashes));
        copy_at_one_moment(&self.paths[&node], &copy);
        copy
    }

    /// Where the disk of `node` is.
    pub fn path(&self, node: u64) -> &std::path::Path {
        &self.paths[&node]
    }

    /// Has every sync of `node` take that long.
    pub fn set_sync_delay(&self, node: u64, delay: Duration) {
        self.nodes[&node].log.set_sync_delay(delay);
    }

    /// Writes once, to one node, whether it leads or not.
    pub async fn write_to(
        &self,
        node: u64,
        id: WriteId,
        ops: Vec<WriteOp>,
    ) -> Result<WriteOutcome, RangeError> {
        let range = self.locate(ops[0].key());
        let (version, wait) = (range.epoch.version, Duration::from_secs(6));
        self.store(node).write(range.id, version, WriteRequest { id, ops }, wait).await
    }

    /// Has `node` lead `range`.
    pub async fn lead(&self, range: RangeId, node: u64) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let leader = self.leader(range).await;
            if leader == node {
                return;
            }
            if let Err(error) = self.store(leader).transfer_leader(range, NodeId(node)).await {
                assert!(Instant::now() < deadline, "{error}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The next start of `node` finds what is in `path`.
    pub fn replace_disk(&mut self, node: u64, path: PathBuf) {
        self.paths.insert(node, path);
    }

    /// One store.
    pub fn store(&self, node: u64) -> &Arc<Store> {
        &self.nodes[&node].store
    }

    /// Every running store.
    pub fn stores(&self) -> impl Iterator<Item = (u64, &Arc<Store>)> {
        self.nodes.iter().map(|(id, node)| (*id, &node.store))
    }

    /// Seeds one range per span on all nodes and waits until each is led.
    pub async fn seed(&self, spans: &[(&str, &str)]) -> Vec<RangeDescriptor> {
        let nodes: Vec<u64> = self.nodes.keys().copied().collect();
        self.seed_on(&nodes, spans, 1).await
    }

    /// The same on some of the nodes, with range ids from `first` on.
    pub async fn seed_on(
        &self,
        nodes: &[u64],
        spans: &[(&str, &str)],
        first: u64,
    ) -> Vec<RangeDescriptor> {
        let nodes: Vec<NodeId> = nodes.iter().copied().map(NodeId).collect();
        let span = |(a, b): &(&str, &str)| KeyRange::new((*a).to_owned(), (*b).to_owned()).unwrap();
        let descriptors: Vec<_> = (first..)
            .zip(spans)
            .map(|(id, s)| RangeDescriptor::first(RangeId(id), span(s), &nodes))
            .collect();
        for node in nodes {
            self.store(node.get()).seed(&descriptors).await.unwrap();
        }
        for descriptor in &descriptors {
            self.leader(descriptor.id).await;
        }
        descriptors
    }

    /// The node that leads `range`, waiting for one.
    pub async fn leader(&self, range: RangeId) -> u64 {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            for (node, store) in self.stores() {
                let status = store.replica(range).map(|r| r.status());
                if status.is_some_and(|s| s.is_leader) {
                    return node;
                }
            }
            assert!(Instant::now() < deadline, "{range} has no leader");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A fresh identity for one write.
    pub fn write_id(&self) -> WriteId {
        WriteId {
            session: SessionId { issuer: 7, number: 1 },
            seq: self.seq.fetch_add(1, Ordering::SeqCst),
            floor: 0,
            birth: Timestamp::from_physical_ms(ORACLE_START_MS),
        }
    }

    /// The current descriptor of the range that holds `key`, from any store.
    pub fn locate(&self, key: &[u8]) -> RangeDescriptor {
        let all = self.stores().flat_map(|(_, store)| store.replicas());
        let found = all.map(|r| r.descriptor).filter(|d| d.span.contains(key));
        found.max_by_key(|d| (d.epoch.version, d.epoch.conf_ver)).expect("the key space is covered")
    }

    /// The range that holds `key`, and the node that leads it. Looked up together: one that is absorbed in
    /// between is led by nobody any more.
    async fn led(&self, key: &[u8]) -> (RangeDescriptor, u64) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let range = self.locate(key);
            let leads =
                |store: &Store| store.replica(range.id).is_some_and(|r| r.status().is_leader);
            if let Some((node, _)) = self.stores().find(|(_, store)| leads(store)) {
                return (range, node);
            }
            assert!(Instant::now() < deadline, "{} has no leader", range.id);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Writes under `id`, with retries as a client does them.
    pub async fn write_as(&self, id: WriteId, ops: Vec<WriteOp>) -> WriteOutcome {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let (range, leader) = self.led(ops[0].key()).await;
            let request = WriteRequest { id, ops: ops.clone() };
            let wait = Duration::from_secs(2);
            let version = range.epoch.version;
            match self.store(leader).write(range.id, version, request, wait).await {
                Ok(outcome) => return outcome,
                Err(error @ (RangeError::Invalid(_) | RangeError::Expired | RangeError::Stale)) => {
                    panic!("{error}")
                }
                Err(error) => {
                    assert!(Instant::now() < deadline, "{error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// Writes once, exactly.
    pub async fn write(&self, ops: Vec<WriteOp>) -> WriteOutcome {
        self.write_as(self.write_id(), ops).await
    }

    /// Reads one key, with retries.
    pub async fn read(&self, key: &str, at: Option<Timestamp>) -> Option<Row> {
        let key = Key::from(key.to_owned());
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let (range, leader) = self.led(&key).await;
            let read = PointRead { key: key.clone(), at };
            let wait = Duration::from_secs(2);
            match self.store(leader).read(range.id, range.epoch.version, read, wait).await {
                Ok(row) => return row,
                Err(error) => {
                    assert!(Instant::now() < deadline, "{error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// Reads one key as text.
    pub async fn get(&self, key: &str) -> Option<String> {
        let row = self.read(key, None).await?;
        Some(String::from_utf8(row.value.to_vec()).unwrap())
    }

    /// Has every running store know that the cluster is at `version`, and waits until every replica is.
    pub async fn raise_version(&self, version: ClusterVersion) {
        self.stores().for_each(|(_, store)| store.set_cluster_version(version));
        let all =
            || self.stores().all(|(_, store)| store.all().iter().all(|r| r.version() >= version));
        self.wait_for("every replica is raised", all).await;
    }

    /// Raises the safe point of every running store.
    pub async fn raise_safe_point(&self, to: Timestamp) {
        for (_, store) in self.stores() {
            store.raise_safe_point(to).await.unwrap();
        }
    }

    /// Every key of the key space, range by range, each at its own newest state.
    pub async fn keys(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        let mut from = Some(Key::new());
        while let Some(start) = from.clone() {
            let range = self.locate(&start);
            let leader = self.leader(range.id).await;
            let end = range.span.end().clone();
            let read = PageRead {
                span: KeyRange::new(start.clone(), end.clone()).unwrap(),
                at: None,
                max_keys: 0,
                max_bytes: 0,
                reverse: false,
                keys_only: true,
            };
            let wait = Duration::from_secs(5);
            match self.store(leader).scan(range.id, range.epoch.version, read, wait).await {
                Ok(page) => {
                    keys.extend(page.rows.into_iter().map(|(key, _)| key));
                    from = Some(page.covered.end().clone()).filter(|end| !end.is_empty());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        keys
    }

    /// Splits the range that holds `key` at it.
    pub async fn split(&self, key: &str, child: u64) -> Vec<RangeDescriptor> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let range = self.locate(key.as_bytes());
            let leader = self.leader(range.id).await;
            let keys = vec![Key::from(key.to_owned())];
            let epoch: RangeEpoch = range.epoch;
            let split = self.store(leader).split(range.id, epoch, keys, vec![RangeId(child)]);
            match split.await {
                Ok(descriptors) => return descriptors,
                Err(error) => {
                    assert!(Instant::now() < deadline, "{error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// Asserts that all replicas of the range that holds `key` have equal rows at one applied id.
    pub async fn assert_replicas_agree(&self, key: &str) {
        let range = self.locate(key.as_bytes()).id;
        let deadline = Instant::now() + Duration::from_secs(20);
        let sums = loop {
            let leader = self.leader(range).await;
            match self.store(leader).order_checksum(range).await {
                Ok((index, descriptor)) => {
                    if let Some(sums) = self.checksums_at(&descriptor, index, deadline).await {
                        break sums;
                    }
                }
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(sums.windows(2).all(|w| w[0].1 == w[1].1), "replicas differ: {sums:?}");
    }

    /// The checksums of all replicas at one applied id; none if a replica passed it by a snapshot,
    /// and so never applied the order.
    async fn checksums_at(
        &self,
        descriptor: &RangeDescriptor,
        index: u64,
        deadline: Instant,
    ) -> Option<Vec<(u64, Checksum)>> {
        let (range, mut sums) = (descriptor.id, Vec::new());
        for (node, store) in self.stores() {
            if descriptor.replica_on(NodeId(node)).is_none() {
                continue;
            }
            loop {
                let passed = store.replica(range).is_some_and(|r| r.applied_index() >= index);
                if let Some(sum) = store.checksum_at(range, index) {
                    sums.push((node, sum));
                    break;
                }
                // Applied a moment before the checksum is there.
                tokio::time::sleep(Duration::from_millis(50)).await;
                if passed && store.checksum_at(range, index).is_none() {
                    return None;
                }
                let replicas = store.replicas();
                assert!(Instant::now() < deadline, "node {node} is not at {index}: {replicas:?}");
            }
        }
        Some(sums)
    }

    /// Stops everything in order.
    pub async fn stop(mut self) {
        let nodes: Vec<u64> = self.nodes.keys().copied().collect();
        for node in nodes {
            self.stop_node(node).await;
        }
    }
}

/// A value of `bytes` bytes.
pub fn value(bytes: usize) -> Bytes {
    Bytes::from(vec![b'v'; bytes])
}
