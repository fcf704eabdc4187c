//! What this process sends.

use crate::convert::{send_error, sink, source, to_wire};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use isotherm_raftstore::{FrameHeader, FrameSink, FrameSource, PeerSender, SendError};
use isotherm_transport::Peers;
use isotherm_types::NodeId;
use std::time::Duration;

/// Sends through [`Peers`], which know the addresses.
pub struct Outbox(pub Peers);

impl PeerSender for Outbox {
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
