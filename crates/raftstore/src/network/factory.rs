//! Connections of one group's replica to the others.

use super::client::{Appends, Network};
use super::promises::{OnBroken, Promises};
use super::snapshot::SnapshotSender;
use crate::sender::PeerSender;
use crate::type_config::{Host, TypeConfig};
use isotherm_types::{RangeId, ReplicaId};
use openraft::network::RaftNetworkFactory;
use std::sync::Arc;

/// Makes the connections of one replica. Nothing is dialled: the sender keeps one link per node
/// for all groups.
pub struct Factory<S> {
    sender: Arc<dyn PeerSender>,
    range: RangeId,
    replica: ReplicaId,
    snapshots: Arc<S>,
    promises: Arc<Promises>,
}

impl<S: SnapshotSender> Factory<S> {
    /// For `replica` of `range`, whose snapshots become chunks through `snapshots`. A follower that
    /// lacks what it acknowledged is named to `on_broken`.
    pub fn new(
        sender: Arc<dyn PeerSender>,
        range: RangeId,
        replica: ReplicaId,
        snapshots: S,
        on_broken: OnBroken,
    ) -> Self {
        let promises = Arc::new(Promises::new(on_broken));
        Self { sender, range, replica, snapshots: Arc::new(snapshots), promises }
    }

    fn network(&self, target: u64, host: &Host, appends: Appends) -> Network<S> {
        Network {
            sender: self.sender.clone(),
            range: self.range,
            from: self.replica,
            to: ReplicaId(target),
            node: host.node(),
            appends,
            snapshots: self.snapshots.clone(),
            promises: self.promises.clone(),
        }
    }
}

impl<S: SnapshotSender> RaftNetworkFactory<TypeConfig> for Factory<S> {
    type Network = Network<S>;

    async fn new_client(&mut self, target: u64, host: &Host) -> Network<S> {
        self.network(target, host, Appends::Streamed)
    }

    async fn new_heartbeat_client(&mut self, target: u64, host: &Host) -> Network<S> {
        self.network(target, host, Appends::Called)
    }
}
