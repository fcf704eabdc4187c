//! Point reads and snapshots together: what was requested a timestamp decides, not what was
//! applied.
#![allow(clippy::unwrap_used)]

use super::{RangeError, StoreTuning, TimestampSource};
use crate::command::WriteRequest;
use crate::replica::{PageRead, PointRead};
use crate::testing::{Cluster, put};
use isotherm_types::{Key, KeyRange};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Far below the lease, so that nothing here ends because leadership cannot be confirmed.
const SOON: Duration = Duration::from_millis(150);

fn page(span: KeyRange, at: Option<isotherm_types::Timestamp>) -> PageRead {
    PageRead { span, at, max_keys: 0, max_bytes: 0, reverse: false, keys_only: false }
}

/// A write W of `k` has its timestamp (5, say) and is not committed. A snapshot at 6, on another
/// range, is answered. A point read of `k` that begins now must not show the value before W: W will
/// have taken effect at 5, before the snapshot that was answered before the read began. So it waits
/// for W, and so does a snapshot at 6 of `k` itself; reads of other keys do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_waits_for_a_write_whose_timestamp_was_requested_before_it() {
    let cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&[("", "")]).await;
    cluster.write(vec![put("k", "before"), put("other", "x")]).await;
    let range = cluster.locate(b"k");
    let leader = cluster.leader(range.id).await;
    let store = cluster.store(leader).clone();
    let version = range.epoch.version;
    let followers: Vec<u64> = (1..=3).filter(|n| *n != leader).collect();

    // Fresh, so that the lease outlives what follows; then nobody answers the leader any more.
    cluster.write(vec![put("fresh", "x")]).await;
    for node in &followers {
        cluster.net.isolate(isotherm_types::NodeId(*node), true);
    }
    let begun = Instant::now();
    let write = {
        let (store, id) = (store.clone(), cluster.write_id());
        let request = WriteRequest { id, ops: vec![put("k", "after")] };
        tokio::spawn(async move {
            store.write(range.id, version, request, Duration::from_secs(20)).await
        })
    };
    let replica = store.replica(range.id).unwrap();
    while replica.pending.is_empty() {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    let later = cluster.oracle.timestamp().await.unwrap();

    let read = |key: &'static str| {
        let read = PointRead { key: Key::from_static(key.as_bytes()), at: None };
        store.read(range.id, version, read, SOON)
    };
    let (k, other) = tokio::join!(read("k"), read("other"));
    assert_eq!(other.unwrap().unwrap().value, "x", "the lease holds");
    assert!(matches!(k, Err(RangeError::Unavailable(_))), "not before W is settled: {k:?}");
    let snapshot = page(KeyRange::point(b"k"), Some(later));
    let snapshot = store.scan(range.id, version, snapshot, SOON).await;
    assert!(matches!(snapshot, Err(RangeError::Unavailable(_))), "likewise: {snapshot:?}");
    assert!(begun.elapsed() < Duration::from_millis(500), "too slow to mean anything");

    for node in &followers {
        cluster.net.isolate(isotherm_types::NodeId(*node), false);
    }
    // W's outcome may be unknown to its caller by now; it has one that every read agrees on.
    let _ = write.await.unwrap();
    let now = cluster.get("k").await;
    assert_eq!(cluster.get("k").await, now);
    let at = cluster.read("k", Some(later)).await.unwrap();
    assert_eq!(std::str::from_utf8(&at.value).unwrap(), now.unwrap());
    cluster.stop().await;
}

/// While the oracle is known to be down, a batch is refused before it is noted: nothing waits behind
/// it, neither the batches after it nor the reads of its keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_refused_at_once_while_the_oracle_is_down_and_reads_of_their_keys_go_on() {
    let cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&[("", "")]).await;
    cluster.write(vec![put("k", "before")]).await;
    let range = cluster.locate(b"k");
    let store = cluster.store(cluster.leader(range.id).await).clone();
    let version = range.epoch.version;
    let write = |value: &'static str| {
        let (store, id) = (store.clone(), cluster.write_id());
        let request = WriteRequest { id, ops: vec![put("k", value)] };
        async move { store.write(range.id, version, request, Duration::from_secs(20)).await }
    };
    let closed = cluster.oracle.gate.clone().write_owned().await;
    // One that had begun when it went down, and one that waits behind it.
    let begun = tokio::spawn(write("begun"));
    let replica = store.replica(range.id).unwrap();
    while replica.pending.is_empty() {
        tokio::task::yield_now().await;
    }
    let queued = tokio::spawn(write("queued"));
    cluster.oracle.is_down.store(true, Ordering::SeqCst);
    assert!(matches!(begun.await.unwrap(), Err(RangeError::Unavailable(_))));
    assert_eq!(queued.await.unwrap(), Err(RangeError::NoTimestamps));
    for _ in 0..20 {
        let started = Instant::now();
        assert_eq!(write("later").await, Err(RangeError::NoTimestamps));
        assert!(replica.pending.is_empty());
        let read = PointRead { key: Key::from_static(b"k"), at: None };
        let second = Duration::from_secs(1);
        let row = store.read(range.id, version, read, second).await.unwrap().unwrap();
        assert_eq!(row.value, "before");
        assert!(started.elapsed() < second, "{:?}", started.elapsed());
    }
    cluster.oracle.is_down.store(false, Ordering::SeqCst);
    drop(closed);
    cluster.write(vec![put("k", "after")]).await;
    assert_eq!(cluster.get("k").await.unwrap(), "after");
    cluster.stop().await;
}

/// Many reads of large values are answered in parts: an answer is bounded, however many keys were
/// asked for together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_large_values_are_answered_in_parts() {
    let cluster = Cluster::start(1, StoreTuning::default()).await;
    cluster.seed(&[("", "")]).await;
    let value = "v".repeat(400_000);
    for n in 0..6 {
        cluster.write(vec![put(&format!("k{n}"), &value)]).await;
    }
    let range = cluster.locate(b"k");
    let store = cluster.store(cluster.leader(range.id).await).clone();
    let keys = |n: std::ops::Range<usize>| -> Vec<PointRead> {
        n.map(|n| PointRead { key: format!("k{n}").into(), at: None }).collect()
    };
    let read =
        |reads| store.read_many(range.id, range.epoch.version, reads, Duration::from_secs(5));
    assert_eq!(read(keys(0..6)).await.unwrap().len(), 3, "1.2 MB of 2.4");
    assert_eq!(read(keys(3..6)).await.unwrap().len(), 3);
    let many = (0..2_000).map(|n| PointRead { key: format!("absent{n}").into(), at: None });
    assert_eq!(read(many.collect()).await.unwrap().len(), 512);
    cluster.stop().await;
}
