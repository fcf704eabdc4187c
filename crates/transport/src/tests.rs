//! Real sockets on loopback.
#![allow(clippy::unwrap_used)]

use super::*;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{SinkExt, StreamExt};
use isotherm_types::{Incarnation, NodeId};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Answers with what it got; method 9 refuses, method 8 never answers, a stream of method 7 swallows.
struct Echo {
    /// Calls of method 8 that are being answered.
    hanging: Arc<AtomicU64>,
}

/// Counts itself for as long as it lives.
struct Counted(Arc<AtomicU64>);

impl Counted {
    fn new(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl FrameHandler for Echo {
    fn call(&self, header: Header, payload: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let hanging = self.hanging.clone();
        Box::pin(async move {
            match header.method {
                8 => {
                    let _counted = Counted::new(&hanging);
                    std::future::pending().await
                }
                9 => Err("no".into()),
                _ => Ok(payload),
            }
        })
    }

    fn stream(
        &self,
        header: Header,
        mut inbound: StreamReceiver,
        mut outbound: StreamSender,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            while let Some(Ok(payload)) = inbound.next().await {
                if header.method != 7 && outbound.send(payload).await.is_err() {
                    return;
                }
            }
        })
    }

    fn snapshot(
        &self,
        _: Header,
        mut chunks: BoxStream<'static, Result<Bytes, TransportError>>,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move {
            let mut bytes = 0u64;
            while let Some(chunk) = chunks.next().await {
                bytes += chunk.map_err(|e| e.to_string())?.len() as u64;
            }
            Ok(Bytes::from(bytes.to_string()))
        })
    }
}

pub(crate) async fn server(address: &str) -> (SocketAddr, CancellationToken) {
    server_as(address, Incarnations::default()).await
}

async fn server_as(address: &str, incarnations: Incarnations) -> (SocketAddr, CancellationToken) {
    let (address, stop, _) = serve_echo(address, incarnations).await;
    (address, stop)
}

/// A server, and how many calls of method 8 it is answering.
pub(crate) async fn server_that_hangs(
    address: &str,
) -> (SocketAddr, CancellationToken, Arc<AtomicU64>) {
    serve_echo(address, Incarnations::default()).await
}

