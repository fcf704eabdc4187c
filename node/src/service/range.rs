//! What clients that route, and operators, ask of the node that leads a range.

use super::aggregate::{Admission, Aggregate};
use super::answers::{Answers, StreamLimits, answers};
use super::convert::{check_key, invalid, wire_error};
use super::range_stream;
use super::request_memory::RequestMemory;
use crate::room::Room;
use isotherm_proto::WireError;
use isotherm_proto::internal::error::Code;
use isotherm_proto::internal::range_service_server::RangeService;
use isotherm_proto::internal::{self as pb};
use isotherm_raftstore::{RangeError, Store, TimestampSource};
use isotherm_transport::{Incarnations, MetaLink, Peers};
use isotherm_types::limits::{LISTED_BYTES_MAX, SPLIT_KEYS_MAX};
use isotherm_types::{ClusterId, Incarnation, Key, NodeId, RangeId, SessionId, Timestamp};
use prost::Message;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Messages of answers that wait for the wire, and their bytes.
const ANSWERS_WAITING_MAX: usize = 64;
const ANSWERS_WAITING_BYTES: usize = 8 << 20;
/// Partial aggregates that wait for the wire, and their bytes; reading waits then.
const PARTIALS_WAITING_MAX: usize = 2;
const PARTIALS_WAITING_BYTES: usize = 8 << 20;

/// What is known once the node is open.
pub struct Ready {
    pub store: Arc<Store>,
    pub oracle: Arc<dyn TimestampSource>,
    pub meta: Arc<MetaLink>,
    pub cluster: ClusterId,
    /// The number of this start, once meta has given it one: sessions are named by it.
    pub registered: Arc<OnceLock<Incarnation>>,
    /// This node, how others reach it, and what is known of them.
    pub me: NodeId,
    pub address: String,
    pub peers: Peers,
    pub incarnations: Incarnations,
    /// Sessions issued so far.
    pub sessions: AtomicU64,
    /// How many aggregates are read at a time.
    pub aggregates: Arc<Admission>,
    /// How long a stream that is not read lasts.
    pub stream_idle: Duration,
    /// Memory of requests and answers.
    pub memory: RequestMemory,
}

impl Ready {
    /// Refuses what is meant for another cluster; 0: the client did not say.
    pub(super) fn check_cluster(&self, asked: u64) -> Result<(), WireError> {
        if asked == 0 || asked == self.cluster.get() {
            return Ok(());
        }
        Err(other_cluster(self.cluster, ClusterId(asked)))
    }

    fn stream_limits(&self, messages: usize, bytes: usize) -> StreamLimits {
        StreamLimits { messages, bytes, idle: self.stream_idle, memory: None }
    }

    /// A timestamp, within the RPC's deadline.
    async fn timestamp(&self) -> Result<Timestamp, WireError> {
        let unavailable = |why: String| WireError::new(Code::Unavailable, why);
        match tokio::time::timeout(TIMEOUT, self.oracle.timestamp()).await {
            Ok(Ok(ts)) => Ok(ts),
            Ok(Err(error)) => Err(unavailable(error.to_string())),
            Err(_) => Err(unavailable("the meta service did not answer in time".to_owned())),
        }
    }

