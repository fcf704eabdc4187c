//! Changing the members of a range: adding a learner, replacing a voter, removing a learner.
//!
//! Each step is one membership entry, proposed under the leadership held when the step was checked
//! and only if the membership is still the one that was looked at. `conf_ver` counts membership
//! entries, so that precondition is its check; the version half is checked here, and an entry that
//! would change it is refused at apply while the members change.
//!
//! Replacing a voter: learner has (nearly) everything → leadership handed over if it is this
//! leader that goes → both sets vote → the new set alone. If the leader dies in between, the next
//! one finishes it ([`Store::settle_members`]): forward, because the old set may lack a node by now.

use crate::replica::{Instance, Replica, is_joint, uniform};
use crate::store::{RangeError, Store};
use crate::type_config::{
    ClientWriteError, CommittedLeaderId, EntryPayload, Host, LogId, Membership, TypeConfig,
};
use isotherm_types::limits::REPLICAS_MAX;
use isotherm_types::{
    NodeId, RangeDescriptor, RangeEpoch, RangeId, ReplicaDescriptor, ReplicaId, ReplicaRole,
};
use openraft::errors::RaftError;
use openraft::raft::Precondition;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The right to change the members of a range, and what was looked at before.
pub(super) struct Change {
    pub(super) replica: Arc<Replica>,
    instance: Arc<Instance>,
    leadership: CommittedLeaderId,
}

impl Drop for Change {
    fn drop(&mut self) {
        self.replica.changing.store(false, Ordering::Release);
    }
}

/// What a change starts from: of one moment.
pub(super) struct Seen {
    pub(super) descriptor: Arc<RangeDescriptor>,
    at: Option<LogId>,
    pub(super) membership: Membership,
}

pub(super) fn condition(why: impl Into<String>) -> RangeError {
    RangeError::Condition(why.into())
}

impl Change {
    pub(super) async fn begin(replica: Arc<Replica>) -> Result<Self, RangeError> {
        let Some(instance) = replica.instance.load_full() else {
            return Err(RangeError::NotLeader { leader: None });
        };
        let leadership = instance.leadership().filter(|_| !replica.is_transferring());
        let Some(leadership) = leadership else { return Err(replica.not_leader(&instance)) };
        if replica.changing.swap(true, Ordering::AcqRel) {
            return Err(condition("another change of members is just running"));
        }
        let change = Self { replica, instance, leadership };
        if change.replica.is_frozen() {
            return Err(condition("the range is about to be merged"));
        }
        change.replica.touch();
        if change.replica.hibernation.has_lapsed() {
            change.replica.confirm_leadership().await?;
        }
        Ok(change)
    }

    pub(super) fn look(&self) -> Seen {
        let core = self.replica.core.lock();
        let stored = &core.applied.membership;
        Seen {
            descriptor: core.descriptor.clone(),
            at: *stored.log_id(),
            membership: stored.membership().clone(),
        }
    }

    /// Proposes `next` in the place of what was `seen`; the descriptor after it is applied here.
    pub(super) async fn propose(
        &self,
        seen: &Seen,
        next: Membership,
    ) -> Result<Arc<RangeDescriptor>, RangeError> {
        let unchanged: [Precondition<TypeConfig>; 2] = [
            Precondition::LastMembershipLogId { last_membership_log_id: seen.at },
            Precondition::CommittedLeaderId { committed_leader_id: self.leadership },
        ];
        let raft = &self.instance.raft;
        let done = raft.append_membership(next, EntryPayload::Blank, unchanged).await;
        match done {
            Ok(_) => Ok(self.replica.descriptor()),
            Err(RaftError::Fatal(_)) => Err(RangeError::Indeterminate),
            Err(RaftError::APIError(error)) => Err(match error {
                ClientWriteError::ForwardToLeader(_) => self.replica.not_leader(&self.instance),
                ClientWriteError::ChangeMembershipError(error) => {
                    condition(format!("the members cannot be changed at this moment: {error}"))
                }
                ClientWriteError::PreconditionFailed(_) => self.replica.epoch_mismatch(),
                _ => RangeError::Indeterminate,
            }),
        }
    }

    /// How many entries `follower` is behind; none if it never answered.
    pub(super) fn lag(&self, follower: ReplicaId) -> Option<u64> {
        use openraft::type_config::async_runtime::watch::WatchReceiver;
        let metrics = self.instance.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref()?.get(&follower.get())?.as_ref()?.index;
        Some(metrics.last_log_index.unwrap_or(0).saturating_sub(matched))
    }
}

pub(super) fn hosts(membership: &Membership) -> BTreeMap<u64, Host> {
    membership.nodes().map(|(id, host)| (*id, *host)).collect()
}

