//! What a node reports to the meta service, and what it is told.
//!
//! A heartbeat carries the ranges whose descriptor, leadership or live replicas changed since the
//! last one that was acknowledged, all of them at first. Changes are reported at once, not at the
//! next beat. The children of a split travel with the parent's new descriptor, so that the map
//! takes them as one change.

use crate::NodeError;
use crate::disk::Disk;
use crate::loads::{Loads, Measured};
use crate::registration::{StartNote, is_final};
use crate::room::Room;
use isotherm_proto::WireError;
use isotherm_proto::internal::{HeartbeatRequest, RangeReport};
use isotherm_raftstore::{Look, ReplicaMark, ReplicaStatus, Store, StoreEvent};
use isotherm_storage::KnownPeer;
use isotherm_transport::{Incarnations, MetaLink, Peers};
use isotherm_types::limits::{DAMAGED_RANGES_MAX, GONE_MAX, REPORTS_BYTES_MAX, REPORTS_MAX};
use isotherm_types::{
    ClusterId, ClusterVersion, Incarnation, KeyRange, NodeId, RangeDescriptor, RangeEpoch, RangeId,
    ReplicaId, Timestamp,
};
use prost::Message;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

const FIRST_INTERVAL: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_secs(2);
/// Between two heartbeats while a range is hot.
const HOT_INTERVAL: Duration = Duration::from_millis(250);
/// Changes that come within this time are reported together.
const GATHER: Duration = Duration::from_millis(5);
/// Before the next one, if that was not all.
const MORE_INTERVAL: Duration = Duration::from_millis(50);
/// Sizes of all ranges that were written to are looked up on every so many beats, and of so many of them on
/// every one.
const SIZE_EVERY: u64 = 20;
const SIZED_MAX: usize = 32;

/// Who reports.
pub struct Heartbeat {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub incarnations: Incarnations,
    pub note: Arc<StartNote>,
    pub address: String,
    pub store: Arc<Store>,
    pub meta: Arc<MetaLink>,
    pub peers: Peers,
    pub disk: Arc<Disk>,
    pub state: Arc<HeartbeatState>,
}

/// What others may want to know of it.
#[derive(Debug, Default)]
pub struct HeartbeatState {
    /// Number of the newest seed order that was carried out.
    pub seeded: AtomicU64,
    /// Whether the last heartbeat was answered.
    pub connected: AtomicBool,
    /// Whether meta has said that there is nothing (more) to seed here.
    pub complete: AtomicBool,
    /// Meta has not heard of all ranges here: the next heartbeat reports all of them.
    pub report_all: AtomicBool,
    /// The process is on its way out.
    pub draining: AtomicBool,
}

/// What was last acknowledged of a range, and the mark that it had then if it slept.
#[derive(Clone)]
struct Known {
    reported: Reported,
    mark: Option<ReplicaMark>,
    /// Its last applied entry when its size was reported.
    sized: u64,
}

/// What is reported of a range.
#[derive(PartialEq, Eq, Clone)]
struct Reported {
    epoch: RangeEpoch,
    is_leader: bool,
    term: u64,
    live: Vec<ReplicaId>,
}

impl From<&ReplicaStatus> for Reported {
    fn from(status: &ReplicaStatus) -> Self {
        Self {
            epoch: status.descriptor.epoch,
            is_leader: status.is_leader,
            term: status.term,
            live: status.live_replicas.clone(),
        }
    }
}

