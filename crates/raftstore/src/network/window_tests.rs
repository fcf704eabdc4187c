//! How much a replication stream sends ahead of the answers.
#![allow(clippy::unwrap_used)]

use super::append_stream::{AppendStream, Peer};
use super::promises::Promises;
use crate::entry_codec::encode_message;
use crate::sender::{FrameHeader, FrameSink, FrameSource, PeerSender, SendError};
use crate::type_config::{
    AppendEntriesRequest, Command, Entry, EntryPayload, LeaderId, LogId, StreamAppendResult, Vote,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use isotherm_types::{NodeId, RangeId, ReplicaId};
use openraft::network::RPCOption;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// A follower that answers when it is told to. The link takes everything at once.
struct Follower {
    requests: Arc<AtomicU64>,
    answers: Mutex<Option<mpsc::UnboundedReceiver<Bytes>>>,
}

impl PeerSender for Follower {
    fn call(
        &self,
        _: NodeId,
        _: FrameHeader,
        _: Bytes,
        _: Duration,
    ) -> BoxFuture<'static, Result<Bytes, SendError>> {
        unreachable!("entries travel in streams")
    }

    fn open_stream(
        &self,
        _: NodeId,
        _: FrameHeader,
    ) -> BoxFuture<'static, Result<(FrameSink, FrameSource), SendError>> {
        let requests = self.requests.clone();
        let sink = futures::sink::unfold((), move |(), _: Bytes| {
            requests.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Ok::<(), SendError>(()))
        });
        let answers = self.answers.lock().take().unwrap();
        let source = stream::unfold(answers, |mut answers| async {
            let answer = answers.recv().await?;
            Some((Ok(answer), answers))
        });
        Box::pin(async { Ok((Box::pin(sink) as FrameSink, source.boxed())) })
    }

    fn send_snapshot(
        &self,
        _: NodeId,
        _: FrameHeader,
        _: BoxStream<'static, Bytes>,
        _: Duration,
    ) -> BoxFuture<'static, Result<Bytes, SendError>> {
        unreachable!("no snapshot is needed")
    }
}

fn id(index: u64) -> LogId {
    LogId::new(LeaderId { term: 1, node_id: 1 }, index)
}

/// One entry of half a MiB.
fn request(index: u64) -> AppendEntriesRequest {
    let payload = EntryPayload::Normal(Command(Bytes::from(vec![1; 512 << 10])));
    AppendEntriesRequest {
        vote: Vote::new_committed(1, 1),
        prev_log_id: Some(id(index - 1)),
        entries: vec![Entry { log_id: id(index), payload }],
        leader_commit: None,
    }
}

/// A follower that was away lacks a lot. Its leader sends no more than it can keep in mind.
#[tokio::test]
async fn a_leader_waits_for_a_follower_that_answers_slowly() {
    let requests = Arc::<AtomicU64>::default();
    let (answer, answers) = mpsc::unbounded_channel();
    let follower = Follower { requests: requests.clone(), answers: Mutex::new(Some(answers)) };
    let (range, from_replica, to_replica) = (RangeId(1), ReplicaId(1), ReplicaId(2));
    let peer = Peer {
        sender: Arc::new(follower),
        node: NodeId(2),
        header: FrameHeader { range, from_replica, to_replica, method: 2 },
        promises: Arc::new(Promises::new(Box::new(|_| {}))),
    };
    let log = stream::iter((1..=64).map(request));
    let option = RPCOption::new(Duration::from_secs(1));
    let mut answered = Box::pin(AppendStream::new(peer, log, &option).into_stream());
    assert!(answered.next().now_or_never().is_none());
    let sent = requests.load(Ordering::SeqCst);
    assert!((4..=9).contains(&sent), "{sent} requests of half a MiB were sent");
    for index in 1..=64 {
        let result: StreamAppendResult = Ok(Some(id(index)));
        answer.send(encode_message(&result).into()).unwrap();
        let next = answered.next().now_or_never().flatten().unwrap().unwrap();
        assert_eq!(next, result);
        assert!(answered.next().now_or_never().is_none());
        let ahead = requests.load(Ordering::SeqCst) - index;
        assert!(ahead <= sent && (ahead >= sent - 1 || index > 55), "{ahead} after {index}");
    }
    assert_eq!(requests.load(Ordering::SeqCst), 64);
}
