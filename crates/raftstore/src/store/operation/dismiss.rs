//! Removing a replica that lost a part of its log.
//!
//! Life: its leader finds that it lacks what it acknowledged (`network/promises.rs`) → it is told to
//! abstain, which it syncs: it keeps following, but neither grants nor asks for votes again, since it
//! may have forgotten some → as soon as all others follow closely the members are changed to do
//! without it → its node destroys it when meta says so, and the range gets another one. If the leader
//! changes in between, the replica itself says to the next one what it is (`CONFESS`).
//!
//! A voter abstains only if the other voters, less those that lost something too, are a quorum of every
//! set that votes. Otherwise (two voters) it keeps its vote and its place, and its leader sends it again
//! what it lacks. That is safe: every quorum has it AND all others, so nobody is elected, and nothing
//! is committed, without a replica that forgot nothing; and the members change only by an entry
//! that it has acknowledged, together with everything before. If it abstained, nobody could be
//! elected ever again. One that abstains already, because there were more voters at the time, is told to
//! vote again (`RESUME`). Of a learner nothing depends: it is removed at once and never abstains.

use super::change_members::{Change, condition, hosts, impossible, without_learner};
use crate::replica::Replica;
use crate::sender::{FrameHeader, SendError};
use crate::store::destroy::{put_state, submitted};
use crate::store::quarantine::{DAMAGED, LACKS};
use crate::store::{RangeError, Store};
use crate::type_config::Membership;
use bytes::Bytes;
use isotherm_storage::{LogOp, StateKind};
use isotherm_task::guarded;
use isotherm_types::{ReplicaDescriptor, ReplicaId, ReplicaRole};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Do not vote any more: you lack what you acknowledged.
const ABSTAIN: u32 = 131;
/// I lack what I acknowledged, and abstain.
const CONFESS: u32 = 132;
/// Vote again: there is no quorum without you.
const RESUME: u32 = 133;

/// Answers a call that is about replicas that lost something; `None` if it is not.
pub(in crate::store) async fn receive(
    store: &Store,
    header: &FrameHeader,
    payload: &Bytes,
) -> Option<Result<Bytes, String>> {
    if !matches!(header.method, ABSTAIN | CONFESS | RESUME) {
        return None;
    }
    let replica = store.replica(header.range).filter(|r| r.id == header.to_replica);
    let Some(replica) = replica else { return Some(Err("that replica is not here".into())) };
    Some(match header.method {
        ABSTAIN => store.abstain(&replica).await.map(|()| Bytes::new()).map_err(|e| e.to_string()),
        RESUME => store.resume(&replica, header).await.map(|()| Bytes::new()),
        _ => {
            let is_member = replica.descriptor().replica(header.from_replica).is_some();
            if is_member && replica.status().is_leader {
                match payload.as_ref() {
                    [DAMAGED] => replica.is_reported_damaged(header.from_replica),
                    _ => replica.lost_its_log(header.from_replica),
                }
            }
            Ok(Bytes::new())
        }
    })
}

impl Store {
    /// Has this replica abstain from now on, also after a restart.
    async fn abstain(&self, replica: &Replica) -> Result<(), RangeError> {
        // The votes of one that cannot be read still stand.
        if !replica.may_lead() {
            return Ok(());
        }
        let synced = put_state(&self.ctx, replica.key(), StateKind::Lost, vec![LACKS]);
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
        if replica.may_lead() && replica.lost.lock().is_empty() {
            return;
        }
        let (store, replica) = (self.clone(), replica.clone());
        // An own task: a change of members can take as long as a node is away.
        self.ctx.tasks.spawn(guarded("removal of a lossy replica", async move {
            let stop = replica.stop.clone();
            let tend = async {
                if !replica.may_lead() {
                    store.confess(&replica).await;
                }
                store.dismiss_lost(&replica).await;
            };
            stop.run_until_cancelled(tend).await;
        }));
    }

    async fn confess(self: &Arc<Self>, replica: &Arc<Replica>) {
        let status = replica.status();
        let others = || status.descriptor.voters().filter(|v| v.id != replica.id);
        if status.is_leader {
            for other in others() {
                if self.transfer_leader(replica.range, other.node).await.is_ok() {
                    return;
                }
            }
            if !replica.is_damaged() {
                return;
            }
        }
        let payload = match replica.is_damaged() {
            true => Bytes::from_static(&[DAMAGED]),
            false => Bytes::new(),
        };
        // One that cannot be read may not run either, and then does not know who leads: it tells all, and
        // whoever does takes it.
        let is_told = |id| replica.is_damaged() || Some(id) == status.leader_replica;
        for other in others().filter(|v| is_told(v.id)) {
            let told = self.ask(replica, (other.id, other.node), CONFESS, payload.clone()).await;
            if let Err(error) = told {
                tracing::debug!(range_id = %replica.range, error = %error, "a lost replica is not heard yet");
            }
        }
    }

