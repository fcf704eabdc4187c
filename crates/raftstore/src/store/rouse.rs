//! Waking sleeping groups, and the signs of life that they rely on.
//!
//! Calls between stores:
//! * `SLEEP`: followers here are asked to stop their clocks (`store/hibernate.rs`);
//! * `ROUSE`: does this replica lead? Then it is to wake up and say so to its followers;
//! * `PING`: a sign of life of a node.
//!
//! A sleeping follower has an expired lease and would stand for election at its first tick. So it is
//! not woken before its leader, as long as that one's node is heard: whoever finds it asleep has
//! the leader woken, whose heartbeats then wake it with a fresh lease. It wakes by itself when its
//! leader says that it is none, or nothing.
//!
//! When a node dies, thousands of groups lose their leader at once. In each, one follower stands at
//! once (the range's id says which), and only so many groups at a time; the others wake as voters, or
//! after one more election timeout.

use super::Store;
use super::liveness::{Change, Ping};
use crate::network::Method;
use crate::replica::{Phase, Replica, WakeReason};
use crate::sender::FrameHeader;
use bytes::Bytes;
use futures::StreamExt;
use isotherm_storage::codec;
use isotherm_types::{NodeId, RangeId, ReplicaId};
use openraft::type_config::async_runtime::watch::WatchReceiver;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) const SLEEP: u32 = 104;
const ROUSE: u32 = 105;
const PING: u32 = 106;

/// Elections that orphaned groups hold at a time.
const ELECTIONS_AT_ONCE: usize = 64;
/// Leaders that are woken at once for a node that is there again …
const RETURNS_AT_ONCE: usize = 25;
/// … and the pause after them.
const RETURNS_PAUSE: Duration = Duration::from_millis(50);
/// The node of a leader that is not known.
const NOBODY: NodeId = NodeId(0);
/// What one group's election may take when thousands are due.
const ELECTION_EACH: Duration = Duration::from_millis(3);
const POLL: Duration = Duration::from_millis(10);

const NODE_HEADER: FrameHeader = FrameHeader {
    range: RangeId(0),
    from_replica: ReplicaId(0),
    to_replica: ReplicaId(0),
    method: PING,
};

/// Answers a call that is about sleep or signs of life; `None` if it is not.
pub(super) fn receive(
    store: &Store,
    from: NodeId,
    header: &FrameHeader,
    payload: &Bytes,
) -> Option<Result<Bytes, String>> {
    match header.method {
        SLEEP => Some(store.take_sleep_orders(from, payload)),
        ROUSE => Some(store.rouse(header)),
        PING => Some(store.take_ping(from, payload)),
        _ => None,
    }
}

/// What becomes of a vote or a pre-vote for a sleeping replica.
pub(super) enum Stance {
    /// Consensus answers.
    Answer,
    /// Its leader is well: refused.
    Refuse(&'static str),
}

impl Store {
    fn take_ping(&self, from: NodeId, payload: &Bytes) -> Result<Bytes, String> {
        let ping: Ping = codec::decode(payload).map_err(|e| e.to_string())?;
        self.ctx.liveness.heard(from, ping, Instant::now());
        Ok(codec::encode(&self.ctx.liveness.ping()).into())
    }

    fn rouse(&self, header: &FrameHeader) -> Result<Bytes, String> {
        let replica = self.replica(header.range).ok_or("the range is not here")?;
        let instance = replica.instance.load_full().ok_or("the range is starting")?;
        if replica.id != header.to_replica || instance.leadership().is_none() {
            return Err("this replica does not lead".into());
        }
        if replica.hibernation.is_awake() {
            replica.send_heartbeat();
        } else {
            replica.wake(WakeReason::Asked);
        }
        Ok(Bytes::new())
    }

    /// A vote or a pre-vote came for `replica`.
    pub(super) fn consider(&self, replica: &Arc<Replica>, from: NodeId, method: Method) -> Stance {
        let followers_first = self.ctx.faults.wake_followers_first() == 1;
        match (replica.hibernation.phase(), method) {
            (Phase::Awake, _) | (_, Method::AppendEntries) => Stance::Answer,
            (Phase::Drowsy | Phase::Leading, Method::PreVote) => {
                replica.wake(WakeReason::Vote);
                Stance::Refuse("the leader slept: it wakes")
            }
            (Phase::Following { node, .. }, Method::PreVote)
                if !followers_first
                    && node != from
                    && self.ctx.liveness.is_heard(node, Instant::now()) =>
            {
                replica.nudge_leader();
                Stance::Refuse("the leader's node is heard: the leader is asked first")
            }
            _ => {
                replica.wake(WakeReason::Vote);
                Stance::Answer
            }
        }
    }

