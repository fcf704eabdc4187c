//! Members on loopback that say what a test tells them to.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::{bind, serve};
use futures::stream::BoxStream;
use isotherm_proto::internal::meta_service_server::{MetaService, MetaServiceServer};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Request;
use tonic::service::Routes;

/// What a member says of the leader: its id, 0 for none, and the term.
type Says = (u64, u64);

struct Member {
    id: u64,
    says: Arc<Mutex<Says>>,
    addresses: Arc<Mutex<Vec<String>>>,
}

/// The one call that is answered, and all the others.
macro_rules! member {
    ($($rpc:ident: $request:ident -> $response:ident),* $(,)?) => {
        #[tonic::async_trait]
        impl MetaService for Member {
            type TimestampsStream = BoxStream<'static, Result<pb::TimestampsResponse, Status>>;

            async fn members(
                &self,
                _: Request<MembersRequest>,
            ) -> Result<Response<pb::MembersResponse>, Status> {
                let (leader, term) = *self.says.lock();
                let addresses = self.addresses.lock().clone();
                let members = (1..).zip(addresses);
                let members = members.map(|(id, address)| pb::Member { id, address }).collect();
                Ok(Response::new(pb::MembersResponse {
                    leader,
                    term,
                    members,
                    answered_by: self.id,
                    ..Default::default()
                }))
            }

            async fn timestamps(
                &self,
                _: Request<tonic::Streaming<pb::TimestampsRequest>>,
            ) -> Result<Response<Self::TimestampsStream>, Status> {
                Err(Status::unimplemented("not scripted"))
            }

            $(
                async fn $rpc(
                    &self,
                    _: Request<pb::$request>,
                ) -> Result<Response<pb::$response>, Status> {
                    Err(Status::unimplemented("not scripted"))
                }
            )*
        }
    };
}

member! {
    register_node: RegisterNodeRequest -> RegisterNodeResponse,
    heartbeat: HeartbeatRequest -> HeartbeatResponse,
    report_damage: ReportDamageRequest -> ReportDamageResponse,
    get_ranges: GetRangesRequest -> GetRangesResponse,
    list_nodes: ListNodesRequest -> ListNodesResponse,
    allocate_ids: AllocateIdsRequest -> AllocateIdsResponse,
    get_settings: GetSettingsRequest -> GetSettingsResponse,
    set_setting: SetSettingRequest -> SetSettingResponse,
    status: StatusRequest -> StatusResponse,
    move_range: MoveRangeRequest -> MoveRangeResponse,
    merge_ranges: MergeRangesRequest -> MergeRangesResponse,
    list_operations: ListOperationsRequest -> ListOperationsResponse,
    cancel_operation: CancelOperationRequest -> CancelOperationResponse,
    hold_snapshot: HoldSnapshotRequest -> HoldSnapshotResponse,
    release_snapshot: ReleaseSnapshotRequest -> ReleaseSnapshotResponse,
    explain_range: ExplainRangeRequest -> ExplainRangeResponse,
    hot: HotRequest -> HotResponse,
    set_intent: SetIntentRequest -> SetIntentResponse,
    upgrade_status: UpgradeStatusRequest -> UpgradeStatusResponse,
    finalize_upgrade: FinalizeUpgradeRequest -> FinalizeUpgradeResponse,
}

/// Members 1 to the number of `says`; the others of a service have addresses at which somebody listens
/// and never answers.
struct Service {
    link: MetaLink,
    says: Vec<Arc<Mutex<Says>>>,
    _hung: Vec<TcpListener>,
    _stop: DropGuard,
}

impl Service {
    fn start(hung: usize, says: &[Says]) -> Self {
        let stop = CancellationToken::new();
        let addresses = Arc::new(Mutex::new(Vec::new()));
        let hung: Vec<_> =
            (0..hung).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
        let mut all: Vec<_> = hung.iter().map(|l| l.local_addr().unwrap().to_string()).collect();
        let says: Vec<_> = says.iter().map(|says| Arc::new(Mutex::new(*says))).collect();
        for (id, says) in (all.len() as u64 + 1..).zip(&says) {
            let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
            all.push(listener.local_addr().unwrap().to_string());
            let member = Member { id, says: says.clone(), addresses: addresses.clone() };
            let routes = Routes::new(MetaServiceServer::new(member));
            tokio::spawn(serve(listener, routes, 100, stop.clone()));
        }
        *addresses.lock() = all.clone();
        Self { link: MetaLink::new(all), says, _hung: hung, _stop: stop.drop_guard() }
    }

    /// Which member the link takes for the leader.
    async fn leader(&self) -> Result<u64, WireError> {
        let mut leader = self.link.leader().await?;
        Ok(leader.members(MembersRequest {}).await.unwrap().into_inner().answered_by)
    }
}

/// The first seed was cut off from the others in term 5, and does not know of their election.
#[tokio::test]
async fn the_highest_term_says_who_leads() {
    for says in [[(1, 5), (2, 6), (2, 6)], [(1, 5), (1, 5), (3, 6)], [(1, 5), (0, 7), (3, 6)]] {
        let service = Service::start(0, &says);
        let leads = says.iter().max_by_key(|(id, term)| (*id > 0, *term)).unwrap().0;
        assert_eq!(service.leader().await.unwrap(), leads, "{says:?}");
    }
}

#[tokio::test]
async fn a_seed_that_hangs_is_not_waited_for() {
    let service = Service::start(2, &[(3, 6)]);
    let started = Instant::now();
    assert_eq!(service.leader().await.unwrap(), 3);
    // Less than what an operation waits for news of a node that is gone.
    assert!(started.elapsed() < Duration::from_millis(450), "{:?}", started.elapsed());
}

#[tokio::test]
async fn nobody_is_taken_for_the_leader_while_nobody_is_named() {
    let service = Service::start(0, &[(0, 6), (0, 6)]);
    let error = service.leader().await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    *service.says[1].lock() = (1, 7);
    assert_eq!(service.leader().await.unwrap(), 1);
    *service.says[1].lock() = (2, 8);
    assert_eq!(service.leader().await.unwrap(), 1, "it is remembered");
    let refused = pb::Error { code: Code::NotLeader.into(), ..Default::default() };
    service.link.check(Some(refused)).unwrap_err();
    assert_eq!(service.leader().await.unwrap(), 2);
}

/// The caller's patience ends before the link's: what hangs is forgotten all the same.
#[tokio::test]
async fn a_leader_that_hangs_is_forgotten_with_the_caller() {
    let service = Service::start(1, &[(1, 6)]);
    let hours = Duration::from_secs(3600);
    let asking = service.link.ask(hours, |mut leader| async move {
        leader.get_settings(pb::GetSettingsRequest {}).await
    });
    let given_up = tokio::time::timeout(Duration::from_millis(700), asking).await;
    assert!(given_up.is_err(), "member 1 never answers");
    *service.says[0].lock() = (2, 7);
    assert_eq!(service.leader().await.unwrap(), 2);
}
