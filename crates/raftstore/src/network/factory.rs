//! Connections of one group's replica to the others.

use super::client::{Appends, Network};
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
}

impl<S: SnapshotSender> Factory<S> {
    /// For `replica` of `range`, whose snapshots become chunks through `snapshots`.
    pub fn new(
        sender: Arc<dyn PeerSender>,
        range: RangeId,
        replica: ReplicaId,
        snapshots: S,
    ) -> Self {
        Self { sender, range, replica, snapshots: Arc::new(snapshots) }
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