pub(super) fn impossible(error: impl std::fmt::Display) -> RangeError {
    RangeError::Internal(format!("an impossible membership: {error}"))
}

/// Refuses a replica that is one too many.
fn check_replicas(range: RangeId, count: usize) -> Result<(), RangeError> {
    if count <= REPLICAS_MAX {
        return Ok(());
    }
    Err(condition(format!("{range} would have {count} replicas: the limit is {REPLICAS_MAX}")))
}

/// `membership` with one more learner.
fn with_learner(
    membership: &Membership,
    id: ReplicaId,
    node: NodeId,
) -> Result<Membership, RangeError> {
    let mut hosts = hosts(membership);
    hosts.insert(id.get(), Host::from(node));
    Membership::new(membership.get_joint_config().clone(), hosts).map_err(impossible)
}

/// `membership` without the learner `id`.
pub(super) fn without_learner(
    membership: &Membership,
    id: ReplicaId,
) -> Result<Membership, RangeError> {
    let mut hosts = hosts(membership);
    hosts.remove(&id.get());
    Membership::new(membership.get_joint_config().clone(), hosts).map_err(impossible)
}

/// Both the voters now and those with `promote` in the place of `drop` (0: of none).
fn joint(
    membership: &Membership,
    promote: ReplicaId,
    drop: ReplicaId,
) -> Result<Membership, RangeError> {
    let old: BTreeSet<u64> = membership.voter_ids().collect();
    let mut new = old.clone();
    new.remove(&drop.get());
    new.insert(promote.get());
    Membership::new(vec![old, new], hosts(membership)).map_err(impossible)
}

impl Store {
    async fn begin_change(
        &self,
        range: RangeId,
        epoch: RangeEpoch,
    ) -> Result<(Change, Seen), RangeError> {
        let change = Change::begin(self.find(range)?).await?;
        let seen = change.look();
        if seen.descriptor.epoch != epoch {
            return Err(change.replica.epoch_mismatch());
        }
        Ok((change, seen))
    }

    /// Adds the replica `id` on `node` to `range` as a learner and has it created there. `id` is
    /// fresh: above every id that the range has had. One that is there already is left alone.
    pub async fn add_learner(
        &self,
        range: RangeId,
        epoch: RangeEpoch,
        node: NodeId,
        id: ReplicaId,
    ) -> Result<RangeDescriptor, RangeError> {
        let (change, seen) = self.begin_change(range, epoch).await?;
        let descriptor = &seen.descriptor;
        if descriptor.replica(id).is_some_and(|r| r.node == node) {
            return Ok((**descriptor).clone());
        }
        if id < descriptor.next_replica_id {
            return Err(condition(format!("replica id {id} of {range} was given before")));
        }
        if descriptor.replica_on(node).is_some() {
            return Err(condition(format!("{range} has a replica on {node} already")));
        }
        if !descriptor.is_settled() {
            return Err(condition(format!("the members of {range} are changing")));
        }
        check_replicas(range, descriptor.replicas.len() + 1)?;
        let next = with_learner(&seen.membership, id, node)?;
        let descriptor = change.propose(&seen, next).await?;
        // If this does not arrive, the next round of tending does it.
        self.ask_to_create(&change.replica, id).await;
        Ok((*descriptor).clone())
    }

    /// Makes the learner `promote` a voter in the place of the voter `drop` (0: of none).
    pub async fn change_replicas(
        self: &Arc<Self>,
        range: RangeId,
        epoch: RangeEpoch,
        promote: ReplicaId,
        drop: ReplicaId,
    ) -> Result<RangeDescriptor, RangeError> {
        let (change, seen) = self.begin_change(range, epoch).await?;
        let descriptor = &seen.descriptor;
        let role = |id| descriptor.replica(id).map(|r| r.role);
        match (role(promote), role(drop)) {
            (Some(ReplicaRole::Voter), None) => return Ok((**descriptor).clone()),
            (Some(ReplicaRole::Incoming), Some(ReplicaRole::Outgoing)) => {
                if drop == change.replica.id {
                    return Err(self.hand_over_to_stay(&change, &[drop]).await);
                }
                return change.leave_joint().await;
            }
            (Some(ReplicaRole::Incoming), None) if drop.get() == 0 => {
                return change.leave_joint().await;
            }
            (Some(ReplicaRole::Learner), None) if drop.get() == 0 => {}
            (Some(ReplicaRole::Learner), Some(ReplicaRole::Voter)) => {}
            (promote_is, drop_is) => {
                return Err(condition(format!(
                    "of {range}, replica {promote} must be a learner and {drop} a voter; they are \
                     {promote_is:?} and {drop_is:?}"
                )));
            }
        }
        if change.replica.lost.lock().contains(&promote) {
            return Err(condition(format!("replica {promote} of {range} lost a part of its log")));
        }
        self.wait_for_learner(&change, promote).await?;
        if drop == change.replica.id {
            return Err(self.hand_over_to_stay(&change, &[drop]).await);
        }
        change.propose(&seen, joint(&seen.membership, promote, drop)?).await?;
        self.ctx.faults.joint_entered().await;
        change.leave_joint().await
    }

