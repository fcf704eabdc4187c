//! Where the ranges are that this node hosts, for clients that do not reach the meta service.

use super::convert::key_range;
use super::range::{Ready, status};
use isotherm_proto::internal as pb;
use isotherm_raftstore::ReplicaStatus;
use isotherm_types::KeyRange;
use isotherm_types::limits::ROUTES_MAX;
use tonic::Status;

impl Ready {
    /// The replicas here as routes, and where nodes are.
    pub(super) fn routes(
        &self,
        request: pb::ListRoutesRequest,
    ) -> Result<pb::ListRoutesResponse, Status> {
        let span = match request.span {
            None => KeyRange::all(),
            span => key_range(span).map_err(status)?,
        };
        let limit = routes_max(request.limit);
        let mut replicas = self.store.replicas_in(&span);
        replicas.sort_by(|a, b| a.descriptor.span.start().cmp(b.descriptor.span.start()));
        let ranges = replicas.iter().take(limit).map(|replica| self.route(replica)).collect();
        let known = self.peers.addresses().into_iter().map(|(node, address)| pb::NodeAddress {
            id: node.get(),
            address,
            incarnation: self.incarnations.newest(node).get(),
        });
        let own = pb::NodeAddress {
            id: self.me.get(),
            address: self.address.clone(),
            incarnation: self.incarnations.own().get(),
        };
        let nodes = known.chain([own]).collect();
        Ok(pb::ListRoutesResponse { cluster_id: self.cluster.get(), ranges, nodes })
    }

    fn route(&self, replica: &ReplicaStatus) -> pb::RangeLocation {
        let descriptor = &replica.descriptor;
        let leader = replica.leader_replica;
        let leader = leader.and_then(|id| descriptor.replicas.iter().find(|r| r.id == id));
        let leader_node = match leader {
            _ if replica.is_leader => self.me.get(),
            leader => leader.map_or(0, |r| r.node.get()),
        };
        pb::RangeLocation {
            descriptor: Some(descriptor.into()),
            leader_node,
            leader_term: replica.term,
            live_replicas: replica.live_replicas.iter().map(|id| id.get()).collect(),
            ..pb::RangeLocation::default()
        }
    }
}

/// How many routes one answer has if so many are asked for; 0: as many as there may be.
fn routes_max(asked: u32) -> usize {
    match asked as usize {
        0 => ROUTES_MAX,
        asked => asked.min(ROUTES_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_are_asked_for_an_answer_has_so_many_routes() {
        let most = ROUTES_MAX as u32;
        assert_eq!([0, 1, most, most + 1, u32::MAX].map(routes_max), [256, 1, 256, 256, 256]);
    }
}
