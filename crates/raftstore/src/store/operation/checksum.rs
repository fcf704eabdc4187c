//! A checksum of a range's replicas at one applied id.
//!
//! Life: the leader proposes an order → every replica that applies it sums its state exactly there,
//! off the apply path → whoever asked collects the sums from the replicas.

use crate::replica::Proposal;
use crate::store::{RangeError, Store};
use isotherm_storage::Checksum;
use isotherm_types::{RangeDescriptor, RangeId};
use tokio::sync::oneshot;

impl Store {
    /// Orders a checksum; returns the index of the state that is summed.
    pub async fn order_checksum(
        &self,
        range: RangeId,
    ) -> Result<(u64, RangeDescriptor), RangeError> {
        let replica = self.find(range)?;
        let (answer, ordered) = oneshot::channel();
        let sent = replica.proposals.send(Proposal::Checksum { answer }).await;
        sent.map_err(|_| RangeError::NotLeader { leader: None })?;
        let index = ordered.await.map_err(|_| RangeError::Indeterminate)??;
        Ok((index, (*replica.descriptor()).clone()))
    }

    /// This node's checksum at `index`, once computed.
    pub fn checksum_at(&self, range: RangeId, index: u64) -> Option<Checksum> {
        self.replica(range)?.checksum_at(index)
    }
}
