//! Where the client asks.

use crate::scripted::{Scripted, done, epoch_mismatch, error, found, not_leader, range};
use isotherm_client::ErrorKind;
use isotherm_proto::internal::error::Code;
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_refusal_for_the_epoch_teaches_the_new_ranges_without_asking_meta() {
    let cluster = Scripted::start(vec![range(1, "", "", 1)], |_, asked| match asked.version {
        1 => epoch_mismatch(vec![range(1, "", "m", 2), range(2, "m", "", 2)]),
        _ => done(asked, 2000),
    })
    .await;
    cluster.client.put("x", "1").await.unwrap();
    cluster.client.put("a", "1").await.unwrap();
    let asked = cluster.state.asked();
    let ranges: Vec<_> = asked.iter().map(|a| (a.range, a.version)).collect();
    assert_eq!(ranges, [(1, 1), (2, 2), (1, 2)]);
    let seqs: Vec<_> = asked.iter().map(|a| a.write().seq).collect();
    assert_eq!(seqs, [1, 1, 2], "a refused attempt is repeated under its identity");
    let lookups = cluster.state.lookups.load(Ordering::SeqCst);
    assert_eq!(lookups, 2, "one for a node that opens a session, one for the range");
}

#[tokio::test]
async fn a_named_leader_is_asked_next_and_remembered() {
    let cluster = Scripted::start(vec![range(1, "", "", 1)], |_, asked| match asked.node {
        1 => not_leader(2),
        _ => found("v", 5),
    })
    .await;
    for _ in 0..3 {
        cluster.client.get("k").await.unwrap();
    }
    let nodes: Vec<_> = cluster.state.asked().iter().map(|a| a.node).collect();
    assert_eq!(nodes, [1, 2, 2, 2]);
}

#[tokio::test]
async fn concurrent_callers_share_one_lookup() {
    let cluster = Scripted::start(vec![range(1, "", "", 1)], |_, _| found("v", 5)).await;
    let gets = (0..100).map(|i| cluster.client.get(format!("k{i}")));
    for got in futures::future::join_all(gets).await {
        assert!(got.unwrap().is_some());
    }
    assert_eq!(cluster.state.lookups.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_node_that_moved_is_found_at_its_new_address() {
    let cluster = Scripted::start(vec![range(1, "", "", 1)], |_, asked| match asked.node {
        2 => found("v", 5),
        _ => not_leader(2),
    })
    .await;
    // Nothing listens there: the port was free a moment ago and is not in use since.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = cluster.state.swap_address(2, &free.to_string());
    let too_early = cluster.client.get("k").await.unwrap_err();
    assert_eq!(too_early.kind, ErrorKind::Unavailable);
    cluster.state.swap_address(2, &address);
    assert!(cluster.client.get("k").await.unwrap().is_some());
}

#[tokio::test]
async fn the_time_limit_holds_for_all_callers_while_meta_is_silent() {
    let cluster = Scripted::start(vec![range(1, "", "", 1)], |_, _| found("v", 5)).await;
    cluster.state.is_meta_silent.store(true, Ordering::SeqCst);
    let started = Instant::now();
    let gets = (0..50).map(|i| cluster.client.get(format!("k{i}")));
    let puts = (0..50).map(|i| cluster.client.put(format!("k{i}"), "v"));
    let (got, put) = tokio::join!(futures::future::join_all(gets), futures::future::join_all(puts));
    assert!(got.iter().all(Result::is_err));
    assert!(put.iter().all(|p| p.as_ref().is_err_and(|e| e.is_definite())));
    let limit = cluster.client.timeout();
    assert!(started.elapsed() < limit + Duration::from_secs(1), "{:?}", started.elapsed());
}

/// What any node can answer is asked of any of them; one takes connections and never answers.
#[tokio::test]
async fn a_node_that_hangs_is_not_waited_for() {
    let cluster = Scripted::start(vec![range(1, "", "", 1)], |_, _| found("v", 5)).await;
    let hung = TcpListener::bind("127.0.0.1:0").unwrap();
    cluster.state.swap_address(2, &hung.local_addr().unwrap().to_string());
    let (mut longest, started) = (Duration::ZERO, Instant::now());
    for _ in 0..20 {
        let begun = Instant::now();
        cluster.client.timestamp().await.unwrap();
        longest = longest.max(begun.elapsed());
    }
    assert!(longest < Duration::from_millis(900), "{longest:?}");
    assert!(started.elapsed() < Duration::from_secs(3), "it is asked again and again");
}

#[tokio::test]
async fn a_node_that_is_gone_from_the_map_is_asked_no_more() {
    let cluster = Scripted::start(vec![range(1, "", "", 1)], |n, _| match n {
        1 => error(Code::RangeNotFound),
        _ => found("v", 5),
    })
    .await;
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    gone.set_nonblocking(true).unwrap();
    cluster.state.swap_address(2, &gone.local_addr().unwrap().to_string());
    cluster.client.get("k").await.unwrap();
    cluster.state.remove_last_node();
    cluster.client.get("k").await.unwrap();
    assert_eq!(cluster.state.lookups.load(Ordering::SeqCst), 2);
    for _ in 0..30 {
        cluster.client.timestamp().await.unwrap();
    }
    assert!(gone.accept().is_err(), "it was asked");
}
