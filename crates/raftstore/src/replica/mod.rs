//! One replica: its consensus instance, its applied state, and what runs on it.
//!
//! | file | what |
//! |---|---|
//! | `core.rs` | the applied state and how entries change it; all of it behind one lock |
//! | `bounds.rs` | what one write request may produce |
//! | `machine.rs` | openraft's state machine over the core |
//! | `members.rs` | how the descriptor follows the membership |
//! | `merge.rs` | how entries merge two neighbours |
//! | `in_flight.rs` | when a sequencer's next entry may begin |
//! | `sequencer.rs` | the one task that gives writes their timestamp and proposes them |
//! | `pending.rs` | writes on their way, for reads |
//! | `hibernation.rs` | whether its clock ticks |
//! | `confirm.rs` | confirmation of leadership for reads, one round for many |
//! | `read.rs` | reads at the newest state and at a timestamp |
//! | `snapshot.rs` | sending and installing the whole state |
//! | `sessions.rs`, `applied.rs` | what is remembered of writes; what is persisted of progress |

mod applied;
mod bounds;
mod confirm;
mod core;
mod hibernation;
mod in_flight;
mod instance;
mod machine;
mod members;
mod merge;
mod pending;
mod read;
mod sequencer;
mod sessions;
mod snapshot;
pub(crate) mod stage_snapshot;
mod status;
#[cfg(test)]
mod suite_tests;

#[cfg(test)]
pub use self::{applied::Origin, sequencer::check_entry, snapshot::SnapshotHeader};
pub use applied::{AppliedState, BeforeMerges, Frozen, SessionMemory};
pub use bounds::REMEMBERED_OP_BYTES;
pub use core::{Core, seed_log_id};
pub use hibernation::{Hibernation, Phase, WakeReason};
pub use instance::Instance;
pub use machine::RangeMachine;
pub use members::{is_joint, uniform};
pub use pending::{BatchNumber, Pending};
pub use read::{Page, PageRead, PointRead};
pub use sequencer::{Proposal, Sequencer, check_origins};
pub use sessions::{DedupRow, Sessions};
pub use snapshot::{
    DedupRecord, InstallMarker, StagedSnapshot, durable_state, finish_install, roll_forward,
};
pub use stage_snapshot::{Preamble, SnapshotSource};
pub use status::{ReplicaMark, ReplicaStatus};

