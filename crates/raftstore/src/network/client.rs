//! openraft's network: one replica's connection to another.

use super::append_stream::{AppendStream, Peer};
use super::method::Method;
use super::promises::Promises;
use super::snapshot::SnapshotSender;
use crate::entry_codec::{decode_message, encode_append, encode_message};
use crate::sender::{FrameHeader, PeerSender, SendError};
use crate::type_config::{
    AppendEntriesRequest, AppendEntriesResponse, RpcError, Snapshot, SnapshotResponse,
    StreamAppendResult, StreamingError, TransferLeaderRequest, TransferLeaderResponse, TypeConfig,
    Vote, VoteRequest, VoteResponse,
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use isotherm_storage::codec;
use isotherm_types::{NodeId, RangeId, ReplicaId};
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, ReplicationClosed, Unreachable};
use openraft::network::{RPCOption, RaftNetworkV2};
use serde::de::DeserializeOwned;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// How long a snapshot may take to be sent and installed, if openraft asks for less.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);

/// How append requests travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Appends {
    /// Pipelined on a stream: entries.
    Streamed,
    /// One call each: heartbeats, which must not queue behind entries.
    Called,
}

/// One replica's connection to another of its group.
pub struct Network<S> {
    pub(super) sender: Arc<dyn PeerSender>,
    pub(super) range: RangeId,
    pub(super) from: ReplicaId,
    pub(super) to: ReplicaId,
    pub(super) node: NodeId,
    pub(super) appends: Appends,
    pub(super) snapshots: Arc<S>,
    pub(super) promises: Arc<Promises>,
}

/// A transport's error as openraft knows it. Only a node that cannot be reached, or that refuses,
/// makes it back off.
pub(super) fn rpc_error(error: SendError) -> RpcError {
    match error {
        SendError::Unreachable(_) | SendError::Refused(_) => {
            RpcError::Unreachable(Unreachable::new(&error))
        }
        SendError::TimedOut => RpcError::Network(NetworkError::new(&error)),
    }
}

pub(super) fn malformed(error: &(impl std::error::Error + 'static)) -> RpcError {
    RpcError::Network(NetworkError::new(error))
}

impl<S: SnapshotSender> Network<S> {
    fn header(&self, method: Method) -> FrameHeader {
        FrameHeader {
            range: self.range,
            from_replica: self.from,
            to_replica: self.to,
            method: method.number(),
        }
    }

    async fn call<R: DeserializeOwned + codec::Record<crate::sizes::Raftstore>>(
        &self,
        method: Method,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<R, RpcError> {
        let call = self.sender.call(self.node, self.header(method), payload, timeout);
        let answer = call.await.map_err(rpc_error)?;
        decode_message(&answer).map_err(|e| malformed(&e))
    }

    async fn append(
        &self,
        request: AppendEntriesRequest,
        option: &RPCOption,
    ) -> Result<AppendEntriesResponse, RpcError> {
        self.call(Method::AppendEntries, encode_append(&request), option.soft_ttl()).await
    }

    async fn append_in_stream(
        &self,
        request: AppendEntriesRequest,
        option: &RPCOption,
    ) -> Result<StreamAppendResult, RpcError> {
        let prev = request.prev_log_id;
        let last = request.entries.last().map(|e| e.log_id).or(prev);
        let asked = self.promises.asked(self.to, &request);
        let response = self.append(request, option).await?;
        let answer = response.into_stream_result(prev, last);
        self.promises.answered(self.to, &asked, &answer);
        Ok(answer)
    }
}

impl<S: SnapshotSender> RaftNetworkV2<TypeConfig> for Network<S> {
    type SnapshotData = S::SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse, RpcError> {
        self.append(request, &option).await
    }

    fn stream_append<'s, I>(
        &'s mut self,
        mut input: I,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult, RpcError>>, RpcError>>
    where
        I: Stream<Item = AppendEntriesRequest> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let answers: BoxStream<'s, _> = match self.appends {
                Appends::Streamed => {
                    let header = self.header(Method::AppendStream);
                    let peer = Peer {
                        sender: self.sender.clone(),
                        node: self.node,
                        header,
                        promises: self.promises.clone(),
                    };
                    AppendStream::new(peer, input, &option).into_stream().boxed()
                }
                Appends::Called => {
                    let network: &'s Self = self;
                    stream::once(async move {
                        let request = input.next().await?;
                        Some(network.append_in_stream(request, &option).await)
                    })
                    .filter_map(|answer| async move { answer })
                    .boxed()
                }
            };
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest,
        option: RPCOption,
    ) -> Result<VoteResponse, RpcError> {
        self.call(Method::Vote, encode_message(&request).into(), option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest,
        option: RPCOption,
    ) -> Result<VoteResponse, RpcError> {
        self.call(Method::PreVote, encode_message(&request).into(), option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<S::SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse, StreamingError> {
        let Snapshot { meta, snapshot } = snapshot;
        let timeout = option.hard_ttl().max(SNAPSHOT_TIMEOUT);
        let header = self.header(Method::Snapshot);
        let send = async {
            let failed = |e| StreamingError::from(rpc_error(e));
            let room = self.snapshots.admit(self.node, header).await.map_err(failed)?;
            let chunks = self.snapshots.chunks(room, vote, meta, snapshot);
            let chunks = chunks.map_err(|e| network_error(&e))?;
            let sent = self.sender.send_snapshot(self.node, header, chunks, timeout);
            sent.await.map_err(failed)
        };
        let answer = tokio::select! {
            answer = send => answer?,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        codec::decode(&answer).map_err(|e| network_error(&e))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse, RpcError> {
        self.call(Method::TransferLeader, encode_message(&request).into(), option.soft_ttl()).await
    }
}

fn network_error(error: &(impl std::error::Error + 'static)) -> StreamingError {
    StreamingError::Network(NetworkError::new(error))
}
