//! The life of a node.
//!
//! | order | what | why here |
//! |---|---|---|
//! | 1 | data directory, ports | what an operator got wrong is said before anything is touched |
//! | 2 | registration | gives the identity (first start) and the incarnation (every start) |
//! | 3 | servers | other nodes are answered "starting" rather than nothing |
//! | 4 | logs, data, replicas | |
//! | 5 | heartbeats, disk watch | |
//!
//! On the way out: leaderships are handed over, servers stop, replicas stop, data is flushed, the
//! log is closed.

use crate::disk::{self, Disk};
use crate::heartbeat::{Heartbeat, HeartbeatState};
use crate::oracle::Oracle;
use crate::service::{KvGateway, MergeRpc, RangeRpc, Ready, ReplicaRpc, RequestMemory};
use crate::{NodeConfig, NodeError};
use isotherm_client::{Client, ClientOptions};
use isotherm_links::{Inbox, Outbox};
use isotherm_proto::internal::error::Code;
use isotherm_proto::internal::merge_service_server::MergeServiceServer;
use isotherm_proto::internal::range_service_server::RangeServiceServer;
use isotherm_proto::internal::replica_service_server::ReplicaServiceServer;
use isotherm_proto::internal::{RegisterNodeRequest, RegisterNodeResponse};
use isotherm_proto::v1::kv_server::KvServer;
use isotherm_proto::{DESCRIPTORS, WireError};
use isotherm_raftstore::{Store, StoreOptions};
use isotherm_storage::{
    DataDir, DataEngine, DataOptions, Identity, LogEngine, LogOptions, RocksLog,
};
use isotherm_telemetry::{Health, MetricsHandle, build_info, serve_http};
use isotherm_transport::MetaLink;
use isotherm_transport::{Peers, PeersOptions, bind, raft_server, serve};
use isotherm_types::{ClusterId, Incarnation, NodeId, RaftTiming, limits};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

const REGISTER_TIMEOUT: Duration = Duration::from_secs(2);
const REGISTER_PAUSE: Duration = Duration::from_millis(100);
const REGISTER_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long leaderships may take to be handed over on the way out.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);

fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), NodeError> {
    let failed = |source| NodeError::Bind { address, source };
    let listener = bind(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Who this node is, as meta told.
struct Registration {
    identity: Identity,
    incarnation: Incarnation,
}

/// Runs a node until `stop`; returns after a clean end.
pub async fn run(config: NodeConfig, stop: CancellationToken) -> Result<(), NodeError> {
    if config.meta.is_empty() {
        return Err(NodeError::Config("no address of the meta service is given".to_owned()));
    }
    let metrics = MetricsHandle::install();
    let (grpc, grpc_address) = listen(config.listen)?;
    let (http, http_address) = listen(config.http_addr())?;
    let dir = {
        let path = config.data_dir.clone();
        blocking(move || DataDir::open(path, "node")).await??
    };
    let meta = Arc::new(MetaLink::new(config.meta.clone()));
    let address = config.address(grpc_address);
    let state = Arc::new(HeartbeatState::default());
    let store_cell: Arc<OnceLock<Arc<Store>>> = Arc::default();
    let health = Arc::new(NodeHealth { state: state.clone(), store: store_cell.clone() });
    let servers = CancellationToken::new();
    tokio::spawn(serve_http(http, health, metrics, servers.clone()));

    let registered = register(&config, &dir, &meta, &address, http_address);
    let Some(registered) = stop.run_until_cancelled(registered).await else { return Ok(()) };
    let Registration { identity, incarnation } = registered?;
    tracing::info!(
        node_id = %identity.node,
        cluster_id = %identity.cluster,
        incarnation = %incarnation,
        listen = %grpc_address,
        version = build_info().version,
        faults = build_info().faults,
        "node registered"
    );

    let cluster = Arc::new(AtomicU64::new(identity.cluster.get()));
    let peers = Peers::new(PeersOptions { cluster: cluster.clone(), from: identity.node });
    let (inbox, range_rpc) = (Inbox::default(), RangeRpc::default());
    let gateway =
        Client::connect(ClientOptions { meta: config.meta.clone(), ..ClientOptions::default() });
    let gateway = gateway.map_err(|e| NodeError::Config(e.to_string()))?;
    let raft = raft_server(Arc::new(inbox.clone()), cluster, identity.node, servers.clone());
    let memory = RequestMemory::new(config.tuning.request_memory_bytes);
    let routes = routes(Routes::new(raft), &range_rpc, gateway, &memory).await?;
    let (until, ended) = (servers.clone(), CancellationToken::new());
    let (served, when_ended) = (serve(grpc, routes, until), ended.clone());
    let server = tokio::spawn(async move {
        let served = served.await;
        when_ended.cancel();
        served
    });

    let oracle = Oracle::start(meta.clone(), servers.clone());
    let (log, store) = open_store(&config, &dir, identity, &peers, oracle.clone()).await?;
    let _ = store_cell.set(store.clone());
    inbox.open(store.clone());
    let ready = Ready {
        store: store.clone(),
        oracle: Arc::new(oracle),
        meta: meta.clone(),
        cluster: identity.cluster,
        incarnation,
        sessions: AtomicU64::new(0),
        aggregates: Arc::default(),
        memory,
    };
    let _ = range_rpc.0.set(ready);
    let watched = Arc::new(Disk::default());
    let reserve = config.tuning.disk_reserve_bytes;
    let path = dir.path().to_owned();
    let watch = disk::watch(watched.clone(), store.clone(), path, reserve, servers.clone());
    tokio::spawn(watch);
    let heartbeat = Heartbeat {
        node: identity.node,
        incarnation,
        address,
        store: store.clone(),
        meta,
        peers,
        disk: watched,
        state: state.clone(),
    };
    tokio::spawn(heartbeat.run(servers.clone()));

    tokio::select! {
        () = stop.cancelled() => {}
        () = ended.cancelled() => {}
    }
    state.draining.store(true, Ordering::Release);
    let left = store.transfer_all_away(HAND_OVER_TIMEOUT).await;
    tracing::info!(leaderships_left = left, "stopping");
    servers.cancel();
    store.shutdown().await;
    drop(store);
    blocking(move || log.close()).await?;
    match server.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(NodeError::Serve(error.to_string())),
        Err(error) => Err(NodeError::Serve(error.to_string())),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NodeError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| NodeError::Serve(e.to_string()))
}

async fn routes(
    raft: Routes,
    range_rpc: &RangeRpc,
    gateway: Client,
    memory: &RequestMemory,
) -> Result<Routes, NodeError> {
    let range = RangeServiceServer::new(range_rpc.clone())
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
    let replica = ReplicaServiceServer::new(ReplicaRpc(range_rpc.clone()));
    let merge = MergeServiceServer::new(MergeRpc(range_rpc.clone()));
    let kv = KvServer::new(KvGateway::new(gateway))
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|e| NodeError::Serve(e.to_string()))?;
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<KvServer<KvGateway>>().await;
    Ok(raft
        .add_service(range)
        .add_service(replica)
        .add_service(merge)
        .add_service(memory.admit(kv))
        .add_service(reflection)
        .add_service(health))
}

async fn open_store(
    config: &NodeConfig,
    dir: &DataDir,
    identity: Identity,
    peers: &Peers,
    oracle: Oracle,
) -> Result<(Arc<RocksLog>, Arc<Store>), NodeError> {
    let tuning = &config.tuning;
    let log_options = LogOptions {
        prepares_files: true,
        sync_delay: Duration::from_micros(tuning.log_sync_delay_us),
        ..LogOptions::default()
    };
    let data_options =
        DataOptions { block_cache_bytes: tuning.block_cache_bytes, ..DataOptions::default() };
    let (raft_dir, data_dir) = (dir.raft_dir().to_owned(), dir.data_dir().to_owned());
    let (log, data) = blocking(move || {
        let log = RocksLog::open(&raft_dir, log_options)?;
        let data = DataEngine::open(&data_dir, &data_options)?;
        Ok::<_, NodeError>((Arc::new(log), data))
    })
    .await??;
    let options = StoreOptions {
        node: identity.node,
        cluster: identity.cluster,
        timing: identity.timing,
        tuning: tuning.store(),
    };
    let engine: Arc<dyn LogEngine> = log.clone();
    let sender = Arc::new(Outbox(peers.clone()));
    let store = Store::open(options, dir, engine, data, sender, Arc::new(oracle)).await?;
    Ok((log, store))
}