use crate::heat::Heat;
use crate::store::{RangeError, StoreContext};
use arc_swap::{ArcSwap, ArcSwapOption};
use confirm::Confirm;
use in_flight::InFlight;
use isotherm_storage::{Checksum, ReplicaKey};
use isotherm_types::{ClusterVersion, KeyRange, RangeDescriptor, RangeId, ReplicaId};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{RwLock, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// How long housekeeping waits for a replica's turn.
const CORE_PATIENCE: Duration = Duration::from_secs(1);

/// One node's copy of a range.
///
/// The parts that outlive a consensus instance are here; the instance itself is replaced when it
/// failed ([`Instance`], supervised by the store).
pub struct Replica {
    /// Its range.
    pub range: RangeId,
    /// Its id in that range.
    pub id: ReplicaId,
    pub(crate) ctx: Arc<StoreContext>,
    /// The applied state. Every change of it runs under this lock and checks its generation.
    pub(crate) core: Mutex<Core>,
    /// Raised before a new consensus instance is built; work of an older one is refused.
    pub(crate) generation: Arc<AtomicU64>,
    pub(crate) instance: ArcSwapOption<Instance>,
    /// The applied descriptor, for routing. Replaced only after the change is in the data.
    pub(crate) descriptor: ArcSwap<RangeDescriptor>,
    /// By which rules the applied state changes.
    version: AtomicU16,
    /// Set while it stands still, to be absorbed. Replaced before the descriptor of the same change.
    pub(crate) frozen: ArcSwapOption<Frozen>,
    /// Its range is part of another one, here too: nothing touches its rows any more. Set and read under
    /// the core's lock.
    pub(crate) retired: AtomicBool,
    /// Index of the last applied entry that reads may see.
    pub(crate) applied: watch::Sender<u64>,
    /// Index that the last flush made durable; logs are purged up to it at most.
    pub(crate) durable: AtomicU64,
    /// Results of writes that it remembers, as of the last entries applied.
    pub(crate) remembered: AtomicUsize,
    pub(crate) pending: Pending,
    pub(crate) heat: Heat,
    pub(crate) confirm: Confirm,
    pub(crate) hibernation: Hibernation,
    /// Set before leadership is handed over: no lease read after it, no new proposal.
    pub(crate) transferring: AtomicBool,
    /// Set while the disk does not answer and another replica was asked to lead: it may do so already.
    pub(crate) yielded: AtomicBool,
    /// The span that this leader serves no reads of, and the leadership that it holds for: from
    /// proposing a split until it is applied here.
    pub(crate) gate: Mutex<Option<(u64, KeyRange)>>,
    /// Set while this leader changes the members: one change at a time.
    pub(crate) changing: AtomicBool,
    /// Followers that lack what they acknowledged to this leader.
    pub(crate) lost: Mutex<BTreeSet<ReplicaId>>,
    /// It lacks what it acknowledged itself, and may have forgotten votes: it grants none, until its leader
    /// says that its range cannot do without it.
    abstains: AtomicBool,
    /// A block of its rows or of its log cannot be read (`store/quarantine.rs`).
    damaged: AtomicBool,
    pub(crate) proposals: mpsc::Sender<Proposal>,
    in_flight: Arc<InFlight>,
    pub(crate) checksums: Mutex<VecDeque<(u64, Checksum)>>,
    /// Held for reading by whoever receives a snapshot for it. Who ends it waits for that: what a snapshot
    /// reserves is not to come after the replica has given everything back.
    pub(crate) receiving: RwLock<()>,
    pub(crate) stop: CancellationToken,
    /// Set when nobody supervises it any more: no further instance of it will be built.
    pub(crate) ended: CancellationToken,
}

impl Replica {
    /// A replica over what is on disk. Nothing runs yet.
    pub(crate) fn new(
        ctx: Arc<StoreContext>,
        id: ReplicaId,
        core: Core,
    ) -> (Arc<Self>, mpsc::Receiver<Proposal>) {
        let (proposals, queue) = mpsc::channel(ctx.tuning.queue_writes_max);
        let applied = watch::Sender::new(core.applied.index());
        let replica = Arc::new(Self {
            range: core.descriptor.id,
            id,
            stop: ctx.stop.child_token(),
            ctx,
            generation: Arc::new(AtomicU64::new(core.generation)),
            instance: ArcSwapOption::empty(),
            descriptor: ArcSwap::from(core.descriptor.clone()),
            frozen: ArcSwapOption::from_pointee(core.applied.frozen),
            version: AtomicU16::new(core.applied.apply_version.0),
            retired: AtomicBool::new(false),
            durable: AtomicU64::new(core.applied.index()),
            remembered: AtomicUsize::new(core.sessions.count()),
            core: Mutex::new(core),
            applied,
            pending: Pending::default(),
            heat: Heat::default(),
            confirm: Confirm::default(),
            hibernation: Hibernation::default(),
            transferring: AtomicBool::new(false),
            yielded: AtomicBool::new(false),
            gate: Mutex::new(None),
            changing: AtomicBool::new(false),
            lost: Mutex::default(),
            abstains: AtomicBool::new(false),
            receiving: RwLock::new(()),
            damaged: AtomicBool::new(false),
            ended: CancellationToken::new(),
            proposals,
            in_flight: Arc::default(),
            checksums: Mutex::new(VecDeque::new()),
        });
        (replica, queue)
    }

    /// Its name in the log engine.
    pub fn key(&self) -> ReplicaKey {
        ReplicaKey { range: self.range, replica: self.id }
    }

    /// The applied descriptor.
    pub fn descriptor(&self) -> Arc<RangeDescriptor> {
        self.descriptor.load_full()
    }

    /// The version of the rules by which its applied state changes.
    pub fn version(&self) -> ClusterVersion {
        ClusterVersion(self.version.load(Ordering::Acquire))
    }

    /// Whether it stands still, to be absorbed: it takes no writes and serves no reads.
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.load().is_some()
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// The core for housekeeping, which takes its turn: apply holds it for moments, however busy the range
    /// is. None: a split, an install or the like holds it for longer. Blocking.
    pub(crate) fn core_in_turn(&self) -> Option<MutexGuard<'_, Core>> {
        self.core.try_lock_for(CORE_PATIENCE)
    }

    /// Shows what was applied of the range itself; whether that is something new. Under the core's lock.
    pub(crate) fn publish(&self, core: &Core) -> bool {
        self.version.store(core.applied.apply_version.0, Ordering::Release);
        let descriptor = &core.descriptor;
        if self.descriptor.load().epoch == descriptor.epoch {
            return false;
        }
        self.show(core);
        true
    }

    /// The same, whether or not its epoch is a new one.
    pub(crate) fn show(&self, core: &Core) {
        self.version.store(core.applied.apply_version.0, Ordering::Release);
        self.frozen.store(core.applied.frozen.map(Arc::new));
        self.descriptor.store(core.descriptor.clone());
    }

    /// Goes (back) to what is on disk, or to nothing.
    pub(crate) fn reload(&self, loaded: Option<Core>) {
        let mut core = self.core.lock();
        let descriptor = core.descriptor.clone();
        *core = loaded.unwrap_or_else(|| Core::empty((*descriptor).clone()));
        self.show(&core);
        self.applied.send_replace(core.applied.index());
    }

    /// A follower lacks what it acknowledged: nothing that it says counts any more.
    pub(crate) fn lost_its_log(self: &Arc<Self>, follower: ReplicaId) {
        let why = "a replica lost a part of its log that it had acknowledged: its disk dropped \
                   synced data, or is an older copy; it is removed and built again";
        self.is_lost(follower, why);
    }

    /// A follower cannot be read.
    pub(crate) fn is_reported_damaged(self: &Arc<Self>, follower: ReplicaId) {
        let why = "a replica cannot be read: have the disk of its node checked; it is removed and \
                   built again";
        self.is_lost(follower, why);
    }

    fn is_lost(self: &Arc<Self>, follower: ReplicaId, why: &str) {
        if !self.lost.lock().insert(follower) {
            return;
        }
        metrics::counter!("isotherm_replicas_lost_total").increment(1);
        let node = self.descriptor().replica(follower).map(|r| r.node);
        tracing::error!(
            range_id = %self.range,
            replica_id = %follower,
            node_id = node.map(tracing::field::display),
            "{why}"
        );
        if let Some(store) = self.ctx.host() {
            store.tend_lost(self);
        }
    }

    /// Whether it takes no part in elections, because it lost a part of its log.
    pub(crate) fn abstains(&self) -> bool {
        self.abstains.load(Ordering::Acquire)
    }

    /// Has it take no part in elections any more.
    pub(crate) fn set_abstaining(&self) {
        self.abstains.store(true, Ordering::Release);
        if let Some(instance) = self.instance.load_full() {
            instance.raft.runtime_config().elect(false);
        }
    }

    /// Has it take part in elections again.
    pub(crate) fn end_abstaining(&self) {
        self.abstains.store(false, Ordering::Release);
        // While votes are held back after a start, whoever ends that looks at `may_lead`.
        let instance = self.instance.load_full().filter(|i| !i.holds_votes());
        if let Some(instance) = instance.filter(|_| self.may_lead()) {
            instance.raft.runtime_config().elect(true);
        }
    }

    /// Whether a block of it cannot be read: it leads no more, and is removed and built again.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    /// Has it stand for no election any more; whether that is new.
    pub(crate) fn set_damaged(&self) -> bool {
        let is_new = !self.damaged.swap(true, Ordering::AcqRel);
        if let Some(instance) = self.instance.load_full() {
            instance.raft.runtime_config().elect(false);
        }
        is_new
    }

    /// Whether it may stand for election, once its votes are not held back any more.
    pub(crate) fn may_lead(&self) -> bool {
        !self.abstains() && !self.is_damaged()
    }

    /// The refusal while it stands still.
    pub(crate) fn standing_still() -> RangeError {
        RangeError::Busy { retry_after: Duration::from_millis(20) }
    }

    /// Index of the last applied entry.
    pub fn applied_index(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Index that survives a crash without the log.
    pub fn durable_index(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Something was put into the queue of proposals.
    pub(crate) fn note_queued(&self) {
        let queued = self.proposals.max_capacity() - self.proposals.capacity();
        self.in_flight.note_queued(queued);
    }

    pub(crate) fn is_transferring(&self) -> bool {
        self.transferring.load(Ordering::Acquire) || self.yielded.load(Ordering::Acquire)
    }

    /// Whether reads of `span` are held back by a split that this leadership (`term`) proposed.
    pub(crate) fn is_gated(&self, term: u64, span: &KeyRange) -> bool {
        let gate = self.gate.lock();
        self.ctx.faults.no_split_gate() == 0
            && gate.as_ref().is_some_and(|(of, gated)| *of == term && gated.overlaps(span))
    }

    /// The checksum at `index`, once computed.
    pub fn checksum_at(&self, index: u64) -> Option<Checksum> {
        let checksums = self.checksums.lock();
        checksums.iter().find(|(at, _)| *at == index).map(|(_, sum)| *sum)
    }
}
