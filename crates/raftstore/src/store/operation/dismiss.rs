//! Removing a replica that lost a part of its log.
//!
//! Life: its leader finds that it lacks what it acknowledged (`network/promises.rs`) → it is told to
//! abstain, which it syncs: it keeps following, but neither grants nor asks for votes again, since it
//! may have forgotten some → as soon as all others follow closely the members are changed to do
//! without it → its node destroys it when meta says so, and the range gets another one. If the leader
//! changes in between, the replica itself says to the next one what it is (`CONFESS`).

use super::change_members::{Change, condition, hosts, impossible, without_learner};
use crate::replica::Replica;
use crate::sender::FrameHeader;
use crate::store::destroy::put_state;
use crate::store::{RangeError, Store};
use crate::type_config::Membership;
use bytes::Bytes;
use isotherm_storage::StateKind;
use isotherm_task::guarded;
use isotherm_types::{ReplicaId, ReplicaRole};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Do not vote any more: you lack what you acknowledged.
const ABSTAIN: u32 = 131;
/// I lack what I acknowledged, and abstain.
const CONFESS: u32 = 132;

/// Answers a call that is about replicas that lost something; `None` if it is not.
pub(in crate::store) async fn receive(
    store: &Store,
    header: &FrameHeader,
) -> Option<Result<Bytes, String>> {
    if !matches!(header.method, ABSTAIN | CONFESS) {
        return None;
    }
    let replica = store.replica(header.range).filter(|r| r.id == header.to_replica);
    let Some(replica) = replica else { return Some(Err("that replica is not here".into())) };
    Some(match header.method {
        ABSTAIN => store.abstain(&replica).await.map(|()| Bytes::new()).map_err(|e| e.to_string()),
        _ => {
            let is_member = replica.descriptor().replica(header.from_replica).is_some();
            if is_member && replica.status().is_leader {
                replica.lost_its_log(header.from_replica);
            }
            Ok(Bytes::new())
        }
    })
}

impl Store {
    /// Has this replica abstain from now on, also after a restart.
    async fn abstain(&self, replica: &Replica) -> Result<(), RangeError> {
        if replica.abstains() {
            return Ok(());
        }
        let synced = put_state(&self.ctx, replica.key(), StateKind::Lost, vec![1]);
        synced.await.map_err(|e| RangeError::Internal(e.to_string()))?;
        replica.set_abstaining();
        tracing::error!(
            range_id = %replica.range,
            replica_id = %replica.id,
            "this replica lacks what it acknowledged: have the disk checked; it is built again"
        );
        Ok(())
    }

    /// What an abstaining replica, and the leader of such a one, have to do; again and again, until the
    /// range does without it.
    pub(crate) fn tend_lost(self: &Arc<Self>, replica: &Arc<Replica>) {
        if !replica.abstains() && replica.lost.lock().is_empty() {
            return;
        }
        let (store, replica) = (self.clone(), replica.clone());
        // An own task: a change of members can take as long as a node is away.
        self.ctx.tasks.spawn(guarded("removal of a lossy replica", async move {
            let stop = replica.stop.clone();
            let tend = async {
                if replica.abstains() {
                    store.confess(&replica).await;
                }
                store.dismiss_lost(&replica).await;
            };
            stop.run_until_cancelled(tend).await;
        }));
    }

    async fn confess(&self, replica: &Arc<Replica>) {
        let status = replica.status();
        let others = || status.descriptor.voters().filter(|v| v.id != replica.id);
        if status.is_leader {
            for other in others() {
                if self.transfer_leader(replica.range, other.node).await.is_ok() {
                    return;
                }
            }
        } else if let Some(leader) = others().find(|v| Some(v.id) == status.leader_replica) {
            let told = self.ask(replica, (leader.id, leader.node), CONFESS, Bytes::new()).await;
            if let Err(error) = told {
                tracing::debug!(range_id = %replica.range, error = %error, "a lost replica is not heard yet");
            }
        }
    }

    async fn dismiss_lost(&self, replica: &Arc<Replica>) {
        let lost: Vec<ReplicaId> = replica.lost.lock().iter().copied().collect();
        let descriptor = replica.descriptor();
        let mut found: Vec<_> = lost.iter().filter_map(|id| descriptor.replica(*id)).collect();
        // Learners first: while there is one, the voters do not change.
        found.sort_by_key(|r| r.role != ReplicaRole::Learner);
        replica.lost.lock().retain(|id| descriptor.replica(*id).is_some());
        for r in found {
            let told = self.ask(replica, (r.id, r.node), ABSTAIN, Bytes::new()).await;
            let dismissed = self.dismiss(replica, r.id).await;
            match (&told, dismissed) {
                (_, Ok(())) => drop(replica.lost.lock().remove(&r.id)),
                // It says so itself to whoever leads now.
                (Ok(_), Err(RangeError::NotLeader { .. })) if !replica.status().is_leader => {
                    replica.lost.lock().remove(&r.id);
                }
                (_, Err(error)) => {
                    tracing::debug!(range_id = %replica.range, replica_id = %r.id, error = %error, "a lost replica is not removed yet");
                }
            }
        }
    }

    async fn dismiss(&self, replica: &Arc<Replica>, lost: ReplicaId) -> Result<(), RangeError> {
        // Looked at before anything wakes the range for it, again and again.
        if replica.descriptor().voters().filter(|v| v.id != lost).count() < 2 {
            return Err(condition("one voter alone would be no better"));
        }
        let change = Change::begin(replica.clone()).await?;
        let seen = change.look();
        match seen.descriptor.replica(lost).map(|r| r.role) {
            None => return Ok(()),
            Some(ReplicaRole::Learner) => {
                change.propose(&seen, without_learner(&seen.membership, lost)?).await?;
            }
            Some(_) if !seen.descriptor.is_settled() => {
                return Err(condition("the members are changing"));
            }
            Some(_) => {
                let without = without_voter(&seen.membership, lost)?;
                change.check_others(lost)?;
                change.propose(&seen, without).await?;
                change.leave_joint().await?;
            }
        }
        tracing::info!(range_id = %replica.range, replica_id = %lost, "lost replica removed");
        Ok(())
    }
}

impl Change {
    /// Both sets vote for a moment, and the smaller one for good: everybody in it has to be there.
    fn check_others(&self, lost: ReplicaId) -> Result<(), RangeError> {
        let (status, lag_max) = (self.replica.status(), self.replica.ctx.tuning.promote_lag_max);
        let follows = |id: ReplicaId| {
            let is_close = self.lag(id).is_some_and(|lag| lag <= lag_max);
            id == self.replica.id || (status.live_replicas.contains(&id) && is_close)
        };
        let mut others = status.descriptor.voters().filter(|v| v.id != lost);
        match others.find(|v| !follows(v.id)) {
            Some(other) => Err(condition(format!("replica {} does not follow closely", other.id))),
            None => Ok(()),
        }
    }
}

/// Both the voters now and those without `lost`.
fn without_voter(membership: &Membership, lost: ReplicaId) -> Result<Membership, RangeError> {
    let old: BTreeSet<u64> = membership.voter_ids().collect();
    let mut new = old.clone();
    new.remove(&lost.get());
    Membership::new(vec![old, new], hosts(membership)).map_err(impossible)
}
