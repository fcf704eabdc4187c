//! Whether a replica's clock ticks: idle groups sleep.
//!
//! A group that nobody uses costs nothing: its leader asks the followers to stop their clocks and
//! stops its own (`store/hibernate.rs`). A sleeping replica still answers everything; only what needs
//! time to pass is switched off: elections and heartbeats. Whether its leader lives is then a
//! question about the leader's node (`store/liveness.rs`).
//!
//! ```text
//!            idle, all have everything             every follower sleeps
//!   Awake ───────────────────────────► Drowsy ───────────────────────────► Leading
//!     ▲ ▲                                │ a follower refused                 │
//!     │ └────────────────────────────────┘                                    │
//!     ├───────────── a request, a pre-vote, a node that returned ─────────────┘
//!     └── an append, a vote, silence of the leader's node ── Following ◄── its leader asks
//! ```
//!
//! To ensure correctness:
//! * a lease is a matter of the clock that everybody has, not of ticks: it runs out while a leader
//!   sleeps, and whoever reads then asks a quorum first. Nothing here extends it;
//! * whoever uses a replica notes that first and looks at the phase afterwards, and whoever puts
//!   it to sleep changes the phase first and looks for users afterwards: one of them sees the other;
//! * a replica begins awake, and each new consensus instance of it does. (One of very many that start
//!   at once begins as a sleeping follower of nobody, and has its turn: `store/rouse.rs`.)

use super::Replica;
use crate::type_config::CommittedLeaderId;
use isotherm_types::{NodeId, ReplicaId};
use openraft::type_config::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// Whether the clock of a replica ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It ticks.
    Awake,
    /// It leads, its clock stands, and the followers are being asked to sleep.
    Drowsy,
    /// It leads and sleeps.
    Leading,
    /// It follows and sleeps, under this leader.
    Following {
        /// Which replica.
        leader: ReplicaId,
        /// Where that is.
        node: NodeId,
    },
}

const AWAKE: u8 = 0;
const DROWSY: u8 = 1;
const LEADING: u8 = 2;
const FOLLOWING: u8 = 3;

impl Phase {
    /// A follower whose leader is not known yet.
    pub const UNLED: Phase = Phase::Following { leader: ReplicaId(0), node: NodeId(0) };

    const fn number(self) -> u8 {
        match self {
            Self::Awake => AWAKE,
            Self::Drowsy => DROWSY,
            Self::Leading => LEADING,
            Self::Following { .. } => FOLLOWING,
        }
    }
}

/// Why a replica woke up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WakeReason {
    /// Its leader is used.
    Request,
    /// Its leader sent something.
    Append,
    /// Somebody stands for election.
    Vote,
    /// Another replica, or an operator, asked for it.
    Asked,
    /// Its leader's node is silent.
    Silence,
    /// Its leader answers that it is none, or not at all.
    Leaderless,
    /// A node with one of its replicas is there again.
    Returned,
    /// A follower was not ready to sleep.
    Refused,
    /// Hibernation was switched off.
    Disabled,
}

impl WakeReason {
    /// As metrics name it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Append => "append",
            Self::Vote => "vote",
            Self::Asked => "asked",
            Self::Silence => "silence",
            Self::Leaderless => "leaderless",
            Self::Returned => "returned",
            Self::Refused => "refused",
            Self::Disabled => "disabled",
        }
    }
}

/// The phase of one replica.
#[derive(Debug)]
pub struct Hibernation {
    /// Held while the phase and the clock change together.
    phase: Mutex<Phase>,
    /// The number of `phase`, to be looked at without the lock.
    number: AtomicU8,
    /// When it was last used, in milliseconds of the store's clock.
    used_ms: AtomicU64,
    /// It does not try to sleep before this.
    not_before_ms: AtomicU64,
    /// When it last woke up.
    woke_ms: AtomicU64,
    /// Set from when the clock stops until a quorum confirmed the leader again.
    lapsed: AtomicBool,
    /// When its leader was last asked whether it is one.
    nudged_ms: AtomicU64,
    /// How often the phase changed.
    changes: AtomicU64,
}

impl Default for Hibernation {
    fn default() -> Self {
        Self {
            phase: Mutex::new(Phase::Awake),
            number: AWAKE.into(),
            used_ms: 0.into(),
            not_before_ms: 0.into(),
            woke_ms: 0.into(),
            lapsed: false.into(),
            nudged_ms: 0.into(),
            changes: 0.into(),
        }
    }
}

