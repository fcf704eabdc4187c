//! What a link does when more is to be sent than fits through it.
#![allow(clippy::unwrap_used)]

use crate::session::Sessions;
use crate::tests::{SECOND, peers, server, server_that_hangs};
use crate::{Header, TransportError};
use bytes::Bytes;
use futures::future::join_all;
use futures::{SinkExt, StreamExt};
use isotherm_proto::internal::frame::Kind;
use isotherm_proto::internal::{Frame, Frames};
use isotherm_types::NodeId;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const TO: NodeId = NodeId(2);
const FRAME_BYTES: usize = 256 << 10;

/// What is sent on this way to `server` passes a chunk of 16 KiB at a time, with a pause before each.
async fn slow_way(server: SocketAddr, pause: Duration) -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(16).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((there, _)) = listener.accept().await {
            let here = TcpStream::connect(server).await.unwrap();
            here.set_nodelay(true).unwrap();
            let ((mut sent, mut back), (mut answers, mut on)) =
                (there.into_split(), here.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
            tokio::spawn(async move {
                let mut chunk = vec![0; 16 << 10];
                while let Ok(n @ 1..) = sent.read(&mut chunk).await {
                    tokio::time::sleep(pause).await;
                    if on.write_all(&chunk[..n]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn swallowed() -> Header {
    Header { method: 7, ..Header::default() }
}

/// A node that returns is sent what it lacks, of many groups at once: that must not delay votes,
/// heartbeats and signs of life.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_do_not_wait_behind_what_streams_send() {
    let (address, _stop) = server("127.0.0.1:0").await;
    let peers = peers(7, slow_way(address, Duration::from_millis(1)).await);
    // 5 seconds' worth at least.
    let sending = (0..16).map(|_| {
        let peers = peers.clone();
        async move {
            let (mut sender, _receiver) = peers.open_stream(TO, swallowed()).await.unwrap();
            for _ in 0..24 {
                sender.send(Bytes::from(vec![1; FRAME_BYTES])).await.unwrap();
            }
        }
    });
    let sending = tokio::spawn(join_all(sending));
    tokio::time::sleep(SECOND / 2).await;
    for _ in 0..5 {
        let begun = Instant::now();
        let ping = Bytes::from_static(b"ping");
        let answer = peers.call(TO, Header::default(), ping, 2 * SECOND).await;
        assert_eq!(answer.unwrap(), "ping", "after {:?}", begun.elapsed());
    }
    sending.abort();
}

/// What waits for a peer that reads nothing is bounded in bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_link_is_bounded_in_bytes() {
    let (address, _stop) = server("127.0.0.1:0").await;
    // It is read as far as opening the stream takes.
    let peers = peers(7, slow_way(address, SECOND).await);
    let sent = Arc::<AtomicU64>::default();
    let (counted, sender) = (sent.clone(), peers.clone());
    tokio::spawn(async move {
        let (mut sender, _receiver) = loop {
            match sender.open_stream(TO, swallowed()).await {
                Ok(opened) => break opened,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let payload = Bytes::from(vec![1; FRAME_BYTES]);
        for _ in 0..1024 {
            if sender.send(payload.clone()).await.is_err() {
                // It is dead by the keep-alive.
                return;
            }
            counted.fetch_add(FRAME_BYTES as u64, Ordering::SeqCst);
        }
    });
    let deadline = Instant::now() + 20 * SECOND;
    let (mut before, mut still) = (0, 0);
    while still < 10 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(SECOND / 10).await;
        let now = sent.load(Ordering::SeqCst);
        still = if now > 0 && now == before { still + 1 } else { 0 };
        before = now;
    }
    assert!(before <= 40 << 20, "{} MiB wait", before >> 20);
}

#[tokio::test]
async fn a_call_ends_with_its_callers_patience() {
    let (address, _stop, hanging) = server_that_hangs("127.0.0.1:0").await;
    let peers = peers(7, address);
    let hang = Header { method: 8, ..Header::default() };
    let answer = peers.call(TO, hang, Bytes::new(), SECOND / 2).await;
    assert_eq!(answer, Err(TransportError::TimedOut));
    let deadline = Instant::now() + 2 * SECOND;
    while hanging.load(Ordering::SeqCst) > 0 {
        assert!(Instant::now() < deadline, "nobody waits for it, and it goes on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn calls_that_one_link_may_have_answered_at_a_time_are_bounded() {
    let (address, _stop, hanging) = server_that_hangs("127.0.0.1:0").await;
    let peers = peers(7, address);
    let hang = Header { method: 8, ..Header::default() };
    let call = || peers.call(TO, hang, Bytes::new(), 5 * SECOND);
    let calls = join_all((0..6000).map(|_| call())).await;
    let is_refused =
        |answer: &&Result<Bytes, TransportError>| matches!(answer, Err(TransportError::Refused(_)));
    let refused = calls.iter().filter(is_refused).count();
    assert!((1000..6000).contains(&refused), "{refused}");
    let deadline = Instant::now() + 2 * SECOND;
    while hanging.load(Ordering::SeqCst) > 0 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(call().await, Err(TransportError::TimedOut), "there is room again");
}

fn stream_frames(numbers: impl Iterator<Item = u64>, payload: &Bytes) -> Frames {
    let frame = |number| Frame {
        kind: Kind::Stream.into(),
        session: 1,
        number,
        payload: payload.clone(),
        ..Frame::default()
    };
    Frames { frames: numbers.map(frame).collect() }
}

#[tokio::test]
async fn a_receiver_that_falls_behind_costs_so_many_bytes_and_its_stream() {
    let sessions = Sessions::default();
    let mut receiver = sessions.open_stream(1);
    let payload = Bytes::from(vec![1; FRAME_BYTES]);
    for number in 1..=500 {
        sessions.take_in(stream_frames(number..=number, &payload), |_| Ok(())).await.unwrap();
    }
    let mut frames = 0;
    loop {
        let received = tokio::time::timeout(SECOND, receiver.next()).await;
        match received.expect("its stream ends").unwrap() {
            Ok(_) => frames += 1,
            Err(error) => {
                assert!(matches!(error, TransportError::Broken(_)), "{error}");
                break;
            }
        }
    }
    assert_eq!(frames * FRAME_BYTES, 16 << 20, "in order, none missing, and no more");
}

/// A small frame is a part of the memory of its message, for which others pay.
#[tokio::test]
async fn a_frame_that_waits_does_not_keep_the_message_that_it_came_with() {
    let sessions = Sessions::default();
    let mut receiver = sessions.open_stream(1);
    let message = Bytes::from(vec![1; FRAME_BYTES]);
    let frames = stream_frames(1..=16, &message.slice(..100));
    sessions.take_in(frames, |_| Ok(())).await.unwrap();
    assert!(message.is_unique(), "nobody else holds it");
    assert_eq!(receiver.next().await.unwrap().unwrap().len(), 100);
}
