//! What the other members send to this one.

use super::{frames, send_error};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use isotherm_raftstore::{FrameHeader, FrameReceiver};
use isotherm_transport::{FrameHandler, Header, StreamReceiver, StreamSender, TransportError};
use isotherm_types::{NodeId, RangeId, ReplicaId};
use std::sync::Arc;

/// Hands frames to the group.
pub struct Receiver<R>(pub Arc<R>);

fn parts(h: &Header) -> (NodeId, FrameHeader) {
    let header = FrameHeader {
        range: RangeId(h.range_id),
        from_replica: ReplicaId(h.from_replica),
        to_replica: ReplicaId(h.to_replica),
        method: h.method,
    };
    (NodeId(h.from_node), header)
}

impl<R: FrameReceiver> FrameHandler for Receiver<R> {
    fn call(&self, header: Header, payload: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let (from, header) = parts(&header);
        self.0.clone().call(from, header, payload)
    }

    fn stream(
        &self,
        header: Header,
        inbound: StreamReceiver,
        outbound: StreamSender,
    ) -> BoxFuture<'static, ()> {
        let (from, header) = parts(&header);
        let (sink, source) = frames(outbound, inbound);
        self.0.clone().stream(from, header, source, sink)
    }

    fn snapshot(
        &self,
        header: Header,
        chunks: BoxStream<'static, Result<Bytes, TransportError>>,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        let (from, header) = parts(&header);
        let chunks = chunks.map(|chunk| chunk.map_err(send_error)).boxed();
        self.0.clone().snapshot(from, header, chunks)
    }
}
