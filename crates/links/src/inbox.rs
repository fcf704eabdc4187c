//! What other processes send to this one.

use crate::convert::{from_wire, send_error, sink, source};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use isotherm_raftstore::FrameReceiver;
use isotherm_transport::{FrameHandler, Header, StreamReceiver, StreamSender, TransportError};
use std::sync::{Arc, OnceLock};

/// Hands what others send to the store or the group. What comes before it is open is refused: the
/// servers start first, so that others are answered rather than kept waiting.
#[derive(Clone, Default)]
pub struct Inbox(Arc<OnceLock<Arc<dyn FrameReceiver>>>);

impl Inbox {
    /// The receiver is open. Only the first one counts: there is one per process.
    pub fn open(&self, receiver: Arc<dyn FrameReceiver>) {
        let _ = self.0.set(receiver);
    }

    fn receiver(&self) -> Result<Arc<dyn FrameReceiver>, String> {
        self.0.get().cloned().ok_or_else(|| "this process is starting".to_owned())
    }
}

impl FrameHandler for Inbox {
    fn call(&self, header: Header, payload: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let (from, frame) = from_wire(&header);
        match self.receiver() {
            Ok(receiver) => receiver.call(from, frame, payload),
            Err(why) => Box::pin(async { Err(why) }),
        }
    }

    fn stream(
        &self,
        header: Header,
        inbound: StreamReceiver,
        outbound: StreamSender,
    ) -> BoxFuture<'static, ()> {
        let (from, frame) = from_wire(&header);
        match self.receiver() {
            Ok(receiver) => receiver.stream(from, frame, source(inbound), sink(outbound)),
            // Dropping both ends tells the other side.
            Err(_) => Box::pin(async {}),
        }
    }

    fn snapshot(
        &self,
        header: Header,
        chunks: BoxStream<'static, Result<Bytes, TransportError>>,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        let (from, frame) = from_wire(&header);
        match self.receiver() {
            Ok(receiver) => receiver.snapshot(from, frame, chunks.map_err(send_error).boxed()),
            Err(why) => Box::pin(async { Err(why) }),
        }
    }
}
