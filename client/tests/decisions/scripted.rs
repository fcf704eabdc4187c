//! A cluster of one meta member and two nodes on loopback that answer what a test says.

use isotherm_client::{Client, ClientOptions};
use isotherm_proto::internal::error::Code;
use isotherm_proto::internal::meta_service_server::{MetaService, MetaServiceServer};
use isotherm_proto::internal::range_service_server::{RangeService, RangeServiceServer};
use isotherm_proto::internal::{self as pb, op_result, range_request, range_response, write_op};
use isotherm_transport::{bind, serve};
use isotherm_types::{KeyRange, NodeId, RangeDescriptor, RangeEpoch, RangeId};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

/// What a node was asked on its stream.
#[derive(Debug, Clone)]
pub struct Asked {
    pub node: u64,
    pub range: u64,
    pub version: u64,
    pub body: range_request::Body,
}

impl Asked {
    pub fn write(&self) -> &pb::WriteBatch {
        match &self.body {
            range_request::Body::Write(write) => write,
            other => panic!("{other:?} is no write"),
        }
    }

    pub fn scan(&self) -> &pb::ReadPage {
        match &self.body {
            range_request::Body::Scan(scan) => scan,
            other => panic!("{other:?} is no scan"),
        }
    }
}

/// What it does about it.
pub enum Reply {
    Body(range_response::Body),
    Error(pb::Error),
    /// Never answers.
    Silence,
    /// Ends the stream.
    HangUp,
}

/// An answer to the `n`-th request (from 0).
pub type Script = Box<dyn FnMut(usize, &Asked) -> Reply + Send>;

/// Messages of a node for the `n`-th aggregate that is asked (from 0), then the end of the stream.
pub type AggregateScript =
    Box<dyn FnMut(usize, u64, &pb::AggregateRequest) -> Vec<pb::AggregateResponse> + Send>;

pub struct State {
    /// What nodes do about aggregates.
    pub aggregate_script: Mutex<Option<AggregateScript>>,
    aggregates: Mutex<Vec<(u64, pb::AggregateRequest)>>,
    /// Streams of aggregates stay open after their messages.
    pub hold_aggregates: AtomicBool,
    script: Mutex<Script>,
    asked: Mutex<Vec<Asked>>,
    ranges: Mutex<Vec<pb::RangeLocation>>,
    addresses: Mutex<Vec<String>>,
    meta_address: Mutex<String>,
    /// Answers to the next splits; none is left: unimplemented.
    pub splits: Mutex<VecDeque<Result<pb::SplitRangeResponse, Status>>>,
    pub lookups: AtomicU64,
    pub is_meta_silent: AtomicBool,
    /// The cluster of meta, and that of each node.
    pub meta_cluster: AtomicU64,
    pub node_clusters: [AtomicU64; 2],
    /// What each node says of the ranges that it hosts.
    pub routes: Mutex<[Vec<pb::RangeLocation>; 2]>,
    /// Nodes refuse every stream.
    pub is_starting: AtomicBool,
    /// Registrations of long reads and their renewals.
    pub holds: Mutex<Vec<pb::HoldSnapshotRequest>>,
    pub released: Mutex<Vec<u64>>,
    /// Registrations below it are refused.
    pub safe_point: AtomicU64,
    pub hold_lifetime_ms: AtomicU64,
    ts: AtomicU64,
}

