//! Changes of a range's members: the steps of a move, asked by the meta service of the leader.

use super::RangeRpc;
use super::convert::wire_error;
use isotherm_proto::internal::replica_service_server::ReplicaService;
use isotherm_proto::internal::{self as pb};
use isotherm_raftstore::RangeError;
use isotherm_types::{NodeId, RangeDescriptor, RangeEpoch, RangeId, ReplicaId};
use std::future::Future;
use std::time::Duration;
use tonic::{Request, Response, Status};

const TIMEOUT: Duration = Duration::from_secs(10);

/// The service; refuses everything until the node is open.
#[derive(Clone)]
pub struct ReplicaRpc(pub RangeRpc);

type Answer = Result<Response<pb::ChangeMembersResponse>, Status>;

fn epoch(epoch: Option<pb::Epoch>) -> Result<RangeEpoch, Status> {
    epoch.map(Into::into).ok_or_else(|| Status::invalid_argument("no epoch"))
}

/// Errors travel in the answer: what a refusal says of leader and epoch is what the next try needs.
async fn answer(change: impl Future<Output = Result<RangeDescriptor, RangeError>>) -> Answer {
    let changed = tokio::time::timeout(TIMEOUT, change).await;
    let (error, descriptor) = match changed.unwrap_or(Err(RangeError::Indeterminate)) {
        Ok(descriptor) => (None, Some((&descriptor).into())),
        Err(error) => (Some(wire_error(error).into()), None),
    };
    Ok(Response::new(pb::ChangeMembersResponse { error, descriptor }))
}

#[tonic::async_trait]
impl ReplicaService for ReplicaRpc {
    async fn add_learner(&self, request: Request<pb::AddLearnerRequest>) -> Answer {
        let request = request.into_inner();
        let (store, epoch) = (&self.0.ready()?.store, epoch(request.epoch)?);
        let (range, id) = (RangeId(request.range_id), ReplicaId(request.replica_id));
        answer(store.add_learner(range, epoch, NodeId(request.node), id)).await
    }

    async fn replace_voter(&self, request: Request<pb::ReplaceVoterRequest>) -> Answer {
        let request = request.into_inner();
        let (store, epoch) = (&self.0.ready()?.store, epoch(request.epoch)?);
        let (promote, drop) = (ReplicaId(request.promote), ReplicaId(request.drop));
        answer(store.change_replicas(RangeId(request.range_id), epoch, promote, drop)).await
    }

    async fn remove_learner(&self, request: Request<pb::RemoveLearnerRequest>) -> Answer {
        let request = request.into_inner();
        let (store, epoch) = (&self.0.ready()?.store, epoch(request.epoch)?);
        let (range, id) = (RangeId(request.range_id), ReplicaId(request.replica_id));
        answer(store.remove_learner(range, epoch, id)).await
    }
}
