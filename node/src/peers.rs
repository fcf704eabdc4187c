//! Consensus over the transport: the store's messages out, other nodes' messages in.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{SinkExt, StreamExt, TryStreamExt};
use isotherm_raftstore::{
    FrameHeader, FrameReceiver, FrameSink, FrameSource, PeerSender, SendError, Store,
};
use isotherm_transport::{
    FrameHandler, Header, Peers, StreamReceiver, StreamSender, TransportError,
};
use isotherm_types::{NodeId, RangeId, ReplicaId};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Sends the store's messages.
pub struct PeerLinks(pub Peers);

fn send_error(error: TransportError) -> SendError {
    match error {
        TransportError::Refused(why) => SendError::Refused(why),
        TransportError::TimedOut => SendError::TimedOut,
        other => SendError::Unreachable(other.to_string()),
    }
}

fn to_wire(header: FrameHeader) -> Header {
    Header {
        range_id: header.range.get(),
        from_replica: header.from_replica.get(),
        to_replica: header.to_replica.get(),
        method: header.method,
        ..Header::default()
    }
}

fn from_wire(header: &Header) -> (NodeId, FrameHeader) {
    let frame = FrameHeader {
        range: RangeId(header.range_id),
        from_replica: ReplicaId(header.from_replica),
        to_replica: ReplicaId(header.to_replica),
        method: header.method,
    };
    (NodeId(header.from_node), frame)
}

fn sink(sender: StreamSender) -> FrameSink {
    Box::pin(sender.sink_map_err(send_error))
}

fn source(receiver: StreamReceiver) -> FrameSource {
    receiver.map_err(send_error).boxed()
}

impl PeerSender for PeerLinks {
    fn call(
        &self,
        to: NodeId,
        header: FrameHeader,
        payload: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, SendError>> {
        let peers = self.0.clone();
        Box::pin(async move {
            peers.call(to, to_wire(header), payload, timeout).await.map_err(send_error)
        })
    }

    fn open_stream(
        &self,
        to: NodeId,
        header: FrameHeader,
    ) -> BoxFuture<'static, Result<(FrameSink, FrameSource), SendError>> {
        let peers = self.0.clone();
        Box::pin(async move {
            let opened = peers.open_stream(to, to_wire(header)).await;
            let (sender, receiver) = opened.map_err(send_error)?;
            Ok((sink(sender), source(receiver)))
        })
    }

    fn send_snapshot(
        &self,
        to: NodeId,
        header: FrameHeader,
        chunks: BoxStream<'static, Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, SendError>> {
        let sent = self.0.send_snapshot(to, to_wire(header), chunks, timeout);
        Box::pin(async move { sent.await.map_err(send_error) })
    }
}

/// Hands what other nodes send to the store. Messages that come before the store is open are
/// refused.
#[derive(Clone, Default)]
pub struct Inbox(Arc<OnceLock<Arc<Store>>>);

impl Inbox {
    /// The store is open.
    pub fn open(&self, store: Arc<Store>) {
        // Opened once per process.
        let _ = self.0.set(store);
    }
}

impl FrameHandler for Inbox {
    fn call(&self, header: Header, payload: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let (from, frame) = from_wire(&header);
        match self.0.get() {
            Some(store) => FrameReceiver::call(store.clone(), from, frame, payload),
            None => Box::pin(async { Err("this node is starting".to_owned()) }),
        }
    }

    fn stream(
        &self,
        header: Header,
        inbound: StreamReceiver,
        outbound: StreamSender,
    ) -> BoxFuture<'static, ()> {
        let (from, frame) = from_wire(&header);
        match self.0.get() {
            Some(store) => {
                FrameReceiver::stream(store.clone(), from, frame, source(inbound), sink(outbound))
            }
            None => Box::pin(async {}),
        }
    }

    fn snapshot(
        &self,
        header: Header,
        chunks: BoxStream<'static, Result<Bytes, TransportError>>,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        let (from, frame) = from_wire(&header);
        match self.0.get() {
            Some(store) => {
                let chunks = chunks.map_err(send_error).boxed();
                FrameReceiver::snapshot(store.clone(), from, frame, chunks)
            }
            None => Box::pin(async { Err("this node is starting".to_owned()) }),
        }
    }
}
