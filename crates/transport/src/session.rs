//! Sessions on a link: a call, or a stream in both directions.
//!
//! A stream's frames are numbered from 1 in each direction; frame 0 opens it. A gap, and a receiver
//! that falls too far behind, end it with an error: its user starts again from what it knows to
//! have arrived. When the receivers of a link together are far behind, the link is not read for a
//! while, so that the sender waits.

use crate::TransportError;
use crate::budget::{ByteBudget, BytesHeld, Waiter};
use crate::link::check_size;
use crate::queue::QueueSender;
use bytes::Bytes;
use futures::{Sink, Stream};
use isotherm_proto::internal::{Frame, Frames, Header, frame::Kind};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Frames that a stream's receiver may be behind, …
const STREAM_FRAMES_MAX: usize = 512;
/// … and bytes. A sender of log entries keeps less than that unanswered.
const STREAM_BYTES_MAX: usize = 16 << 20;
/// Bytes that the receivers of all streams of a link may be behind before it is not read any more.
const INBOUND_BYTES_MAX: usize = 64 << 20;
/// A link is not left unread for longer than this at a time: then streams are broken instead.
const INBOUND_PATIENCE: Duration = Duration::from_secs(2);

type Received = Result<Bytes, TransportError>;

/// What waits for the receiver of a stream, and the bytes that it holds.
type Arrived = (Received, Option<[BytesHeld; 2]>);

/// Our direction of a stream. Bounded by the link's queue; dropping it ends the direction.
pub struct StreamSender {
    frames: QueueSender<Frame>,
    room: Waiter,
    session: u64,
    next: u64,
}

impl StreamSender {
    pub(crate) fn new(frames: QueueSender<Frame>, session: u64) -> Self {
        Self { room: frames.waiter(), frames, session, next: 1 }
    }
}

fn closed<T>(_: T) -> TransportError {
    TransportError::Unreachable("the link is down".to_owned())
}

impl Sink<Bytes> for StreamSender {
    type Error = TransportError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if self.frames.is_closed() {
            return Poll::Ready(Err(closed(())));
        }
        self.room.poll_room(cx).map(Ok)
    }

    fn start_send(mut self: Pin<&mut Self>, payload: Bytes) -> Result<(), Self::Error> {
        check_size(&payload)?;
        let bytes = payload.len();
        let frame = stream_frame(self.session, self.next, payload);
        self.next += 1;
        if crate::faults::drops(frame.number) {
            return Ok(());
        }
        self.frames.push(frame, bytes).map_err(closed)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for StreamSender {
    fn drop(&mut self) {
        // Without it the other side would wait for ever: it does not wait for room.
        let _ = self.frames.push(frame(Kind::Close, self.session, Bytes::new()), 0);
    }
}

/// The other direction. It ends cleanly with `None`; an error says that frames may be missing.
pub struct StreamReceiver(mpsc::Receiver<Arrived>);

impl Stream for StreamReceiver {
    type Item = Received;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        self.0.poll_recv(cx).map(|arrived| arrived.map(|(received, _held)| received))
    }
}

enum Session {
    Call(oneshot::Sender<Received>),
    Stream { inbound: mpsc::Sender<Arrived>, expected: u64, budget: ByteBudget },
}

/// The sessions of one link, by their number.
pub(crate) struct Sessions {
    open: Mutex<HashMap<u64, Session>>,
    next: AtomicU64,
    /// What receivers of streams have not taken yet.
    inbound: ByteBudget,
    room: Waiter,
}

impl Default for Sessions {
    fn default() -> Self {
        let gauge = metrics::gauge!("isotherm_link_inbound_bytes");
        let inbound = ByteBudget::with_gauge(INBOUND_BYTES_MAX, gauge);
        let (open, next) = (Mutex::default(), AtomicU64::new(0));
        Self { open, next, room: inbound.waiter(), inbound }
    }
}

