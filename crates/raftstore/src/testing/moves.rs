//! Moving replicas as the meta service orders it, and what it tells nodes.

use super::Cluster;
use crate::store::{RangeError, Store};
use isotherm_types::{NodeId, RangeDescriptor, RangeId, ReplicaId};
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Cluster {
    /// Waits until `ready`, for 30 s at most.
    pub async fn wait_for(&self, what: &str, mut ready: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !ready() {
            assert!(Instant::now() < deadline, "{what}: waited in vain");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Has the leader of `range` take a step, asking again until it did.
    pub async fn step(
        &self,
        range: RangeId,
        step: impl AsyncFn(&Arc<Store>, RangeDescriptor) -> Result<RangeDescriptor, RangeError>,
    ) -> RangeDescriptor {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let leader = self.store(self.leader(range).await);
            if let Some(replica) = leader.replica(range) {
                match step(leader, (*replica.descriptor()).clone()).await {
                    Ok(descriptor) => return descriptor,
                    Err(error) => assert!(Instant::now() < deadline, "{error}"),
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Adds a learner with a fresh id.
    pub async fn add_learner(&self, range: RangeId, node: u64) -> ReplicaId {
        let node = NodeId(node);
        let after = self.step(range, async |store, d| match d.replica_on(node) {
            Some(_) => Ok(d),
            None => store.add_learner(range, d.epoch, node, d.next_replica_id).await,
        });
        after.await.replica_on(node).unwrap().id
    }

    /// Makes `promote` a voter in the place of `drop`.
    pub async fn promote(
        &self,
        range: RangeId,
        promote: ReplicaId,
        drop: ReplicaId,
    ) -> RangeDescriptor {
        let step = self.step(range, async |store, d| {
            store.change_replicas(range, d.epoch, promote, drop).await
        });
        step.await
    }

    /// Moves a replica, and has the node that it leaves destroy it. The descriptor after it.
    pub async fn move_replica(&self, range: RangeId, from: u64, to: u64) -> RangeDescriptor {
        let leader = self.leader(range).await;
        let before = self.store(leader).replica(range).unwrap().descriptor();
        let drop = before.replica_on(NodeId(from)).unwrap().id;
        let added = self.add_learner(range, to).await;
        let after = self.promote(range, added, drop).await;
        self.remove_from(from, &after).await;
        after
    }

    /// Tells `node` what the map has, and waits until it destroyed its replica.
    pub async fn remove_from(&self, node: u64, newer: &RangeDescriptor) {
        self.store(node).take_newer(vec![newer.clone()]);
        let gone = || self.store(node).replica(newer.id).is_none();
        self.wait_for("a removed replica is destroyed", gone).await;
        let free = || self.store(node).ctx.spans.reserve(RangeId(99), &newer.span).is_ok();
        self.wait_for("its span is free", free).await;
        self.store(node).ctx.spans.release(RangeId(99));
    }
}
