//! The life of a member: open, serve, hand over, close.

use super::admission::{Admission, part_at_start};
use super::disk;
use super::leader;
use super::meta::Meta;
use crate::config::MetaConfig;
use crate::error::MetaError;
use crate::machine::{Founding, MetaMachine};
use crate::oracle::Oracle;
use crate::service::Service;
use isotherm_links::{Inbox, Outbox};
use isotherm_proto::DESCRIPTORS;
use isotherm_proto::internal::meta_service_server::MetaServiceServer;
use isotherm_raftstore::{Group, GroupOptions, Part};
use isotherm_storage::{DataDir, Identity, LogEngine, LogOptions, OnFatal, RocksLog, StorageError};
use isotherm_task::{guarded, until};
use isotherm_telemetry::{FileLimit, Health, MetricsHandle, notify_service_manager, serve_http};
use isotherm_transport::{
    Incarnations, Peers, PeersOptions, bind, health_service, raft_server, serve,
};
use isotherm_types::limits::MESSAGE_BYTES_MAX;
use isotherm_types::{ClusterId, NodeId, RaftTiming};
use parking_lot::RwLock;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::server::NamedService;
use tonic::service::Routes;

/// What the health service speaks for.
const SERVICES: &[&str] = &[<MetaServiceServer<Service> as NamedService>::NAME];
/// Entries from one snapshot of the machine to the next.
const SNAPSHOT_EVERY: u64 = 5_000;
/// The log is small: heartbeats do not enter it.
const LOG_BUFFER_BYTES: usize = 4 << 20;
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(3);
const TASKS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long each further member waits for those before it to initialize the group.
const INITIALIZE_STEP: Duration = Duration::from_secs(2);
const RELEASE_POLL: Duration = Duration::from_millis(5);
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
const IDENTITY_POLL: Duration = Duration::from_millis(100);

/// Runs one member until `stop`, and returns after a clean shutdown.
pub async fn run(config: MetaConfig, stop: CancellationToken) -> Result<(), MetaError> {
    config.check()?;
    // The ports come first: a port in use must not cost a start of the group.
    let (grpc, http) = (listen(config.listen)?, listen(config.http_addr())?);
    let member = Member::open(&config).await?;
    let ended = member.serve(grpc, http, stop).await;
    member.close().await;
    tracing::info!(member = config.id, "meta member stopped");
    ended
}

fn listen(address: SocketAddr) -> Result<TcpListener, MetaError> {
    bind(address).map_err(|source| MetaError::Listen { address, source })
}

/// An open member.
struct Member {
    meta: Arc<Meta>,
    dir: Arc<DataDir>,
    log: Arc<dyn LogEngine>,
    /// The cluster as links show it; 0 until it is known.
    cluster: Arc<AtomicU64>,
    tasks: TaskTracker,
    /// Ends the tasks.
    work: CancellationToken,
    /// Ends the servers.
    servers: CancellationToken,
}

impl Member {
    async fn open(config: &MetaConfig) -> Result<Self, MetaError> {
        let me = config.member();
        let (dir, log, is_new) = open_storage(config).await?;
        let known = dir.identity().map_or(0, |identity| identity.cluster.get());
        let cluster = Arc::new(AtomicU64::new(known));
        let tasks = TaskTracker::new();
        let work = CancellationToken::new();
        let peers = Peers::new(PeersOptions {
            cluster: cluster.clone(),
            from: me,
            // The starts of members are not numbered.
            incarnations: Incarnations::default(),
        });
        let members = config.members();
        for (id, address) in members.iter().filter(|(id, _)| *id != me) {
            peers.set_address(*id, address);
        }
        let part = part_at_start(&*log, is_new)
            .map_err(|source| MetaError::Storage { path: config.data_dir.clone(), source })?;
        let options = GroupOptions {
            member: me,
            timing: RaftTiming::META,
            snapshot_every: SNAPSHOT_EVERY,
            part,
        };
        let machine = Arc::new(RwLock::new(MetaMachine::default()));
        let sender = Arc::new(Outbox(peers.clone()));
        let group = Group::open(options, log.clone(), machine, sender).await?;
        if part != Part::Votes {
            let begin = begin(group.clone(), log.clone(), members.clone(), me, work.clone());
            tasks.spawn(guarded("admission to the meta group", begin));
        }
        let oracle = Oracle::start(me, group.clone(), &tasks, work.clone());
        let founding = Founding {
            nodes: config.bootstrap.nodes,
            ranges: config.bootstrap.ranges,
            replicas: config.bootstrap.replicas,
        };
        let meta = Arc::new(Meta::new(me, members, founding, group, oracle, peers));
        let lead = leader::run(meta.clone(), work.clone());
        tasks.spawn(until("meta leader", work.clone(), lead));
        let (path, reserve) = (dir.path().to_owned(), config.disk_reserve_bytes);
        let watch = disk::watch(meta.clone(), path, reserve, work.clone());
        tasks.spawn(until("disk watch", work.clone(), watch));
        let (group, stop, limit) = (meta.group.clone(), work.clone(), config.disk_stall_limit());
        let watch = async move {
            stop.run_until_cancelled(group.watch_disk(limit)).await;
        };
        tasks.spawn(until("watch of syncs", work.clone(), watch));
        let servers = CancellationToken::new();
        Ok(Self { meta, dir, log, cluster, tasks, work, servers })
    }