/// Registers with meta, for as long as it takes; an answer that says no ends it.
async fn register(
    config: &NodeConfig,
    dir: &DataDir,
    meta: &MetaLink,
    address: &str,
    http: SocketAddr,
) -> Result<Registration, NodeError> {
    let mut pause = REGISTER_PAUSE;
    let mut known = dir.identity();
    // The ids of a first start, before meta knows the cluster's timing.
    let mut node_id = known.map_or(0, |i| i.node.get());
    let mut told = false;
    loop {
        let request = RegisterNodeRequest {
            node_id,
            cluster_id: known.map_or(0, |i| i.cluster.get()),
            address: address.to_owned(),
            http_address: http.to_string(),
            labels: config.labels.clone().into_iter().collect(),
            version: build_info().version.to_owned(),
        };
        match register_once(meta, request).await {
            Ok(answer) => {
                node_id = answer.node_id;
                if let Some(timing) = answer.timing {
                    let timing = RaftTiming::from(timing);
                    let identity = *known.get_or_insert(Identity {
                        cluster: ClusterId(answer.cluster_id),
                        node: NodeId(answer.node_id),
                        timing,
                    });
                    if dir.identity().is_none() {
                        dir.set_identity(identity)?;
                    }
                    let incarnation = Incarnation(answer.incarnation);
                    return Ok(Registration { identity, incarnation });
                }
            }
            Err(error) => match error.code() {
                Code::Incompatible | Code::Invalid | Code::Condition | Code::NotFound => {
                    return Err(NodeError::Refused(error.0.message.clone()));
                }
                _ => {
                    meta.forget_leader();
                    if !told {
                        tracing::warn!(error = %error, "the meta service does not answer, trying on");
                        told = true;
                    }
                }
            },
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(REGISTER_PAUSE_MAX);
    }
}

async fn register_once(
    meta: &MetaLink,
    request: RegisterNodeRequest,
) -> Result<RegisterNodeResponse, WireError> {
    let unavailable = |why: String| WireError::new(Code::Unavailable, why);
    let mut leader = meta.leader().await?;
    let answer = tokio::time::timeout(REGISTER_TIMEOUT, leader.register_node(request)).await;
    let answer = answer
        .map_err(|_| unavailable("no answer in time".to_owned()))?
        .map_err(|status| unavailable(status.message().to_owned()))?
        .into_inner();
    meta.check(answer.error.clone())?;
    Ok(answer)
}

struct NodeHealth {
    state: Arc<HeartbeatState>,
    store: Arc<OnceLock<Arc<Store>>>,
}

impl Health for NodeHealth {
    fn alive(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        // Said before the listener closes, so that nothing new is sent here.
        if self.state.draining.load(Ordering::Acquire) {
            return Err("stopping".to_owned());
        }
        let Some(store) = self.store.get() else {
            return Err("starting: waiting for the meta service".to_owned());
        };
        if !self.state.connected.load(Ordering::Acquire) {
            return Err("the meta service does not answer".to_owned());
        }
        if !self.state.complete.load(Ordering::Acquire) {
            return Err("waiting for the first ranges of the cluster".to_owned());
        }
        let replicas = store.replicas();
        let leaderless = replicas.iter().filter(|r| r.leader_replica.is_none()).count();
        if leaderless > 0 {
            let all = replicas.len();
            return Err(format!("{leaderless} of {all} ranges here have no leader yet"));
        }
        Ok(())
    }
}