impl Sessions {
    /// A number for a session that this side opens.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn open_call(
        self: &Arc<Self>,
        session: u64,
    ) -> (oneshot::Receiver<Received>, Forget) {
        let (answer, answered) = oneshot::channel();
        self.open.lock().insert(session, Session::Call(answer));
        (answered, Forget { sessions: self.clone(), session })
    }

    pub(crate) fn open_stream(&self, session: u64) -> StreamReceiver {
        let (inbound, receiver) = mpsc::channel(STREAM_FRAMES_MAX);
        let budget = ByteBudget::new(STREAM_BYTES_MAX);
        self.open.lock().insert(session, Session::Stream { inbound, expected: 1, budget });
        StreamReceiver(receiver)
    }

    /// Waits until receivers have taken enough of what came before; whether they did in time.
    pub(crate) async fn ready(&self) -> bool {
        tokio::time::timeout(INBOUND_PATIENCE, self.room.room()).await.is_ok()
    }

    /// Hands a message's frames to their sessions, after receivers had time to take what came before,
    /// up to the first that `check` refuses.
    pub(crate) async fn take_in(
        &self,
        message: Frames,
        mut check: impl FnMut(&Frame) -> Result<(), String>,
    ) -> Result<(), String> {
        let is_ready = self.ready().await;
        own_payloads(message).try_for_each(|frame| {
            check(&frame)?;
            self.deliver(frame, is_ready);
            Ok(())
        })
    }

    /// Hands a frame to the session that it belongs to; one without a session is late, and
    /// dropped. A stream that is fed while its receivers are not ready for more breaks.
    pub(crate) fn deliver(&self, frame: Frame, is_ready: bool) {
        let mut open = self.open.lock();
        match frame.kind() {
            Kind::Reply | Kind::Refused => {
                let refused = frame.kind() == Kind::Refused;
                let why = || String::from_utf8_lossy(&frame.payload).into_owned();
                match open.remove(&frame.session) {
                    Some(Session::Call(answer)) => {
                        let received = if refused {
                            Err(TransportError::Refused(why()))
                        } else {
                            Ok(frame.payload)
                        };
                        // A caller that gave up does not mind.
                        let _ = answer.send(received);
                    }
                    Some(Session::Stream { inbound, .. }) => {
                        let _ = inbound.try_send((Err(TransportError::Refused(why())), None));
                    }
                    None => {}
                }
            }
            Kind::Stream => {
                let Some(Session::Stream { inbound, expected, budget }) =
                    open.get_mut(&frame.session)
                else {
                    return;
                };
                let is_next = frame.number == *expected || crate::faults::overlooks_gaps();
                let broken = if is_next {
                    *expected = frame.number + 1;
                    let bytes = frame.payload.len();
                    let held = budget.try_take(bytes).filter(|_| is_ready);
                    let behind = || Some("its receiver fell behind".to_owned());
                    match held {
                        None => behind(),
                        Some(held) => {
                            let held = Some([held, self.inbound.take(bytes)]);
                            match inbound.try_send((Ok(frame.payload), held)) {
                                Ok(()) => return,
                                // Its user is gone; the close frame is on its way.
                                Err(mpsc::error::TrySendError::Closed(_)) => None,
                                Err(mpsc::error::TrySendError::Full(_)) => behind(),
                            }
                        }
                    }
                } else {
                    Some(format!("frame {} came where {expected} was due", frame.number))
                };
                if let Some(Session::Stream { inbound, .. }) = open.remove(&frame.session)
                    && let Some(why) = broken
                {
                    metrics::counter!("isotherm_link_streams_broken_total").increment(1);
                    tracing::debug!(session = frame.session, why, "stream broke");
                    tokio::spawn(async move {
                        let _ = inbound.send((Err(TransportError::Broken(why)), None)).await;
                    });
                }
            }
            Kind::Close => {
                // Dropping the sender ends the stream after what it still holds.
                open.remove(&frame.session);
            }
            Kind::Unspecified | Kind::Hello | Kind::Call => {}
        }
    }

    /// The link is gone: every session ends with an error.
    pub(crate) fn fail_all(&self, why: &str) {
        for (_, session) in self.open.lock().drain() {
            let error = TransportError::Unreachable(why.to_owned());
            match session {
                Session::Call(answer) => {
                    let _ = answer.send(Err(error));
                }
                Session::Stream { inbound, .. } => {
                    if let Err(mpsc::error::TrySendError::Full(error)) =
                        inbound.try_send((Err(error), None))
                    {
                        tokio::spawn(async move {
                            let _ = inbound.send(error).await;
                        });
                    }
                }
            }
        }
    }
}

/// Forgets a call when its caller gives up.
pub(crate) struct Forget {
    sessions: Arc<Sessions>,
    session: u64,
}

impl Drop for Forget {
    fn drop(&mut self) {
        self.sessions.open.lock().remove(&self.session);
    }
}

/// The frames of a message. Payloads share the message's memory: a small one, for which a receiver
/// takes its time, would keep all of it.
pub(crate) fn own_payloads(message: Frames) -> impl Iterator<Item = Frame> {
    let bytes: usize = message.frames.iter().map(|frame| frame.payload.len()).sum();
    message.frames.into_iter().map(move |mut frame| {
        if frame.payload.len() < bytes / 2 {
            frame.payload = Bytes::copy_from_slice(&frame.payload);
        }
        frame
    })
}

pub(crate) fn frame(kind: Kind, session: u64, payload: Bytes) -> Frame {
    Frame { kind: kind.into(), session, header: None, number: 0, payload }
}

pub(crate) fn opening(kind: Kind, session: u64, header: Header, payload: Bytes) -> Frame {
    Frame { kind: kind.into(), session, header: Some(header), number: 0, payload }
}

fn stream_frame(session: u64, number: u64, payload: Bytes) -> Frame {
    Frame { kind: Kind::Stream.into(), session, header: None, number, payload }
}
