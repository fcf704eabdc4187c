//! One member of a group.

use super::applied::{Applied, Machine};
use super::error::{GroupError, GroupOpenError};
use super::instance::Instance;
use crate::disk_probe::DiskProbe;
use crate::sender::PeerSender;
use arc_swap::ArcSwapOption;
use isotherm_storage::{LogEngine, ReplicaKey};
use isotherm_types::{NodeId, RaftTiming, RangeId, ReplicaId};
use openraft::Instant;
use openraft::type_config::async_runtime::watch::WatchReceiver;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Settings of one member.
#[derive(Debug, Clone, Copy)]
pub struct GroupOptions {
    /// This member: its node id, which is its replica id too.
    pub member: NodeId,
    /// Raft's clocks; the same on all members.
    pub timing: RaftTiming,
    /// Entries from one snapshot to the next.
    pub snapshot_every: u64,
    /// What it may do at first; [`Group::take`] changes it.
    pub part: Part,
}

/// What a member takes part in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Nothing: whatever the others send is refused.
    None,
    /// It takes entries and snapshots, and neither grants nor asks for votes.
    Learns,
    /// Everything.
    Votes,
}

/// Who leads, as a member knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The term.
    pub term: u64,
    /// The leader of that term, if known.
    pub leader: Option<NodeId>,
    /// Whether it is this member.
    pub is_leader: bool,
}

/// One member of a group with the state machine `M`.
pub struct Group<M: Machine> {
    pub(super) member: NodeId,
    pub(super) key: ReplicaKey,
    pub(super) timing: RaftTiming,
    pub(super) snapshot_every: u64,
    pub(super) part: watch::Sender<Part>,
    pub(super) engine: Arc<dyn LogEngine>,
    pub(super) sender: Arc<dyn PeerSender>,
    pub(super) applied: Arc<Applied<M>>,
    /// Raised before a new instance is built; work of an older one is refused.
    pub(super) generation: Arc<AtomicU64>,
    pub(super) instance: ArcSwapOption<Instance<M>>,
    pub(super) leadership: watch::Sender<Leadership>,
    /// The term in which this member gave leadership away because its disk did not answer; 0: none.
    pub(super) yielded_term: AtomicU64,
    pub(super) probe: DiskProbe,
    has_room: AtomicBool,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl<M: Machine> Group<M> {
    /// Starts a member over what is in `log`: the last snapshot, the log behind it, the vote.
    /// `machine` is as it is before any entry.
    pub async fn open(
        options: GroupOptions,
        log: Arc<dyn LogEngine>,
        machine: Arc<RwLock<M>>,
        sender: Arc<dyn PeerSender>,
    ) -> Result<Arc<Self>, GroupOpenError> {
        let GroupOptions { member, timing, snapshot_every, part } = options;
        let key = ReplicaKey { range: RangeId::META, replica: ReplicaId(member.get()) };
        let applied = Arc::new(Applied::new(machine, log.clone(), key));
        let group = Arc::new(Self {
            member,
            key,
            timing,
            snapshot_every,
            part: watch::Sender::new(part),
            engine: log.clone(),
            sender,
            applied,
            generation: Arc::default(),
            instance: ArcSwapOption::empty(),
            leadership: watch::Sender::default(),
            yielded_term: AtomicU64::new(0),
            has_room: AtomicBool::new(true),
            probe: DiskProbe::new(log.clone()),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        group.load().await?;
        group.build_instance().await?;
        let supervised = group.clone();
        let stop = group.stop.clone();
        group.tasks.spawn(isotherm_task::until("meta consensus", stop, supervised.supervise()));
        Ok(group)
    }

    /// Takes the applied state from disk.
    pub(super) async fn load(&self) -> Result<(), GroupOpenError> {
        let applied = self.applied.clone();
        let load = tokio::task::spawn_blocking(move || applied.load());
        Ok(load.await.map_err(std::io::Error::other)??)
    }

    /// The running instance.
    pub(super) fn running(&self) -> Result<Arc<Instance<M>>, GroupError> {
        self.instance.load_full().ok_or(GroupError::Stopped)
    }

    /// Who leads, and how that changes.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    /// Lets the member take that part from now on.
    pub fn take(&self, part: Part) {
        self.part.send_replace(part);
        if part == Part::Votes
            && let Some(instance) = self.instance.load_full()
            && !instance.holds_votes()
        {
            instance.raft.runtime_config().elect(true);
        }
    }

    pub(super) fn votes(&self) -> bool {
        *self.part.borrow() == Part::Votes
    }

    /// Whether a quorum acknowledged this member as the leader lately: by what it sent within two of
    /// the longest election timeouts. A leader that is cut off from the others does not hear of its
    /// successor, and goes on to take itself for the leader.
    pub fn is_acknowledged(&self) -> bool {
        let Some(instance) = self.instance.load_full() else { return false };
        let metrics = instance.raft.metrics();
        let metrics = metrics.borrow_watched();
        if !metrics.state.is_leader() {
            return false;
        }
        let membership = metrics.membership_config.membership();
        if membership.voter_ids().eq([self.member.get()]) {
            return true;
        }
        let lately = Duration::from_millis(self.timing.election_max_ms * 2);
        metrics.last_quorum_acked.is_some_and(|acked| acked.into_inner().elapsed() < lately)
    }

    /// Without room it takes no entries and proposes none ([`GroupError::DiskFull`]); it votes.
    pub fn set_room(&self, has_room: bool) {
        self.has_room.store(has_room, Ordering::Release);
    }

    pub(super) fn has_room(&self) -> bool {
        self.has_room.load(Ordering::Acquire)
    }

    /// Where its log ends; 0 if it is not running.
    pub fn last_log_index(&self) -> u64 {
        let instance = self.instance.load_full();
        instance.and_then(|i| i.raft.metrics().borrow_watched().last_log_index).unwrap_or(0)
    }

    /// Waits until the entry `index` is applied here, or the member stops.
    pub async fn wait_applied(&self, index: u64) {
        let mut applied = self.applied.index();
        let _ = applied.wait_for(|applied| *applied >= index).await;
    }

    /// The state machine. It is to be read only: entries alone change it.
    pub fn machine(&self) -> &Arc<RwLock<M>> {
        self.applied.machine()
    }

    /// Stops the member. What is in flight ends as [`GroupError::Indeterminate`].
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(instance) = self.instance.swap(None)
            && let Err(error) = instance.raft.shutdown().await
        {
            tracing::warn!(error = %error, "consensus did not stop cleanly");
        }
        self.leadership.send_replace(Leadership::default());
    }
}
