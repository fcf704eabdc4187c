//! What operators ask.

use crate::client::Client;
use crate::{ClientError, ErrorKind};
use isotherm_proto::internal::error::Code;
use isotherm_proto::internal::{self as pb};
use isotherm_proto::{ConvertError, WireError};
use isotherm_transport::status_text;
use isotherm_types::{Key, KeyRange, NodeId, RangeDescriptor, RangeId, ReplicaId};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const RPC_TIMEOUT: Duration = Duration::from_secs(12);
const META_TIMEOUT: Duration = Duration::from_secs(3);
/// Ranges listed at a time.
const PAGE_RANGES: u32 = 1000;
const CHECKSUM_POLL: Duration = Duration::from_millis(50);

/// Administration of a cluster.
pub struct Admin<'a> {
    client: &'a Client,
}

/// One member of the meta service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Where it is.
    pub address: String,
}

/// One node, as meta knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeStatus {
    /// Its id.
    pub id: NodeId,
    /// Where it serves gRPC.
    pub address: String,
    /// Where it serves health and metrics.
    pub http_address: String,
    /// `up`, `down`, `joining`, `read-only`, `decommissioned`.
    pub state: String,
    /// What is wanted of it: `active`, `draining`, `decommissioning`, `decommissioned`.
    pub intent: String,
    /// Replicas on it.
    pub replicas: u64,
    /// Ranges that it leads.
    pub leaders: u64,
    /// Where it is, for placement.
    pub labels: BTreeMap<String, String>,
    /// How long ago it was heard.
    pub last_heartbeat: Duration,
    /// Size of its disk.
    pub disk_total_bytes: u64,
    /// What is free of it.
    pub disk_free_bytes: u64,
    /// Cores that it keeps busy.
    pub load: f64,
    /// Cores that it may use.
    pub capacity_cores: f64,
    /// Its software.
    pub version: String,
}

/// One range, as meta knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeLocation {
    /// What and where it is.
    pub descriptor: RangeDescriptor,
    /// Who leads it.
    pub leader: Option<NodeId>,
    /// The replicas that its leader hears from.
    pub live_replicas: Vec<ReplicaId>,
    /// Bytes on disk, roughly.
    pub size_bytes: u64,
    /// What it costs its leader; without keys.
    pub load: RangeLoad,
}

/// The state of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterStatus {
    /// Which cluster.
    pub cluster_id: u64,
    /// Whether its ranges exist.
    pub bootstrapped: bool,
    /// What is wrong, the worst first.
    pub problems: Vec<String>,
    /// The member that leads the meta service.
    pub meta_leader: u64,
    /// All members.
    pub meta_members: Vec<Member>,
    /// All nodes.
    pub nodes: Vec<NodeStatus>,
    /// How many ranges there are.
    pub ranges_total: u64,
    /// Ranges without a quorum.
    pub ranges_unavailable: u64,
    /// Ranges with fewer live replicas than they should have.
    pub ranges_under_replicated: u64,
}

/// The sum of one replica's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaChecksum {
    /// Where the replica is.
    pub node: NodeId,
    /// Which replica.
    pub replica: ReplicaId,
    /// The applied index that was summed.
    pub applied_index: u64,
    /// The sum, or why there is none.
    pub checksum: Result<u64, String>,
    /// How many rows went in.
    pub rows: u64,
}

/// A setting of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// What it is set to.
    pub value: String,
    /// What it is without being set.
    pub default_value: String,
    /// What it does.
    pub help: String,
}

fn converted<T, P: TryInto<T, Error = ConvertError>>(message: P) -> Result<T, ClientError> {
    message.try_into().map_err(|e| ClientError::new(ErrorKind::Internal, e.to_string()))
}

