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

use super::client::{malformed, rpc_error};
use crate::entry_codec::{decode_message, encode_append};
use crate::sender::{FrameHeader, FrameSink, FrameSource, PeerSender, SendError};
use crate::type_config::{AppendEntriesRequest, RpcError, StreamAppendResult};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use isotherm_types::NodeId;
use openraft::network::RPCOption;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The least silence after which a stream counts as stuck: a slow disk must not look like it.
const SILENCE_MIN: Duration = Duration::from_secs(3);

/// A replication stream. It is opened when the first request comes: openraft paces its attempts at
/// a follower that is down by delaying that request, so asking for it first is what keeps a dead
/// node from being dialled without a pause.
pub(super) struct AppendStream<I> {
    sender: Arc<dyn PeerSender>,
    node: NodeId,
    header: FrameHeader,
    /// `None` once it has ended.
    requests: Option<I>,
    /// Encoded, not sent yet.
    waiting: Option<Bytes>,
    /// `None` before it is open, and once our direction is closed.
    sink: Option<FrameSink>,
    /// `None` before it is open.
    source: Option<FrameSource>,
    unanswered: u64,
    /// When something last moved.
    moved: Instant,
    silence_max: Duration,
}

/// What happened to a stream.
enum Step {
    Answer(Result<Bytes, SendError>),
    PeerClosed,
    Request(Option<AppendEntriesRequest>),
    Sent,
    SinkClosed,
    Silence,
}

impl<I> AppendStream<I>
where
    I: Stream<Item = AppendEntriesRequest> + Send + Unpin + 'static,
{
    pub(super) fn new(
        sender: Arc<dyn PeerSender>,
        node: NodeId,
        header: FrameHeader,
        requests: I,
        option: &RPCOption,
    ) -> Self {
        Self {
            sender,
            node,
            header,
            requests: Some(requests),
            waiting: None,
            sink: None,
            source: None,
            unanswered: 0,
            moved: Instant::now(),
            silence_max: (option.hard_ttl() * 10).max(SILENCE_MIN),
        }
    }

    /// Waits for the first request, then opens the stream; `false` if none came.
    async fn open(&mut self) -> Result<bool, RpcError> {
        let Some(first) = next(&mut self.requests).await else { return Ok(false) };
        let opened = self.sender.open_stream(self.node, self.header);
        let opened = tokio::time::timeout(self.silence_max, opened).await;
        let (sink, source) = opened.unwrap_or(Err(SendError::TimedOut)).map_err(rpc_error)?;
        (self.sink, self.source) = (Some(sink), Some(source));
        (self.waiting, self.unanswered) = (Some(encode_append(&first)), 1);
        self.moved = Instant::now();
        Ok(true)
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
                    let answer = answer.map_err(rpc_error)?;
                    self.moved = Instant::now();
                    self.unanswered = self.unanswered.saturating_sub(1);
                    return decode_message(&answer).map(Some).map_err(|e| malformed(&e));
                }
                Step::PeerClosed if self.sink.is_none() && self.unanswered == 0 => return Ok(None),
                Step::PeerClosed | Step::SinkClosed => {
                    let why = "the peer ended the stream before it answered everything";
                    return Err(rpc_error(SendError::Unreachable(why.into())));
                }
                Step::Request(Some(request)) => {
                    if self.unanswered == 0 {
                        self.moved = Instant::now();
                    }
                    self.unanswered += 1;
                    self.waiting = Some(encode_append(&request));
                }
                Step::Request(None) => {
                    self.requests = None;
                    self.sink = None;
                    self.moved = Instant::now();
                }
                Step::Sent => {}
                Step::Silence => return Err(rpc_error(SendError::TimedOut)),
            }
        }
    }

    /// Waits for the next thing to happen. Safe to drop: nothing is taken without being returned.
    async fn step(&mut self) -> Step {
        let Self { requests, waiting, sink, source, .. } = self;
        let Some(source) = source else { return Step::PeerClosed };
        let expects = self.unanswered > 0 || sink.is_none();
        tokio::select! {
            biased;
            answer = source.next() => match answer {
                Some(answer) => Step::Answer(answer),
                None => Step::PeerClosed,
            },
            sent = send(sink, waiting), if waiting.is_some() => {
                if sent { Step::Sent } else { Step::SinkClosed }
            }
            request = next(requests), if waiting.is_none() && requests.is_some() => {
                Step::Request(request)
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
