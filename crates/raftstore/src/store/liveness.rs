//! Whether other nodes live: one small call per pair of nodes, instead of heartbeats of each group.
//!
//! A node asks every node that has followers of its sleeping groups, again and again, and an answer
//! shows that the way there and back works. Being asked is, for a sleeping follower, what its leader's
//! heartbeats are for one that is awake; the answer is, for a sleeping leader, what theirs are. The
//! calls go the way of those heartbeats, so a node that is stopped, paused or cut off is silent in
//! the same way, whatever its connections look like.
//!
//! To ensure correctness: nothing here grants or extends a lease. A wrong word costs an election, or
//! delays one.

use isotherm_types::{NodeId, RaftTiming};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A cluster with slow clocks must still notice a node that died within seconds.
const SILENCE_MAX: Duration = Duration::from_millis(1500);
const INTERVAL_MAX: Duration = Duration::from_millis(400);

/// A sign of life, and the answer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ping {
    /// Which start of the sender's store this is.
    pub boot: u64,
}

/// What changed about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It asks no more: leaders on it are as good as gone.
    Silent(NodeId),
    /// It answers no more.
    Lost(NodeId),
    /// It answers again.
    Returned(NodeId),
    /// It was started again: what it led it leads no more, and it knows of no leader.
    Restarted(NodeId),
}

#[derive(Debug)]
struct Peer {
    /// Whether it is asked by this node.
    is_watched: bool,
    /// When it last asked, if that is expected of it.
    heard: Option<Instant>,
    /// When it was asked first, or answered last.
    answered: Instant,
    has_answered: bool,
    /// Which start of its store was heard of last; 0: none.
    boot: u64,
    is_silent: bool,
    is_lost: bool,
    /// It was started again since the last look.
    has_restarted: bool,
}

impl Peer {
    fn new(now: Instant) -> Self {
        Self {
            is_watched: false,
            heard: None,
            answered: now,
            has_answered: false,
            boot: 0,
            is_silent: false,
            is_lost: false,
            has_restarted: false,
        }
    }

    fn note_boot(&mut self, boot: u64) {
        self.has_restarted |= self.boot != 0 && self.boot != boot;
        self.boot = boot;
    }
}

/// What one store knows of the other nodes.
#[derive(Debug)]
pub(crate) struct Liveness {
    /// Which start of this store it is.
    boot: u64,
    silence: Duration,
    interval: Duration,
    peers: Mutex<HashMap<NodeId, Peer>>,
    changes: AtomicU64,
}

impl Liveness {
    /// Nobody is known yet.
    pub fn new(timing: RaftTiming) -> Self {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let silence = Duration::from_millis(timing.election_max_ms).min(SILENCE_MAX);
        Self {
            boot: since_epoch.map_or(1, |d| d.as_nanos() as u64),
            silence,
            interval: Duration::from_millis(timing.heartbeat_ms).min(INTERVAL_MAX),
            peers: Mutex::default(),
            changes: AtomicU64::new(0),
        }
    }

    /// Between two signs of life.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// A node that asked nothing for that long is silent: one election timeout.
    pub fn silence(&self) -> Duration {
        self.silence
    }

    /// A node that answered nothing for that long is lost.
    fn loss(&self) -> Duration {
        self.silence * 2
    }

    /// What this store says of itself.
    pub(super) fn ping(&self) -> Ping {
        Ping { boot: self.boot }
    }

    /// How often the answer to "who is there" changed.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// From now on `node` is asked for signs of life.
    pub fn watch(&self, node: NodeId, now: Instant) {
        let mut peers = self.peers.lock();
        let peer = peers.entry(node).or_insert_with(|| Peer::new(now));
        if !peer.is_watched {
            peer.is_watched = true;
            peer.answered = now;
        }
    }

    /// The nodes to ask.
    pub fn watched(&self) -> Vec<NodeId> {
        self.peers.lock().iter().filter(|(_, p)| p.is_watched).map(|(node, _)| *node).collect()
    }

    /// `node` asked.
    pub(super) fn heard(&self, node: NodeId, ping: Ping, now: Instant) {
        let mut peers = self.peers.lock();
        let peer = peers.entry(node).or_insert_with(|| Peer::new(now));
        peer.heard = Some(now);
        peer.note_boot(ping.boot);
    }

    /// `node` answered.
    pub(super) fn answered(&self, node: NodeId, pong: Ping, now: Instant) {
        let mut peers = self.peers.lock();
        let Some(peer) = peers.get_mut(&node) else { return };
        (peer.answered, peer.has_answered) = (now, true);
        peer.note_boot(pong.boot);
    }

    /// Whether `node` asked so lately that its leaders cannot be gone, as far as anybody here knows.
    pub fn is_heard(&self, node: NodeId, now: Instant) -> bool {
        let heard = self.peers.lock().get(&node).and_then(|p| p.heard);
        heard.is_some_and(|at| now.saturating_duration_since(at) < self.silence * 2 / 3)
    }

