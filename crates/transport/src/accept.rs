//! The answering side of a link.

use crate::budget::{ByteBudget, BytesHeld};
use crate::incarnations::Admitted;
use crate::link::{check_size, frame_queue, outbound, refusal};
use crate::queue::QueueSender;
use crate::session::{Sessions, StreamReceiver, StreamSender, frame, opening, own_payloads};
use crate::{Incarnations, TransportError};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use isotherm_proto::internal::frame::Kind;
use isotherm_proto::internal::raft_service_server::{RaftService, RaftServiceServer};
use isotherm_proto::internal::{Frame, Frames, Header, SnapshotAnswer, SnapshotChunk};
use isotherm_types::{NodeId, limits};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// Calls of one lane that are being answered, by their payloads and [`CALL_BYTES`] for each: more are
/// refused.
const CALLS_BYTES_MAX: usize = 32 << 20;
/// What a call that is being answered costs beside its payload, about.
const CALL_BYTES: usize = 8 << 10;

/// What a process does with what others send to it.
pub trait FrameHandler: Send + Sync + 'static {
    /// Answers one request, or says why not. Dropped when the caller's deadline has passed.
    fn call(&self, header: Header, payload: Bytes) -> BoxFuture<'static, Result<Bytes, String>>;

    /// Serves a stream until it ends.
    fn stream(
        &self,
        header: Header,
        inbound: StreamReceiver,
        outbound: StreamSender,
    ) -> BoxFuture<'static, ()>;

    /// Takes a snapshot.
    fn snapshot(
        &self,
        header: Header,
        chunks: BoxStream<'static, Result<Bytes, TransportError>>,
    ) -> BoxFuture<'static, Result<Bytes, String>>;
}

/// The gRPC service over `handler`. Whoever is of another cluster, or means another process, is
/// refused: an address can be taken over by somebody else. So is a process of which a later start is
/// known. Links end with `stop`: they never do by themselves.
pub fn raft_server(
    handler: Arc<dyn FrameHandler>,
    cluster: Arc<AtomicU64>,
    me: NodeId,
    incarnations: Incarnations,
    stop: CancellationToken,
) -> RaftServiceServer<Acceptor> {
    RaftServiceServer::new(Acceptor { handler, cluster, me, incarnations, stop })
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX)
}

/// Serves links and snapshots.
pub struct Acceptor {
    handler: Arc<dyn FrameHandler>,
    cluster: Arc<AtomicU64>,
    me: NodeId,
    incarnations: Incarnations,
    stop: CancellationToken,
}

impl Acceptor {
    fn check(&self, header: Option<&Header>) -> Result<Admitted, Status> {
        let Some(header) = header else {
            return Err(Status::invalid_argument("the first frame has no header"));
        };
        let cluster = self.cluster.load(Ordering::Acquire);
        if header.cluster_id != 0 && cluster != 0 && header.cluster_id != cluster {
            let why = format!("this process belongs to cluster {cluster}");
            return Err(Status::failed_precondition(why));
        }
        if header.to_node != self.me.get() {
            let why = format!("this process is {}, not n{}", self.me, header.to_node);
            return Err(Status::failed_precondition(why));
        }
        let from = NodeId(header.from_node);
        let admitted = self.incarnations.admit(from, header.from_incarnation);
        admitted.map_err(Status::failed_precondition)
    }

    /// The first frame of the answering side.
    fn hello(&self, to: u64) -> Frame {
        let header = Header {
            cluster_id: self.cluster.load(Ordering::Acquire),
            from_node: self.me.get(),
            from_incarnation: self.incarnations.own().get(),
            to_node: to,
            ..Header::default()
        };
        opening(Kind::Hello, 0, header, Bytes::new())
    }
}

/// Reads one link until it ends.
struct Reader {
    from: Admitted,
    handler: Arc<dyn FrameHandler>,
    sessions: Arc<Sessions>,
    frames: QueueSender<Frame>,
    /// Calls that are being answered.
    calls: ByteBudget,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.sessions.fail_all("the link broke");
    }
}

impl Reader {
    async fn run(mut self, mut inbound: Streaming<Frames>) {
        loop {
            let message = tokio::select! {
                message = inbound.message() => message,
                () = self.frames.closed() => return,
            };
            let Ok(Some(message)) = message else { return };
            if let Err(why) = self.take_in(message).await {
                tracing::warn!(why, "link ended");
                return;
            }
        }
    }

    async fn take_in(&mut self, message: Frames) -> Result<(), String> {
        let is_ready = self.sessions.ready().await;
        own_payloads(message).try_for_each(|frame| self.take(frame, is_ready))
    }