    /// Says that this node lives and listens for others, until the store stops.
    pub(super) async fn run_liveness(self: Arc<Self>) {
        let (stop, liveness) = (self.ctx.stop.clone(), &self.ctx.liveness);
        let mut looked = Instant::now();
        while stop.run_until_cancelled(tokio::time::sleep(liveness.interval())).await.is_some() {
            if looked.elapsed() > liveness.interval() + liveness.silence() / 2 {
                liveness.excuse(Instant::now());
            }
            looked = Instant::now();
            for node in liveness.watched() {
                let store = self.clone();
                self.ctx.tasks.spawn(async move { store.ping(node).await });
            }
            for change in liveness.check(looked) {
                match change {
                    Change::Silent(node) => {
                        tracing::info!(node_id = %node, "a node is silent: groups that it leads wake");
                        self.start_succession(node);
                    }
                    Change::Lost(node) => {
                        tracing::info!(node_id = %node, "a node does not answer any more");
                    }
                    Change::Returned(node) => {
                        tracing::info!(node_id = %node, "a node is there again");
                        self.wake_for(node, |leader| !leader.has_everything(node));
                    }
                    Change::Restarted(node) => {
                        tracing::info!(node_id = %node, "a node was started again");
                        self.start_succession(node);
                        self.wake_for(node, |_| true);
                    }
                }
            }
            // Those that fell asleep, or were left, since it fell silent.
            for node in liveness.silent() {
                self.start_succession(node);
            }
        }
    }

    async fn ping(&self, node: NodeId) {
        let liveness = &self.ctx.liveness;
        let payload = codec::encode(&liveness.ping()).into();
        let call = self.ctx.sender.call(node, NODE_HEADER, payload, liveness.silence() / 2);
        let Some(Ok(answer)) = self.ctx.stop.run_until_cancelled(call).await else { return };
        if let Ok(pong) = codec::decode(&answer) {
            liveness.answered(node, pong, Instant::now());
        }
    }

    /// Very many replicas that were started have their elections, after `hold`.
    pub(super) fn begin_elections(self: &Arc<Self>, hold: Duration) {
        let (store, stop) = (self.clone(), self.ctx.stop.clone());
        self.ctx.tasks.spawn(async move {
            if stop.run_until_cancelled(tokio::time::sleep(hold)).await.is_some() {
                store.start_succession(NOBODY);
            }
        });
    }

    /// The groups here that sleep under a leader on `dead` choose others.
    fn start_succession(self: &Arc<Self>, dead: NodeId) {
        let orphans: Vec<_> = {
            let replicas = self.replicas.read();
            let asleep = replicas.values().filter(|r| r.hibernation.is_following());
            asleep.filter(|r| sleeps_under(r, dead)).cloned().collect()
        };
        if orphans.is_empty() || !self.successions.lock().insert(dead) {
            return;
        }
        if self.ctx.faults.no_succession() == 1 {
            return;
        }
        let store = self.clone();
        self.ctx.tasks.spawn(async move {
            let stop = store.ctx.stop.clone();
            stop.run_until_cancelled(store.succeed(dead, orphans)).await;
            store.successions.lock().remove(&dead);
        });
    }

    async fn succeed(&self, dead: NodeId, orphans: Vec<Arc<Replica>>) {
        let begun = Instant::now();
        let (heirs, rest): (Vec<_>, Vec<_>) =
            orphans.into_iter().partition(|replica| is_heir(replica, dead));
        let (groups, others) = (heirs.len(), rest.len());
        let elections = heirs.into_iter().map(|replica| stand_for(replica, dead));
        futures::stream::iter(elections).buffer_unordered(ELECTIONS_AT_ONCE).collect::<()>().await;
        tracing::info!(
            node_id = %dead,
            groups,
            others,
            ms = begun.elapsed().as_millis() as u64,
            "elections in groups that slept are held"
        );
        // The heirs on other nodes take their time, too.
        let patience = self.ctx.liveness.silence() + ELECTION_EACH * others as u32;
        tokio::time::sleep(patience.saturating_sub(begun.elapsed())).await;
        let elections = rest.into_iter().map(|replica| stand_for(replica, dead));
        futures::stream::iter(elections).buffer_unordered(ELECTIONS_AT_ONCE).collect::<()>().await;
    }