fn location(location: pb::RangeLocation) -> Result<RangeLocation, ClientError> {
    let missing = || ClientError::new(ErrorKind::Internal, "meta lists a range without descriptor");
    Ok(RangeLocation {
        descriptor: converted(location.descriptor.ok_or_else(missing)?)?,
        leader: Some(NodeId(location.leader_node)).filter(|n| n.get() != 0),
        live_replicas: location.live_replicas.into_iter().map(ReplicaId).collect(),
        size_bytes: location.size_bytes,
        load: location.load.map(RangeLoad::from).unwrap_or_default(),
    })
}

fn node_status(node: pb::NodeStatus) -> NodeStatus {
    NodeStatus {
        id: NodeId(node.id),
        address: node.address,
        http_address: node.http_address,
        state: node.state,
        replicas: node.replicas,
        leaders: node.leaders,
        labels: node.labels.into_iter().collect(),
        last_heartbeat: Duration::from_millis(node.last_heartbeat_ms_ago),
        disk_total_bytes: node.disk_total_bytes,
        disk_free_bytes: node.disk_free_bytes,
        load: node.load,
        intent: node.intent,
        capacity_cores: node.capacity_cores,
        version: node.version,
    }
}

/// The node to ask in a turn as long as the leader is not known; 0 for a range without replicas.
fn in_turn(descriptor: &RangeDescriptor, turn: usize) -> NodeId {
    let replicas = &descriptor.replicas;
    replicas.get(turn % replicas.len().max(1)).map_or(NodeId(0), |replica| replica.node)
}

/// The error that a node put into the details of a status.
fn detailed(status: tonic::Status) -> WireError {
    use prost::Message;
    match pb::Error::decode(status.details()) {
        Ok(error) if !status.details().is_empty() => error.into(),
        _ => {
            let code = match status.code() {
                tonic::Code::InvalidArgument => Code::Invalid,
                tonic::Code::NotFound => Code::NotFound,
                tonic::Code::FailedPrecondition => Code::Condition,
                _ => Code::Unavailable,
            };
            WireError::new(code, status_text(&status))
        }
    }
}

/// Asks the meta leader, following it when it moves.
macro_rules! ask_meta {
    ($self:ident, $method:ident, $request:expr) => {{
        let inner = &$self.client.inner;
        let mut attempts = inner.attempts();
        loop {
            let message = $request;
            let call = |mut leader: isotherm_transport::MetaClient| async move {
                leader.$method(message).await
            };
            let error = match inner.meta.ask(META_TIMEOUT.min(attempts.left()), call).await {
                Ok(answer) => match inner.meta.check(answer.error.clone()) {
                    Ok(()) => break Ok(answer),
                    Err(error) if error.code() == Code::NotLeader => error,
                    Err(error) if error.code() == Code::Unavailable => error,
                    Err(error) => break Err(ClientError::from(error)),
                },
                Err(error) => error,
            };
            if !attempts.pause(Duration::ZERO).await {
                break Err(ClientError::new(ErrorKind::Unreachable, error.0.message.clone()));
            }
        }
    }};
}

mod heat;
mod operations;
mod upgrade;

pub use heat::{Decision, Explanation, HotRange, KeySample, RangeLoad, Rates};
pub use operations::{Operation, OperationStatus};
pub use upgrade::{ProcessVersion, UpgradeStatus};

