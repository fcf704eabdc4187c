//! The calling side of the links to all other processes.

use crate::channel::channel;
use crate::link::{Connection, Lane, Link, check_size, unreachable};
use crate::session::{StreamReceiver, StreamSender, opening};
use crate::{PeersOptions, TransportError};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use isotherm_proto::internal::frame::Kind;
use isotherm_proto::internal::raft_service_client::RaftServiceClient;
use isotherm_proto::internal::{Header, SnapshotChunk};
use isotherm_types::{NodeId, limits};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How long a first message waits for a link that is being established.
const FIRST_LINK_WAIT: Duration = Duration::from_millis(200);

/// Knows where the other processes are and keeps a link to each that was ever called.
#[derive(Clone)]
pub struct Peers {
    options: PeersOptions,
    book: Arc<Mutex<HashMap<NodeId, Entry>>>,
}

struct Entry {
    address: String,
    connection: Option<Connection>,
}

impl Peers {
    /// Nobody is known yet.
    pub fn new(options: PeersOptions) -> Self {
        Self { options, book: Arc::default() }
    }

    /// Where `node` is. A new address replaces the link.
    pub fn set_address(&self, node: NodeId, address: &str) {
        let mut book = self.book.lock();
        let entry =
            book.entry(node).or_insert_with(|| Entry { address: String::new(), connection: None });
        if entry.address != address {
            address.clone_into(&mut entry.address);
            entry.connection = None;
        }
    }

    /// Where the other processes are, as far as is known.
    pub fn addresses(&self) -> Vec<(NodeId, String)> {
        let book = self.book.lock();
        book.iter().map(|(node, entry)| (*node, entry.address.clone())).collect()
    }

    /// Forgets all others and drops their links.
    pub fn keep_only(&self, nodes: &BTreeSet<NodeId>) {
        self.book.lock().retain(|node, _| nodes.contains(node));
    }

    /// Forgets `node` and drops its link.
    pub fn forget(&self, node: NodeId) {
        self.book.lock().remove(&node);
    }

    /// Since when the link to `node` has been down; `None` if it is up or was never needed.
    pub fn link_down_since(&self, node: NodeId) -> Option<Instant> {
        let book = self.book.lock();
        let connection = book.get(&node)?.connection.as_ref()?;
        *connection.down_since.lock()
    }

    async fn link(&self, to: NodeId) -> Result<Arc<Link>, TransportError> {
        let (mut link, age) = {
            let mut book = self.book.lock();
            let Some(entry) = book.get_mut(&to) else {
                return Err(unreachable("its address is not known"));
            };
            let address = &entry.address;
            let connection = entry.connection.get_or_insert_with(|| {
                Connection::start(self.options.clone(), to, address.clone())
            });
            (connection.link.clone(), connection.started.elapsed())
        };
        if let Some(wait) = FIRST_LINK_WAIT.checked_sub(age) {
            let up = link.wait_for(Option::is_some);
            let _ = tokio::time::timeout(wait, up).await;
        }
        let current = link.borrow().clone();
        current.ok_or_else(|| unreachable("the link is down"))
    }

    fn complete(&self, to: NodeId, header: Header) -> Header {
        Header {
            cluster_id: self.options.cluster.load(Ordering::Acquire),
            from_node: self.options.from.get(),
            from_incarnation: self.options.incarnations.own().get(),
            to_node: to.get(),
            ..header
        }
    }

    /// One request, one answer. The header's cluster and nodes are filled in.
    pub async fn call(
        &self,
        to: NodeId,
        header: Header,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, TransportError> {
        check_size(&payload)?;
        let begun = Instant::now();
        let call = async {
            let link = self.link(to).await?;
            let ((lane, is_urgent), bytes) = (link.lane(&payload), payload.len());
            let session = lane.sessions.number();
            let (answer, _forget) = lane.sessions.open_call(session);
            let left = timeout.saturating_sub(begun.elapsed()).as_millis();
            let timeout_ms = u32::try_from(left).unwrap_or(u32::MAX).max(1);
            let header = Header { timeout_ms, ..self.complete(to, header) };
            let call = opening(Kind::Call, session, header, payload);
            let is_sent = if is_urgent {
                // What came late would be of no use.
                lane.frames.try_send(call, bytes).is_ok()
            } else {
                lane.frames.send(call, bytes).await.is_ok()
            };
            if !is_sent {
                return Err(unreachable("the link is down or too much waits for it"));
            }
            answer.await.unwrap_or_else(|_| Err(unreachable("the link broke")))
        };
        tokio::time::timeout(timeout, call).await.unwrap_or(Err(TransportError::TimedOut))
    }

    /// A stream in both directions.
    pub async fn open_stream(
        &self,
        to: NodeId,
        header: Header,
    ) -> Result<(StreamSender, StreamReceiver), TransportError> {
        let link = self.link(to).await?;
        let Lane { frames, sessions } = &link.streams;
        let session = sessions.number();
        let receiver = sessions.open_stream(session);
        let open = opening(Kind::Stream, session, self.complete(to, header), Bytes::new());
        let sent = frames.send(open, 0).await;
        sent.map_err(|_| unreachable("the link broke"))?;
        Ok((StreamSender::new(frames.clone(), session), receiver))
    }

    /// Sends chunks on a connection of their own, so that they delay nothing else.
    pub fn send_snapshot(
        &self,
        to: NodeId,
        header: Header,
        chunks: BoxStream<'static, Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let address = self.book.lock().get(&to).map(|entry| entry.address.clone());
        let first =
            SnapshotChunk { header: Some(self.complete(to, header)), payload: Bytes::new() };
        let all = SnapshotChunks { first: Some(first), rest: chunks };
        let incarnations = self.options.incarnations.clone();
        Box::pin(async move {
            let address = address.ok_or_else(|| unreachable("its address is not known"))?;
            let mut client = RaftServiceClient::new(channel(&address)?)
                .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
            match tokio::time::timeout(timeout, client.snapshot(all)).await {
                Ok(Ok(answer)) => {
                    let answer = answer.into_inner();
                    // What a superseded process has on its disk counts for nothing.
                    let admitted = incarnations.admit(to, answer.from_incarnation);
                    admitted.map_err(TransportError::Refused)?;
                    Ok(answer.payload)
                }
                Ok(Err(status)) if status.code() == tonic::Code::Unavailable => {
                    Err(unreachable(status.message()))
                }
                Ok(Err(status)) => Err(TransportError::Refused(status.message().to_owned())),
                Err(_) => Err(TransportError::TimedOut),
            }
        })
    }
}

/// The messages of one snapshot.
struct SnapshotChunks {
    first: Option<SnapshotChunk>,
    rest: BoxStream<'static, Bytes>,
}

impl Stream for SnapshotChunks {
    type Item = SnapshotChunk;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<SnapshotChunk>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        let payload = std::task::ready!(self.rest.poll_next_unpin(cx));
        Poll::Ready(payload.map(|payload| SnapshotChunk { header: None, payload }))
    }
}
