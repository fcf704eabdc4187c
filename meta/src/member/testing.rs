//! Members in one process: a network in memory whose members can be cut off, and what a test does
//! with them.

#![allow(clippy::unwrap_used)]
use super::leader;
use super::meta::Meta;
use super::run::close_log;
use crate::machine::{Founding, MetaMachine};
use crate::oracle::Oracle;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{SinkExt, StreamExt};
use isotherm_raftstore::{
    FrameHeader, FrameReceiver, FrameSink, FrameSource, Group, GroupOptions, Part, PeerSender,
    SendError,
};
use isotherm_storage::{LogEngine, LogOptions, RocksLog};
use isotherm_transport::{Incarnations, Peers, PeersOptions};
use isotherm_types::{NodeId, RaftTiming};
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, PollSender};
use tokio_util::task::TaskTracker;

const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The network.
#[derive(Default)]
pub(crate) struct Net {
    groups: Mutex<HashMap<NodeId, Weak<Group<MetaMachine>>>>,
    cut: Mutex<HashSet<NodeId>>,
}

impl Net {
    /// Cuts `member` off, or lets it in again.
    pub(crate) fn set_cut(&self, member: NodeId, is_cut: bool) {
        let mut cut = self.cut.lock();
        if is_cut {
            cut.insert(member)
        } else {
            cut.remove(&member)
        };
    }

    fn is_cut(&self, pair: [NodeId; 2]) -> bool {
        let cut = self.cut.lock();
        pair.iter().any(|member| cut.contains(member))
    }

    fn reach(&self, from: NodeId, to: NodeId) -> Result<Arc<Group<MetaMachine>>, SendError> {
        let group = self.groups.lock().get(&to).and_then(Weak::upgrade);
        let group = group.filter(|_| !self.is_cut([from, to]));
        group.ok_or_else(|| SendError::Unreachable("cut off".into()))
    }
}

struct NetSender {
    net: Arc<Net>,
    from: NodeId,
}

/// Moves frames until the user of either end is gone or the pair is cut.
async fn pump(
    net: Arc<Net>,
    pair: [NodeId; 2],
    mut inbound: mpsc::Receiver<Bytes>,
    outbound: mpsc::Sender<Result<Bytes, SendError>>,
) {
    while let Some(frame) = inbound.recv().await {
        if net.is_cut(pair) {
            let cut = SendError::Unreachable("cut off".into());
            let _ = outbound.send(Err(cut)).await;
            return;
        }
        if outbound.send(Ok(frame)).await.is_err() {
            return;
        }
    }
}

/// One direction of a stream.
fn direction(net: &Arc<Net>, pair: [NodeId; 2]) -> (FrameSink, FrameSource) {
    let (sink, sent) = mpsc::channel(16);
    let (received, source) = mpsc::channel(16);
    tokio::spawn(pump(net.clone(), pair, sent, received));
    let gone = |_| SendError::Unreachable("the other end is gone".into());
    let sink = PollSender::new(sink).sink_map_err(gone);
    (Box::pin(sink), Box::pin(ReceiverStream::new(source)))
}

impl PeerSender for NetSender {
    fn call(
        &self,
        to: NodeId,
        header: FrameHeader,
        payload: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, SendError>> {
        let (net, from) = (self.net.clone(), self.from);
        async move {
            let called = net.reach(from, to)?.call(from, header, payload);
            let answer = tokio::time::timeout(timeout, called).await;
            let answer = answer.map_err(|_| SendError::TimedOut)?.map_err(SendError::Refused);
            net.reach(from, to).and(answer)
        }
        .boxed()
    }

    fn open_stream(
        &self,
        to: NodeId,
        header: FrameHeader,
    ) -> BoxFuture<'static, Result<(FrameSink, FrameSource), SendError>> {
        let (net, from) = (self.net.clone(), self.from);
        async move {
            let group = net.reach(from, to)?;
            let (sink, server_source) = direction(&net, [from, to]);
            let (server_sink, source) = direction(&net, [from, to]);
            tokio::spawn(group.stream(from, header, server_source, server_sink));
            Ok((sink, source))
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
        let (net, from) = (self.net.clone(), self.from);
        async move {
            let sent = net.reach(from, to)?.snapshot(from, header, chunks.map(Ok).boxed());
            let answer = tokio::time::timeout(timeout, sent).await;
            answer.map_err(|_| SendError::TimedOut)?.map_err(SendError::Refused)
        }
        .boxed()
    }
}

/// A member without servers.
pub(crate) struct TestMember {
    pub(crate) meta: Arc<Meta>,
    log: Arc<dyn LogEngine>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl TestMember {
    /// Opens member `me` of `members` members with its log in `dir`.
    pub(crate) async fn open(
        net: &Arc<Net>,
        me: u64,
        members: u64,
        dir: &Path,
        configured: Founding,
    ) -> Self {
        let me = NodeId(me);
        let log: Arc<dyn LogEngine> = Arc::new(RocksLog::open(dir, LogOptions::default()).unwrap());
        let sender = Arc::new(NetSender { net: net.clone(), from: me });
        let (timing, part) = (RaftTiming::META, Part::Votes);
        let options = GroupOptions { member: me, timing, snapshot_every: 50, part };
        let machine = Arc::new(RwLock::new(MetaMachine::default()));
        let group = Group::open(options, log.clone(), machine, sender).await.unwrap();
        net.groups.lock().insert(me, Arc::downgrade(&group));
        let members: Vec<_> = (1..=members).map(NodeId).collect();
        if me == NodeId(1) {
            group.initialize(&members).await.unwrap();
        }
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let oracle = Oracle::start(me, group.clone(), &tasks, stop.clone());
        let peers = Peers::new(PeersOptions {
            cluster: Arc::default(),
            from: me,
            incarnations: Incarnations::default(),
        });
        let members = members.into_iter().map(|id| (id, format!("meta:{}", id.get()))).collect();
        let meta = Arc::new(Meta::new(me, members, configured, group, oracle, peers));
        let lead = leader::run(meta.clone(), stop.clone());
        tasks.spawn(isotherm_task::until("meta leader", stop.clone(), lead));
        Self { meta, log, tasks, stop }
    }

    /// Whether it leads and serves.
    pub(crate) fn leads(&self) -> bool {
        self.meta.leading().is_ok()
    }

    /// Stops it.
    pub(crate) async fn close(self) {
        self.stop.cancel();
        self.meta.group.shutdown().await;
        self.tasks.close();
        self.tasks.wait().await;
        drop(self.meta);
        close_log(self.log).await;
    }
}
