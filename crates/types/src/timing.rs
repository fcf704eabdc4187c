//! The clocks of Raft: one setting for the whole cluster, fixed when it is bootstrapped.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Heartbeat and election times of the data ranges.
///
/// All replicas of a range must agree on these: a leader serves reads under a lease that its
/// followers honour for `election_max_ms`, so a follower with a shorter one could elect another
/// leader while the old one still serves. That is why they are chosen at bootstrap and stored
/// with the cluster, not configured per process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftTiming {
    /// Between two heartbeats of a leader.
    pub heartbeat_ms: u64,
    /// Shortest time without a leader before a follower stands for election.
    pub election_min_ms: u64,
    /// Longest such time, and the longest that a vote is honoured.
    pub election_max_ms: u64,
}

impl RaftTiming {
    /// Few ranges per node: a dead leader is replaced in under 3 s.
    pub const FAST: RaftTiming =
        RaftTiming { heartbeat_ms: 300, election_min_ms: 900, election_max_ms: 1500 };
    /// Hundreds of ranges per node: a third of the timer and heartbeat work.
    pub const RELAXED: RaftTiming =
        RaftTiming { heartbeat_ms: 1000, election_min_ms: 2500, election_max_ms: 3500 };
    /// The meta service's own group: its fail-over pauses all writes.
    pub const META: RaftTiming =
        RaftTiming { heartbeat_ms: 100, election_min_ms: 300, election_max_ms: 500 };

    /// How long a leader may serve reads after a quorum answered: 0.8 of what followers honour,
    /// which leaves room for monotonic clocks whose rates differ by up to 20 %.
    pub fn lease(self) -> Duration {
        Duration::from_millis(self.election_max_ms * 8 / 10)
    }

    /// How long a replica that ever voted keeps from elections after a start: the lease of its
    /// last vote is not on disk, so it waits that out, with a quarter to spare.
    pub fn vote_hold(self) -> Duration {
        Duration::from_millis(self.election_max_ms * 5 / 4)
    }
}
