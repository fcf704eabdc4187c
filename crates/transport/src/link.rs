//! One link: the frames of all sessions between two processes on one gRPC stream.

use crate::channel::channel;
use crate::gather::gather;
use crate::incarnations::Admitted;
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
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Frames that wait for the wire; when so many do, streams wait and calls are refused.
pub(crate) const QUEUE_FRAMES_MAX: usize = 4096;
/// The largest payload of one frame: a message without its framing.
pub(crate) const PAYLOAD_BYTES_MAX: usize = limits::MESSAGE_BYTES_MAX - 64 * 1024;

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A link that is up.
pub(crate) struct Link {
    pub frames: mpsc::Sender<Frame>,
    pub sessions: Arc<Sessions>,
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
        let mut client = RaftServiceClient::new(channel)
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
        let (frames, queue) = mpsc::channel(QUEUE_FRAMES_MAX);
        let hello = Header {
            cluster_id: self.options.cluster.load(Ordering::Acquire),
            from_node: self.options.from.get(),
            from_incarnation: self.options.incarnations.own().get(),
            to_node: self.to.get(),
            ..Header::default()
        };
        if frames.try_send(opening(Kind::Hello, 0, hello, Bytes::new())).is_err() {
            return "a new queue is full".to_owned();
        }
        let mut inbound = match client.link(outbound(queue)).await {
            Ok(response) => response.into_inner(),
            Err(status) => return self.refused(&status),
        };
        let sessions = Arc::<Sessions>::default();
        let _fail = FailAtEnd(sessions.clone());
        *self.down_since.lock() = None;
        self.up.send_replace(Some(Arc::new(Link { frames, sessions: sessions.clone() })));
        tracing::debug!(to_node = %self.to, address = self.address, "link is up");
        let mut answers_as: Option<Admitted> = None;
        loop {
            match inbound.message().await {
                Ok(Some(message)) => {
                    for frame in message.frames {
                        if frame.kind() == Kind::Hello
                            && let Some(hello) = &frame.header
                        {
                            match self.options.incarnations.admit(self.to, hello.from_incarnation) {
                                Ok(admitted) => answers_as = Some(admitted),
                                Err(why) => return why,
                            }
                        }
                        if let Some(Err(why)) = answers_as.as_ref().map(Admitted::check) {
                            return why;
                        }
                        sessions.deliver(frame);
                    }
                }
                Ok(None) => return "closed by the other side".to_owned(),
                Err(status) => return status.message().to_owned(),
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
pub(crate) fn outbound(queue: mpsc::Receiver<Frame>) -> impl Stream<Item = Frames> {
    gather(queue, |frame| frame.payload.len()).map(|frames| {
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
    frame(Kind::Refused, session, Bytes::copy_from_slice(why.as_bytes()))
}

pub(crate) fn unreachable(why: &str) -> TransportError {
    TransportError::Unreachable(why.to_owned())
}
