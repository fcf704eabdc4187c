//! Steps of merges, asked by the meta service (ADR 0011).

use super::RangeRpc;
use super::convert::wire_error;
use isotherm_proto::internal::merge_service_server::MergeService;
use isotherm_proto::internal::{self as pb};
use isotherm_raftstore::RangeError;
use isotherm_types::{RangeDescriptor, RangeEpoch, RangeId};
use std::future::Future;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// Ranges stand still meanwhile: whoever asks turns back soon.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The service; refuses everything until the node is open.
#[derive(Clone)]
pub struct MergeRpc(pub RangeRpc);

type Answer = Result<Response<pb::MergeStepResponse>, Status>;

fn epoch(epoch: Option<pb::Epoch>) -> Result<RangeEpoch, Status> {
    epoch.map(Into::into).ok_or_else(|| Status::invalid_argument("no epoch"))
}

/// Errors travel in the answer: what a refusal says of leader and epoch is what the next try needs.
async fn answer(
    step: impl Future<Output = Result<(Option<RangeDescriptor>, bool), RangeError>>,
) -> Answer {
    let done = tokio::time::timeout(TIMEOUT, step).await;
    Ok(Response::new(match done.unwrap_or(Err(RangeError::Indeterminate)) {
        Ok((descriptor, absorbed)) => pb::MergeStepResponse {
            error: None,
            descriptor: descriptor.as_ref().map(Into::into),
            absorbed,
        },
        Err(error) => pb::MergeStepResponse {
            error: Some(wire_error(error).into()),
            descriptor: None,
            absorbed: false,
        },
    }))
}

#[tonic::async_trait]
impl MergeService for MergeRpc {
    async fn freeze(&self, request: Request<pb::FreezeRequest>) -> Answer {
        let request = request.into_inner();
        let (store, range) = (&self.0.ready()?.store, RangeId(request.range_id));
        let (at, into_at) = (epoch(request.epoch)?, epoch(request.into_epoch)?);
        let frozen = store.freeze(range, at, RangeId(request.into), into_at);
        answer(async { frozen.await.map(|d| (Some(d), false)) }).await
    }

    async fn await_frozen(&self, request: Request<pb::AwaitFrozenRequest>) -> Answer {
        let request = request.into_inner();
        let store = &self.0.ready()?.store;
        let frozen = store.await_frozen(RangeId(request.range_id), request.version);
        answer(async { frozen.await.map(|()| (None, false)) }).await
    }

    async fn absorb(&self, request: Request<pb::AbsorbRequest>) -> Answer {
        let request = request.into_inner();
        let (store, at) = (&self.0.ready()?.store, epoch(request.epoch)?);
        let absorbed = store.absorb(RangeId(request.range_id), at, RangeId(request.right));
        answer(async { absorbed.await.map(|d| (Some(d), true)) }).await
    }

    async fn fence(&self, request: Request<pb::FenceRequest>) -> Answer {
        let request = request.into_inner();
        let (store, at) = (&self.0.ready()?.store, epoch(request.epoch)?);
        let fenced = store.fence(RangeId(request.range_id), at, RangeId(request.right));
        answer(async { fenced.await.map(|(d, absorbed)| (Some(d), absorbed)) }).await
    }

    async fn thaw(&self, request: Request<pb::ThawRequest>) -> Answer {
        let request = request.into_inner();
        let (store, range) = (&self.0.ready()?.store, RangeId(request.range_id));
        let (at, into_at) = (epoch(request.epoch)?, epoch(request.into_epoch)?);
        let thawed = store.thaw(range, at, RangeId(request.into), into_at);
        answer(async { thawed.await.map(|d| (Some(d), false)) }).await
    }
}
