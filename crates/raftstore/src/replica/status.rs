//! What a replica says of itself.

use super::Replica;
use isotherm_types::{RangeDescriptor, ReplicaId};
use openraft::Instant as _;
use openraft::type_config::async_runtime::watch::WatchReceiver;
use std::time::Duration;

/// A replica as status, heartbeats and metrics see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// The applied descriptor.
    pub descriptor: RangeDescriptor,
    /// Which replica this is.
    pub replica: ReplicaId,
    /// Whether it leads.
    pub is_leader: bool,
    /// Who leads, as far as it knows.
    pub leader_replica: Option<ReplicaId>,
    /// Its term.
    pub term: u64,
    /// Last applied entry.
    pub applied_index: u64,
    /// What survives a crash without the log.
    pub durable_index: u64,
    /// First entry still in the log.
    pub first_log_index: u64,
    /// Last entry in the log.
    pub last_log_index: u64,
    /// If it leads: the replicas that answered lately, itself included.
    pub live_replicas: Vec<ReplicaId>,
}

/// A sleeping replica with an equal mark has an equal status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaMark {
    is_leader: bool,
    /// Phases so far.
    changes: u64,
    /// What was heard of nodes.
    nodes: u64,
}

impl ReplicaMark {
    /// Whether it leads.
    pub fn is_leader(&self) -> bool {
        self.is_leader
    }
}

impl Replica {
    /// A sleeping replica's mark; `None`: it is awake, look at its status.
    pub fn mark(&self) -> Option<ReplicaMark> {
        let hibernation = &self.hibernation;
        hibernation.is_asleep().then(|| ReplicaMark {
            is_leader: hibernation.is_leading(),
            changes: hibernation.changes(),
            nodes: if hibernation.is_leading() { self.ctx.liveness.changes() } else { 0 },
        })
    }

    /// A look at this replica now. Cheap: nothing is read from disk.
    pub fn status(&self) -> ReplicaStatus {
        let descriptor = (*self.descriptor()).clone();
        let mut status = ReplicaStatus {
            replica: self.id,
            is_leader: false,
            leader_replica: None,
            term: 0,
            applied_index: self.applied_index(),
            durable_index: self.durable_index(),
            first_log_index: 0,
            last_log_index: 0,
            live_replicas: Vec::new(),
            descriptor,
        };
        let Some(instance) = self.instance.load_full() else { return status };
        let metrics = instance.raft.metrics();
        let metrics = metrics.borrow_watched();
        status.is_leader = metrics.state.is_leader();
        status.leader_replica = metrics.current_leader.map(ReplicaId);
        status.term = metrics.current_term;
        status.first_log_index = instance.log.first_index();
        status.last_log_index = metrics.last_log_index.unwrap_or(0);
        if status.is_leader {
            let lately = Duration::from_millis(2 * self.ctx.timing.election_max_ms);
            // While it slept nobody sent heartbeats, and in the first moments of a range nobody has
            // answered one: then a replica is as alive as its node.
            let slept = self.slept_within(lately) || instance.built.elapsed() < lately;
            let node_answers = |id: u64| {
                let host = status.descriptor.replica(ReplicaId(id));
                host.is_some_and(|host| self.ctx.liveness.answers(host.node))
            };
            let heard = metrics.heartbeat.iter().flatten().filter(|(id, at)| {
                **id == self.id.get()
                    || at.is_some_and(|at| at.elapsed() < lately)
                    || (slept && node_answers(**id))
            });
            status.live_replicas = heard.map(|(id, _)| ReplicaId(*id)).collect();
            if !status.live_replicas.contains(&self.id) {
                status.live_replicas.push(self.id);
            }
        }
        status
    }
}
