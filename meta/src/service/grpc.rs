//! The generated trait, one line per RPC.

use super::answer::answer;
use crate::member::Meta;
use futures::stream::BoxStream;
use isotherm_proto::internal as pb;
use isotherm_proto::internal::meta_service_server::MetaService;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// The service of one member.
pub struct Service {
    pub(super) meta: Arc<Meta>,
    /// Ends streams, which never end by themselves.
    pub(super) stop: CancellationToken,
}

impl Service {
    /// Over `meta`; streams end with `stop`.
    pub(crate) fn new(meta: Arc<Meta>, stop: CancellationToken) -> Self {
        Self { meta, stop }
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl MetaService for Service {
    type TimestampsStream = BoxStream<'static, Result<pb::TimestampsResponse, Status>>;

    async fn members(&self, _: Request<pb::MembersRequest>) -> Answer<pb::MembersResponse> {
        Ok(Response::new(self.meta.answer_members()))
    }

    async fn register_node(
        &self,
        request: Request<pb::RegisterNodeRequest>,
    ) -> Answer<pb::RegisterNodeResponse> {
        answer(self.meta.register_node(request.into_inner())).await
    }

    async fn heartbeat(
        &self,
        request: Request<pb::HeartbeatRequest>,
    ) -> Answer<pb::HeartbeatResponse> {
        answer(self.meta.heartbeat_confirmed(request.into_inner())).await
    }

    async fn report_damage(
        &self,
        request: Request<pb::ReportDamageRequest>,
    ) -> Answer<pb::ReportDamageResponse> {
        answer(async { self.meta.report_damage(request.into_inner()) }).await
    }

    async fn timestamps(
        &self,
        request: Request<Streaming<pb::TimestampsRequest>>,
    ) -> Answer<Self::TimestampsStream> {
        Ok(Response::new(self.serve_timestamps(request.into_inner())))
    }

    async fn get_ranges(
        &self,
        request: Request<pb::GetRangesRequest>,
    ) -> Answer<pb::GetRangesResponse> {
        answer(async { self.meta.get_ranges(request.into_inner()) }).await
    }

    async fn list_nodes(&self, _: Request<pb::ListNodesRequest>) -> Answer<pb::ListNodesResponse> {
        answer(async { self.meta.list_nodes() }).await
    }

    async fn allocate_ids(
        &self,
        request: Request<pb::AllocateIdsRequest>,
    ) -> Answer<pb::AllocateIdsResponse> {
        answer(self.meta.allocate_ids(request.into_inner())).await
    }

    async fn get_settings(
        &self,
        _: Request<pb::GetSettingsRequest>,
    ) -> Answer<pb::GetSettingsResponse> {
        answer(async { self.meta.get_settings() }).await
    }

    async fn set_setting(
        &self,
        request: Request<pb::SetSettingRequest>,
    ) -> Answer<pb::SetSettingResponse> {
        answer(self.meta.set_setting(request.into_inner())).await
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Answer<pb::StatusResponse> {
        answer(self.meta.status()).await
    }

    async fn move_range(
        &self,
        request: Request<pb::MoveRangeRequest>,
    ) -> Answer<pb::MoveRangeResponse> {
        answer(self.meta.move_range(request.into_inner())).await
    }

    async fn merge_ranges(
        &self,
        request: Request<pb::MergeRangesRequest>,
    ) -> Answer<pb::MergeRangesResponse> {
        answer(self.meta.merge_ranges(request.into_inner())).await
    }

    async fn list_operations(
        &self,
        request: Request<pb::ListOperationsRequest>,
    ) -> Answer<pb::ListOperationsResponse> {
        answer(async { self.meta.list_operations(request.into_inner()) }).await
    }

    async fn cancel_operation(
        &self,
        request: Request<pb::CancelOperationRequest>,
    ) -> Answer<pb::CancelOperationResponse> {
        answer(self.meta.cancel_operation(request.into_inner())).await
    }

    async fn hold_snapshot(
        &self,
        request: Request<pb::HoldSnapshotRequest>,
    ) -> Answer<pb::HoldSnapshotResponse> {
        answer(self.meta.hold_snapshot(request.into_inner())).await
    }

    async fn explain_range(
        &self,
        request: Request<pb::ExplainRangeRequest>,
    ) -> Answer<pb::ExplainRangeResponse> {
        answer(async { self.meta.explain_range(request.into_inner()) }).await
    }

    async fn hot(&self, request: Request<pb::HotRequest>) -> Answer<pb::HotResponse> {
        answer(async { self.meta.hot(&request.into_inner()) }).await
    }

    async fn set_intent(
        &self,
        request: Request<pb::SetIntentRequest>,
    ) -> Answer<pb::SetIntentResponse> {
        answer(self.meta.set_intent(request.into_inner())).await
    }

    async fn upgrade_status(
        &self,
        _: Request<pb::UpgradeStatusRequest>,
    ) -> Answer<pb::UpgradeStatusResponse> {
        answer(self.meta.upgrade_status()).await
    }

    async fn finalize_upgrade(
        &self,
        _: Request<pb::FinalizeUpgradeRequest>,
    ) -> Answer<pb::FinalizeUpgradeResponse> {
        answer(self.meta.finalize_upgrade()).await
    }

    async fn release_snapshot(
        &self,
        request: Request<pb::ReleaseSnapshotRequest>,
    ) -> Answer<pb::ReleaseSnapshotResponse> {
        answer(async { self.meta.release_snapshot(request.into_inner()) }).await
    }
}
