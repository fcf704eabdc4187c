//! One link: the frames of all sessions between two processes on one connection.
//!
//! It has two lanes, a gRPC stream each, so that what must come in time does not queue behind bulk:
//! calls (votes, heartbeats, signs of life, hand-overs) travel on one, streams (log entries) and large
//! calls on the other. What waits for each lane is bounded in bytes. Order is kept within a stream; between
//! calls there is none.

use crate::budget::ByteBudget;
use crate::channel::channel;
use crate::gather::gather;
use crate::incarnations::Admitted;
use crate::queue::{QueueReceiver, QueueSender, queue};
use crate::session::{Sessions, frame, opening};
use crate::{PeersOptions, TransportError};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use isotherm_proto::internal::frame::Kind;
use isotherm_proto::internal::raft_service_client::RaftServiceClient;
use isotherm_proto::internal::{Frame, Frames, Header};
use isotherm_types::{NodeId, limits};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Channel;

/// Bytes that wait for the wire in one lane; when so many do, streams wait and calls are refused.
pub(crate) const QUEUE_BYTES_MAX: usize = 16 << 20;
/// The largest payload of a call that has priority.
pub(crate) const URGENT_BYTES_MAX: usize = 64 << 10;
/// The largest payload of one frame: a message without its framing.
pub(crate) const PAYLOAD_BYTES_MAX: usize = limits::PAYLOAD_BYTES_MAX;

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A link that is up.
pub(crate) struct Link {
    pub calls: Lane,
    pub streams: Lane,
}

/// One gRPC stream of a link.
pub(crate) struct Lane {
    pub frames: QueueSender<Frame>,
    pub sessions: Arc<Sessions>,
}

impl Link {
    /// The lane for a call with this payload, and whether it has priority there.
    pub fn lane(&self, payload: &Bytes) -> (&Lane, bool) {
        if payload.len() <= URGENT_BYTES_MAX { (&self.calls, true) } else { (&self.streams, false) }
    }
}

/// A queue to the wire.
pub(crate) fn frame_queue() -> (QueueSender<Frame>, QueueReceiver<Frame>) {
    let gauge = metrics::gauge!("isotherm_link_queued_bytes");
    queue(ByteBudget::with_gauge(QUEUE_BYTES_MAX, gauge))
}

