//! How this member reaches the others.

use super::{frames, send_error};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use isotherm_raftstore::{FrameHeader, FrameSink, FrameSource, PeerSender, SendError};
use isotherm_transport::{Header, Peers};
use isotherm_types::NodeId;
use std::time::Duration;

/// Sends through [`Peers`].
pub struct Sender {
    peers: Peers,
}

impl Sender {
    /// Over `peers`, which know the addresses.
    pub fn new(peers: Peers) -> Self {
        Self { peers }
    }
}

/// The transport fills in the cluster and the nodes.
fn wire_header(h: FrameHeader) -> Header {
    Header {
        range_id: h.range.get(),
        from_replica: h.from_replica.get(),
        to_replica: h.to_replica.get(),
        method: h.method,
        ..Header::default()
    }
}

impl PeerSender for Sender {
    fn call(
        &self,
        to: NodeId,
        header: FrameHeader,
        payload: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, SendError>> {
        let peers = self.peers.clone();
        async move {
            let called = peers.call(to, wire_header(header), payload, timeout).await;
            called.map_err(send_error)
        }
        .boxed()
    }

    fn open_stream(
        &self,
        to: NodeId,
        header: FrameHeader,
    ) -> BoxFuture<'static, Result<(FrameSink, FrameSource), SendError>> {
        let peers = self.peers.clone();
        async move {
            let opened = peers.open_stream(to, wire_header(header)).await;
            let (outbound, inbound) = opened.map_err(send_error)?;
            Ok(frames(outbound, inbound))
        }
        .boxed()
    }

    fn send_snapshot(
        &self,
        to: NodeId,
        header: FrameHeader,
        chunks: BoxStream<'static, Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, SendError>> {
        let peers = self.peers.clone();
        async move {
            let sent = peers.send_snapshot(to, wire_header(header), chunks, timeout).await;
            sent.map_err(send_error)
        }
        .boxed()
    }
}
