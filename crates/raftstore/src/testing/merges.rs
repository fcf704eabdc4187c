//! Merging ranges as the meta service orders it.

use super::Cluster;
use crate::store::{RangeError, Store};
use isotherm_types::{RangeDescriptor, RangeEpoch, RangeId};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A merge that was ordered.
#[derive(Debug, Clone, Copy)]
pub struct Merge {
    pub left: RangeId,
    pub right: RangeId,
    pub left_epoch: RangeEpoch,
    pub right_epoch: RangeEpoch,
}

impl Cluster {
    /// Asks the leader of `range` until it answers; certain refusals are answers.
    async fn ask<T>(
        &self,
        range: RangeId,
        ask: impl AsyncFn(&Arc<Store>) -> Result<T, RangeError>,
    ) -> Result<T, RangeError> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let store = self.store(self.leader(range).await);
            match ask(store).await {
                Err(error @ (RangeError::EpochMismatch { .. } | RangeError::Condition(_))) => {
                    return Err(error);
                }
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
                done => return done,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Orders a merge of the range that holds `key` with its right neighbour.
    pub fn plan_merge(&self, key: &str) -> Merge {
        let left = self.locate(key.as_bytes());
        let right = self.locate(left.span.end());
        Merge { left: left.id, right: right.id, left_epoch: left.epoch, right_epoch: right.epoch }
    }

    pub async fn freeze(&self, m: &Merge) -> Result<RangeDescriptor, RangeError> {
        self.ask(m.right, async |store| {
            store.freeze(m.right, m.right_epoch, m.left, m.left_epoch).await
        })
        .await
    }

    /// Waits until the replicas of `nodes` stand still.
    pub async fn await_frozen(
        &self,
        nodes: &[u64],
        frozen: &RangeDescriptor,
        wait: Duration,
    ) -> bool {
        for node in nodes {
            let asked = async {
                loop {
                    match self.store(*node).await_frozen(frozen.id, frozen.epoch.version).await {
                        // A child of a split that this node has yet to apply.
                        Err(RangeError::RangeNotFound(_)) => {
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                        stands => return stands.is_ok(),
                    }
                }
            };
            if !matches!(tokio::time::timeout(wait, asked).await, Ok(true)) {
                return false;
            }
        }
        true
    }

    pub async fn absorb(&self, m: &Merge) -> Result<RangeDescriptor, RangeError> {
        self.ask(m.left, async |store| store.absorb(m.left, m.left_epoch, m.right).await).await
    }

    pub async fn fence(&self, m: &Merge) -> bool {
        let fenced =
            self.ask(m.left, async |store| store.fence(m.left, m.left_epoch, m.right).await);
        fenced.await.unwrap().1
    }

    pub async fn thaw(&self, m: &Merge) -> RangeDescriptor {
        let thawed = self.ask(m.right, async |store| {
            store.thaw(m.right, m.right_epoch, m.left, m.left_epoch).await
        });
        thawed.await.unwrap()
    }

    /// Freezes, and waits until all replicas stand still.
    pub async fn freeze_everywhere(&self, m: &Merge) {
        let frozen = self.freeze(m).await.unwrap();
        let nodes: Vec<u64> = frozen.replicas.iter().map(|r| r.node.get()).collect();
        assert!(self.await_frozen(&nodes, &frozen, Duration::from_secs(20)).await);
    }

    /// Merges the range that holds `key` with its right neighbour.
    pub async fn merge(&self, key: &str) -> RangeDescriptor {
        let m = self.plan_merge(key);
        self.freeze_everywhere(&m).await;
        self.absorb(&m).await.unwrap()
    }
}