/// The state of the connection to one process; its task runs until `stop`.
pub(crate) struct Connection {
    pub started: Instant,
    pub link: watch::Receiver<Option<Arc<Link>>>,
    pub down_since: Arc<Mutex<Option<Instant>>>,
    pub stop: CancellationToken,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Connection {
    /// Starts connecting to `address`, again and again.
    pub fn start(options: PeersOptions, to: NodeId, address: String) -> Self {
        let (up, link) = watch::channel(None);
        let down_since = Arc::new(Mutex::new(Some(Instant::now())));
        let stop = CancellationToken::new();
        let (since, said) = (down_since.clone(), Mutex::default());
        let keeper = Keeper { options, to, address, up, down_since: since, said };
        let until = stop.clone();
        let run = async move { until.run_until_cancelled(keeper.run()).await };
        tokio::spawn(isotherm_task::until("link to a peer", stop.clone(), run));
        Self { started: Instant::now(), link, down_since, stop }
    }
}

/// Keeps one link up.
struct Keeper {
    options: PeersOptions,
    to: NodeId,
    address: String,
    up: watch::Sender<Option<Arc<Link>>>,
    down_since: Arc<Mutex<Option<Instant>>>,
    /// The refusal that was logged last.
    said: Mutex<String>,
}

impl Keeper {
    async fn run(self) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let started = Instant::now();
            let error = self.hold().await;
            self.up.send_replace(None);
            self.down_since.lock().get_or_insert_with(Instant::now);
            tracing::debug!(to_node = %self.to, address = self.address, error, "link is down");
            if started.elapsed() > BACKOFF_MAX {
                backoff = BACKOFF_MIN;
            }
            tokio::time::sleep(backoff.mul_f64(fastrand::f64() * 0.5 + 0.75)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Connects once and reads until the link breaks; why it did.
    async fn hold(&self) -> String {
        let channel = match channel(&self.address) {
            Ok(channel) => channel,
            Err(error) => return error.to_string(),
        };
        let opened = tokio::try_join!(self.open_lane(&channel), self.open_lane(&channel));
        let ((calls, calls_in), (streams, streams_in)) = match opened {
            Ok(opened) => opened,
            Err(why) => return why,
        };
        let (of_calls, of_streams) = (calls.sessions.clone(), streams.sessions.clone());
        let _fail = (FailAtEnd(of_calls.clone()), FailAtEnd(of_streams.clone()));
        *self.down_since.lock() = None;
        self.up.send_replace(Some(Arc::new(Link { calls, streams })));
        tracing::debug!(to_node = %self.to, address = self.address, "link is up");
        tokio::select! {
            why = self.read_lane(&of_calls, calls_in) => why,
            why = self.read_lane(&of_streams, streams_in) => why,
        }
    }

    async fn open_lane(&self, channel: &Channel) -> Result<(Lane, Streaming<Frames>), String> {
        let mut client = RaftServiceClient::new(channel.clone())
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
        let (frames, waiting) = frame_queue();
        let hello = Header {
            cluster_id: self.options.cluster.load(Ordering::Acquire),
            from_node: self.options.from.get(),
            from_incarnation: self.options.incarnations.own().get(),
            to_node: self.to.get(),
            ..Header::default()
        };
        if frames.push(opening(Kind::Hello, 0, hello, Bytes::new()), 0).is_err() {
            return Err("a new queue is closed".to_owned());
        }
        let (incarnations, mut said) = (self.options.incarnations.clone(), hello.from_incarnation);
        let messages = outbound(waiting).map(move |mut message| {
            // Calls on one lane make an earlier number a superseded one for the other lane.
            let own = incarnations.own().get();
            if own != said {
                said = own;
                let hello = Header { from_incarnation: own, ..hello };
                message.frames.insert(0, opening(Kind::Hello, 0, hello, Bytes::new()));
            }
            message
        });
        match client.link(messages).await {
            Ok(opened) => {
                let lane = Lane { frames, sessions: Arc::default() };
                Ok((lane, opened.into_inner()))
            }
            Err(status) => Err(self.refused(&status)),
        }
    }

    /// Reads a lane until it breaks; why it did.
    async fn read_lane(&self, sessions: &Sessions, mut inbound: Streaming<Frames>) -> String {
        let mut answers_as: Option<Admitted> = None;
        loop {
            let message = match inbound.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return "closed by the other side".to_owned(),
                Err(status) => return status.message().to_owned(),
            };
            let check = |frame: &Frame| {
                if frame.kind() == Kind::Hello
                    && let Some(hello) = &frame.header
                {
                    let admitted = self.options.incarnations.admit(self.to, hello.from_incarnation);
                    answers_as = Some(admitted?);
                }
                answers_as.as_ref().map_or(Ok(()), Admitted::check)
            };
            if let Err(why) = sessions.take_in(message, check).await {
                return why;
            }
        }
    }

    /// The other side is there and does not want this process.
    fn refused(&self, status: &tonic::Status) -> String {
        let why = status.message();
        if status.code() == tonic::Code::FailedPrecondition {
            let last = std::mem::replace(&mut *self.said.lock(), why.to_owned());
            // Every attempt meets the same: said once.
            if last != why {
                tracing::warn!(to_node = %self.to, address = self.address, why, "link refused");
            }
        }
        why.to_owned()
    }
}

struct FailAtEnd(Arc<Sessions>);

impl Drop for FailAtEnd {
    fn drop(&mut self) {
        self.0.fail_all("the link broke");
    }
}

/// Whatever waits becomes one message, or several if it is much.
pub(crate) fn outbound(queue: QueueReceiver<Frame>) -> impl Stream<Item = Frames> {
    gather(queue).map(|frames| {
        metrics::counter!("isotherm_link_frames_total").increment(frames.len() as u64);
        metrics::counter!("isotherm_link_messages_total").increment(1);
        Frames { frames }
    })
}

/// A payload that no message can hold is refused here: on the wire it would break the link.
pub(crate) fn check_size(payload: &Bytes) -> Result<(), TransportError> {
    if payload.len() <= PAYLOAD_BYTES_MAX {
        return Ok(());
    }
    let why = format!("{} bytes are more than the {PAYLOAD_BYTES_MAX} of a message", payload.len());
    Err(TransportError::Refused(why))
}

pub(crate) fn refusal(session: u64, why: &str) -> Frame {
    let mut why = why.to_owned();
    limits::cut_text(&mut why);
    frame(Kind::Refused, session, Bytes::copy_from_slice(why.as_bytes()))
}

pub(crate) fn unreachable(why: &str) -> TransportError {
    TransportError::Unreachable(why.to_owned())
}
