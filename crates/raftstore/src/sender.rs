//! How consensus reaches the other members: traits that the process implements over its transport.
//!
//! This crate encodes openraft's messages itself and knows no transport; the transport carries
//! opaque payloads and knows no consensus. A frame names its group, both replicas and a method;
//! replicas of a group that a process does not host are refused by whoever receives.

use bytes::Bytes;
use futures::Sink;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use isotherm_types::{NodeId, RangeId, ReplicaId};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// What a frame is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameHeader {
    /// Which group.
    pub range: RangeId,
    /// Who sends.
    pub from_replica: ReplicaId,
    /// Whom it is for.
    pub to_replica: ReplicaId,
    /// What is asked: [`Method`](crate::network::Method), or one of the store's own.
    pub method: u32,
}

/// Why a message was not answered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SendError {
    /// The node cannot be reached: asking again at once is pointless.
    #[error("the node cannot be reached: {0}")]
    Unreachable(String),
    /// The other side answered that it will not do it.
    #[error("refused: {0}")]
    Refused(String),
    /// No answer in time: it may have been done.
    #[error("no answer in time")]
    TimedOut,
}

/// Our direction of a stream. Bounded; dropping it ends the direction.
pub type FrameSink = Pin<Box<dyn Sink<Bytes, Error = SendError> + Send>>;

/// The other direction. `None` means that the other side ended it; an error, that frames may be
/// missing.
pub type FrameSource = BoxStream<'static, Result<Bytes, SendError>>;

/// Sends to other nodes.
pub trait PeerSender: Send + Sync + 'static {
    /// One request, one answer.
    fn call(
        &self,
        to: NodeId,
        header: FrameHeader,
        payload: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, SendError>>;

    /// A stream in both directions. Frames arrive in order and none is missing, or the source
    /// ends with an error.
    fn open_stream(
        &self,
        to: NodeId,
        header: FrameHeader,
    ) -> BoxFuture<'static, Result<(FrameSink, FrameSource), SendError>>;

    /// Sends a snapshot in chunks. `Ok` is the receiver's answer after it installed it.
    fn send_snapshot(
        &self,
        to: NodeId,
        header: FrameHeader,
        chunks: BoxStream<'static, Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, SendError>>;
}

/// Receives from other nodes.
pub trait FrameReceiver: Send + Sync + 'static {
    /// Answers one request, or says why not.
    fn call(
        self: Arc<Self>,
        from: NodeId,
        header: FrameHeader,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>>;

    /// Serves a stream until it ends.
    fn stream(
        self: Arc<Self>,
        from: NodeId,
        header: FrameHeader,
        source: FrameSource,
        sink: FrameSink,
    ) -> BoxFuture<'static, ()>;

    /// Takes a snapshot. `Ok` promises that it is installed.
    fn snapshot(
        self: Arc<Self>,
        from: NodeId,
        header: FrameHeader,
        chunks: BoxStream<'static, Result<Bytes, SendError>>,
    ) -> BoxFuture<'static, Result<Bytes, String>>;
}
