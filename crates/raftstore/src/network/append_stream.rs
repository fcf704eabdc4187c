//! The sender's side of a replication stream.
//!
//! One state, driven by whoever polls for answers; no task of its own. Requests are taken, encoded
//! and sent as the link has room; answers are given out as they come. Life:
//!
//! ```text
//! first request ──► open ──► requests and answers ──(requests ended)──► our direction closed
//!                                │                                        │ all answered
//!                                └── lost frame, silence, closed: error   └──► end
//! ```
//!
//! A request without entries says only that something was committed. It is held for a moment: the
//! next entries say the same, and one message less is sent, synced, answered and handled on both
//! sides. For a client that writes one key after the other that is half of all messages. openraft
//! matches answers by log id, not by number, so a request that was never sent needs none.
//!
//! Requests are taken while little is unanswered, in bytes: a follower that is slow, or was away, makes
//! its leader wait instead of filling the link, which all groups share, and its own memory.

use super::client::{malformed, rpc_error};
use super::promises::{Asked, Promises};
use crate::entry_codec::{decode_message, encode_append};
use crate::sender::{FrameHeader, FrameSink, FrameSource, PeerSender, SendError};
use crate::type_config::{AppendEntriesRequest, RpcError, StreamAppendResult};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use isotherm_types::NodeId;
use openraft::network::RPCOption;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The least silence after which a stream counts as stuck: a slow disk must not look like it.
const SILENCE_MIN: Duration = Duration::from_secs(3);

/// Nothing more is taken while this much is unanswered: less than a receiver of the transport may be
/// behind, with one more request.
pub(super) const UNANSWERED_BYTES_MAX: usize = 4 << 20;
/// The same in requests.
const UNANSWERED_MAX: usize = 256;

/// How long news of a commit wait for entries to travel with.
const COMMIT_HOLD: Duration = Duration::from_millis(20);

/// Where a stream goes.
pub(super) struct Peer {
    pub sender: Arc<dyn PeerSender>,
    pub node: NodeId,
    /// `to_replica` of it is the follower.
    pub header: FrameHeader,
    pub promises: Arc<Promises>,
}

/// A request that is not answered yet.
struct Unanswered {
    asked: Asked,
    /// On the wire.
    bytes: usize,
}

/// A replication stream. It is opened when the first request comes: openraft paces its attempts at
/// a follower that is down by delaying that request, so asking for it first is what keeps a dead
/// node from being dialled without a pause.
pub(super) struct AppendStream<I> {
    peer: Peer,
    /// `None` once it has ended.
    requests: Option<I>,
    /// News of a commit, and until when they wait.
    held: Option<(AppendEntriesRequest, Instant)>,
    /// Encoded, not sent yet.
    waiting: Option<Bytes>,
    /// `None` before it is open, and once our direction is closed.
    sink: Option<FrameSink>,
    /// `None` before it is open.
    source: Option<FrameSource>,
    /// In the order in which they were sent, which is the order of the answers.
    unanswered: VecDeque<Unanswered>,
    unanswered_bytes: usize,
    /// When something last moved.
    moved: Instant,
    silence_max: Duration,
}

/// What happened to a stream.
enum Step {
    Answer(Result<Bytes, SendError>),
    PeerClosed,
    Request(Option<AppendEntriesRequest>),
    HeldLongEnough,
    Sent,
    SinkClosed,
    Silence,
}

