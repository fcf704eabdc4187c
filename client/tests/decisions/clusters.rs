//! Whom the client takes for its cluster, and whom it asks while meta is away.

use crate::scripted::{Asked, Reply, Scripted, done, found, range};
use isotherm_proto::internal as pb;
use isotherm_proto::internal::range_request::Body;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

fn served(_: usize, asked: &Asked) -> Reply {
    match asked.body {
        Body::Write(_) => done(asked, 2000),
        _ => found("v", 5),
    }
}

/// Meta and both nodes were founded again at the addresses that they had.
#[tokio::test]
async fn a_cluster_that_was_founded_again_is_refused_at_once() {
    let cluster = Scripted::start(vec![range(1, "", "m", 1), range(2, "m", "", 1)], served).await;
    cluster.client.put("k", "1").await.unwrap();
    let before = cluster.state.asked().len();
    for founded in [&cluster.state.meta_cluster].into_iter().chain(&cluster.state.node_clusters) {
        founded.store(2, Ordering::SeqCst);
    }
    let started = Instant::now();
    let known = cluster.client.get("k").await.unwrap_err();
    let written = cluster.client.put("k", "2").await.unwrap_err();
    assert!(known.message.contains("c2") && written.is_definite(), "{known} {written}");
    let listed = cluster.client.admin().ranges(&isotherm_types::KeyRange::all()).await;
    assert!(listed.unwrap_err().message.contains("c2"));
    assert!(started.elapsed() < Duration::from_millis(1200), "{:?}", started.elapsed());
    assert_eq!(cluster.state.asked().len(), before, "the other cluster did nothing of it");
}

/// A node died and a node of another cluster has its address.
#[tokio::test]
async fn a_node_of_another_cluster_is_passed_over() {
    let cluster = Scripted::start(vec![range(1, "", "", 1)], served).await;
    cluster.state.node_clusters[0].store(2, Ordering::SeqCst);
    for _ in 0..3 {
        cluster.client.put("k", "1").await.unwrap();
    }
    assert!(cluster.state.asked().iter().all(|asked| asked.node == 2));
}

fn route(version: u64, leader_node: u64, leader_term: u64) -> pb::RangeLocation {
    let descriptor = Some(range(1, "", "", version));
    pb::RangeLocation { descriptor, leader_node, leader_term, ..Default::default() }
}

/// What a client without a route asks, when the nodes say these routes and meta nothing.
async fn asked_by_routes(routes: [Vec<pb::RangeLocation>; 2]) -> (u64, u64) {
    let cluster = Scripted::start(vec![range(1, "", "", 1)], |_, _| found("v", 5)).await;
    // It hears where the nodes are, and of no route.
    cluster.client.timestamp().await.unwrap();
    cluster.state.is_meta_silent.store(true, Ordering::SeqCst);
    *cluster.state.routes.lock().unwrap() = routes;
    assert!(cluster.client.get("k").await.unwrap().is_some());
    let last = cluster.state.asked().pop().unwrap();
    (last.version, last.node)
}

#[tokio::test]
async fn nodes_say_where_ranges_are_while_meta_is_silent_and_the_newest_epoch_counts() {
    assert_eq!(asked_by_routes([vec![route(2, 1, 9)], vec![route(3, 2, 4)]]).await, (3, 2));
    assert_eq!(asked_by_routes([vec![route(3, 1, 4)], vec![route(2, 2, 9)]]).await, (3, 1));
}

#[tokio::test]
async fn of_two_nodes_that_know_the_same_epoch_the_newer_term_names_the_leader() {
    assert_eq!(asked_by_routes([vec![route(2, 1, 4)], vec![route(2, 2, 5)]]).await, (2, 2));
    assert_eq!(asked_by_routes([vec![route(2, 1, 5)], vec![route(2, 2, 4)]]).await, (2, 1));
    assert_eq!(asked_by_routes([Vec::new(), vec![route(2, 2, 4)]]).await, (2, 2));
}
