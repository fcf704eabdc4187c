//! Handing leadership to another member.
//!
//! openraft never takes back an order to transfer: if the target fails, the leader stays mute until
//! the next election. So only a member that has everything is a target, and if leadership does
//! not arrive it is asked to stand for election.

use crate::group::Group;
use crate::group::applied::Machine;
use crate::group::instance::Instance;
use crate::group::receive::CAMPAIGN;
use crate::network::CampaignOrder;
use crate::sender::FrameHeader;
use isotherm_types::{NodeId, ReplicaId};
use openraft::type_config::async_runtime::watch::WatchReceiver;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(5);

impl<M: Machine> Group<M> {
    /// Hands leadership to whichever member follows most closely, if this member leads and there
    /// is one. Returns when it no longer leads, or after it waited in vain.
    pub async fn transfer_away(&self) {
        let Ok(instance) = self.running() else { return };
        let Ok(leadership) = instance.raft.as_leader().map(|l| l.to_committed_leader_id()) else {
            return;
        };
        let patience = Duration::from_millis(self.timing.election_max_ms);
        let deadline = Instant::now() + patience;
        let target = loop {
            match self.closest(&instance) {
                Some((target, true)) => break target,
                _ if Instant::now() >= deadline => return,
                _ => tokio::time::sleep(POLL).await,
            }
        };
        if instance.raft.trigger().transfer_leader(target).await.is_err() {
            return;
        }
        if self.lost_leadership(&instance, patience).await {
            return;
        }
        tracing::warn!(target_member = target, "hand-over late, asking for an election");
        let order = CampaignOrder { term: leadership.term }.encode();
        let header = FrameHeader {
            range: self.key.range,
            from_replica: self.key.replica,
            to_replica: ReplicaId(target),
            method: CAMPAIGN,
        };
        let asked = self.sender.call(NodeId(target), header, order, patience).await;
        if let Err(error) = asked {
            tracing::warn!(error = %error, "the member does not stand for election");
        }
        self.lost_leadership(&instance, patience * 2).await;
    }

    /// The voter that follows most closely, and whether it has everything.
    fn closest(&self, instance: &Instance<M>) -> Option<(u64, bool)> {
        let metrics = instance.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let matched = metrics.replication.as_ref()?;
        let index = |id: &u64| matched.get(id).and_then(|m| m.as_ref().map(|m| m.index));
        let others = membership.voter_ids().filter(|id| *id != self.member.get());
        let closest = others.max_by_key(index)?;
        Some((closest, index(&closest) >= metrics.last_log_index))
    }

    async fn lost_leadership(&self, instance: &Instance<M>, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while instance.raft.is_leader() {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }
}