    /// Takes one frame; an error ends the link.
    fn take(&mut self, mut taken: Frame, is_ready: bool) -> Result<(), String> {
        let (session, header) = (taken.session, taken.header.take());
        self.from.takes(header.as_ref().map_or(0, |header| header.from_incarnation))?;
        match (taken.kind(), header) {
            (Kind::Call, Some(header)) => {
                match self.calls.try_take(CALL_BYTES + taken.payload.len()) {
                    Some(held) => self.answer(session, header, taken.payload, held),
                    None => {
                        metrics::counter!("isotherm_link_calls_refused_total").increment(1);
                        let busy = refusal(session, "too many calls are being answered");
                        // Whoever does not read its answers learns it from the silence.
                        let _ = self.frames.try_send(busy, 0);
                    }
                }
            }
            (Kind::Stream, Some(header)) => {
                let inbound = self.sessions.open_stream(session);
                let outbound = StreamSender::new(self.frames.clone(), session);
                tokio::spawn(self.handler.stream(header, inbound, outbound));
            }
            (Kind::Call, None) => {
                let _ = self.frames.try_send(refusal(session, "a call without a header"), 0);
            }
            _ => self.sessions.deliver(taken, is_ready),
        }
        Ok(())
    }

    /// Answers a call, until its deadline: then nobody waits for the answer.
    fn answer(&self, session: u64, header: Header, payload: Bytes, held: BytesHeld) {
        let deadline = Some(Duration::from_millis(header.timeout_ms.into()));
        let deadline = deadline.filter(|deadline| !deadline.is_zero());
        let answer = self.handler.call(header, payload);
        let frames = self.frames.clone();
        let answered = async move {
            let _held = held;
            let answer = answer.await.and_then(|payload| {
                check_size(&payload).map(|()| payload).map_err(|e| e.to_string())
            });
            let (reply, bytes) = match answer {
                Ok(payload) => {
                    let bytes = payload.len();
                    (frame(Kind::Reply, session, payload), bytes)
                }
                Err(why) => (refusal(session, &why), why.len()),
            };
            // A link that is gone needs no answer.
            let _ = frames.send(reply, bytes).await;
        };
        tokio::spawn(async move {
            let Some(deadline) = deadline else { return answered.await };
            if tokio::time::timeout(deadline, answered).await.is_err() {
                metrics::counter!("isotherm_link_calls_late_total").increment(1);
            }
        });
    }
}

#[tonic::async_trait]
impl RaftService for Acceptor {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<Frames, Status>> + Send>>;

    async fn link(
        &self,
        request: Request<Streaming<Frames>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let mut inbound = request.into_inner();
        let first = inbound.message().await?;
        let Some(first) = first else { return Err(Status::invalid_argument("an empty link")) };
        let mut taken = first.frames.into_iter();
        let hello = taken.next().filter(|frame| frame.kind() == Kind::Hello);
        let header = hello.and_then(|frame| frame.header);
        let from = self.check(header.as_ref())?;
        let (frames, queue) = frame_queue();
        if self.incarnations.own().get() != 0 {
            let to = header.map_or(0, |header| header.from_node);
            // The queue is empty.
            let _ = frames.try_send(self.hello(to), 0);
        }
        let calls = ByteBudget::new(CALLS_BYTES_MAX);
        let (handler, sessions) = (self.handler.clone(), Arc::default());
        let mut reader = Reader { from, handler, sessions, frames, calls };
        let taken = taken.try_for_each(|frame| reader.take(frame, true));
        taken.map_err(Status::failed_precondition)?;
        let until = self.stop.clone();
        tokio::spawn(async move { until.run_until_cancelled(reader.run(inbound)).await });
        let frames = outbound(queue).map(Ok).take_until(self.stop.clone().cancelled_owned());
        Ok(Response::new(Box::pin(frames)))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<SnapshotAnswer>, Status> {
        let mut chunks = request.into_inner();
        let first = chunks.message().await?;
        let header = first.and_then(|chunk| chunk.header);
        let from = self.check(header.as_ref())?;
        let header = header.ok_or_else(|| Status::invalid_argument("no header"))?;
        let payloads = chunks.map(|chunk| match chunk {
            Ok(chunk) => Ok(chunk.payload),
            Err(status) => Err(TransportError::Unreachable(status.message().to_owned())),
        });
        // An own task: this future is dropped when the asker gives up, an install must not be.
        let installing = self.handler.snapshot(header, payloads.boxed());
        match tokio::spawn(installing).await {
            Ok(Ok(payload)) => {
                from.check().map_err(Status::failed_precondition)?;
                let from_incarnation = self.incarnations.own().get();
                Ok(Response::new(SnapshotAnswer { payload, from_incarnation }))
            }
            Ok(Err(mut why)) => {
                limits::cut_text(&mut why);
                Err(Status::failed_precondition(why))
            }
            Err(_) => Err(Status::internal("the handler failed")),
        }
    }
}
