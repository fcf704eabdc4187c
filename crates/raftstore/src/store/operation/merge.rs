//! Merging two neighbours, step by step, as the meta service orders it (ADR 0011).
//!
//! Life: the right range is frozen for one epoch of the left one → every replica of it has that on disk →
//! the left range absorbs it. To turn back: the left range's epoch is ended by a fence → the right range
//! is thawed. Each step is safe to ask twice: what was done already answers as if it had just been done.

use crate::command::{Absorb, Body, Fence, Freeze, Thaw};
use crate::replica::{Frozen, Proposal, Replica, check_origins};
use crate::store::{RangeError, Store};
use isotherm_types::{RangeDescriptor, RangeEpoch, RangeId};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

/// Who a freeze is for.
fn is_for(frozen: Option<Frozen>, into: RangeId, into_epoch: RangeEpoch) -> bool {
    frozen.is_some_and(|frozen| (frozen.into, frozen.into_epoch) == (into, into_epoch))
}

/// The right to change what a range's members could change meanwhile. It outlives whoever asked for the
/// change: until that is decided, members that change could let a range be absorbed that is not whole.
struct Hold(Arc<Replica>);

impl Hold {
    fn take(replica: &Arc<Replica>) -> Result<Self, RangeError> {
        if replica.changing.swap(true, Ordering::AcqRel) {
            return Err(RangeError::Unavailable(
                "the members of the range are just changing".into(),
            ));
        }
        Ok(Self(replica.clone()))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.changing.store(false, Ordering::Release);
    }
}

impl Store {
    /// The replica of `range` here, which leads and has applied all that earlier leaders committed.
    async fn leading(&self, range: RangeId) -> Result<Arc<Replica>, RangeError> {
        let replica = self.find(range)?;
        replica.confirm_leadership().await?;
        Ok(replica)
    }

    async fn merge_step(
        &self,
        replica: &Replica,
        body: Body,
    ) -> Result<(RangeDescriptor, bool), RangeError> {
        let (answer, done) = oneshot::channel();
        let sent = replica.proposals.send(Proposal::Merge { body, answer }).await;
        sent.map_err(|_| RangeError::NotLeader { leader: None })?;
        done.await.map_err(|_| RangeError::Indeterminate)?
    }

    /// Has `range` stand still, to be absorbed by `into` at `into_epoch`. The range after it.
    pub async fn freeze(
        self: &Arc<Self>,
        range: RangeId,
        epoch: RangeEpoch,
        into: RangeId,
        into_epoch: RangeEpoch,
    ) -> Result<RangeDescriptor, RangeError> {
        let replica = self.leading(range).await?;
        let frozen = || {
            let core = replica.core.lock();
            let descriptor = || (*core.descriptor).clone();
            is_for(core.applied.frozen, into, into_epoch).then(descriptor)
        };
        if let Some(descriptor) = frozen() {
            return Ok(descriptor);
        }
        let hold = Hold::take(&replica)?;
        let descriptor = replica.descriptor();
        if descriptor.epoch != epoch {
            return Err(replica.epoch_mismatch());
        }
        if !descriptor.is_settled() {
            return Err(RangeError::Condition(format!("the members of {range} are changing")));
        }
        let (store, held) = (self.clone(), replica.clone());
        let step = self.ctx.tasks.spawn(async move {
            let _hold = hold;
            let freeze = Body::Freeze(Freeze { epoch, into, into_epoch });
            let stop = held.stop.clone();
            stop.run_until_cancelled(store.merge_step(&held, freeze)).await
        });
        let done = step.await.ok().flatten().unwrap_or(Err(RangeError::Indeterminate));
        match done {
            Ok((descriptor, _)) => Ok(descriptor),
            // By an earlier try, of which nobody heard.
            Err(error) => frozen().ok_or(error),
        }
    }

    /// Waits until the replica of `range` here stands still at `version`, durably.
    pub async fn await_frozen(&self, range: RangeId, version: u64) -> Result<(), RangeError> {
        let replica = self.find(range)?;
        if self.ctx.faults.no_freeze_wait() == 1 {
            return Ok(());
        }
        let mut applied = replica.applied.subscribe();
        loop {
            {
                let core = replica.core.lock();
                let at = core.descriptor.epoch.version;
                if at == version && core.applied.frozen.is_some() && !replica.is_retired() {
                    break;
                }
                if at >= version {
                    let why = format!("{range} does not stand still at version {version}");
                    return Err(RangeError::Condition(why));
                }
            }
            let changed = applied.changed().await;
            changed.map_err(|_| RangeError::Unavailable("the replica has ended".into()))?;
        }
        self.flush_data().await
    }