impl<I> AppendStream<I>
where
    I: Stream<Item = AppendEntriesRequest> + Send + Unpin + 'static,
{
    pub(super) fn new(peer: Peer, requests: I, option: &RPCOption) -> Self {
        Self {
            peer,
            requests: Some(requests),
            held: None,
            waiting: None,
            sink: None,
            source: None,
            unanswered: VecDeque::new(),
            unanswered_bytes: 0,
            moved: Instant::now(),
            silence_max: (option.hard_ttl() * 10).max(SILENCE_MIN),
        }
    }

    /// Waits for the first request, then opens the stream; `false` if none came.
    async fn open(&mut self) -> Result<bool, RpcError> {
        let Some(first) = next(&mut self.requests).await else { return Ok(false) };
        let opened = self.peer.sender.open_stream(self.peer.node, self.peer.header);
        let opened = tokio::time::timeout(self.silence_max, opened).await;
        let (sink, source) = opened.unwrap_or(Err(SendError::TimedOut)).map_err(rpc_error)?;
        (self.sink, self.source) = (Some(sink), Some(source));
        self.post(&first);
        Ok(true)
    }

    fn take(&mut self, request: AppendEntriesRequest) {
        let Peer { header, promises, .. } = &self.peer;
        // Otherwise it asks what the follower has.
        let is_news = request.entries.is_empty()
            && promises.has(header.to_replica, &request.vote, request.prev_log_id);
        let held = self.held.take();
        if is_news {
            let until = held.map_or_else(|| Instant::now() + COMMIT_HOLD, |(_, until)| until);
            self.held = Some((request, until));
        } else {
            self.post(&request);
        }
    }

    fn post_held(&mut self) {
        if let Some((request, _)) = self.held.take() {
            self.post(&request);
        }
    }

    fn post(&mut self, request: &AppendEntriesRequest) {
        if self.unanswered.is_empty() {
            self.moved = Instant::now();
        }
        let Peer { header, promises, .. } = &self.peer;
        let asked = promises.asked(header.to_replica, request);
        let message = encode_append(request);
        let bytes = message.len();
        self.unanswered.push_back(Unanswered { asked, bytes });
        self.unanswered_bytes += bytes;
        self.waiting = Some(message);
    }

    fn answered(&mut self, answer: &Bytes) -> Result<StreamAppendResult, RpcError> {
        self.moved = Instant::now();
        let answer = decode_message(answer).map_err(|e| malformed(&e))?;
        if let Some(Unanswered { asked, bytes }) = self.unanswered.pop_front() {
            self.unanswered_bytes -= bytes;
            let Peer { header, promises, .. } = &self.peer;
            promises.answered(header.to_replica, &asked, &answer);
        }
        Ok(answer)
    }

    /// The answers. Dropping them ends the stream on both sides.
    pub(super) fn into_stream(
        self,
    ) -> impl Stream<Item = Result<StreamAppendResult, RpcError>> + Send {
        stream::unfold(Some(self), |open| async move {
            let mut open = open?;
            match open.next_answer().await {
                // A conflict or a higher vote is the peer's last word.
                Ok(Some(answer)) if answer.is_err() => Some((Ok(answer), None)),
                Ok(Some(answer)) => Some((Ok(answer), Some(open))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn next_answer(&mut self) -> Result<Option<StreamAppendResult>, RpcError> {
        if self.source.is_none() && !self.open().await? {
            return Ok(None);
        }
        loop {
            match self.step().await {
                Step::Answer(answer) => {
                    return self.answered(&answer.map_err(rpc_error)?).map(Some);
                }
                Step::PeerClosed if self.sink.is_none() && self.unanswered.is_empty() => {
                    return Ok(None);
                }
                Step::PeerClosed | Step::SinkClosed => {
                    let why = "the peer ended the stream before it answered everything";
                    return Err(rpc_error(SendError::Unreachable(why.into())));
                }
                Step::Request(Some(request)) => self.take(request),
                Step::Request(None) => {
                    self.requests = None;
                    self.moved = Instant::now();
                    self.post_held();
                    if self.waiting.is_none() {
                        self.sink = None;
                    }
                }
                Step::HeldLongEnough => self.post_held(),
                Step::Sent if self.requests.is_none() => self.sink = None,
                Step::Sent => {}
                Step::Silence => return Err(rpc_error(SendError::TimedOut)),
            }
        }
    }

    /// Waits for the next thing to happen. Safe to drop: nothing is taken without being returned.
    async fn step(&mut self) -> Step {
        let has_room =
            self.unanswered_bytes < UNANSWERED_BYTES_MAX && self.unanswered.len() < UNANSWERED_MAX;
        let Self { requests, held, waiting, sink, source, .. } = self;
        let Some(source) = source else { return Step::PeerClosed };
        let due = held.as_ref().filter(|_| waiting.is_none()).map(|(_, until)| *until);
        let expects = !self.unanswered.is_empty() || sink.is_none();
        tokio::select! {
            biased;
            answer = source.next() => match answer {
                Some(answer) => Step::Answer(answer),
                None => Step::PeerClosed,
            },
            sent = send(sink, waiting), if waiting.is_some() => {
                if sent { Step::Sent } else { Step::SinkClosed }
            }
            request = next(requests), if waiting.is_none() && requests.is_some() && has_room => {
                Step::Request(request)
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                Step::HeldLongEnough
            }
            () = tokio::time::sleep_until(self.moved + self.silence_max), if expects => Step::Silence,
        }
    }
}

/// Sends what waits; `false` if the peer takes nothing any more.
async fn send(sink: &mut Option<FrameSink>, waiting: &mut Option<Bytes>) -> bool {
    let Some(sink) = sink else { return false };
    if poll_fn(|cx| sink.as_mut().poll_ready(cx)).await.is_err() {
        return false;
    }
    // Taken only when there is room: this future may be dropped while it waits.
    waiting.take().is_none_or(|frame| sink.as_mut().start_send(frame).is_ok())
}

async fn next<I: Stream + Unpin>(requests: &mut Option<I>) -> Option<I::Item> {
    match requests {
        Some(requests) => requests.next().await,
        None => None,
    }
}
