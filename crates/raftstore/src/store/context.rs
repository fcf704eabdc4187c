//! What every replica of a node shares.

use super::liveness::Liveness;
use super::pace::Pace;
use super::{DiskRoom, RangeError, ScanPool, SpanTable, Store, StoreOptions, StoreTuning};
use crate::disk_probe::DiskProbe;
use crate::faults::Faults;
use crate::replica::Core;
use crate::sender::PeerSender;
use futures::future::BoxFuture;
use isotherm_storage::{DataEngine, LogEngine};
use isotherm_types::{ClusterVersion, NodeId, RaftTiming, RangeDescriptor, RangeId, Timestamp};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Where timestamps come from.
pub trait TimestampSource: Send + Sync + 'static {
    /// A timestamp that was requested after this call began: it joins only a request that was not
    /// sent yet. Never one that was fetched ahead.
    fn timestamp(&self) -> BoxFuture<'static, Result<Timestamp, OracleError>>;

    /// Whether it is known not to answer now: what needs a timestamp is refused at once.
    fn is_down(&self) -> bool {
        false
    }
}

/// The oracle did not answer.
#[derive(Debug, Clone, Error)]
#[error("no timestamp from the meta service: {0}")]
pub struct OracleError(pub String);

/// Something that others may want to know at once.
#[derive(Debug, Clone)]
pub enum StoreEvent {
    /// A descriptor changed here; after a split the children came out of the same change.
    DescriptorChanged {
        /// The range, as it is now.
        descriptor: Arc<RangeDescriptor>,
        /// Children of the same split.
        split_children: Vec<RangeDescriptor>,
    },
    /// A replica was destroyed here: it had been removed from its range.
    ReplicaRemoved {
        /// Of which range.
        range: RangeId,
    },
    /// This node became or ceased to be the leader of a range.
    LeaderChanged {
        /// Which.
        range: RangeId,
    },
}

/// Parent and children of a split that was applied here.
pub(crate) struct Birth {
    pub cores: Vec<Core>,
    pub parent: RangeId,
}

/// What every replica of a node shares.
pub struct StoreContext {
    /// This node.
    pub node: NodeId,
    /// Raft's clocks.
    pub timing: RaftTiming,
    /// Sizes and intervals.
    pub tuning: StoreTuning,
    pub(crate) data: DataEngine,
    pub(crate) log: Arc<dyn LogEngine>,
    pub(crate) probe: DiskProbe,
    pub(crate) sender: Arc<dyn PeerSender>,
    pub(crate) oracle: Arc<dyn TimestampSource>,
    pub(crate) spans: SpanTable,
    pub(crate) scans: ScanPool,
    pub(crate) snapshot_pace: Pace,
    /// Places for snapshots that leave here.
    pub(crate) snapshots_out: Arc<Semaphore>,
    pub(crate) events: broadcast::Sender<StoreEvent>,
    pub(crate) births: mpsc::UnboundedSender<Birth>,
    pub(crate) staging: PathBuf,
    pub(crate) faults: Faults,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    /// The version that the cluster uses, as far as it is known here.
    pub(crate) cluster_version: AtomicU16,
    /// Why nothing can be written here any more.
    pub(crate) damage: watch::Sender<Option<String>>,
    pub(crate) disk_room: watch::Sender<DiskRoom>,
    /// As the cluster is set; the node's own tuning can only be stricter.
    pub(crate) read_quorum: AtomicBool,
    /// Idle groups sleep after this; 0: they do not.
    pub(crate) hibernate_after_ms: AtomicU64,
    pub(crate) liveness: Liveness,
    opened: Instant,
    host: OnceLock<Weak<Store>>,
    /// Held while the safe point is raised (`store/safe_point.rs`).
    pub(crate) raising: Mutex<()>,
    newest_ts: AtomicU64,
    clocks: Mutex<Clocks>,
}

struct Clocks {
    suspended_ns: i128,
    no_lease_until: Option<Instant>,
}

/// How much further the boot-time clock is than the monotonic one: it grows while the machine is
/// suspended, and the monotonic clock, by which leases run, does not see that.
fn suspended_ns() -> i128 {
    use rustix::time::{ClockId, clock_gettime};
    let ns = |id| {
        let t = clock_gettime(id);
        i128::from(t.tv_sec) * 1_000_000_000 + i128::from(t.tv_nsec)
    };
    ns(ClockId::Boottime) - ns(ClockId::Monotonic)
}