    /// Serves until `stop`, or until something fails.
    async fn serve(
        &self,
        grpc: TcpListener,
        http: TcpListener,
        stop: CancellationToken,
    ) -> Result<(), MetaError> {
        let connections_max = FileLimit::now().connections_max();
        let served = serve(grpc, self.routes()?, connections_max, self.servers.clone());
        let mut grpc = tokio::spawn(served);
        let health = Arc::new(MemberHealth(self.meta.clone()));
        let telling = notify_service_manager(health.clone(), self.work.clone());
        let telling = tokio::spawn(until("service manager", self.work.clone(), telling));
        let servers = self.servers.clone();
        let mut http = tokio::spawn(serve_http(http, health, MetricsHandle::install(), servers));
        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = &mut grpc => Err(server_ended("gRPC", ended)),
            ended = &mut http => Err(server_ended("HTTP", ended)),
            Err(error) = self.remember_cluster() => Err(error),
        };
        // Nothing new is begun; then leadership goes, while the links still work.
        self.work.cancel();
        let handed_over = self.meta.group.transfer_away();
        if tokio::time::timeout(HAND_OVER_TIMEOUT, handed_over).await.is_err() {
            tracing::warn!("leadership was not handed over in time");
        }
        let _ = telling.await;
        self.servers.cancel();
        finish(grpc).await;
        finish(http).await;
        ended
    }

    fn routes(&self) -> Result<Routes, MetaError> {
        let service = Service::new(self.meta.clone(), self.work.clone());
        let service = MetaServiceServer::new(service)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let frames = Inbox::default();
        frames.open(self.meta.group.clone());
        let servers = self.servers.clone();
        let (cluster, incarnations) = (self.cluster.clone(), Incarnations::default());
        let links = raft_server(Arc::new(frames), cluster, self.meta.me, incarnations, servers);
        let ready = MemberHealth(self.meta.clone());
        let health = health_service(SERVICES, move || ready.ready().is_ok(), self.servers.clone());
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|e| MetaError::Server { what: "reflection", why: e.to_string() })?;
        let mut routes = Routes::builder();
        routes.add_service(service).add_service(links).add_service(health).add_service(reflection);
        Ok(routes.routes())
    }

    /// Writes the cluster's id into the data directory once the group knows it. Returns only with
    /// an error.
    async fn remember_cluster(&self) -> Result<(), MetaError> {
        let cluster = loop {
            if let Some(cluster) = self.meta.group.machine().read().cluster() {
                break cluster;
            }
            tokio::time::sleep(IDENTITY_POLL).await;
        };
        match self.dir.identity() {
            Some(identity) if identity.cluster != cluster => {
                let path = self.dir.path().to_owned();
                let found = identity.cluster;
                return Err(MetaError::OtherCluster { path, found, ours: cluster });
            }
            Some(_) => {}
            None => self.write_identity(cluster).await?,
        }
        self.cluster.store(cluster.get(), Ordering::Release);
        std::future::pending().await
    }

    async fn write_identity(&self, cluster: ClusterId) -> Result<(), MetaError> {
        let identity = Identity { cluster, node: self.meta.me, timing: RaftTiming::META };
        let (dir, path) = (self.dir.clone(), self.dir.path().to_owned());
        blocking(move || dir.set_identity(identity))
            .await
            .map_err(|source| MetaError::Storage { path, source })
    }

    /// Stops what `serve` left: tasks, the group, the log.
    async fn close(self) {
        self.work.cancel();
        self.servers.cancel();
        self.meta.group.shutdown().await;
        self.tasks.close();
        if tokio::time::timeout(TASKS_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks of the meta member did not end in time");
        }
        drop(self.meta);
        close_log(self.log).await;
    }
}

/// Takes a member with an empty directory in, and gives a new group its members.
async fn begin(
    group: Arc<Group<MetaMachine>>,
    log: Arc<dyn LogEngine>,
    members: Vec<(NodeId, String)>,
    me: NodeId,
    stop: CancellationToken,
) {
    let ids: Vec<_> = members.iter().map(|(id, _)| *id).collect();
    let others = members.into_iter().filter(|(id, _)| *id != me).collect();
    let admission = Admission { group: group.clone(), log, others };
    match stop.run_until_cancelled(admission.run()).await {
        Some(Ok(true)) => initialize(group, ids, me, stop).await,
        Some(Err(error)) => tracing::error!(%error, "this member cannot be taken in"),
        Some(Ok(false)) | None => {}
    }
}