    /// Removes the learner `id`; one that is not there is fine.
    pub async fn remove_learner(
        &self,
        range: RangeId,
        epoch: RangeEpoch,
        id: ReplicaId,
    ) -> Result<RangeDescriptor, RangeError> {
        let (change, seen) = self.begin_change(range, epoch).await?;
        match seen.descriptor.replica(id).map(|r| r.role) {
            None => Ok((*seen.descriptor).clone()),
            Some(ReplicaRole::Learner) => {
                let next = without_learner(&seen.membership, id)?;
                Ok((*change.propose(&seen, next).await?).clone())
            }
            Some(role) => Err(condition(format!("replica {id} of {range} is {role:?}: it votes"))),
        }
    }

    /// Waits a moment until the learner lacks little enough to vote.
    async fn wait_for_learner(
        &self,
        change: &Change,
        learner: ReplicaId,
    ) -> Result<(), RangeError> {
        let patience = Duration::from_millis(self.ctx.timing.election_max_ms);
        let lag_max = self.ctx.tuning.promote_lag_max;
        let close = || change.lag(learner).is_some_and(|lag| lag <= lag_max);
        if super::wait_until(patience, close).await {
            return Ok(());
        }
        Err(condition(match change.lag(learner) {
            Some(lag) => format!("the learner {learner} is {lag} entries behind"),
            None => format!("the learner {learner} has not answered yet"),
        }))
    }

    /// Hands leadership to a replica that stays a voter; the error says who leads now.
    async fn hand_over_to_stay(
        self: &Arc<Self>,
        change: &Change,
        leaving: &[ReplicaId],
    ) -> RangeError {
        let descriptor = change.replica.descriptor();
        let me = change.replica.id;
        let is_whole = |id| !change.replica.lost.lock().contains(&id);
        let stays = |r: &&ReplicaDescriptor| {
            r.role.may_lead() && r.id != me && !leaving.contains(&r.id) && is_whole(r.id)
        };
        let closest = descriptor
            .replicas
            .iter()
            .filter(stays)
            .min_by_key(|r| change.lag(r.id).unwrap_or(u64::MAX));
        let Some(to) = closest else {
            return condition("there is no other voter to hand leadership to");
        };
        match self.transfer_leader(change.replica.range, to.node).await {
            Ok(()) => RangeError::NotLeader { leader: Some(to.node) },
            Err(error) => error,
        }
    }

    /// Finishes what an earlier leader began: two sets vote, and nobody changes them any more.
    pub(in crate::store) async fn settle_members(self: &Arc<Self>, replica: &Arc<Replica>) {
        if replica.descriptor().is_settled()
            || !is_joint(replica.core.lock().applied.membership.membership())
        {
            return;
        }
        // Not the leader, or a change of our own is running.
        let Ok(change) = Change::begin(replica.clone()).await else { return };
        let seen = change.look();
        if !is_joint(&seen.membership) {
            return;
        }
        tracing::info!(range_id = %replica.range, epoch = %seen.descriptor.epoch, "finishing a change of members");
        let role = seen.descriptor.replica(replica.id).map(|r| r.role);
        let finished = if role == Some(ReplicaRole::Outgoing) {
            Err(self.hand_over_to_stay(&change, &[]).await)
        } else {
            change.leave_joint().await
        };
        if let Err(error) = finished {
            tracing::debug!(range_id = %replica.range, error = %error, "a change of members is not finished yet");
        }
    }
}

impl Change {
    pub(super) async fn leave_joint(&self) -> Result<RangeDescriptor, RangeError> {
        let seen = self.look();
        let descriptor = self.propose(&seen, uniform(&seen.membership)).await?;
        Ok((*descriptor).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_replica_too_many_is_refused() {
        assert!(check_replicas(RangeId(7), REPLICAS_MAX).is_ok());
        let refused = check_replicas(RangeId(7), REPLICAS_MAX + 1);
        assert!(refused.is_err_and(|e| e.to_string().contains("17 replicas: the limit is 16")));
    }
}
