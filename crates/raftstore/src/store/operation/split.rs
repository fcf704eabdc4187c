//! Cutting a range.
//!
//! Life: checked and proposed by the leader (`replica/sequencer.rs`) → applied by every replica in
//! one batch with the children's rows, flushed, shown (`replica/core.rs`, `replica/machine.rs`)
//! → each node starts its replicas of the children (`store/start.rs`) → the parent's leader has
//! the children led as soon as a quorum of them is ready (`store/tend.rs`).

use crate::command::{Split, SplitChild};
use crate::replica::Proposal;
use crate::store::{RangeError, Store};
use isotherm_types::limits::SPLIT_KEYS_MAX;
use isotherm_types::{Key, RangeDescriptor, RangeEpoch, RangeId, ReplicaId};
use tokio::sync::oneshot;

impl Store {
    /// Cuts `range` at `keys`; `children` are fresh range ids, one per key. Returns parent and
    /// children as they are after the split.
    pub async fn split(
        &self,
        range: RangeId,
        epoch: RangeEpoch,
        keys: Vec<Key>,
        children: Vec<RangeId>,
    ) -> Result<Vec<RangeDescriptor>, RangeError> {
        let replica = self.find(range)?;
        let descriptor = replica.descriptor();
        if descriptor.epoch != epoch {
            return Err(replica.epoch_mismatch());
        }
        if keys.is_empty() || keys.len() != children.len() {
            return Err(RangeError::Invalid("a split needs one new range id per key".into()));
        }
        if keys.len() > SPLIT_KEYS_MAX {
            let why = format!("a range is cut at {SPLIT_KEYS_MAX} keys at once, at most");
            return Err(RangeError::Invalid(why));
        }
        if descriptor.span.split_at(&keys).is_none() {
            let why = "every split key must lie strictly inside the range, in ascending order";
            return Err(RangeError::Invalid(why.into()));
        }
        if replica.is_frozen() {
            return Err(RangeError::Condition(format!("{range} is about to be merged")));
        }
        if !descriptor.is_settled() {
            let why =
                format!("the members of {range} are changing: split it when they have settled");
            return Err(RangeError::Condition(why));
        }
        let replicas: Vec<_> = (1..=descriptor.replicas.len() as u64).map(ReplicaId).collect();
        let child = |range| SplitChild { range, replicas: replicas.clone() };
        let children = children.into_iter().map(child).collect();
        let split = Split { epoch, keys, children };
        let (answer, done) = oneshot::channel();
        let sent = replica.proposals.send(Proposal::Split { split, answer }).await;
        sent.map_err(|_| RangeError::NotLeader { leader: None })?;
        done.await.map_err(|_| RangeError::Indeterminate)?
    }
}
