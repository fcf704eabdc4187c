//! What the RPCs and the tasks of a member share.

use crate::machine::{Command, Founding, MetaMachine, NodeIntent, Reply};
use crate::operations::Notes;
use crate::oracle::Oracle;
use crate::registry::{Holds, LIFETIME, Pool, Registry};
use crate::scheduling::Journal;
use isotherm_proto::WireError;
use isotherm_proto::internal as pb;
use isotherm_proto::internal::error::Code;
use isotherm_raftstore::{Group, GroupError};
use isotherm_scheduler::{ClusterView, Scheduler};
use isotherm_transport::Peers;
use isotherm_types::NodeId;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Notify, watch};

/// One member. `registry`, `pool` and `holds` are the leader's: what they hold on another member is from
/// when it last led.
pub(crate) struct Meta {
    pub(crate) me: NodeId,
    /// All members with their addresses, by id.
    pub(crate) members: Vec<(NodeId, String)>,
    /// What this member was configured with; counts only if it founds the cluster.
    pub(crate) configured: Founding,
    pub(crate) group: Arc<Group<MetaMachine>>,
    pub(crate) oracle: Oracle,
    /// The links to the other members.
    pub(crate) peers: Peers,
    pub(crate) registry: Mutex<Registry>,
    pub(crate) pool: Mutex<Pool>,
    pub(crate) holds: Mutex<Holds>,
    /// When the leader last asked itself how far the safe point may go.
    pub(crate) safe_point_seen_to: Mutex<Option<Instant>>,
    /// Whether the disk of this member has little room.
    pub(crate) is_disk_full: watch::Sender<bool>,
    /// The term in which this member leads and has applied everything of earlier ones; else 0.
    pub(crate) serving: watch::Sender<u64>,
    /// Wakes the leader's task.
    pub(crate) news: Notify,
    /// The leader's, of operations.
    pub(crate) notes: Notes,
    /// The leader's: what is decided, what was, and of which view.
    pub(crate) scheduler: Mutex<Scheduler>,
    pub(crate) journal: Mutex<Journal>,
    pub(crate) seen: Mutex<Option<ClusterView>>,
    /// Since when a new cluster has had the nodes that it waits for.
    pub(crate) nodes_complete: Mutex<Option<Instant>>,
}

/// A refusal that names the leader.
pub(crate) fn not_leader(leader: Option<NodeId>) -> WireError {
    let message = match leader {
        Some(leader) => format!("this meta member does not lead, member {} does", leader.get()),
        None => "no leader of the meta service is known".to_owned(),
    };
    let mut error = WireError::new(Code::NotLeader, message);
    error.0.leader_node = leader.map_or(0, NodeId::get);
    error
}

fn group_error(error: GroupError) -> WireError {
    match error {
        GroupError::NotLeader { leader } => not_leader(leader),
        GroupError::Indeterminate => {
            WireError::new(Code::Indeterminate, "the meta service may or may not have done it")
        }
        GroupError::DiskFull => {
            WireError::new(Code::DiskFull, "the disk of the leader of the meta service is full")
        }
        GroupError::Stopped => WireError::new(Code::Unavailable, "this meta member is stopping"),
        GroupError::TimedOut => WireError::new(
            Code::Unavailable,
            "the leader of the meta service does not reach a quorum of its members",
        ),
    }
}

impl Meta {
    pub(crate) fn new(
        me: NodeId,
        members: Vec<(NodeId, String)>,
        configured: Founding,
        group: Arc<Group<MetaMachine>>,
        oracle: Oracle,
        peers: Peers,
    ) -> Self {
        Self {
            me,
            members,
            configured,
            group,
            oracle,
            peers,
            registry: Mutex::new(Registry::new(Instant::now())),
            pool: Mutex::default(),
            holds: Mutex::new(Holds::new(Instant::now(), LIFETIME)),
            safe_point_seen_to: Mutex::default(),
            is_disk_full: watch::Sender::new(false),
            serving: watch::Sender::new(0),
            news: Notify::new(),
            notes: Notes::default(),
            scheduler: Mutex::default(),
            journal: Mutex::default(),
            seen: Mutex::new(None),
            nodes_complete: Mutex::new(None),
        }
    }