    /// Whether `node` answers.
    pub fn answers(&self, node: NodeId) -> bool {
        let peers = self.peers.lock();
        peers.get(&node).is_some_and(|p| p.is_watched && p.has_answered && !p.is_lost)
    }

    /// Whether `node` was asked for long, in vain.
    pub fn is_lost(&self, node: NodeId) -> bool {
        self.peers.lock().get(&node).is_some_and(|p| p.is_watched && p.is_lost)
    }

    /// The nodes that ask no more.
    pub fn silent(&self) -> Vec<NodeId> {
        self.peers.lock().iter().filter(|(_, p)| p.is_silent).map(|(node, _)| *node).collect()
    }

    /// This process itself stood still: silence in that time says nothing of the others.
    pub fn excuse(&self, now: Instant) {
        for peer in self.peers.lock().values_mut() {
            if !peer.is_silent {
                peer.heard = peer.heard.map(|_| now);
            }
            if !peer.is_lost {
                peer.answered = now;
            }
        }
    }

    /// Looks at the clock: what changed since the last look.
    pub(super) fn check(&self, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        for (node, peer) in self.peers.lock().iter_mut() {
            let within = |at: Instant, limit| now.saturating_duration_since(at) < limit;
            let restarted = std::mem::take(&mut peer.has_restarted);
            let silent = peer.heard.is_some_and(|at| !within(at, self.silence));
            if silent && !peer.is_silent {
                changes.push(Change::Silent(*node));
            }
            peer.is_silent = silent;
            let lost = peer.is_watched && !within(peer.answered, self.loss());
            if lost && !peer.is_lost {
                changes.push(Change::Lost(*node));
            } else if peer.is_lost && !lost && !restarted {
                changes.push(Change::Returned(*node));
            }
            if restarted {
                changes.push(Change::Restarted(*node));
            }
            peer.is_lost = lost;
        }
        if !changes.is_empty() {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: NodeId = NodeId(2);
    const BOOT: Ping = Ping { boot: 5 };

    fn liveness() -> (Liveness, Instant) {
        let timing = RaftTiming { heartbeat_ms: 100, election_min_ms: 400, election_max_ms: 700 };
        (Liveness::new(timing), Instant::now())
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_node_that_asks_no_more_is_silent_after_one_election_timeout() {
        let (liveness, start) = liveness();
        assert_eq!(liveness.check(start + ms(9000)), [], "nothing is expected of a stranger");
        liveness.heard(N, BOOT, start);
        assert!(liveness.is_heard(N, start + ms(400)));
        assert!(!liveness.is_heard(N, start + ms(500)), "its voters doubt before others stand");
        assert_eq!(liveness.check(start + ms(699)), []);
        assert_eq!(liveness.check(start + ms(700)), [Change::Silent(N)]);
        assert_eq!(liveness.silent(), [N]);
        assert_eq!(liveness.check(start + ms(800)), [], "said once");
        liveness.heard(N, BOOT, start + ms(900));
        assert_eq!(liveness.check(start + ms(900)), []);
        assert_eq!(liveness.silent(), []);
    }

    #[test]
    fn a_node_that_does_not_answer_is_lost_and_returns() {
        let (liveness, start) = liveness();
        liveness.watch(N, start);
        assert!(!liveness.answers(N), "it never did");
        liveness.answered(N, BOOT, start);
        assert!(liveness.answers(N));
        assert_eq!(liveness.check(start + ms(1400)), [Change::Lost(N)]);
        assert!(liveness.is_lost(N) && !liveness.answers(N));
        liveness.answered(N, BOOT, start + ms(2000));
        assert_eq!(liveness.check(start + ms(2000)), [Change::Returned(N)]);
        assert!(liveness.answers(N));
    }

    #[test]
    fn a_node_that_was_started_again_leads_nothing_and_has_to_be_told() {
        let (liveness, start) = liveness();
        liveness.watch(N, start);
        liveness.heard(N, BOOT, start);
        liveness.answered(N, BOOT, start);
        assert_eq!(liveness.check(start), []);
        liveness.heard(N, Ping { boot: 6 }, start + ms(100));
        let changes = liveness.check(start + ms(100));
        assert_eq!(changes, [Change::Restarted(N)]);
        assert_eq!(liveness.check(start + ms(100)), []);
    }

    #[test]
    fn a_process_that_stood_still_blames_nobody() {
        let (liveness, start) = liveness();
        liveness.watch(N, start);
        liveness.heard(N, BOOT, start);
        liveness.answered(N, BOOT, start);
        liveness.excuse(start + ms(5000));
        assert_eq!(liveness.check(start + ms(5000)), []);
        assert_eq!(liveness.check(start + ms(5700)), [Change::Silent(N)]);
    }
}