impl<'a> Admin<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self { client }
    }

    /// The state of the cluster.
    pub async fn status(&self) -> Result<ClusterStatus, ClientError> {
        let status = ask_meta!(self, status, pb::StatusRequest {})?;
        let member = |m: pb::Member| Member { id: m.id, address: m.address };
        Ok(ClusterStatus {
            cluster_id: status.cluster_id,
            bootstrapped: status.bootstrapped,
            problems: status.problems,
            meta_leader: status.leader,
            meta_members: status.members.into_iter().map(member).collect(),
            nodes: status.nodes.into_iter().map(node_status).collect(),
            ranges_total: status.ranges_total,
            ranges_unavailable: status.ranges_unavailable,
            ranges_under_replicated: status.ranges_under_replicated,
        })
    }

    /// Every node.
    pub async fn nodes(&self) -> Result<Vec<NodeStatus>, ClientError> {
        let nodes = ask_meta!(self, list_nodes, pb::ListNodesRequest {})?.nodes;
        Ok(nodes.into_iter().map(node_status).collect())
    }

    /// Every range that has keys in `span`, in key order.
    pub async fn ranges(&self, span: &KeyRange) -> Result<Vec<RangeLocation>, ClientError> {
        let mut found: Vec<RangeLocation> = Vec::new();
        let mut from = span.start().clone();
        loop {
            let Ok(left) = KeyRange::new(from.clone(), span.end().clone()) else { break };
            let request = pb::GetRangesRequest {
                span: Some((&left).into()),
                limit: PAGE_RANGES,
                range_id: 0,
                cluster_id: self.client.inner.router.cluster(),
            };
            let page = ask_meta!(self, get_ranges, request.clone())?.ranges;
            let count = page.len();
            for range in page {
                found.push(location(range)?);
            }
            let end = found.last().map(|r| r.descriptor.span.end().clone());
            match end.filter(|end| !end.is_empty() && count > 0) {
                Some(end) => from = end,
                None => break,
            }
        }
        Ok(found)
    }

    /// The range with this id.
    pub async fn range(&self, id: RangeId) -> Result<RangeLocation, ClientError> {
        let request = pb::GetRangesRequest {
            span: None,
            limit: 1,
            range_id: id.get(),
            cluster_id: self.client.inner.router.cluster(),
        };
        let found = ask_meta!(self, get_ranges, request.clone())?.ranges.into_iter().next();
        let none = || ClientError::new(ErrorKind::NotFound, format!("there is no range {id}"));
        location(found.ok_or_else(none)?)
    }

    /// The range that holds `key`.
    pub async fn range_of_key(&self, key: &[u8]) -> Result<RangeLocation, ClientError> {
        let found = self.ranges(&KeyRange::point(key)).await?.into_iter().next();
        found.ok_or_else(|| ClientError::new(ErrorKind::NotFound, "the cluster has no ranges yet"))
    }

    /// Cuts the range that holds `key` at `key`; parent and child as they are after it. A key at
    /// which a range begins already is a condition that does not hold; if an attempt whose answer
    /// was lost made it begin there, it is the result.
    pub async fn split(&self, key: impl Into<Key>) -> Result<Vec<RangeDescriptor>, ClientError> {
        let key = key.into();
        crate::limits::check_key(&key)?;
        let inner = &self.client.inner;
        let mut attempts = inner.attempts();
        // Whether an attempt may have been carried out.
        let mut unknown = false;
        loop {
            let error = match inner.locate(&attempts, &key).await {
                Ok(route) => {
                    if *route.descriptor.span.start() == key {
                        if unknown {
                            let before = inner.router.locate_before(&key);
                            let parent = attempts.within(before).await?;
                            let pair = [&parent, &route].map(|r| r.descriptor.clone());
                            return Ok(pair.to_vec());
                        }
                        let message = "a range begins at this key already";
                        return Err(ClientError::new(ErrorKind::Condition, message));
                    }
                    let node = route.target();
                    let request = pb::SplitRangeRequest {
                        range_id: route.descriptor.id.get(),
                        epoch: Some(route.descriptor.epoch.into()),
                        keys: vec![key.clone()],
                    };
                    match self.split_once(node, request, attempts.left()).await {
                        Ok(descriptors) => {
                            for descriptor in &descriptors {
                                inner.router.learn(descriptor.clone(), node);
                            }
                            return Ok(descriptors);
                        }
                        Err(error) => {
                            match error.code() {
                                Code::NotLeader => {
                                    let leader = NodeId(error.0.leader_node);
                                    route.not_led_by(node, Some(leader).filter(|l| l.get() != 0));
                                }
                                Code::EpochMismatch => {
                                    for descriptor in error.0.descriptors.clone() {
                                        inner.router.learn(converted(descriptor)?, NodeId(0));
                                    }
                                }
                                Code::Unavailable | Code::RangeNotFound | Code::Busy => {
                                    inner.router.forget(route.descriptor.id);
                                }
                                // Whether it was done shows in the next attempt: its epoch is
                                // refused then.
                                Code::Indeterminate => {
                                    unknown = true;
                                    inner.router.forget(route.descriptor.id);
                                }
                                _ => return Err(error.into()),
                            }
                            ClientError::from(error)
                        }
                    }
                }
                Err(error) => error,
            };
            if !attempts.pause(Duration::ZERO).await {
                return Err(error);
            }
        }
    }

    async fn split_once(
        &self,
        node: NodeId,
        request: pb::SplitRangeRequest,
        limit: Duration,
    ) -> Result<Vec<RangeDescriptor>, WireError> {
        let unavailable = |why: String| WireError::new(Code::Unavailable, why);
        let mut rpc = self.client.inner.rpc(node).await.map_err(|e| unavailable(e.message))?;
        let asked = rpc.split_range(request);
        let answer = match tokio::time::timeout(RPC_TIMEOUT.min(limit), asked).await {
            Ok(answer) => answer,
            Err(_) => {
                let why = format!("{node} did not answer in time");
                self.client.inner.note_trouble(node, Some(why.clone()));
                return Err(WireError::new(Code::Indeterminate, why));
            }
        };
        let refused = |status: tonic::Status| match status.details() {
            // No word of the node itself: the connection broke, before or after it was told.
            [] if status.code() == tonic::Code::Unavailable => {
                let why = self.detailed(node, status).0.message.clone();
                WireError::new(Code::Indeterminate, why)
            }
            _ => detailed(status),
        };
        let descriptors = answer.map_err(refused)?.into_inner().descriptors;
        let invalid = |e: ConvertError| WireError::new(Code::Internal, e.to_string());
        descriptors.into_iter().map(TryInto::try_into).collect::<Result<_, _>>().map_err(invalid)
    }

    /// Hands the leadership of a range to its replica on `to`.
    pub async fn transfer_leader(&self, range: RangeId, to: NodeId) -> Result<(), ClientError> {
        let location = self.range(range).await?;
        if location.descriptor.replica_on(to).is_none() {
            let message = format!("{range} has no replica on {to}");
            return Err(ClientError::new(ErrorKind::Condition, message));
        }
        let mut attempts = self.client.inner.attempts();
        let mut leader = location.leader;
        let mut turn = 0;
        loop {
            let node = leader.unwrap_or_else(|| {
                turn += 1;
                in_turn(&location.descriptor, turn)
            });
            let mut rpc = self.client.inner.rpc(node).await?;
            let request = pb::TransferLeaderRequest { range_id: range.get(), to_node: to.get() };
            let limit = RPC_TIMEOUT.min(attempts.left());
            let error = match tokio::time::timeout(limit, rpc.transfer_leader(request)).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(status)) => {
                    let error = self.detailed(node, status);
                    match error.code() {
                        Code::NotLeader => {
                            leader = Some(NodeId(error.0.leader_node)).filter(|n| n.get() != 0);
                            if leader == Some(to) {
                                return Ok(());
                            }
                        }
                        Code::Unavailable | Code::RangeNotFound => leader = None,
                        _ => return Err(error.into()),
                    }
                    ClientError::from(error)
                }
                Err(_) => self.silent(node),
            };
            if !attempts.pause(Duration::from_millis(20)).await {
                return Err(error);
            }
        }
    }

    /// The sums of all replicas of a range at one applied index.
    pub async fn checksum(&self, range: RangeId) -> Result<Vec<ReplicaChecksum>, ClientError> {
        let deadline = Instant::now() + self.client.inner.timeout();
        let (applied_index, descriptor) = self.order_checksum(range).await?;
        let sums = descriptor.replicas.iter().map(|replica| async move {
            let mut sum = ReplicaChecksum {
                node: replica.node,
                replica: replica.id,
                applied_index,
                checksum: Err("it has not applied that far".to_owned()),
                rows: 0,
            };
            while Instant::now() < deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                match self.read_checksum(replica.node, range, applied_index, left).await {
                    Ok(pb::ReadChecksumResponse { checksum: Some(hash), rows }) => {
                        (sum.checksum, sum.rows) = (Ok(hash), rows);
                        break;
                    }
                    Ok(_) => {}
                    Err(error) => sum.checksum = Err(error.message),
                }
                tokio::time::sleep(CHECKSUM_POLL).await;
            }
            sum
        });
        Ok(futures::future::join_all(sums).await)
    }

    async fn order_checksum(&self, range: RangeId) -> Result<(u64, RangeDescriptor), ClientError> {
        let location = self.range(range).await?;
        let mut attempts = self.client.inner.attempts();
        let mut leader = location.leader;
        let mut turn = 0;
        loop {
            let node = leader.unwrap_or_else(|| {
                turn += 1;
                in_turn(&location.descriptor, turn)
            });
            let mut rpc = self.client.inner.rpc(node).await?;
            let request = pb::OrderChecksumRequest { range_id: range.get() };
            let limit = RPC_TIMEOUT.min(attempts.left());
            let error = match tokio::time::timeout(limit, rpc.order_checksum(request)).await {
                Ok(Ok(answer)) => {
                    let answer = answer.into_inner();
                    let missing = || ClientError::new(ErrorKind::Internal, "no descriptor");
                    let descriptor = converted(answer.descriptor.ok_or_else(missing)?)?;
                    return Ok((answer.applied_index, descriptor));
                }
                Ok(Err(status)) => {
                    let error = self.detailed(node, status);
                    leader = Some(NodeId(error.0.leader_node)).filter(|n| n.get() != 0);
                    ClientError::from(error)
                }
                Err(_) => self.silent(node),
            };
            if !attempts.pause(Duration::from_millis(20)).await {
                return Err(error);
            }
        }
    }

    async fn read_checksum(
        &self,
        node: NodeId,
        range: RangeId,
        applied_index: u64,
        limit: Duration,
    ) -> Result<pb::ReadChecksumResponse, ClientError> {
        let mut rpc = self.client.inner.rpc(node).await?;
        let request = pb::ReadChecksumRequest { range_id: range.get(), applied_index };
        match tokio::time::timeout(META_TIMEOUT.min(limit), rpc.read_checksum(request)).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(self.silent(node)),
        }
    }

    /// The error that `node` answers, or with which the connection to it broke, which is noted.
    fn detailed(&self, node: NodeId, status: tonic::Status) -> WireError {
        if !status.details().is_empty() || status.code() != tonic::Code::Unavailable {
            return detailed(status);
        }
        let why = status_text(&status);
        self.client.inner.note_trouble(node, Some(why.clone()));
        WireError::new(Code::Unavailable, format!("{node}: {why}"))
    }

    /// That `node` did not answer, which is noted.
    fn silent(&self, node: NodeId) -> ClientError {
        let why = format!("{node} did not answer in time");
        self.client.inner.note_trouble(node, Some(why.clone()));
        ClientError::new(ErrorKind::Unavailable, why)
    }

    /// Every setting of the cluster.
    pub async fn settings(&self) -> Result<Vec<Setting>, ClientError> {
        let settings = ask_meta!(self, get_settings, pb::GetSettingsRequest {})?.settings;
        let setting = |s: pb::Setting| Setting {
            name: s.name,
            value: s.value,
            default_value: s.default_value,
            help: s.help,
        };
        Ok(settings.into_iter().map(setting).collect())
    }

    /// Sets one.
    pub async fn set_setting(&self, name: &str, value: &str) -> Result<(), ClientError> {
        let request = pb::SetSettingRequest { name: name.to_owned(), value: value.to_owned() };
        ask_meta!(self, set_setting, request.clone()).map(|_| ())
    }
}
