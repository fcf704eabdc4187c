//! Sessions on a link: a call, or a stream in both directions.
//!
//! A stream's frames are numbered from 1 in each direction; frame 0 opens it. A gap, and a receiver
//! that falls too far behind, end it with an error: its user starts again from what it knows to
//! have arrived.

use crate::TransportError;
use crate::link::check_size;
use bytes::Bytes;
use futures::{Sink, Stream};
use isotherm_proto::internal::{Frame, Header, frame::Kind};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::PollSender;

/// Frames that a stream's receiver may be behind.
const STREAM_FRAMES_MAX: usize = 512;

type Received = Result<Bytes, TransportError>;

/// Our direction of a stream. Bounded by the link's queue; dropping it ends the direction.
pub struct StreamSender {
    frames: PollSender<Frame>,
    raw: mpsc::Sender<Frame>,
    session: u64,
    next: u64,
}

impl StreamSender {
    pub(crate) fn new(frames: mpsc::Sender<Frame>, session: u64) -> Self {
        Self { frames: PollSender::new(frames.clone()), raw: frames, session, next: 1 }
    }
}

fn closed<T>(_: T) -> TransportError {
    TransportError::Unreachable("the link is down".to_owned())
}

impl Sink<Bytes> for StreamSender {
    type Error = TransportError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.frames.poll_reserve(cx).map_err(closed)
    }

    fn start_send(mut self: Pin<&mut Self>, payload: Bytes) -> Result<(), Self::Error> {
        if let Err(error) = check_size(&payload) {
            self.frames.abort_send();
            return Err(error);
        }
        let frame = stream_frame(self.session, self.next, payload);
        self.next += 1;
        if crate::faults::drops(frame.number) {
            self.frames.abort_send();
            return Ok(());
        }
        self.frames.send_item(frame).map_err(closed)
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
        self.frames.abort_send();
        let close = frame(Kind::Close, self.session, Bytes::new());
        if let Err(mpsc::error::TrySendError::Full(close)) = self.raw.try_send(close) {
            // Without it the other side would wait for ever.
            let frames = self.raw.clone();
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move {
                    let _ = frames.send(close).await;
                });
            }
        }
    }
}

/// The other direction. It ends cleanly with `None`; an error says that frames may be missing.
pub struct StreamReceiver(mpsc::Receiver<Received>);

impl Stream for StreamReceiver {
    type Item = Received;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        self.0.poll_recv(cx)
    }
}

enum Session {
    Call(oneshot::Sender<Received>),
    Stream { inbound: mpsc::Sender<Received>, expected: u64 },
}

/// The sessions of one link, by their number.
#[derive(Default)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<u64, Session>>,
    next: AtomicU64,
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
        self.open.lock().insert(session, Session::Stream { inbound, expected: 1 });
        StreamReceiver(receiver)
    }

    /// Hands a frame to the session that it belongs to; one without a session is late, and
    /// dropped.
    pub(crate) fn deliver(&self, frame: Frame) {
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
                        let _ = inbound.try_send(Err(TransportError::Refused(why())));
                    }
                    None => {}
                }
            }
            Kind::Stream => {
                let Some(Session::Stream { inbound, expected }) = open.get_mut(&frame.session)
                else {
                    return;
                };
                let broken = if frame.number == *expected || crate::faults::overlooks_gaps() {
                    *expected = frame.number + 1;
                    match inbound.try_send(Ok(frame.payload)) {
                        Ok(()) => return,
                        // Its user is gone; the close frame is on its way.
                        Err(mpsc::error::TrySendError::Closed(_)) => None,
                        Err(mpsc::error::TrySendError::Full(_)) => {
                            Some("its receiver fell behind".to_owned())
                        }
                    }
                } else {
                    Some(format!("frame {} came where {expected} was due", frame.number))
                };
                if let Some(Session::Stream { inbound, .. }) = open.remove(&frame.session)
                    && let Some(why) = broken
                {
                    tracing::debug!(session = frame.session, why, "stream broke");
                    tokio::spawn(async move {
                        let _ = inbound.send(Err(TransportError::Broken(why))).await;
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
                        inbound.try_send(Err(error))
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

pub(crate) fn frame(kind: Kind, session: u64, payload: Bytes) -> Frame {
    Frame { kind: kind.into(), session, header: None, number: 0, payload }
}

pub(crate) fn opening(kind: Kind, session: u64, header: Header, payload: Bytes) -> Frame {
    Frame { kind: kind.into(), session, header: Some(header), number: 0, payload }
}

fn stream_frame(session: u64, number: u64, payload: Bytes) -> Frame {
    Frame { kind: Kind::Stream.into(), session, header: None, number, payload }
}
