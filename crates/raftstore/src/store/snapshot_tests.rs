//! Snapshots on their way: room on both sides before anything is produced, nothing left behind.
#![allow(clippy::unwrap_used)]

use super::{Store, StoreTuning};
use crate::command::WriteOp;
use crate::testing::Cluster;
use bytes::Bytes;
use isotherm_types::RangeId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

fn tuning() -> StoreTuning {
    StoreTuning {
        flush_interval: Duration::from_millis(50),
        log_retain_bytes: 1 << 10,
        log_retain_node_bytes: 1 << 10,
        snapshots_at_once: 2,
        ..StoreTuning::default()
    }
}

/// Writes to the range that begins with `prefix` until the log of what it began with is purged.
async fn outgrow_the_log(cluster: &Cluster, node: u64, range: RangeId, prefix: &str) {
    let first = || cluster.store(node).replica(range).unwrap().status().first_log_index;
    let mut n = 0;
    while first() <= 10 || n < 100 {
        let key = format!("{prefix}{:03}", n % 100).into();
        let value: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(2000).collect();
        cluster.write(vec![WriteOp::Put { key, value: Bytes::from(value) }]).await;
        n += 1;
    }
}

/// Snapshots that are being exported by a store right now.
fn exports(store: &Store) -> usize {
    let entries = std::fs::read_dir(&store.ctx.staging).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("out-")).count()
}

/// The most snapshots that a store exports at a time, until it is asked.
struct Watch {
    stop: Arc<AtomicBool>,
    most: Arc<AtomicUsize>,
    looks: std::thread::JoinHandle<()>,
}

impl Watch {
    fn start(store: &Arc<Store>) -> Self {
        let (stop, most) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (until, seen, store) = (stop.clone(), most.clone(), store.clone());
        let looks = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                seen.fetch_max(exports(&store), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self { stop, most, looks }
    }

    fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.looks.join().unwrap();
        self.most.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_exported_before_the_receiver_has_room() {
    const R: RangeId = RangeId(1);
    let cluster = Cluster::start(4, tuning()).await;
    cluster.seed_on(&[1, 2, 3], &[("", "")], 1).await;
    let leader = cluster.leader(R).await;
    outgrow_the_log(&cluster, leader, R, "k").await;
    // Whoever followed too slowly has had its snapshot.
    cluster.assert_replicas_agree("k").await;
    let before = cluster.net.snapshots.load(Ordering::Relaxed);
    let receiver = cluster.store(4).clone();
    // Others have all of it.
    let now = std::time::Instant::now();
    let taken: Vec<_> = (90..92).map(|n| receiver.rooms.take(RangeId(n), now).unwrap()).collect();
    let watch = Watch::start(cluster.store(leader));
    cluster.add_learner(R, 4).await;
    cluster.wait_for("it is created", || receiver.replica(R).is_some()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(cluster.net.snapshots.load(Ordering::Relaxed), before, "none is sent in vain");
    assert_eq!(watch.finish(), 0, "nor made");
    drop(taken);
    let learned = || receiver.replica(R).is_some_and(|r| r.applied_index() > 0);
    cluster.wait_for("it has a snapshot", learned).await;
    assert_eq!(cluster.net.snapshots.load(Ordering::Relaxed), before + 1);
    drop(receiver);
    cluster.assert_replicas_agree("k").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_snapshots_leave_a_node_at_a_time_whoever_they_are_for() {
    let slow = StoreTuning {
        snapshot_file_bytes: 16 << 10,
        snapshot_bytes_per_second: 400 << 10,
        ..tuning()
    };
    let cluster = Cluster::start(4, slow).await;
    let spans = [("", "b"), ("b", "c"), ("c", "d"), ("d", "")];
    cluster.seed_on(&[1], &spans, 1).await;
    for (range, prefix) in (1..).map(RangeId).zip(["a", "b", "c", "d"]) {
        outgrow_the_log(&cluster, 1, range, prefix).await;
    }
    let watch = Watch::start(cluster.store(1));
    // Three receivers with room for two each.
    let learners: Vec<_> = (1..=4).map(RangeId).zip([2, 3, 4, 2]).collect();
    for (range, node) in &learners {
        cluster.add_learner(*range, *node).await;
    }
    let has = |(range, node): &(RangeId, u64)| {
        cluster.store(*node).replica(*range).is_some_and(|r| r.applied_index() > 0)
    };
    cluster.wait_for("all have a snapshot", || learners.iter().all(has)).await;
    let most = watch.finish();
    assert!((1..=2).contains(&most), "{most} at a time");
    cluster.assert_replicas_agree("a").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_late_takes_no_place_for_a_replica_that_was_destroyed() {
    const R: RangeId = RangeId(1);
    let cluster = Cluster::start(4, tuning()).await;
    cluster.seed_on(&[1, 2, 3], &[("", "")], 1).await;
    let leader = cluster.leader(R).await;
    outgrow_the_log(&cluster, leader, R, "k").await;
    cluster.assert_replicas_agree("k").await;
    let held = cluster.net.snapshot_gate.clone().write_owned().await;
    let before = cluster.net.snapshots.load(Ordering::Relaxed);
    let learner = cluster.add_learner(R, 4).await;
    let sent = || cluster.net.snapshots.load(Ordering::Relaxed) > before;
    cluster.wait_for("a snapshot is on its way", sent).await;
    let after =
        cluster.step(R, async |store, d| store.remove_learner(R, d.epoch, learner).await).await;
    cluster.remove_from(4, &after).await;
    drop(held);
    // Whatever comes of it has come.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spans = &cluster.store(4).ctx.spans;
    spans.reserve(RangeId(99), &after.span).unwrap();
    spans.release(RangeId(99));
    let again = cluster.add_learner(R, 4).await;
    let learned = || cluster.store(4).replica(R).is_some_and(|r| r.applied_index() > 0);
    cluster.wait_for("the next one has a snapshot", learned).await;
    assert!(again > learner);
    cluster.stop().await;
}
