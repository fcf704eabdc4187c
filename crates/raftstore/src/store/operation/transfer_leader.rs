//! Handing leadership of a range to another replica.
//!
//! openraft never takes back an order to transfer: if the target fails, the leader neither writes
//! nor reads until the next election. So leadership is handed over only to a follower that has
//! everything, after this leader stopped serving, and if it does not arrive in time a follower
//! that has everything is asked to stand for election.
//!
//! A hand-over runs in a task of its own: whoever ordered it may give up, or be gone, at any moment, and
//! a leader that has stopped serving must either be replaced or serve again.

use super::wait_until;
use crate::replica::{Instance, Replica};
use crate::store::{RangeError, Store};
use isotherm_types::{NodeId, RangeId};
use openraft::type_config::async_runtime::watch::WatchReceiver;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A hand-over that runs: while it does, the leader neither reads nor proposes. What openraft was told
/// by then it does not take back: such a leader serves nothing until the next election anyway.
struct Transfer(Arc<Replica>);

impl Transfer {
    /// None: one is already running.
    fn begin(replica: &Arc<Replica>) -> Option<Self> {
        let was_running = replica.transferring.swap(true, Ordering::AcqRel);
        (!was_running).then(|| Self(replica.clone()))
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.0.transferring.store(false, Ordering::Release);
    }
}

impl Store {
    /// Hands leadership of `range` to its replica on `to`.
    pub async fn transfer_leader(
        self: &Arc<Self>,
        range: RangeId,
        to: NodeId,
    ) -> Result<(), RangeError> {
        let replica = self.find(range)?;
        let descriptor = replica.descriptor();
        let Some(target) = descriptor.replica_on(to) else {
            return Err(RangeError::Condition(format!("{range} has no replica on {to}")));
        };
        if !target.role.may_lead() {
            let why = format!("replica {} of {range} on {to} is {:?}", target.id, target.role);
            return Err(RangeError::Condition(why));
        }
        if replica.lost.lock().contains(&target.id) {
            let why = format!("replica {} of {range} on {to} lost a part of its log", target.id);
            return Err(RangeError::Condition(why));
        }
        let target = target.id.get();
        let Some(instance) = replica.instance.load_full() else {
            return Err(RangeError::NotLeader { leader: None });
        };
        let Some(leadership) = instance.leadership() else {
            return Err(replica.not_leader(&instance));
        };
        if target == replica.id.get() {
            return Ok(());
        }
        let Some(transfer) = Transfer::begin(&replica) else {
            return Err(RangeError::Condition("a hand-over is already running".into()));
        };
        replica.touch();
        let (store, stop) = (self.clone(), replica.stop.clone());
        let hand_over = self.ctx.tasks.spawn(async move {
            let transfer = transfer;
            let hand_over = store.hand_over(&transfer.0, &instance, leadership.term, target);
            let moved = stop.run_until_cancelled(hand_over).await;
            moved.unwrap_or_else(|| Err(RangeError::Unavailable("stopping".into())))
        });
        hand_over.await.unwrap_or(Err(RangeError::Indeterminate))
    }

    async fn hand_over(
        &self,
        replica: &Arc<Replica>,
        instance: &Arc<Instance>,
        term: u64,
        target: u64,
    ) -> Result<(), RangeError> {
        let patience = Duration::from_millis(self.ctx.timing.election_max_ms);
        let ready =
            wait_until(patience, || replica.pending.is_empty() && matched(instance, target));
        if !ready.await {
            let why = "the target does not follow closely enough to take over";
            return Err(RangeError::Condition(why.into()));
        }
        let led_by_other = || instance.leadership().is_none_or(|now| now.term != term);
        if instance.raft.trigger().transfer_leader(target).await.is_err() {
            return Err(RangeError::NotLeader { leader: None });
        }
        if wait_until(patience, led_by_other).await {
            return Ok(());
        }
        tracing::warn!(range_id = %replica.range, target, "hand-over late, asking for an election");
        self.ask_to_campaign(replica, term, target).await;
        if wait_until(patience * 2, led_by_other).await {
            Ok(())
        } else {
            Err(RangeError::Unavailable("leadership did not move".into()))
        }
    }

    /// Hands over every leadership of this node, as far as there is somebody to take it, until
    /// `patience` runs out. Returns how many are left.
    pub async fn transfer_all_away(self: &Arc<Self>, patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        let led: Vec<_> = self.all().into_iter().filter(|r| r.status().is_leader).collect();
        let moves = led.into_iter().map(|replica| {
            let store = self.clone();
            async move {
                let Some(instance) = replica.instance.load_full() else { return true };
                let descriptor = replica.descriptor();
                let others =
                    descriptor.voters().filter(|v| v.id != replica.id && v.role.may_lead());
                let closest = others.max_by_key(|v| matched_index(&instance, v.id.get()));
                let Some(target) = closest else { return false };
                let left = deadline.saturating_duration_since(Instant::now());
                let moved = store.transfer_leader(replica.range, target.node);
                matches!(tokio::time::timeout(left, moved).await, Ok(Ok(())))
            }
        });
        use futures::StreamExt;
        let moved: Vec<bool> = futures::stream::iter(moves).buffer_unordered(32).collect().await;
        moved.iter().filter(|moved| !**moved).count()
    }
}

pub(in crate::store) fn matched_index(instance: &Instance, follower: u64) -> Option<u64> {
    let metrics = instance.raft.metrics();
    let metrics = metrics.borrow_watched();
    let matched = metrics.replication.as_ref()?.get(&follower)?;
    matched.as_ref().map(|id| id.index)
}

pub(in crate::store) fn matched(instance: &Instance, follower: u64) -> bool {
    let last = instance.raft.metrics().borrow_watched().last_log_index;
    last.is_some() && matched_index(instance, follower) >= last
}