impl State {
    /// A new timestamp.
    pub fn tick(&self) -> u64 {
        self.ts.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Everything that was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Every aggregate that was asked so far, and of which node.
    pub fn aggregates(&self) -> Vec<(u64, pb::AggregateRequest)> {
        self.aggregates.lock().unwrap().clone()
    }

    /// Meta knows the last node no more.
    pub fn remove_last_node(&self) {
        self.addresses.lock().unwrap().pop();
    }

    /// Changes where meta says that a node is; returns where that was.
    pub fn swap_address(&self, node: u64, address: &str) -> String {
        let addresses = &mut *self.addresses.lock().unwrap();
        std::mem::replace(&mut addresses[node as usize - 1], address.to_owned())
    }
}

/// The cluster, as long as it is not dropped.
pub struct Scripted {
    pub state: Arc<State>,
    pub client: Client,
    _stop: DropGuard,
}

/// A range on nodes 1 and 2.
pub fn range(id: u64, start: &str, end: &str, version: u64) -> pb::Descriptor {
    let span = KeyRange::new(start.to_owned(), end.to_owned()).unwrap();
    let mut descriptor = RangeDescriptor::first(RangeId(id), span, &[NodeId(1), NodeId(2)]);
    descriptor.epoch = RangeEpoch { version, conf_ver: 1 };
    (&descriptor).into()
}

pub fn error(code: Code) -> Reply {
    Reply::Error(pb::Error { code: code.into(), message: "scripted".into(), ..Default::default() })
}

pub fn not_leader(leader_node: u64) -> Reply {
    Reply::Error(pb::Error { code: Code::NotLeader.into(), leader_node, ..Default::default() })
}

pub fn epoch_mismatch(descriptors: Vec<pb::Descriptor>) -> Reply {
    Reply::Error(pb::Error { code: Code::EpochMismatch.into(), descriptors, ..Default::default() })
}

/// A write that was done at `ts`.
pub fn done(asked: &Asked, ts: u64) -> Reply {
    let result = |op: &pb::WriteOp| {
        let kind = match &op.kind {
            Some(write_op::Kind::Put(_)) => op_result::Kind::Put(pb::Unit {}),
            Some(write_op::Kind::Incr(by)) => op_result::Kind::Value(*by),
            other => panic!("{other:?} is not scripted"),
        };
        pb::OpResult { kind: Some(kind), ts: None }
    };
    let results = asked.write().ops.iter().map(result).collect();
    Reply::Body(range_response::Body::Write(pb::WriteBatchResult { ts, index: 0, results }))
}

pub fn found(value: &'static str, ts: u64) -> Reply {
    let value = value.as_bytes().into();
    let result = pb::PointResult { found: true, value, ts, index: 0 };
    Reply::Body(range_response::Body::Read(result))
}

/// A page with one row per key.
pub fn page(at: u64, start: &str, end: &str, keys: &[&str]) -> Reply {
    let span = KeyRange::new(start.to_owned(), end.to_owned()).unwrap();
    let row = |key: &&str| pb::Row { key: (*key).to_owned().into(), value: "v".into(), ts: 1 };
    let rows = keys.iter().map(row).collect();
    let page = pb::PageResult { at, covered: Some((&span).into()), rows };
    Reply::Body(range_response::Body::Scan(page))
}

impl Scripted {
    /// A cluster with `ranges`, all led by node 1 as far as meta knows.
    pub async fn start(
        ranges: Vec<pb::Descriptor>,
        script: impl FnMut(usize, &Asked) -> Reply + Send + 'static,
    ) -> Self {
        let located = |d| pb::RangeLocation {
            descriptor: Some(d),
            leader_node: 1,
            ..pb::RangeLocation::default()
        };
        let state = Arc::new(State {
            aggregate_script: Mutex::default(),
            aggregates: Mutex::default(),
            hold_aggregates: AtomicBool::new(false),
            script: Mutex::new(Box::new(script)),
            asked: Mutex::default(),
            ranges: Mutex::new(ranges.into_iter().map(located).collect()),
            addresses: Mutex::default(),
            meta_address: Mutex::default(),
            splits: Mutex::default(),
            lookups: AtomicU64::new(0),
            is_meta_silent: AtomicBool::new(false),
            meta_cluster: AtomicU64::new(1),
            node_clusters: [AtomicU64::new(1), AtomicU64::new(1)],
            routes: Mutex::default(),
            is_starting: AtomicBool::new(false),
            holds: Mutex::default(),
            released: Mutex::default(),
            safe_point: AtomicU64::new(0),
            hold_lifetime_ms: AtomicU64::new(60_000),
            ts: AtomicU64::new(1000),
        });
        let stop = CancellationToken::new();
        let start = |routes: Routes| {
            let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            let address = listener.local_addr().unwrap().to_string();
            tokio::spawn(serve(listener, routes, 1000, stop.clone()));
            address
        };
        for node in 1..=2 {
            let service = RangeServiceServer::new(Node { id: node, state: state.clone() });
            state.addresses.lock().unwrap().push(start(Routes::new(service)));
        }
        let meta = start(Routes::new(MetaServiceServer::new(Meta(state.clone()))));
        *state.meta_address.lock().unwrap() = meta.clone();
        let options = ClientOptions {
            meta: vec![meta],
            timeout: Duration::from_millis(1500),
            attempt_timeout: Duration::from_millis(300),
        };
        Self { state, client: Client::connect(options).unwrap(), _stop: stop.drop_guard() }
    }
}

/// The refusal of a request that is for another cluster.
fn other_cluster(own: u64, asked: u64) -> Option<pb::Error> {
    let message = format!("this is c{own}, not c{asked}");
    let refusal = pb::Error { code: Code::Incompatible.into(), message, ..Default::default() };
    (asked != 0 && asked != own).then_some(refusal)
}

struct Node {
    id: u64,
    state: Arc<State>,
}

/// Answers one stream until the script hangs up.
async fn answer(
    node: u64,
    state: Arc<State>,
    mut inbound: Streaming<pb::RangeRequests>,
    outbound: mpsc::Sender<Result<pb::RangeResponses, Status>>,
) {
    while let Ok(Some(message)) = inbound.message().await {
        let mut responses = Vec::new();
        let own = state.node_clusters[node as usize - 1].load(Ordering::SeqCst);
        for request in message.requests {
            if let Some(error) = other_cluster(own, message.cluster_id) {
                let body = Some(range_response::Body::Error(error));
                responses.push(pb::RangeResponse { id: request.id, body });
                continue;
            }
            let (range, version) = (request.range_id, request.version);
            let asked = Asked { node, range, version, body: request.body.unwrap() };
            let reply = {
                let mut all = state.asked.lock().unwrap();
                all.push(asked.clone());
                (state.script.lock().unwrap())(all.len() - 1, &asked)
            };
            let body = match reply {
                Reply::Body(body) => body,
                Reply::Error(error) => range_response::Body::Error(error),
                Reply::Silence => continue,
                Reply::HangUp => return,
            };
            responses.push(pb::RangeResponse { id: request.id, body: Some(body) });
        }
        let _ = outbound.send(Ok(pb::RangeResponses { responses })).await;
    }
}

#[tonic::async_trait]
impl RangeService for Node {
    type StreamStream = ReceiverStream<Result<pb::RangeResponses, Status>>;
    type AggregateStream = ReceiverStream<Result<pb::AggregateResponse, Status>>;