    async fn flush_data(&self) -> Result<(), RangeError> {
        let data = self.ctx.data.clone();
        let flushed = tokio::task::spawn_blocking(move || data.flush()).await;
        let internal = |e: String| RangeError::Internal(e);
        flushed.map_err(|e| internal(e.to_string()))?.map_err(|e| internal(e.to_string()))
    }

    /// Makes `right`, of which every replica stands still, part of `range`. The range after it.
    pub async fn absorb(
        &self,
        range: RangeId,
        epoch: RangeEpoch,
        right: RangeId,
    ) -> Result<RangeDescriptor, RangeError> {
        let replica = self.leading(range).await?;
        let absorbed = || {
            let core = replica.core.lock();
            core.applied.absorbed.contains(&right).then(|| (*core.descriptor).clone())
        };
        if let Some(descriptor) = absorbed() {
            return Ok(descriptor);
        }
        let descriptor = replica.descriptor();
        if descriptor.epoch != epoch {
            return Err(replica.epoch_mismatch());
        }
        let origins = replica.core.lock().applied.memory.origins.len();
        let (named, frozen_ts, of_right) = self.frozen_for(&descriptor, right)?;
        // What the right one consults, and its own results.
        check_origins(origins + of_right + 1)?;
        // What precedes it is durable then, so that what it has to flush itself is little.
        self.flush_data().await?;
        let absorb = Absorb { epoch, right: named, frozen_ts };
        match self.merge_step(&replica, Body::Absorb(absorb)).await {
            Ok((descriptor, _)) => Ok(descriptor),
            Err(error) => absorbed().ok_or(error),
        }
    }

    /// The right neighbour's descriptor as it stands still here, since when, and of how many ranges it
    /// consults the results.
    fn frozen_for(
        &self,
        left: &RangeDescriptor,
        right: RangeId,
    ) -> Result<(RangeDescriptor, isotherm_types::Timestamp, usize), RangeError> {
        let condition = |why: String| RangeError::Condition(why);
        let here = self.replica(right);
        let here =
            here.ok_or_else(|| condition(format!("{right} has no replica beside {}", left.id)))?;
        let core = here.core.lock();
        let Some(frozen) = core.applied.frozen.filter(|f| is_for(Some(*f), left.id, left.epoch))
        else {
            return Err(condition(format!("{right} does not stand still for {}", left.id)));
        };
        let nodes =
            |d: &RangeDescriptor| d.replicas.iter().map(|r| r.node).collect::<BTreeSet<_>>();
        if nodes(left) != nodes(&core.descriptor) || !left.is_settled() {
            let why = format!("{} and {right} are not on the same nodes", left.id);
            return Err(condition(why));
        }
        let origins = core.applied.memory.origins.len();
        Ok(((*core.descriptor).clone(), frozen.ts, origins))
    }

    /// Ends `epoch` of `range`, so that it absorbs nothing at it any more. The range after it, and whether
    /// `right` is part of it.
    pub async fn fence(
        &self,
        range: RangeId,
        epoch: RangeEpoch,
        right: RangeId,
    ) -> Result<(RangeDescriptor, bool), RangeError> {
        let replica = self.leading(range).await?;
        if self.ctx.faults.no_fence() == 1 {
            return Ok(((*replica.descriptor()).clone(), false));
        }
        self.merge_step(&replica, Body::Fence(Fence { epoch, right })).await
    }

    /// Has `range`, which was frozen at `epoch` for `into` at `into_epoch`, serve again; or refuses a
    /// freeze that is still on its way. Only after the fence. The range after it.
    pub async fn thaw(
        &self,
        range: RangeId,
        epoch: RangeEpoch,
        into: RangeId,
        into_epoch: RangeEpoch,
    ) -> Result<RangeDescriptor, RangeError> {
        let replica = self.leading(range).await?;
        let thaw = Body::Thaw(Thaw { epoch, into, into_epoch });
        self.merge_step(&replica, thaw).await.map(|(descriptor, _)| descriptor)
    }
}