impl Heartbeat {
    /// Reports until `stop`, or until meta refuses this node: whoever goes on then, as a start that was
    /// superseded or in a cluster that is not its own, does harm.
    pub async fn run(self, stop: CancellationToken) -> Result<(), NodeError> {
        let mut events = self.store.events();
        let mut reported: HashMap<RangeId, Known> = HashMap::new();
        let mut splits: HashMap<RangeId, Vec<RangeDescriptor>> = HashMap::new();
        let mut interval = FIRST_INTERVAL;
        let mut beat = 0;
        let mut loads = Loads::default();
        loop {
            if self.state.report_all.swap(false, Ordering::AcqRel) {
                reported.clear();
                loads.forget_reports();
            }
            let measured = loads.measure(&self.store).await;
            let begun = Instant::now();
            match stop.run_until_cancelled(self.beat(beat, &measured, &reported, &splits)).await {
                None => return Ok(()),
                Some(Ok((told, acknowledged, gone))) => {
                    interval = if measured.is_hot { told.min(HOT_INTERVAL) } else { told };
                    loads.acknowledge(measured);
                    if !self.state.connected.swap(true, Ordering::AcqRel) {
                        tracing::info!("the meta service answers");
                    }
                    reported.retain(|range, _| !gone.contains(range));
                    for (range, what) in acknowledged {
                        splits.remove(&range);
                        reported.insert(range, what);
                    }
                }
                Some(Err(error)) if is_final(&error) => {
                    return Err(NodeError::Refused(error.0.message.clone()));
                }
                Some(Err(error)) => {
                    if self.state.connected.swap(false, Ordering::AcqRel) {
                        tracing::warn!(error = %error, "the meta service does not answer heartbeats");
                    } else {
                        tracing::debug!(error = %error, "heartbeat was not answered");
                    }
                    self.meta.forget_leader();
                    // Whoever leads next begins with nothing.
                    reported.clear();
                    loads.forget_reports();
                    if stop.run_until_cancelled(tokio::time::sleep(FIRST_INTERVAL)).await.is_none()
                    {
                        return Ok(());
                    }
                }
            }
            let took = begun.elapsed().min(FIRST_INTERVAL);
            beat += 1;
            let wait = async {
                loop {
                    match events.recv().await {
                        Ok(StoreEvent::DescriptorChanged { descriptor, split_children }) => {
                            if !split_children.is_empty() {
                                splits.insert(descriptor.id, split_children);
                            }
                            return;
                        }
                        Ok(
                            StoreEvent::LeaderChanged { .. } | StoreEvent::ReplicaRemoved { .. },
                        )
                        | Err(RecvError::Lagged(_)) => return,
                        Err(RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                // When thousands change, looking at them all takes a while: not all the time.
                () = wait => tokio::time::sleep(GATHER.max(took * 4)).await,
                () = tokio::time::sleep(interval) => {}
            }
            // Whatever else came meanwhile travels along.
            while let Ok(event) = events.try_recv() {
                if let StoreEvent::DescriptorChanged { descriptor, split_children } = event
                    && !split_children.is_empty()
                {
                    splits.insert(descriptor.id, split_children);
                }
            }
        }
    }

    async fn beat(
        &self,
        beat: u64,
        measured: &Measured,
        reported: &HashMap<RangeId, Known>,
        splits: &HashMap<RangeId, Vec<RangeDescriptor>>,
    ) -> Result<(Duration, Vec<(RangeId, Known)>, Vec<RangeId>), WireError> {
        let is_known =
            |range: RangeId, mark| reported.get(&range).is_some_and(|k| k.mark == Some(mark));
        let Look { replicas, leaders, seen } = self.store.look(is_known);
        metrics::gauge!("isotherm_replicas").set(replicas as f64);
        metrics::gauge!("isotherm_leaders").set(leaders as f64);
        let with_sizes = beat.is_multiple_of(SIZE_EVERY);
        let (mut reports, mut acknowledged) = (Vec::new(), Vec::new());
        let (mut more, mut spans) = (false, Vec::new());
        let mut sized = 0;
        let mut room = Room::of_parts(REPORTS_MAX, REPORTS_BYTES_MAX);
        for (mark, status) in &seen {
            let now = Reported::from(status);
            let range = status.descriptor.id;
            let known = reported.get(&range).filter(|k| k.reported == now);
            let fell_asleep = mark.is_some();
            if let Some(known) = known {
                let grew = status.is_leader && known.sized != status.applied_index;
                if grew {
                    sized += 1;
                }
                if !(grew && (with_sizes || fell_asleep || sized <= SIZED_MAX)) {
                    if fell_asleep {
                        acknowledged.push((range, Known { mark: *mark, ..known.clone() }));
                    }
                    continue;
                }
            }
            if room.is_full() {
                more = true;
                continue;
            }
            let children = splits.get(&range);
            let report = RangeReport {
                descriptor: Some((&status.descriptor).into()),
                is_leader: status.is_leader,
                term: status.term,
                split_children: children.into_iter().flatten().map(Into::into).collect(),
                live_replicas: status.live_replicas.iter().map(|id| id.get()).collect(),
                size_bytes: 0,
                replica_id: status.replica.get(),
            };
            if !room.take(report.encoded_len()) {
                more = true;
                continue;
            }
            reports.push(report);
            let known = Known { reported: now, mark: *mark, sized: status.applied_index };
            acknowledged.push((range, known));
            spans.push(status.is_leader.then(|| status.descriptor.span.clone()));
        }
        for (report, size) in reports.iter_mut().zip(self.sizes(spans).await) {
            report.size_bytes = size;
        }
        let is_gone = |range: &RangeId| self.store.replica(*range).is_none();
        let gone: Vec<RangeId> = reported.keys().copied().filter(is_gone).take(GONE_MAX).collect();
        let space = self.disk.space();
        let request = HeartbeatRequest {
            node_id: self.node.get(),
            incarnation: self.incarnation.get(),
            address: self.address.clone(),
            reports,
            replicas,
            leaders,
            disk_total_bytes: space.total_bytes,
            disk_free_bytes: space.free_bytes,
            read_only: self.disk.is_full(),
            draining: self.state.draining.load(Ordering::Acquire),
            seeded: self.state.seeded.load(Ordering::Acquire),
            load: measured.cores,
            loads: measured.loads.clone(),
            capacity_cores: measured.capacity_cores,
            gone: gone.iter().map(|range| range.get()).collect(),
            supports_version: ClusterVersion::CURRENT.to_wire(),
            replicas_behind: self.store.replicas_behind(),
            knows_version: self.store.cluster_version().to_wire(),
            cluster_id: self.cluster.get(),
            damaged_ranges: self.damaged_ranges(),
        };
        let mut leader = self.meta.leader().await?;
        let answer = tokio::time::timeout(TIMEOUT, leader.heartbeat(request)).await;
        let unavailable =
            |why: String| WireError::new(isotherm_proto::internal::error::Code::Unavailable, why);
        let answer = answer
            .map_err(|_| unavailable("no answer in time".to_owned()))?
            .map_err(|status| unavailable(status.message().to_owned()))?
            .into_inner();
        self.meta.check(answer.error)?;
        let version = ClusterVersion::from_wire(answer.cluster_version);
        // Noted before it is used: a start without meta must not run software that is too old for it.
        self.learn_peers(&answer.nodes, version).await;
        // Those that are not among them are gone for good: nobody calls them any more.
        self.peers.keep_only(&answer.nodes.iter().map(|node| NodeId(node.id)).collect());
        let confirm = answer.settings.get("read.confirm").map(String::as_str);
        self.store.set_read_quorum(confirm == Some("quorum"));
        if let Some(idle) = answer.settings.get("range.hibernate_after") {
            self.set_hibernate_after(idle);
        }
        self.store.set_cluster_version(version);
        self.take_removed(answer.removed);
        if let Err(error) = self.store.raise_safe_point(Timestamp(answer.safe_point)).await {
            tracing::error!(%error, "the safe point cannot be raised: old versions stay");
        }
        // What is still to come it cannot have heard of.
        if answer.report_all && !more {
            acknowledged.clear();
            self.state.report_all.store(true, Ordering::Release);
        }
        self.seed(answer.seed, answer.seed_number).await;
        let told = Duration::from_millis(answer.heartbeat_ms.clamp(50, 5000));
        let interval = if more { MORE_INTERVAL } else { told };
        Ok((interval, acknowledged, gone))
    }

    fn damaged_ranges(&self) -> Vec<u64> {
        let damaged = self.store.damaged_ranges().into_iter();
        damaged.map(RangeId::get).take(DAMAGED_RANGES_MAX).collect()
    }

    /// Takes in where the other nodes are and which starts of them are the newest.
    async fn learn_peers(
        &self,
        nodes: &[isotherm_proto::internal::NodeAddress],
        version: ClusterVersion,
    ) {
        let mut known = Vec::with_capacity(nodes.len());
        for node in nodes.iter().filter(|node| node.id != self.node.get()) {
            let (id, incarnation) = (NodeId(node.id), Incarnation(node.incarnation));
            self.peers.set_address(id, &node.address);
            self.incarnations.learn(id, incarnation);
            known.push(KnownPeer { node: id, address: node.address.clone(), incarnation });
        }
        self.note.update(self.incarnation, version, known).await;
    }

    /// A value that this version does not understand changes nothing.
    fn set_hibernate_after(&self, idle: &str) {
        if idle == "off" {
            self.store.set_hibernate_after(None);
        } else if let Ok(idle) = humantime::parse_duration(idle) {
            self.store.set_hibernate_after(Some(idle));
        }
    }

    /// Has replicas destroyed that meta's map no longer names, if it is newer than they are.
    fn take_removed(&self, removed: Vec<isotherm_proto::internal::Descriptor>) {
        let removed: Result<Vec<RangeDescriptor>, _> =
            removed.into_iter().map(TryInto::try_into).collect();
        match removed {
            Ok(removed) => self.store.take_newer(removed),
            Err(error) => {
                tracing::error!(error = %error, "meta names removed replicas in a way that this version does not understand: update this node");
            }
        }
    }

    /// Bytes of rows; 0 where they are not asked for.
    async fn sizes(&self, spans: Vec<Option<KeyRange>>) -> Vec<u64> {
        let store = self.store.clone();
        let size = move |span: &Option<KeyRange>| {
            span.as_ref().map_or(0, |span| store.approximate_size(span))
        };
        let sizes = tokio::task::spawn_blocking(move || spans.iter().map(size).collect());
        sizes.await.unwrap_or_default()
    }

    /// Starts the ranges that meta's bootstrap placed here.
    async fn seed(&self, descriptors: Vec<isotherm_proto::internal::Descriptor>, number: u64) {
        if number == 0 {
            // The cluster still waits for nodes.
            return;
        }
        if number <= self.state.seeded.load(Ordering::Acquire) || descriptors.is_empty() {
            self.state.seeded.fetch_max(number, Ordering::AcqRel);
            self.state.complete.store(true, Ordering::Release);
            return;
        }
        self.state.complete.store(false, Ordering::Release);
        let descriptors: Result<Vec<RangeDescriptor>, _> =
            descriptors.into_iter().map(TryInto::try_into).collect();
        let seeded = match descriptors {
            Ok(descriptors) => self.store.seed(&descriptors).await.map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match seeded {
            Ok(()) => self.state.seeded.store(number, Ordering::Release),
            Err(error) => tracing::error!(error, "the ranges of the bootstrap cannot be seeded"),
        }
    }
}
