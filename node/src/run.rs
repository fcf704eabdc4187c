//! The life of a node.
//!
//! | order | what | why here |
//! |---|---|---|
//! | 1 | data directory, ports | what an operator got wrong is said before anything is touched |
//! | 2 | registration | gives the identity (first start) and the incarnation (every start); without the meta service both are those of the last start |
//! | 3 | servers | other nodes are answered "starting" rather than nothing |
//! | 4 | logs, data, replicas | |
//! | 5 | heartbeats, disk watch | |
//!
//! On the way out: leaderships are handed over, servers stop, replicas stop, data is flushed, the
//! log is closed. A node that the meta service refuses hands nothing over: it is not to be heard any
//! more.

use crate::damage;
use crate::disk::{self, Disk};
use crate::heartbeat::{Heartbeat, HeartbeatState};
use crate::oracle::Oracle;
use crate::registration::{Begun, Registrar, Registration, StartNote};
use crate::service::{KvGateway, MergeRpc, RangeRpc, Ready, ReplicaRpc, RequestMemory};
use crate::{NodeConfig, NodeError};
use isotherm_client::{Client, ClientOptions};
use isotherm_links::{Inbox, Outbox};
use isotherm_proto::DESCRIPTORS;
use isotherm_proto::internal::merge_service_server::MergeServiceServer;
use isotherm_proto::internal::range_service_server::RangeServiceServer;
use isotherm_proto::internal::replica_service_server::ReplicaServiceServer;
use isotherm_proto::v1::kv_server::KvServer;
use isotherm_raftstore::{Store, StoreOptions, distrust_all};
use isotherm_storage::{
    DataDir, DataEngine, DataOptions, Identity, LogEngine, LogOptions, RocksLog,
};
use isotherm_task::{guarded, until};
use isotherm_telemetry::{
    FileLimit, Health, MetricsHandle, build_info, notify_service_manager, serve_http,
};
use isotherm_transport::{Incarnations, MetaLink};
use isotherm_transport::{Peers, PeersOptions, bind, health_service, raft_server, serve};
use isotherm_types::limits;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic::service::Routes;

/// What the health service speaks for.
const SERVICES: &[&str] = &[
    <KvServer<KvGateway> as NamedService>::NAME,
    <RangeServiceServer<RangeRpc> as NamedService>::NAME,
];
/// How long leaderships may take to be handed over on the way out.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);

fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), NodeError> {
    let failed = |source| NodeError::Bind { address, source };
    let listener = bind(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Runs a node until `stop`; returns after a clean end.
pub async fn run(config: NodeConfig, stop: CancellationToken) -> Result<(), NodeError> {
    config.check()?;
    let meta = config.meta.clone();
    let ended = run_until(config, stop).await;
    if let Err(NodeError::Damaged { identity: Some(identity), what, .. }) = &ended {
        damage::report(&meta, *identity, what).await;
    }
    ended
}

async fn run_until(config: NodeConfig, stop: CancellationToken) -> Result<(), NodeError> {
    let metrics = MetricsHandle::install();
    let (grpc, grpc_address) = listen(config.listen)?;
    let (http, http_address) = listen(config.http_addr())?;
    let dir = {
        let path = config.data_dir.clone();
        Arc::new(blocking(move || DataDir::open(path, "node")).await??)
    };
    damage::check(&dir, config.clear_damage)?;
    let meta = Arc::new(MetaLink::new(config.meta.clone()));
    let address = config.address(grpc_address);
    let state = Arc::new(HeartbeatState::default());
    let store_cell: Arc<OnceLock<Arc<Store>>> = Arc::default();
    let health = Arc::new(NodeHealth { state: state.clone(), store: store_cell.clone() });
    let servers = CancellationToken::new();
    let telling = notify_service_manager(health.clone(), stop.clone());
    let telling = tokio::spawn(until("service manager", stop.clone(), telling));
    let http = serve_http(http, health.clone(), metrics, servers.clone());
    tokio::spawn(until("HTTP server", servers.clone(), http));

    let registrar = Registrar {
        config: config.clone(),
        dir: dir.clone(),
        meta: meta.clone(),
        address: address.clone(),
        http_address: config.http_address(http_address, &address),
        note: StartNote::new(dir.clone())?,
    };
    let Some(begun) = stop.run_until_cancelled(registrar.begin()).await else {
        let _ = telling.await;
        return Ok(());
    };
    let Begun { registration: Registration { identity, incarnation }, is_registered, peers: known } =
        begun?;
    tracing::info!(
        node_id = %identity.node,
        cluster_id = %identity.cluster,
        incarnation = %incarnation,
        registered = is_registered,
        listen = %grpc_address,
        version = build_info().version,
        faults = build_info().faults,
        "node started"
    );

    let cluster = Arc::new(AtomicU64::new(identity.cluster.get()));
    let incarnations = Incarnations::new(incarnation);
    let peers = Peers::new(PeersOptions {
        cluster: cluster.clone(),
        from: identity.node,
        incarnations: incarnations.clone(),
    });
    for peer in &known {
        peers.set_address(peer.node, &peer.address);
        incarnations.learn(peer.node, peer.incarnation);
    }
    let (inbox, range_rpc) = (Inbox::default(), RangeRpc::default());
    let gateway =
        Client::connect(ClientOptions { meta: config.meta.clone(), ..ClientOptions::default() });
    let gateway = gateway.map_err(|e| NodeError::Config(e.to_string()))?;
    gateway.pin(identity.cluster);
    gateway.learn_node(identity.node, &address);
    known.iter().for_each(|peer| gateway.learn_node(peer.node, &peer.address));
    let raft = raft_server(
        Arc::new(inbox.clone()),
        cluster,
        identity.node,
        incarnations.clone(),
        servers.clone(),
    );
    let stream_idle = Duration::from_millis(config.tuning.stream_idle_ms);
    let gateway = KvGateway::new(gateway, stream_idle);
    let health = health_service(SERVICES, move || health.ready().is_ok(), servers.clone());
    let memory = RequestMemory::new(config.tuning.request_memory_bytes);
    let routes = routes(Routes::new(raft), &range_rpc, gateway, &memory)?.add_service(health);
    let ended = CancellationToken::new();
    let connections_max = FileLimit::now().connections_max();
    let served = serve(grpc, routes, connections_max, servers.clone());
    let when_ended = ended.clone();
    let server = tokio::spawn(async move {
        let served = served.await;
        when_ended.cancel();
        served
    });

    let oracle = Oracle::start(meta.clone(), identity.cluster, is_registered, servers.clone());
    let opened = open_store(&config, &dir, identity, &peers, oracle.clone()).await;
    let (log, store) = opened.map_err(|error| damage::noted(&dir, error))?;
    damage::cleared(&dir)?;
    // The cluster's settings are not known without meta: as if the strictest were set.
    store.set_read_quorum(!is_registered);
    let registered = Arc::new(OnceLock::new());
    if is_registered {
        let _ = registered.set(incarnation);
    }
    let _ = store_cell.set(store.clone());
    inbox.open(store.clone());
    let ready = Ready {
        store: store.clone(),
        oracle: Arc::new(oracle),
        meta: meta.clone(),
        cluster: identity.cluster,
        registered: registered.clone(),
        me: identity.node,
        address: address.clone(),
        peers: peers.clone(),
        incarnations: incarnations.clone(),
        sessions: AtomicU64::new(0),
        aggregates: Arc::default(),
        stream_idle,
        memory,
    };
    let _ = range_rpc.0.set(ready);
    let watched = Arc::new(Disk::default());
    let reserve = config.tuning.disk_reserve_bytes;
    let path = dir.path().to_owned();
    let watch = disk::watch(watched.clone(), store.clone(), path, reserve, servers.clone());
    tokio::spawn(until("watch of the disk", servers.clone(), watch));
    let mut heartbeat = Heartbeat {
        cluster: identity.cluster,
        node: identity.node,
        incarnation,
        incarnations: incarnations.clone(),
        note: registrar.note.clone(),
        address,
        store: store.clone(),
        meta,
        peers,
        disk: watched,
        state: state.clone(),
    };
    let stopped = servers.clone();
    // It may end, with a refusal of meta; a panic of it ends the process.
    let mut reporting = tokio::spawn(guarded("heartbeats", async move {
        if !is_registered {
            let late = stopped.run_until_cancelled(registrar.register_late()).await;
            let Some(late) = late else { return Ok(()) };
            heartbeat.incarnation = late?.incarnation;
            tracing::info!(incarnation = %heartbeat.incarnation, "node registered");
            incarnations.set_own(heartbeat.incarnation);
            let _ = registered.set(heartbeat.incarnation);
        }
        heartbeat.run(stopped).await
    }));

    let mut damage = store.damage();
    let (mut refused, mut damaged) = (None, None);
    tokio::select! {
        () = stop.cancelled() => {}
        () = ended.cancelled() => {}
        Ok(damage) = damage.wait_for(Option::is_some) => damaged.clone_from(&damage),
        ended = &mut reporting => refused = match ended {
            Ok(ended) => ended.err(),
            Err(failed) => Some(NodeError::Serve(format!("heartbeats: {failed}"))),
        },
    }
    let ended_early = !stop.is_cancelled();
    if let Some(what) = &damaged {
        // First of all: whatever happens on the way out, it is not used again.
        dir.note_damage(what)?;
        tracing::error!(error = what, "the data of this node are damaged: the process ends");
    }
    state.draining.store(true, Ordering::Release);
    if let Some(error) = refused {
        tracing::error!(%error, "this node ends now");
        servers.cancel();
        store.shutdown().await;
        drop(store);
        blocking(move || log.close()).await?;
        return Err(error);
    }
    let left = store.transfer_all_away(HAND_OVER_TIMEOUT).await;
    tracing::info!(leaderships_left = left, "stopping");
    servers.cancel();
    store.shutdown().await;
    drop(store);
    blocking(move || log.close()).await?;
    // It says that the process stops before that is over.
    stop.cancel();
    let _ = telling.await;
    if let Some(what) = damaged {
        return Err(damage::error(&dir, what));
    }
    match server.await {
        Ok(Ok(())) if ended_early => Err(NodeError::Serve("it ended by itself".to_owned())),
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

fn routes(
    raft: Routes,
    range_rpc: &RangeRpc,
    gateway: KvGateway,
    memory: &RequestMemory,
) -> Result<Routes, NodeError> {
    let range = RangeServiceServer::new(range_rpc.clone())
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
    let replica = ReplicaServiceServer::new(ReplicaRpc(range_rpc.clone()));
    let merge = MergeServiceServer::new(MergeRpc(range_rpc.clone()));
    let kv = KvServer::new(gateway)
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|e| NodeError::Serve(e.to_string()))?;
    Ok(raft
        .add_service(range)
        .add_service(replica)
        .add_service(merge)
        .add_service(memory.admit(kv))
        .add_service(reflection))
}

async fn open_store(
    config: &NodeConfig,
    dir: &Arc<DataDir>,
    identity: Identity,
    peers: &Peers,
    oracle: Oracle,
) -> Result<(Arc<RocksLog>, Arc<Store>), NodeError> {
    let tuning = &config.tuning;
    let log_options = LogOptions {
        prepares_files: true,
        sync_delay: Duration::from_micros(tuning.log_sync_delay_us),
        accepts_loss: dir.damage()?.is_some(),
        on_fatal: damage::on_fatal(dir.clone()),
        ..LogOptions::default()
    };
    let data_options =
        DataOptions { block_cache_bytes: tuning.block_cache_bytes, ..DataOptions::default() };
    let distrusts = log_options.accepts_loss;
    let (raft_dir, data_dir) = (dir.raft_dir().to_owned(), dir.data_dir().to_owned());
    let (log, data) = blocking(move || {
        let log = RocksLog::open(&raft_dir, log_options)?;
        if distrusts {
            let replicas = distrust_all(&log)?;
            tracing::warn!(replicas, "every replica here counts as lost: they are built again");
        }
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