impl Hibernation {
    fn set(&self, phase: &mut Phase, to: Phase) {
        *phase = to;
        self.number.store(to.number(), Ordering::SeqCst);
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    fn number(&self) -> u8 {
        self.number.load(Ordering::SeqCst)
    }

    /// Whether the clock ticks.
    pub fn is_awake(&self) -> bool {
        self.number() == AWAKE
    }

    /// Whether it sleeps, as a leader or as a follower.
    pub fn is_asleep(&self) -> bool {
        self.number() >= LEADING
    }

    /// Whether it sleeps as a leader.
    pub fn is_leading(&self) -> bool {
        self.number() == LEADING
    }

    /// Whether it sleeps as a follower.
    pub fn is_following(&self) -> bool {
        self.number() == FOLLOWING
    }

    /// The phase.
    pub fn phase(&self) -> Phase {
        *self.phase.lock()
    }

    /// Whether the leader's lease was left to run out, and no quorum has confirmed it since.
    pub fn has_lapsed(&self) -> bool {
        self.lapsed.load(Ordering::Acquire)
    }

    /// A quorum confirmed the leader.
    pub fn confirmed(&self) {
        if self.has_lapsed() && self.is_awake() {
            self.lapsed.store(false, Ordering::Release);
        }
    }

    /// How often the phase changed: equal numbers mean that it slept (or was awake) throughout.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }
}

impl Replica {
    /// Notes that this replica is used, and wakes it if it leads. A follower is not woken: it would
    /// stand for election, with its leader well and asleep.
    pub(crate) fn touch(&self) {
        self.hibernation.used_ms.store(self.ctx.now_ms(), Ordering::SeqCst);
        if matches!(self.hibernation.number(), DROWSY | LEADING) {
            self.wake(WakeReason::Request);
        }
    }

    /// Has the clock tick again. Its group wakes with it: the leader's next heartbeat does that.
    pub(crate) fn wake(&self, reason: WakeReason) {
        let hibernation = &self.hibernation;
        let was = {
            let mut phase = hibernation.phase.lock();
            let was = *phase;
            if was == Phase::Awake {
                return;
            }
            hibernation.woke_ms.store(self.ctx.now_ms(), Ordering::Relaxed);
            hibernation.set(&mut phase, Phase::Awake);
            if let Some(instance) = self.instance.load_full() {
                instance.raft.runtime_config().tick(true);
            }
            was
        };
        if !matches!(was, Phase::Drowsy) {
            metrics::counter!("isotherm_replica_wakes_total", "reason" => reason.label())
                .increment(1);
        }
        if !matches!(was, Phase::Following { .. }) {
            self.send_heartbeat();
        }
    }

    /// Its leader sent something, which was taken: the lease is fresh. One that led when it fell
    /// asleep is woken by its successor.
    pub(crate) fn appended(&self) {
        if self.hibernation.is_asleep() {
            self.hibernation.used_ms.store(self.ctx.now_ms(), Ordering::SeqCst);
            self.wake(WakeReason::Append);
        }
    }

    /// Sends a heartbeat now, if this replica leads.
    pub(crate) fn send_heartbeat(&self) {
        let Some(instance) = self.instance.load_full() else { return };
        self.ctx.tasks.spawn(async move {
            // An instance that ended has no followers to wake.
            let _ = instance.raft.trigger().heartbeat().await;
        });
    }

    /// A new consensus instance begins: awake, or, as one of very many, as a follower of nobody
    /// whose turn will come.
    pub(crate) fn begin(&self, ticks: bool) {
        let mut phase = self.hibernation.phase.lock();
        let begins = if ticks { Phase::Awake } else { Phase::UNLED };
        self.hibernation.set(&mut phase, begins);
        let now = self.ctx.now_ms();
        self.hibernation.used_ms.store(now, Ordering::SeqCst);
        self.hibernation.woke_ms.store(now, Ordering::Relaxed);
    }

    /// Whether it slept at some time within the last `lately`: what the leader heard from followers
    /// itself says nothing then.
    pub(crate) fn slept_within(&self, lately: Duration) -> bool {
        if !self.hibernation.is_awake() {
            return true;
        }
        let woke = self.hibernation.woke_ms.load(Ordering::Relaxed);
        self.ctx.now_ms().saturating_sub(woke) < lately.as_millis() as u64
    }

    fn is_idle(&self, idle: Duration) -> bool {
        let used = self.hibernation.used_ms.load(Ordering::SeqCst);
        self.ctx.now_ms().saturating_sub(used) >= idle.as_millis() as u64
            && self.pending.is_empty()
            && !self.confirm.is_running()
            && !self.is_transferring()
            && !self.changing.load(Ordering::Acquire)
    }