    /// Wakes leaders that have a replica on `node` which lacks something, or does not know them. They
    /// sleep again as soon as it has caught up.
    fn wake_for(&self, node: NodeId, needs: impl Fn(&Replica) -> bool) {
        let led: Vec<Arc<Replica>> = {
            let replicas = self.replicas.read();
            let led = replicas.values().filter(|r| r.hibernation.is_leading());
            let there = led.filter(|r| r.descriptor().replica_on(node).is_some() && needs(r));
            there.cloned().collect()
        };
        let stop = self.ctx.stop.clone();
        self.ctx.tasks.spawn(async move {
            for some in led.chunks(RETURNS_AT_ONCE) {
                some.iter().for_each(|replica| replica.wake(WakeReason::Returned));
                let pause = tokio::time::sleep(RETURNS_PAUSE);
                if stop.run_until_cancelled(pause).await.is_none() {
                    return;
                }
            }
        });
    }

    /// Hibernation was switched off.
    pub(super) fn wake_all_leaders(&self) {
        metrics::gauge!("isotherm_replicas_asleep").set(self.asleep() as f64);
        let replicas = self.replicas.read();
        let led = replicas.values().filter(|r| r.hibernation.is_leading());
        led.take(RETURNS_AT_ONCE).for_each(|replica| replica.wake(WakeReason::Disabled));
    }
}

/// Wakes a follower that sleeps under a leader on `dead`, has it stand, and waits a while for a leader.
async fn stand_for(replica: Arc<Replica>, dead: NodeId) {
    if !sleeps_under(&replica, dead) {
        return;
    }
    replica.wake(WakeReason::Silence);
    let Some(instance) = replica.instance.load_full() else { return };
    let term = instance.raft.metrics().borrow_watched().current_term;
    let may_stand = !instance.holds_votes() && replica.may_lead();
    if may_stand && instance.raft.trigger().elect(true).await.is_err() {
        return;
    }
    let deadline = Instant::now() + replica.ctx.liveness.silence();
    let is_led = || {
        let metrics = instance.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.current_term > term && metrics.current_leader.is_some()
    };
    while !is_led() && Instant::now() < deadline {
        tokio::time::sleep(POLL).await;
    }
}

fn sleeps_under(replica: &Replica, dead: NodeId) -> bool {
    matches!(replica.hibernation.phase(), Phase::Following { node, .. } if node == dead)
}

/// Whether this replica is the one to stand first. Every follower sees the same descriptor, and so
/// the same heir.
fn is_heir(replica: &Replica, dead: NodeId) -> bool {
    let descriptor = replica.descriptor();
    let heirs: Vec<ReplicaId> =
        descriptor.voters().filter(|v| v.node != dead).map(|v| v.id).collect();
    match heirs.len() as u64 {
        0 => true,
        n => heirs[(replica.range.get() % n) as usize] == replica.id,
    }
}

impl Replica {
    /// Whether the replica on `node` has all that this leader has.
    fn has_everything(&self, node: NodeId) -> bool {
        let descriptor = self.descriptor();
        let Some(follower) = descriptor.replica_on(node) else { return true };
        let Some(instance) = self.instance.load_full() else { return false };
        let metrics = instance.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched =
            metrics.replication.as_ref().and_then(|m| m.get(&follower.id.get())?.as_ref());
        matched.is_some_and(|matched| Some(matched.index) >= metrics.last_log_index)
    }

    /// Asks the sleeping leader of this sleeping follower to wake up. One that is none, or says
    /// nothing, is not waited for: then this replica wakes itself.
    pub(crate) fn nudge_leader(self: &Arc<Self>) {
        let Phase::Following { leader, node } = self.hibernation.phase() else { return };
        if self.ctx.faults.wake_followers_first() == 1 {
            return self.wake(WakeReason::Leaderless);
        }
        let pause = self.ctx.liveness.silence();
        if !self.is_nudge_due(pause) {
            return;
        }
        let header = FrameHeader {
            range: self.range,
            from_replica: self.id,
            to_replica: leader,
            method: ROUSE,
        };
        let replica = self.clone();
        self.ctx.tasks.spawn(async move {
            let asked = replica.ctx.sender.call(node, header, Bytes::new(), pause / 2).await;
            if asked.is_err() && sleeps_under(&replica, node) {
                replica.wake(WakeReason::Leaderless);
            }
        });
    }
}