async fn serve_echo(
    address: &str,
    incarnations: Incarnations,
) -> (SocketAddr, CancellationToken, Arc<AtomicU64>) {
    let hanging = Arc::<AtomicU64>::default();
    let listener = bind(address.parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let cluster = Arc::new(AtomicU64::new(7));
    let handler = Arc::new(Echo { hanging: hanging.clone() });
    let service = raft_server(handler, cluster, NodeId(2), incarnations, stop.clone());
    let served = serve(listener, Routes::new(service), 1000, stop.clone());
    tokio::spawn(async move { served.await.unwrap() });
    (address, stop, hanging)
}

pub(crate) fn peers(cluster: u64, address: SocketAddr) -> Peers {
    peers_as(cluster, address, Incarnations::default())
}

fn peers_as(cluster: u64, address: SocketAddr, incarnations: Incarnations) -> Peers {
    let cluster = Arc::new(AtomicU64::new(cluster));
    let peers = Peers::new(PeersOptions { cluster, from: NodeId(1), incarnations });
    peers.set_address(NodeId(2), &address.to_string());
    peers
}

async fn call(peers: &Peers, method: u32, payload: &'static [u8]) -> Result<Bytes, TransportError> {
    let header = Header { method, ..Header::default() };
    peers.call(NodeId(2), header, Bytes::from_static(payload), SECOND).await
}

#[tokio::test]
async fn a_call_is_answered_or_refused() {
    let (address, _stop) = server("127.0.0.1:0").await;
    let peers = peers(7, address);
    assert_eq!(call(&peers, 1, b"hello").await.unwrap(), "hello");
    assert_eq!(call(&peers, 9, b"").await, Err(TransportError::Refused("no".into())));
    let nobody = peers.call(NodeId(5), Header::default(), Bytes::new(), SECOND).await;
    assert!(matches!(nobody, Err(TransportError::Unreachable(_))));
}

#[tokio::test]
async fn a_stream_keeps_its_order_and_ends_on_both_sides() {
    let (address, _stop) = server("127.0.0.1:0").await;
    let peers = peers(7, address);
    let (mut sender, mut receiver) = peers.open_stream(NodeId(2), Header::default()).await.unwrap();
    let send = tokio::spawn(async move {
        for n in 0..5000u32 {
            sender.send(Bytes::from(n.to_be_bytes().to_vec())).await.unwrap();
            if n % 100 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    for n in 0..5000u32 {
        assert_eq!(receiver.next().await.unwrap().unwrap(), n.to_be_bytes()[..]);
    }
    send.await.unwrap();
    assert!(receiver.next().await.is_none(), "our end closes theirs");
}

/// What comes back of ten frames, and whether the stream ends by itself, when each direction loses
/// its seventh.
async fn echoed_without_the_seventh() -> (Vec<u8>, bool) {
    crate::faults::testing::DROPPED.set(Some(7));
    let (address, _stop) = server("127.0.0.1:0").await;
    let peers = peers(7, address);
    let (mut sender, mut receiver) = peers.open_stream(NodeId(2), Header::default()).await.unwrap();
    for n in 1..=10 {
        // The other side may have ended the stream by now.
        let _ = sender.send(Bytes::from(vec![n])).await;
    }
    let mut echoed = Vec::new();
    loop {
        match tokio::time::timeout(SECOND, receiver.next()).await {
            Ok(Some(Ok(payload))) => echoed.push(payload[0]),
            Ok(Some(Err(_)) | None) => return (echoed, true),
            Err(_) => return (echoed, false),
        }
    }
}

#[tokio::test]
async fn a_lost_frame_ends_its_stream() {
    assert_eq!(echoed_without_the_seventh().await, (vec![1, 2, 3, 4, 5, 6], true));
}

/// What the numbers are for: without them both directions go on, and nobody knows of the loss.
#[tokio::test]
async fn without_a_look_at_the_numbers_a_lost_frame_goes_unnoticed() {
    crate::faults::testing::OVERLOOKS_GAPS.set(true);
    assert_eq!(echoed_without_the_seventh().await, (vec![1, 2, 3, 4, 5, 6, 9, 10], false));
}

#[tokio::test]
async fn a_lost_link_fails_what_is_open_and_comes_back() {
    let (address, stop) = server("127.0.0.1:0").await;
    let peers = peers(7, address);
    let (_sender, mut receiver) = peers.open_stream(NodeId(2), Header::default()).await.unwrap();
    assert_eq!(peers.link_down_since(NodeId(2)), None);
    stop.cancel();
    let broken = tokio::time::timeout(5 * SECOND, receiver.next()).await.unwrap();
    assert!(matches!(broken, Some(Err(TransportError::Unreachable(_)))), "{broken:?}");
    assert!(call(&peers, 1, b"x").await.is_err());
    let (_, _stop) = server(&address.to_string()).await;
    let deadline = Instant::now() + 10 * SECOND;
    while call(&peers, 1, b"back").await.is_err() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn another_cluster_and_another_process_are_refused() {
    let (address, _stop) = server("127.0.0.1:0").await;
    assert!(call(&peers(8, address), 1, b"x").await.is_err());
    assert!(call(&peers(0, address), 1, b"not known yet").await.is_ok());
    let wrong = peers(7, address);
    wrong.set_address(NodeId(3), &address.to_string());
    let answer = wrong.call(NodeId(3), Header::default(), Bytes::new(), SECOND).await;
    assert!(answer.is_err());
}

#[tokio::test]
async fn garbage_on_the_port_harms_nobody() {
    let (address, _stop) = server("127.0.0.1:0").await;
    for _ in 0..20 {
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let garbage: Vec<u8> = (0..2000).map(|_| fastrand::u8(..)).collect();
        // The server may hang up before it has read all.
        let _ = socket.write_all(&garbage).await;
        let _ = tokio::time::timeout(SECOND, socket.read(&mut [0; 64])).await;
    }
    assert_eq!(call(&peers(7, address), 1, b"well").await.unwrap(), "well");
}

#[tokio::test]
async fn a_snapshot_arrives_whole_on_its_own_connection() {
    let (address, _stop) = server("127.0.0.1:0").await;
    let chunks = futures::stream::iter((0..200).map(|_| Bytes::from(vec![1; 100_000]))).boxed();
    let peers = peers(7, address);
    let sent = peers.send_snapshot(NodeId(2), Header::default(), chunks, 10 * SECOND);
    assert_eq!(sent.await.unwrap(), "20000000");
}

#[tokio::test]
async fn an_address_without_a_port_is_refused_with_a_hint() {
    let error = channel("localhost").unwrap_err().to_string();
    assert!(error.contains("host:port"), "{error}");
}

#[tokio::test]
async fn a_burst_of_large_payloads_is_answered() {
    let (address, _stop) = server("127.0.0.1:0").await;
    let peers = peers(7, address);
    let payload = Bytes::from(vec![1; 100_000]);
    let calls =
        (0..256).map(|_| peers.call(NodeId(2), Header::default(), payload.clone(), 10 * SECOND));
    for answer in futures::future::join_all(calls).await {
        assert_eq!(answer.unwrap().len(), payload.len());
    }
}

#[tokio::test]
async fn a_payload_that_no_message_can_hold_is_refused_and_harms_no_other() {
    let (address, _stop) = server("127.0.0.1:0").await;
    let peers = peers(7, address);
    let (mut sender, mut receiver) = peers.open_stream(NodeId(2), Header::default()).await.unwrap();
    let large = Bytes::from(vec![0; 17 << 20]);
    let refused = peers.call(NodeId(2), Header::default(), large, SECOND).await;
    assert!(matches!(refused, Err(TransportError::Refused(_))), "{refused:?}");
    sender.send(Bytes::from_static(b"still here")).await.unwrap();
    assert_eq!(receiver.next().await.unwrap().unwrap(), "still here");
}

fn start(number: u64) -> Incarnations {
    Incarnations::new(Incarnation(number))
}

async fn snapshot(peers: &Peers) -> Result<Bytes, TransportError> {
    let chunks = futures::stream::iter([Bytes::from_static(b"chunk")]).boxed();
    peers.send_snapshot(NodeId(2), Header::default(), chunks, SECOND).await
}

#[tokio::test]
async fn a_superseded_process_is_refused_on_the_links_that_it_has_and_on_new_ones() {
    let known = Incarnations::default();
    let (address, _stop) = server_as("127.0.0.1:0", known.clone()).await;
    let (older, newer) = (peers_as(7, address, start(5)), peers_as(7, address, start(6)));
    assert!(call(&older, 1, b"first").await.is_ok() && snapshot(&older).await.is_ok());
    let opened = older.open_stream(NodeId(2), Header::default()).await;
    let (_sender, mut receiver) = opened.unwrap();
    assert!(call(&newer, 1, b"second").await.is_ok());
    assert!(call(&older, 1, b"late").await.is_err());
    let ended = tokio::time::timeout(SECOND, receiver.next()).await.unwrap();
    assert!(!matches!(ended, Some(Ok(_))), "{ended:?}");
    let refused = snapshot(&older).await;
    assert!(
        matches!(&refused, Err(TransportError::Refused(why)) if why.contains("i6")),
        "{refused:?}"
    );
    // What the meta service says counts as well.
    known.learn(NodeId(1), Incarnation(9));
    assert!(call(&newer, 1, b"late").await.is_err());
    let unnumbered = peers(7, address);
    assert!(call(&unnumbered, 1, b"of an older version").await.is_ok());
}

#[tokio::test]
async fn a_process_that_was_given_a_new_number_keeps_its_link() {
    let (address, _stop) = server("127.0.0.1:0").await;
    let own = start(5);
    let peers = peers_as(7, address, own.clone());
    let (mut sender, mut receiver) = peers.open_stream(NodeId(2), Header::default()).await.unwrap();
    own.set_own(Incarnation(8));
    assert!(call(&peers, 1, b"as i8").await.is_ok());
    sender.send(Bytes::from_static(b"still here")).await.unwrap();
    assert_eq!(receiver.next().await.unwrap().unwrap(), "still here");
}

#[tokio::test]
async fn the_answers_of_a_superseded_process_are_not_taken() {
    let (address, _stop) = server_as("127.0.0.1:0", start(5)).await;
    let known = start(3);
    let peers = peers_as(7, address, known.clone());
    assert!(call(&peers, 1, b"in time").await.is_ok() && snapshot(&peers).await.is_ok());
    assert_eq!(known.newest(NodeId(2)), Incarnation(5), "it said so");
    known.learn(NodeId(2), Incarnation(6));
    assert!(call(&peers, 1, b"late").await.is_err());
    assert!(matches!(snapshot(&peers).await, Err(TransportError::Refused(_))));
}