    /// The leadership under which this replica may sleep and its last entry's index: it leads, nobody
    /// uses it, the members are settled, everything is committed and applied here, and every
    /// follower whose node answers has it all.
    pub(crate) fn may_sleep(&self, idle: Duration) -> Option<(CommittedLeaderId, u64)> {
        let now = self.ctx.now_ms();
        if now < self.hibernation.not_before_ms.load(Ordering::Relaxed) || !self.is_idle(idle) {
            return None;
        }
        if !self.lost.lock().is_empty() {
            return None;
        }
        let instance = self.instance.load_full()?;
        let leadership = instance.leadership()?;
        let metrics = instance.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let last = metrics.last_log_index?;
        let settled = metrics.state.is_leader()
            && membership.get_joint_config().len() == 1
            && membership.learner_ids().next().is_none()
            && self.applied_index() == last
            && metrics.last_applied.is_some_and(|id| id.index == last);
        if !settled {
            return None;
        }
        let replication = metrics.replication.as_ref()?;
        let (mut all, mut have) = (0, 0);
        for (id, host) in membership.nodes() {
            all += 1;
            let matched =
                replication.get(id).and_then(|m| m.as_ref()).is_some_and(|m| m.index == last);
            if *id == self.id.get() || matched {
                have += 1;
            } else if !self.ctx.liveness.is_lost(host.node()) {
                return None;
            }
        }
        (have > all / 2).then_some((leadership, last))
    }

    /// Stops the clock of a leader, to ask the followers for the same; whether it did.
    pub(crate) fn doze(&self, idle: Duration) -> bool {
        let hibernation = &self.hibernation;
        let Some(instance) = self.instance.load_full() else { return false };
        let mut phase = hibernation.phase.lock();
        if *phase != Phase::Awake {
            return false;
        }
        hibernation.set(&mut phase, Phase::Drowsy);
        // Looked at only now: whoever came before is seen here, whoever comes later sees the phase.
        if self.may_sleep(idle).is_none() {
            hibernation.set(&mut phase, Phase::Awake);
            return false;
        }
        hibernation.lapsed.store(true, Ordering::Release);
        instance.raft.runtime_config().tick(false);
        true
    }

    /// All followers sleep: the leader does, too. `false`: somebody came meanwhile.
    pub(crate) fn sleep_leading(&self) -> bool {
        let mut phase = self.hibernation.phase.lock();
        let goes = *phase == Phase::Drowsy;
        if goes {
            self.hibernation.set(&mut phase, Phase::Leading);
        }
        goes
    }

    /// A follower refused to sleep: not again before `pause` has passed.
    pub(crate) fn stay_awake(&self, pause: Duration) {
        let until = self.ctx.now_ms() + pause.as_millis() as u64;
        self.hibernation.not_before_ms.store(until, Ordering::Relaxed);
        if self.hibernation.number() == DROWSY {
            self.wake(WakeReason::Refused);
        }
    }

    /// Stops the clock of a follower that has everything that its leader has; or says why not.
    pub(crate) fn sleep_following(
        &self,
        leader: ReplicaId,
        node: NodeId,
        leadership: CommittedLeaderId,
        last: u64,
    ) -> Result<(), &'static str> {
        let Some(instance) = self.instance.load_full() else { return Err("starting") };
        let mut phase = self.hibernation.phase.lock();
        if matches!(*phase, Phase::Drowsy | Phase::Leading) {
            return Err("it led itself");
        }
        let raft = instance.raft.metrics();
        let metrics = raft.borrow_watched();
        if metrics.current_leader != Some(leader.get()) || metrics.current_term != leadership.term {
            return Err("another leadership is known");
        }
        if metrics.last_log_index != Some(last) || self.applied_index() != last {
            return Err("not everything is applied");
        }
        drop(metrics);
        self.hibernation.set(&mut phase, Phase::Following { leader, node });
        instance.raft.runtime_config().tick(false);
        Ok(())
    }

    /// Whether it is time to ask the sleeping leader whether it is one: not more often than once in
    /// `pause`.
    pub(crate) fn is_nudge_due(&self, pause: Duration) -> bool {
        let (now, nudged) = (self.ctx.now_ms(), &self.hibernation.nudged_ms);
        let last = nudged.load(Ordering::Relaxed);
        (last == 0 || now.saturating_sub(last) >= pause.as_millis() as u64)
            && nudged
                .compare_exchange(last, now.max(1), Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }
}