    async fn aggregate(
        &self,
        request: Request<pb::AggregateRequest>,
    ) -> Result<Response<Self::AggregateStream>, Status> {
        let request = request.into_inner();
        let number = {
            let mut all = self.state.aggregates.lock().unwrap();
            all.push((self.id, request.clone()));
            all.len() - 1
        };
        let mut script = self.state.aggregate_script.lock().unwrap();
        let script = script.as_mut().ok_or_else(|| Status::unimplemented("not scripted"))?;
        let messages = script(number, self.id, &request);
        let (outbound, answers) = mpsc::channel(messages.len().max(1));
        messages.into_iter().for_each(|m| outbound.try_send(Ok(m)).unwrap());
        if self.state.hold_aggregates.load(Ordering::SeqCst) {
            tokio::spawn(async move { outbound.closed().await });
        }
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn stream(
        &self,
        request: Request<Streaming<pb::RangeRequests>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        if self.state.is_starting.load(Ordering::SeqCst) {
            return Err(Status::unavailable("this node is starting"));
        }
        let (outbound, answers) = mpsc::channel(64);
        tokio::spawn(answer(self.id, self.state.clone(), request.into_inner(), outbound));
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn open_session(
        &self,
        _: Request<pb::OpenSessionRequest>,
    ) -> Result<Response<pb::OpenSessionResponse>, Status> {
        let ts = self.state.tick();
        Ok(Response::new(pb::OpenSessionResponse { session_issuer: 7, session_number: 1, ts }))
    }

    async fn timestamp(
        &self,
        _: Request<pb::RangeTimestampRequest>,
    ) -> Result<Response<pb::RangeTimestampResponse>, Status> {
        Ok(Response::new(pb::RangeTimestampResponse { ts: self.state.tick() }))
    }

    async fn split_range(
        &self,
        _: Request<pb::SplitRangeRequest>,
    ) -> Result<Response<pb::SplitRangeResponse>, Status> {
        let next = self.state.splits.lock().unwrap().pop_front();
        next.unwrap_or_else(|| Err(Status::unimplemented("not scripted"))).map(Response::new)
    }

    async fn transfer_leader(
        &self,
        _: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn order_checksum(
        &self,
        _: Request<pb::OrderChecksumRequest>,
    ) -> Result<Response<pb::OrderChecksumResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn read_checksum(
        &self,
        _: Request<pb::ReadChecksumRequest>,
    ) -> Result<Response<pb::ReadChecksumResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn list_replicas(
        &self,
        _: Request<pb::ListReplicasRequest>,
    ) -> Result<Response<pb::ListReplicasResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn list_routes(
        &self,
        _: Request<pb::ListRoutesRequest>,
    ) -> Result<Response<pb::ListRoutesResponse>, Status> {
        let node = self.id as usize - 1;
        let ranges = self.state.routes.lock().unwrap()[node].clone();
        let cluster_id = self.state.node_clusters[node].load(Ordering::SeqCst);
        Ok(Response::new(pb::ListRoutesResponse { cluster_id, ranges, nodes: Vec::new() }))
    }
}

struct Meta(Arc<State>);

impl Meta {
    async fn unless_silent(&self) {
        if self.0.is_meta_silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
}

#[tonic::async_trait]
impl MetaService for Meta {
    type TimestampsStream = ReceiverStream<Result<pb::TimestampsResponse, Status>>;

    async fn members(
        &self,
        _: Request<pb::MembersRequest>,
    ) -> Result<Response<pb::MembersResponse>, Status> {
        self.unless_silent().await;
        let address = self.0.meta_address.lock().unwrap().clone();
        let members = vec![pb::Member { id: 1, address }];
        Ok(Response::new(pb::MembersResponse {
            cluster_id: 1,
            leader: 1,
            term: 1,
            members,
            answered_by: 1,
            last_log_index: 1,
            ..Default::default()
        }))
    }

    async fn get_ranges(
        &self,
        request: Request<pb::GetRangesRequest>,
    ) -> Result<Response<pb::GetRangesResponse>, Status> {
        self.unless_silent().await;
        self.0.lookups.fetch_add(1, Ordering::SeqCst);
        let request = request.into_inner();
        let cluster_id = self.0.meta_cluster.load(Ordering::SeqCst);
        if let Some(error) = other_cluster(cluster_id, request.cluster_id) {
            let refusal = pb::GetRangesResponse { error: Some(error), ..Default::default() };
            return Ok(Response::new(refusal));
        }
        let span: KeyRange = request.span.map_or(KeyRange::all(), |span| span.try_into().unwrap());
        let overlaps = |location: &&pb::RangeLocation| {
            let descriptor = location.descriptor.clone().unwrap();
            KeyRange::try_from(descriptor.span.unwrap()).unwrap().overlaps(&span)
        };
        let all = self.0.ranges.lock().unwrap().clone();
        let ranges = all.iter().filter(overlaps).take(request.limit as usize).cloned().collect();
        let addresses = self.0.addresses.lock().unwrap().clone();
        let node = |(id, address): (u64, String)| pb::NodeAddress { id, address, incarnation: 1 };
        let nodes = (1..).zip(addresses).map(node).collect();
        Ok(Response::new(pb::GetRangesResponse { error: None, ranges, nodes, cluster_id }))
    }

    async fn explain_range(
        &self,
        _: Request<pb::ExplainRangeRequest>,
    ) -> Result<Response<pb::ExplainRangeResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn hot(&self, _: Request<pb::HotRequest>) -> Result<Response<pb::HotResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn set_intent(
        &self,
        _: Request<pb::SetIntentRequest>,
    ) -> Result<Response<pb::SetIntentResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn upgrade_status(
        &self,
        _: Request<pb::UpgradeStatusRequest>,
    ) -> Result<Response<pb::UpgradeStatusResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn finalize_upgrade(
        &self,
        _: Request<pb::FinalizeUpgradeRequest>,
    ) -> Result<Response<pb::FinalizeUpgradeResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn register_node(
        &self,
        _: Request<pb::RegisterNodeRequest>,
    ) -> Result<Response<pb::RegisterNodeResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn heartbeat(
        &self,
        _: Request<pb::HeartbeatRequest>,
    ) -> Result<Response<pb::HeartbeatResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn timestamps(
        &self,
        _: Request<Streaming<pb::TimestampsRequest>>,
    ) -> Result<Response<Self::TimestampsStream>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn report_damage(
        &self,
        _: Request<pb::ReportDamageRequest>,
    ) -> Result<Response<pb::ReportDamageResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn list_nodes(
        &self,
        _: Request<pb::ListNodesRequest>,
    ) -> Result<Response<pb::ListNodesResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn allocate_ids(
        &self,
        _: Request<pb::AllocateIdsRequest>,
    ) -> Result<Response<pb::AllocateIdsResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn get_settings(
        &self,
        _: Request<pb::GetSettingsRequest>,
    ) -> Result<Response<pb::GetSettingsResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn set_setting(
        &self,
        _: Request<pb::SetSettingRequest>,
    ) -> Result<Response<pb::SetSettingResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn move_range(
        &self,
        _: Request<pb::MoveRangeRequest>,
    ) -> Result<Response<pb::MoveRangeResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
    async fn merge_ranges(
        &self,
        _: Request<pb::MergeRangesRequest>,
    ) -> Result<Response<pb::MergeRangesResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn list_operations(
        &self,
        _: Request<pb::ListOperationsRequest>,
    ) -> Result<Response<pb::ListOperationsResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn cancel_operation(
        &self,
        _: Request<pb::CancelOperationRequest>,
    ) -> Result<Response<pb::CancelOperationResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn hold_snapshot(
        &self,
        request: Request<pb::HoldSnapshotRequest>,
    ) -> Result<Response<pb::HoldSnapshotResponse>, Status> {
        self.unless_silent().await;
        let request = request.into_inner();
        self.0.holds.lock().unwrap().push(request);
        let safe_point = self.0.safe_point.load(Ordering::SeqCst);
        if request.at < safe_point {
            let code = Code::SnapshotTooOld.into();
            let error = Some(pb::Error { code, safe_point, ..Default::default() });
            return Ok(Response::new(pb::HoldSnapshotResponse { error, ..Default::default() }));
        }
        let lifetime_ms = self.0.hold_lifetime_ms.load(Ordering::SeqCst);
        Ok(Response::new(pb::HoldSnapshotResponse { error: None, id: 5, lifetime_ms }))
    }

    async fn release_snapshot(
        &self,
        request: Request<pb::ReleaseSnapshotRequest>,
    ) -> Result<Response<pb::ReleaseSnapshotResponse>, Status> {
        self.0.released.lock().unwrap().push(request.into_inner().id);
        Ok(Response::new(pb::ReleaseSnapshotResponse::default()))
    }
}