/// Gives a new group its members. Every member may do it, and each then stands for election: so
/// the first by id does it at once, the others only if that leads to nothing.
async fn initialize(
    group: Arc<Group<MetaMachine>>,
    ids: Vec<NodeId>,
    me: NodeId,
    stop: CancellationToken,
) {
    let rank = ids.iter().filter(|id| **id < me).count();
    let patience = INITIALIZE_STEP * u32::try_from(rank).unwrap_or(u32::MAX);
    let initialize = async {
        let mut leadership = group.leadership();
        let led = leadership.wait_for(|l| l.leader.is_some());
        if tokio::time::timeout(patience, led).await.is_err()
            && let Err(error) = group.initialize(&ids).await
        {
            tracing::error!(%error, "the meta group cannot be initialized");
        }
    };
    stop.run_until_cancelled(initialize).await;
}

/// Runs something that waits for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(StorageError::Io(std::io::Error::other(e))))
}

/// Writes what is queued, and waits for those who still hold the log: only when the last of them
/// is gone may it be opened again.
pub(super) async fn close_log(log: Arc<dyn LogEngine>) {
    let closing = log.clone();
    if tokio::task::spawn_blocking(move || closing.close()).await.is_err() {
        tracing::warn!("the log was not closed");
    }
    let released = async {
        while Arc::strong_count(&log) > 1 {
            tokio::time::sleep(RELEASE_POLL).await;
        }
    };
    if tokio::time::timeout(RELEASE_TIMEOUT, released).await.is_err() {
        tracing::debug!("something still holds the log of a member that stopped");
    }
}

type Storage = (Arc<DataDir>, Arc<dyn LogEngine>, bool);

/// The directory, the log in it, and whether nothing was ever written.
async fn open_storage(config: &MetaConfig) -> Result<Storage, MetaError> {
    let (config_path, configured) = (config.data_dir.clone(), config.member());
    let failed = |source| MetaError::Storage { path: config.data_dir.clone(), source };
    let path = || config.data_dir.clone();
    let dir = blocking(move || DataDir::open(config_path, "meta")).await.map_err(failed)?;
    let dir = Arc::new(dir);
    if let Some(damage) = dir.damage().map_err(failed)? {
        return Err(MetaError::Damaged { path: path(), what: damage.what });
    }
    let options = LogOptions {
        write_buffer_bytes: LOG_BUFFER_BYTES,
        on_fatal: on_fatal(dir.clone()),
        ..LogOptions::default()
    };
    let raft_dir = dir.raft_dir().to_owned();
    let opened = blocking(move || {
        let log = RocksLog::open(&raft_dir, options)?;
        let replicas = log.replicas()?;
        Ok((log, replicas))
    });
    let (log, replicas) = match opened.await {
        Ok(opened) => opened,
        Err(error) if error.is_damage() => {
            let what = error.to_string();
            dir.note_damage(&what).map_err(failed)?;
            return Err(MetaError::Damaged { path: path(), what });
        }
        Err(error) => return Err(failed(error)),
    };
    let owner = dir.identity().map(|identity| identity.node);
    let owners = owner.into_iter().chain(replicas.iter().map(|r| NodeId(r.replica.get())));
    for found in owners {
        if found != configured {
            return Err(MetaError::OtherMember { path: path(), found, configured });
        }
    }
    Ok((dir, Arc::new(log), replicas.is_empty()))
}

/// Ends the process when the log cannot be written, and notes it if the reason is damage: then the
/// member stays out.
fn on_fatal(dir: Arc<DataDir>) -> OnFatal {
    Arc::new(move |error: &StorageError| {
        if error.is_damage()
            && let Err(error) = dir.note_damage(&error.to_string())
        {
            tracing::error!(%error, "the damage cannot be noted");
        }
        tracing::error!(%error, "writing the log failed: the process ends");
        std::process::abort();
    })
}

fn server_ended<E: std::fmt::Display>(
    what: &'static str,
    ended: Result<Result<(), E>, tokio::task::JoinError>,
) -> MetaError {
    let why = match ended {
        Ok(Ok(())) => "it ended by itself".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    MetaError::Server { what, why }
}

/// Waits for a server that was told to stop; one that was awaited before is left alone.
async fn finish<T: Send + 'static>(server: JoinHandle<T>) {
    if !server.is_finished()
        && let Err(error) = server.await
    {
        tracing::warn!(%error, "a server did not end cleanly");
    }
}

/// What the HTTP port says.
struct MemberHealth(Arc<Meta>);

impl Health for MemberHealth {
    fn alive(&self) -> Result<(), String> {
        Ok(())
    }

    /// Ready as soon as a leader is known: a cluster that waits for its first nodes is served.
    fn ready(&self) -> Result<(), String> {
        match self.0.known_leader() {
            Some(_) => Ok(()),
            None if self.0.group.leadership().borrow().is_leader => {
                Err("this member leads, but no quorum of the members answers it".to_owned())
            }
            None => Err("no leader of the meta service is known".to_owned()),
        }
    }
}
