//! A network inside the process.

use crate::sender::{FrameHeader, FrameReceiver, FrameSink, FrameSource, PeerSender, SendError};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{SinkExt, StreamExt};
use isotherm_types::{NodeId, RangeId};
use parking_lot::RwLock;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, PollSender};

/// A node, and what ends the streams to it when it goes.
#[derive(Clone)]
struct Attached {
    receiver: Arc<dyn FrameReceiver>,
    gone: CancellationToken,
}

/// Who is reachable.
#[derive(Default)]
pub struct Net {
    nodes: RwLock<HashMap<NodeId, Attached>>,
    isolated: RwLock<HashSet<NodeId>>,
    /// Somebody was detached: streams that are silent must end too, or they keep its store alive.
    detached: tokio::sync::Notify,
    /// Messages of each range, in streams and as calls.
    frames: parking_lot::Mutex<HashMap<RangeId, u64>>,
    /// Snapshots that were sent.
    pub snapshots: AtomicU64,
    /// While it is held for writing no chunk of a snapshot arrives.
    pub snapshot_gate: Arc<tokio::sync::RwLock<()>>,
}

impl Net {
    /// The sending side of `from`.
    pub fn sender(self: &Arc<Self>, from: NodeId) -> Arc<dyn PeerSender> {
        Arc::new(LocalSender { net: self.clone(), from })
    }

    /// Makes `node` reachable.
    pub fn attach(&self, node: NodeId, receiver: Arc<dyn FrameReceiver>) {
        let gone = CancellationToken::new();
        self.nodes.write().insert(node, Attached { receiver, gone });
    }

    /// Makes `node` unreachable for good, and ends the streams to it: an idle one would otherwise
    /// hold it for as long as its other end has nothing to send.
    pub fn detach(&self, node: NodeId) {
        if let Some(node) = self.nodes.write().remove(&node) {
            node.gone.cancel();
        }
        self.detached.notify_waiters();
    }

    /// Cuts `node` off, or connects it again.
    pub fn isolate(&self, node: NodeId, cut: bool) {
        if cut {
            self.isolated.write().insert(node);
        } else {
            self.isolated.write().remove(&node);
        }
    }

    /// Messages of `range` so far.
    pub fn frames_of(&self, range: RangeId) -> u64 {
        self.frames.lock().get(&range).copied().unwrap_or(0)
    }

    fn count(&self, range: RangeId) {
        *self.frames.lock().entry(range).or_default() += 1;
    }

    fn is_cut(&self, a: NodeId, b: NodeId) -> bool {
        let isolated = self.isolated.read();
        isolated.contains(&a) || isolated.contains(&b)
    }

    fn has_both(&self, a: NodeId, b: NodeId) -> bool {
        let nodes = self.nodes.read();
        nodes.contains_key(&a) && nodes.contains_key(&b)
    }

    fn find(&self, from: NodeId, to: NodeId) -> Result<Attached, SendError> {
        if self.is_cut(from, to) {
            return Err(SendError::Unreachable("cut".into()));
        }
        let found = self.nodes.read().get(&to).cloned();
        found.ok_or_else(|| SendError::Unreachable("not running".into()))
    }
}

struct LocalSender {
    net: Arc<Net>,
    from: NodeId,
}

impl PeerSender for LocalSender {
    fn call(
        &self,
        to: NodeId,
        header: FrameHeader,
        payload: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, SendError>> {
        let (net, from) = (self.net.clone(), self.from);
        Box::pin(async move {
            net.count(header.range);
            let receiver = net.find(from, to)?.receiver;
            let answer = tokio::time::timeout(timeout, receiver.call(from, header, payload)).await;
            if net.is_cut(from, to) {
                return Err(SendError::TimedOut);
            }
            answer.map_err(|_| SendError::TimedOut)?.map_err(SendError::Refused)
        })
    }

    fn open_stream(
        &self,
        to: NodeId,
        header: FrameHeader,
    ) -> BoxFuture<'static, Result<(FrameSink, FrameSource), SendError>> {
        let (net, from) = (self.net.clone(), self.from);
        Box::pin(async move {
            let Attached { receiver, gone } = net.find(from, to)?;
            let (sink, there) = pipe(net.clone(), (from, to), header.range, gone.clone());
            let (answers, source) = pipe(net, (to, from), header.range, gone);
            tokio::spawn(receiver.stream(from, header, there, answers));
            Ok((sink, source))
        })
    }

    fn send_snapshot(
        &self,
        to: NodeId,
        header: FrameHeader,
        chunks: BoxStream<'static, Bytes>,
        _timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, SendError>> {
        let (net, from) = (self.net.clone(), self.from);
        Box::pin(async move {
            let receiver = net.find(from, to)?.receiver;
            net.snapshots.fetch_add(1, Ordering::Relaxed);
            let gate = net.snapshot_gate.clone();
            let chunks = chunks.then(move |chunk| {
                let gate = gate.clone();
                async move {
                    let _open = gate.read().await;
                    Ok(chunk)
                }
            });
            let sent = receiver.snapshot(from, header, chunks.boxed());
            sent.await.map_err(SendError::Refused)
        })
    }
}

fn pipe(
    net: Arc<Net>,
    (from, to): (NodeId, NodeId),
    range: RangeId,
    gone: CancellationToken,
) -> (FrameSink, FrameSource) {
    let (sink, mut taken) = mpsc::channel::<Bytes>(64);
    let (given, source) = mpsc::channel(64);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                frame = taken.recv() => {
                    let Some(frame) = frame else { return };
                    net.count(range);
                    let cut = net.is_cut(from, to);
                    let frame = if cut { Err(SendError::Unreachable("cut".into())) } else { Ok(frame) };
                    if given.send(frame).await.is_err() || cut {
                        return;
                    }
                }
                () = given.closed() => return,
                () = gone.cancelled() => return,
                () = net.detached.notified() => {
                    if !net.has_both(from, to) {
                        return;
                    }
                }
            }
        }
    });
    let gone = |_| SendError::Unreachable("closed".into());
    (Box::pin(PollSender::new(sink).sink_map_err(gone)), ReceiverStream::new(source).boxed())
}