    /// The term in which this member leads and may answer; otherwise who does.
    pub(crate) fn leading(&self) -> Result<u64, WireError> {
        let leadership = *self.group.leadership().borrow();
        if !leadership.is_leader {
            let other = leadership.leader.filter(|leader| *leader != self.me);
            return Err(not_leader(other));
        }
        if !self.group.is_acknowledged() {
            // Whoever asks looks for the one that the others may have elected meanwhile.
            return Err(not_leader(None));
        }
        if *self.serving.borrow() != leadership.term {
            let mut error =
                WireError::new(Code::Unavailable, "this meta member is just taking over");
            error.0.retry_after_ms = 50;
            return Err(error);
        }
        Ok(leadership.term)
    }

    /// Who leads, as far as this member may say so: of itself only while a quorum acknowledges it.
    pub(crate) fn known_leader(&self) -> Option<NodeId> {
        let leadership = *self.group.leadership().borrow();
        leadership.leader.filter(|_| !leadership.is_leader || self.group.is_acknowledged())
    }

    /// Like [`Meta::leading`], and confirmed by a quorum.
    pub(crate) async fn confirmed_leading(&self) -> Result<u64, WireError> {
        self.leading()?;
        self.group.confirm_leadership().await.map_err(group_error)
    }

    /// Proposes `command`; with a term, only as the leader of that term. One that members of an older
    /// software would not know is refused until the cluster version allows it.
    pub(crate) async fn propose(
        &self,
        command: Command,
        term: Option<u64>,
    ) -> Result<Reply, WireError> {
        let (since, version) = (command.since(), self.group.machine().read().version());
        if since > version && !matches!(command, Command::RaiseVersion { .. }) {
            let why = format!(
                "this needs cluster version {since}, and the cluster is at {version}: finish the \
                 upgrade with `isotherm upgrade finalize`"
            );
            return Err(WireError::new(Code::Condition, why));
        }
        let command = command.encode();
        check_command(command.len())?;
        let reply = self.group.propose(command.into(), term).await;
        let reply = reply.map_err(group_error)?;
        isotherm_storage::codec::decode::<Reply, _>(&reply).map_err(|error| {
            tracing::error!(%error, "the reply of the meta machine cannot be read");
            WireError::new(Code::Internal, "the reply of the meta machine cannot be read")
        })
    }

    /// The members as messages.
    pub(crate) fn member_list(&self) -> Vec<pb::Member> {
        let member = |(id, address): &(NodeId, String)| pb::Member {
            id: id.get(),
            address: address.clone(),
        };
        self.members.iter().map(member).collect()
    }

    /// Where the nodes are, all but those that are gone for good.
    pub(crate) fn node_addresses(&self) -> Vec<pb::NodeAddress> {
        let machine = self.group.machine().read();
        let is_gone = |id| machine.intent(id) == NodeIntent::Decommissioned;
        let nodes = machine.nodes().iter().filter(|(id, _)| !is_gone(**id));
        nodes
            .map(|(id, record)| pb::NodeAddress {
                id: id.get(),
                address: record.details.address.clone(),
                incarnation: record.incarnation.get(),
            })
            .collect()
    }
}

/// Refuses what all members would have to keep and to send: before it is proposed.
fn check_command(bytes: usize) -> Result<(), WireError> {
    let max = isotherm_types::limits::META_COMMAND_BYTES_MAX;
    if bytes <= max {
        return Ok(());
    }
    let why = format!("a change of {bytes} bytes cannot be agreed on: the limit is {max}");
    Err(WireError::new(isotherm_proto::internal::error::Code::TooLarge, why))
}

#[cfg(test)]
mod size_tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_command_of_one_byte_more_is_not_proposed() {
        let max = isotherm_types::limits::META_COMMAND_BYTES_MAX;
        assert!(check_command(max).is_ok());
        let refused = check_command(max + 1).unwrap_err().to_string();
        assert!(refused.contains("8388609 bytes") && refused.contains("8388608"), "{refused}");
    }
}