impl StoreContext {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        options: StoreOptions,
        data: DataEngine,
        log: Arc<dyn LogEngine>,
        sender: Arc<dyn PeerSender>,
        oracle: Arc<dyn TimestampSource>,
        staging: PathBuf,
        births: mpsc::UnboundedSender<Birth>,
    ) -> Arc<Self> {
        let hibernate_after_ms = options.tuning.hibernate_after.as_millis() as u64;
        Arc::new(Self {
            node: options.node,
            timing: options.timing,
            snapshot_pace: Pace::new(options.tuning.snapshot_bytes_per_second),
            snapshots_out: Arc::new(Semaphore::new(options.tuning.snapshots_at_once)),
            tuning: options.tuning,
            data,
            probe: DiskProbe::new(log.clone()),
            log,
            sender,
            oracle,
            spans: SpanTable::default(),
            scans: ScanPool::start(),
            events: broadcast::Sender::new(4096),
            births,
            staging,
            faults: Faults::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            cluster_version: AtomicU16::new(ClusterVersion::FIRST.0),
            damage: watch::Sender::new(None),
            disk_room: watch::Sender::default(),
            read_quorum: AtomicBool::new(false),
            hibernate_after_ms: AtomicU64::new(hibernate_after_ms),
            liveness: Liveness::new(options.timing),
            opened: Instant::now(),
            host: OnceLock::new(),
            raising: Mutex::new(()),
            newest_ts: AtomicU64::new(0),
            clocks: Mutex::new(Clocks { suspended_ns: suspended_ns(), no_lease_until: None }),
        })
    }

    /// The store that hosts the replicas, for what concerns two of them; none while it ends.
    pub(crate) fn host(&self) -> Option<Arc<Store>> {
        self.host.get()?.upgrade()
    }

    pub(super) fn set_host(&self, store: &Arc<Store>) {
        self.host.set(Arc::downgrade(store)).expect("a context is of one store");
    }

    /// How much room the disk has.
    pub(crate) fn disk_room(&self) -> DiskRoom {
        *self.disk_room.borrow()
    }

    /// The store's clock.
    pub(crate) fn now_ms(&self) -> u64 {
        self.opened.elapsed().as_millis() as u64
    }

    /// Groups that nobody used for that long sleep; `None`: they do not.
    pub(crate) fn hibernate_after(&self) -> Option<Duration> {
        let ms = self.hibernate_after_ms.load(Ordering::Relaxed);
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    /// Whether reads are confirmed by a quorum round each time.
    pub(crate) fn reads_by_quorum(&self) -> bool {
        self.tuning.read_quorum || self.read_quorum.load(Ordering::Relaxed)
    }

    /// A timestamp requested after this call began.
    pub(crate) async fn timestamp(&self) -> Result<Timestamp, RangeError> {
        let asked = tokio::time::timeout(self.tuning.oracle_timeout, self.oracle.timestamp()).await;
        match asked {
            Ok(Ok(ts)) => {
                self.newest_ts.fetch_max(ts.get(), Ordering::AcqRel);
                Ok(ts)
            }
            Ok(Err(error)) => Err(RangeError::Unavailable(error.to_string())),
            Err(_) => Err(RangeError::Unavailable("the meta service did not answer".into())),
        }
    }

    /// The refusal of what needs a timestamp while the oracle is known to be down. Nothing waits then:
    /// a batch that waited for its timestamp would hold up the reads of its keys.
    pub(crate) fn check_oracle(&self) -> Result<(), RangeError> {
        if self.oracle.is_down() {
            metrics::counter!("isotherm_writes_refused_total", "reason" => "oracle").increment(1);
            return Err(RangeError::NoTimestamps);
        }
        Ok(())
    }

    /// Refuses a timestamp that was not issued yet: a read there would not be repeatable.
    pub(crate) async fn check_issued(&self, at: Timestamp) -> Result<(), RangeError> {
        if at.get() <= self.newest_ts.load(Ordering::Acquire) {
            return Ok(());
        }
        if at <= self.timestamp().await? { Ok(()) } else { Err(RangeError::TsTooNew) }
    }

    /// Whether the machine was suspended within the last lease: then leases may have run out
    /// unseen, and reads are confirmed by a quorum round.
    pub(crate) fn clocks_jumped(&self) -> bool {
        const TOLERANCE_NS: i128 = 10_000_000;
        let suspended = suspended_ns();
        let mut clocks = self.clocks.lock();
        if (suspended - clocks.suspended_ns).abs() > TOLERANCE_NS {
            clocks.suspended_ns = suspended;
            let lease = Duration::from_millis(self.timing.election_max_ms);
            clocks.no_lease_until = Some(Instant::now() + lease);
            tracing::warn!("the machine was suspended: leases dropped");
        }
        clocks.no_lease_until.is_some_and(|until| Instant::now() < until)
    }

    /// A split was applied: tells the world and has the children started.
    pub(crate) fn born(
        &self,
        parent: Arc<RangeDescriptor>,
        split_children: Vec<RangeDescriptor>,
        cores: Vec<Core>,
    ) {
        let birth = Birth { cores, parent: parent.id };
        let event = StoreEvent::DescriptorChanged { descriptor: parent, split_children };
        // Nobody listens in tests and while stopping.
        let _ = self.events.send(event);
        let _ = self.births.send(birth);
    }

    /// A descriptor changed otherwise.
    pub(crate) fn descriptor_changed(&self, descriptor: Arc<RangeDescriptor>) {
        let split_children = Vec::new();
        let _ = self.events.send(StoreEvent::DescriptorChanged { descriptor, split_children });
    }
}