    /// Has a replica that abstains vote again, at the word of the leader that it follows.
    async fn resume(&self, replica: &Replica, header: &FrameHeader) -> Result<(), String> {
        if !replica.abstains() {
            return Ok(());
        }
        let is_from_leader = replica.status().leader_replica == Some(header.from_replica);
        // Both have to see it: an order that comes late is of another time.
        if !is_from_leader || replica.has_quorum_without(replica.id) {
            return Err("its range can do without it, or that is not its leader".into());
        }
        let (key, kind) = (replica.key(), StateKind::Lost);
        let synced = submitted(&self.ctx, |done| LogOp::DeleteState { replica: key, kind, done });
        synced.await.map_err(|e| e.to_string())?;
        replica.end_abstaining();
        tracing::warn!(range_id = %replica.range, replica_id = %replica.id, "this replica votes again: its range has no quorum without it");
        Ok(())
    }

    async fn dismiss_lost(&self, replica: &Arc<Replica>) {
        let lost: Vec<ReplicaId> = replica.lost.lock().iter().copied().collect();
        let descriptor = replica.descriptor();
        let mut found: Vec<_> = lost.iter().filter_map(|id| descriptor.replica(*id)).collect();
        // Learners first: while there is one, the voters do not change.
        found.sort_by_key(|r| r.role != ReplicaRole::Learner);
        replica.lost.lock().retain(|id| descriptor.replica(*id).is_some());
        for r in found {
            let is_voter = r.role.votes();
            if is_voter && !replica.has_quorum_without(r.id) {
                self.keep_voting(replica, r).await;
                continue;
            }
            let told = if is_voter {
                self.ask(replica, (r.id, r.node), ABSTAIN, Bytes::new()).await.map(drop)
            } else {
                Ok(())
            };
            let dismissed = self.dismiss(replica, r.id).await;
            match (&told, dismissed) {
                (_, Ok(())) => drop(replica.lost.lock().remove(&r.id)),
                // It says so itself to whoever leads now.
                (Ok(()), Err(RangeError::NotLeader { .. })) if !replica.status().is_leader => {
                    replica.lost.lock().remove(&r.id);
                }
                (_, Err(error)) => {
                    tracing::debug!(range_id = %replica.range, replica_id = %r.id, error = %error, "a lost replica is not removed yet");
                }
            }
        }
    }

    /// A voter that lost something and that the range cannot do without. It is forgotten here as soon as it
    /// is known to vote: its leader feeds it already, and one that does not answer is asked again.
    async fn keep_voting(&self, replica: &Arc<Replica>, lost: &ReplicaDescriptor) {
        if replica.status().is_leader {
            let told = self.ask(replica, (lost.id, lost.node), RESUME, Bytes::new()).await;
            // A node of an older version knows no such call: there it abstains until it is told otherwise.
            if let Err(error @ (SendError::Unreachable(_) | SendError::TimedOut)) = told {
                tracing::debug!(range_id = %replica.range, replica_id = %lost.id, error = %error, "a lost replica is not told yet that it votes");
                return;
            }
            tracing::warn!(range_id = %replica.range, replica_id = %lost.id, "a replica that lost a part of its log keeps its vote and is sent it again: the range has no quorum without it");
        }
        replica.lost.lock().remove(&lost.id);
    }

    async fn dismiss(&self, replica: &Arc<Replica>, lost: ReplicaId) -> Result<(), RangeError> {
        // Looked at before anything wakes the range for it, again and again.
        let descriptor = replica.descriptor();
        let is_voter = descriptor.voters().any(|v| v.id == lost);
        if is_voter && descriptor.voters().count() <= 2 {
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

impl Replica {
    /// Whether, in every set that votes, the voters other than `lost` that lost nothing are a quorum.
    fn has_quorum_without(&self, lost: ReplicaId) -> bool {
        let sets = {
            let core = self.core.lock();
            core.applied.membership.membership().get_joint_config().clone()
        };
        let others = self.lost.lock();
        let is_whole = |id: &&u64| **id != lost.get() && !others.contains(&ReplicaId(**id));
        sets.iter().all(|set| {
            !set.contains(&lost.get()) || set.iter().filter(is_whole).count() > set.len() / 2
        })
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