    async fn allocate(&self, count: u32) -> Result<u64, WireError> {
        let unavailable = |why: String| WireError::new(Code::Unavailable, why);
        let cluster_id = self.cluster.get();
        for _ in 0..3 {
            let mut leader = self.meta.leader().await?;
            let asked = leader.allocate_ids(pb::AllocateIdsRequest { count, cluster_id });
            let answer = match tokio::time::timeout(TIMEOUT, asked).await {
                Ok(Ok(answer)) => answer.into_inner(),
                Ok(Err(_)) | Err(_) => {
                    self.meta.forget_leader();
                    continue;
                }
            };
            match self.meta.check(answer.error) {
                Ok(()) => return Ok(answer.first),
                Err(error) if matches!(error.code(), Code::Incompatible | Code::Condition) => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        Err(unavailable("the meta service gave no ids for new ranges".to_owned()))
    }
}

/// The refusal of what is meant for another cluster: the address was taken over by this node.
pub(super) fn other_cluster(own: ClusterId, asked: ClusterId) -> WireError {
    let why = format!("this node is of cluster {own}, the request is for {asked}");
    WireError::new(Code::Incompatible, why)
}

/// The service; refuses everything until the node is open.
#[derive(Clone, Default)]
pub struct RangeRpc(pub Arc<OnceLock<Ready>>);

impl RangeRpc {
    pub(super) fn ready(&self) -> Result<&Ready, Status> {
        self.0.get().ok_or_else(|| Status::unavailable("this node is starting"))
    }
}

/// The error as it ends an RPC.
pub(super) fn status(error: RangeError) -> Status {
    // The details travel in the message's binary form, so that a client can route by them.
    wire_error(error).into_detailed_status()
}

/// As many of `replicas` as one answer takes.
fn first_replicas(replicas: impl Iterator<Item = pb::ReplicaInfo>) -> pb::ListReplicasResponse {
    let mut answer = pb::ListReplicasResponse::default();
    let mut room = Room::new(LISTED_BYTES_MAX);
    for replica in replicas {
        if !room.take(replica.encoded_len()) {
            answer.has_more = true;
            break;
        }
        answer.replicas.push(replica);
    }
    answer
}

#[tonic::async_trait]
impl RangeService for RangeRpc {
    type StreamStream = Answers<pb::RangeResponses>;
    type AggregateStream = Answers<pb::AggregateResponse>;

    async fn stream(
        &self,
        request: Request<Streaming<pb::RangeRequests>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let ready = self.ready()?;
        let (store, memory) = (ready.store.clone(), ready.memory.stream());
        let limits = ready.stream_limits(ANSWERS_WAITING_MAX, ANSWERS_WAITING_BYTES);
        let (outbound, answers) = answers(limits);
        let (cluster, requests) = (ready.cluster, request.into_inner());
        tokio::spawn(range_stream::serve(store, memory, cluster, requests, outbound));
        Ok(Response::new(answers))
    }

    async fn aggregate(
        &self,
        request: Request<pb::AggregateRequest>,
    ) -> Result<Response<Self::AggregateStream>, Status> {
        let ready = self.ready()?;
        let request = request.into_inner();
        ready.check_cluster(request.cluster_id)?;
        let aggregate = Aggregate::new(ready.store.clone(), request).map_err(status)?;
        let limits = ready.stream_limits(PARTIALS_WAITING_MAX, PARTIALS_WAITING_BYTES);
        let (outbound, answers) = answers(limits);
        tokio::spawn(aggregate.run(ready.aggregates.clone(), outbound));
        Ok(Response::new(answers))
    }

    async fn open_session(
        &self,
        request: Request<pb::OpenSessionRequest>,
    ) -> Result<Response<pb::OpenSessionResponse>, Status> {
        let ready = self.ready()?;
        ready.check_cluster(request.into_inner().cluster_id)?;
        // The number of an earlier start would name sessions that were given before.
        let unregistered =
            || Status::unavailable("this start has no number of the meta service yet");
        let incarnation = *ready.registered.get().ok_or_else(unregistered)?;
        let ts = ready.timestamp().await?;
        let number = ready.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        let session = SessionId::new(ready.cluster, incarnation, number);
        Ok(Response::new(pb::OpenSessionResponse {
            session_issuer: session.issuer,
            session_number: session.number,
            ts: ts.get(),
        }))
    }

    async fn timestamp(
        &self,
        request: Request<pb::RangeTimestampRequest>,
    ) -> Result<Response<pb::RangeTimestampResponse>, Status> {
        let ready = self.ready()?;
        ready.check_cluster(request.into_inner().cluster_id)?;
        let ts = ready.timestamp().await?;
        Ok(Response::new(pb::RangeTimestampResponse { ts: ts.get() }))
    }

    async fn split_range(
        &self,
        request: Request<pb::SplitRangeRequest>,
    ) -> Result<Response<pb::SplitRangeResponse>, Status> {
        let ready = self.ready()?;
        let request = request.into_inner();
        let count = request.keys.len();
        check_split_keys(&request.keys).map_err(status)?;
        let epoch = request.epoch.ok_or_else(|| Status::invalid_argument("no epoch"))?.into();
        let first = ready.allocate(count as u32).await?;
        let children = (first..).take(count).map(RangeId).collect();
        let range = RangeId(request.range_id);
        let split = ready.store.split(range, epoch, request.keys, children);
        let descriptors = match tokio::time::timeout(TIMEOUT, split).await {
            Ok(done) => done.map_err(status)?,
            Err(_) => return Err(status(RangeError::Indeterminate)),
        };
        let descriptors = descriptors.iter().map(Into::into).collect();
        Ok(Response::new(pb::SplitRangeResponse { descriptors }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        let store = &self.ready()?.store;
        let (range, to) = (RangeId(request.range_id), NodeId(request.to_node));
        store.transfer_leader(range, to).await.map_err(status)?;
        Ok(Response::new(pb::TransferLeaderResponse {}))
    }

    async fn order_checksum(
        &self,
        request: Request<pb::OrderChecksumRequest>,
    ) -> Result<Response<pb::OrderChecksumResponse>, Status> {
        let store = &self.ready()?.store;
        let range = RangeId(request.into_inner().range_id);
        let ordered = tokio::time::timeout(TIMEOUT, store.order_checksum(range)).await;
        let ordered = ordered.unwrap_or(Err(RangeError::Indeterminate));
        let (applied_index, descriptor) = ordered.map_err(status)?;
        let descriptor = Some((&descriptor).into());
        Ok(Response::new(pb::OrderChecksumResponse { applied_index, descriptor }))
    }

    async fn read_checksum(
        &self,
        request: Request<pb::ReadChecksumRequest>,
    ) -> Result<Response<pb::ReadChecksumResponse>, Status> {
        let request = request.into_inner();
        let store = &self.ready()?.store;
        let sum = store.checksum_at(RangeId(request.range_id), request.applied_index);
        Ok(Response::new(pb::ReadChecksumResponse {
            checksum: sum.map(|s| s.hash),
            rows: sum.map_or(0, |s| s.rows),
        }))
    }

    async fn list_replicas(
        &self,
        request: Request<pb::ListReplicasRequest>,
    ) -> Result<Response<pb::ListReplicasResponse>, Status> {
        let pb::ListReplicasRequest { range_id: wanted, after } = request.into_inner();
        let mut replicas = self.ready()?.store.replicas();
        replicas.retain(|r| {
            let id = r.descriptor.id.get();
            (wanted == 0 || id == wanted) && id > after
        });
        replicas.sort_by_key(|r| r.descriptor.id);
        let replicas = replicas.into_iter().map(|r| pb::ReplicaInfo {
            descriptor: Some((&r.descriptor).into()),
            replica_id: r.replica.get(),
            is_leader: r.is_leader,
            leader_replica: r.leader_replica.map_or(0, |id| id.get()),
            term: r.term,
            applied_index: r.applied_index,
            durable_index: r.durable_index,
            last_log_index: r.last_log_index,
            first_log_index: r.first_log_index,
        });
        Ok(Response::new(first_replicas(replicas)))
    }
    async fn list_routes(
        &self,
        request: Request<pb::ListRoutesRequest>,
    ) -> Result<Response<pb::ListRoutesResponse>, Status> {
        let ready = self.ready()?;
        let request = request.into_inner();
        ready.check_cluster(request.cluster_id)?;
        Ok(Response::new(ready.routes(request)?))
    }
}

fn check_split_keys(keys: &[Key]) -> Result<(), RangeError> {
    let count = keys.len();
    if !(1..=SPLIT_KEYS_MAX).contains(&count) {
        return Err(invalid(format!(
            "a split has {count} keys: 1 to {SPLIT_KEYS_MAX} are allowed"
        )));
    }
    keys.iter().try_for_each(check_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_has_as_many_keys_as_it_may() {
        let keys = |count: usize, bytes: usize| {
            let keys = vec![Key::from(vec![b'k'; bytes]); count];
            check_split_keys(&keys).map_err(|refused| refused.to_string())
        };
        let longest = isotherm_types::limits::KEY_BYTES_MAX;
        assert_eq!(keys(SPLIT_KEYS_MAX, longest), Ok(()));
        assert!(keys(SPLIT_KEYS_MAX + 1, 1).is_err_and(|why| why.contains("257 keys: 1 to 256")));
        assert!(keys(SPLIT_KEYS_MAX, longest + 1).is_err_and(|why| why.contains("limit is 4096")));
        assert!(keys(0, 1).is_err());
    }

    #[test]
    fn replicas_are_listed_in_pages_of_bounded_size() {
        let key = bytes::Bytes::from(vec![b'k'; isotherm_types::limits::KEY_BYTES_MAX]);
        let span = Some(pb::KeyRange { start: key.clone(), end: key });
        let descriptor = Some(pb::Descriptor { span, ..pb::Descriptor::default() });
        let replica = pb::ReplicaInfo { descriptor, ..pb::ReplicaInfo::default() };
        let fit = LISTED_BYTES_MAX / replica.encoded_len();
        let list = |count| first_replicas(std::iter::repeat_n(replica.clone(), count));
        assert_eq!((list(fit).replicas.len(), list(fit).has_more), (fit, false));
        assert_eq!((list(fit + 1).replicas.len(), list(fit + 1).has_more), (fit, true));
    }
}
