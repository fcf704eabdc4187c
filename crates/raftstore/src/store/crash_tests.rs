//! A crash before and after every write of a split and of a snapshot's install, and anywhere in
//! flushes and purges.
#![allow(clippy::unwrap_used)]

use super::StoreTuning;
use crate::command::WriteOp;
use crate::testing::{Cluster, put, value};
use isotherm_storage::{ReplicaKey, StateKind};
use isotherm_types::{Key, NodeId, RangeId};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const R: RangeId = RangeId(1);

async fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "waiting until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_of_a_split_leaves_a_whole_range_or_two() {
    let mut cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&[("", "")]).await;
    let mut keys = Vec::new();
    // 1: written, not flushed; 2: flushed, not shown; 3: shown, the child not started.
    for (step, victim) in [(1, 1), (2, 2), (3, 3), (1, 2), (2, 3), (3, 1)] {
        let round = keys.len();
        for half in ["b", "y"] {
            let key = format!("{half}{round}");
            cluster.write(vec![put(&key, "v")]).await;
            keys.push(Key::from(key));
        }
        let faults = &cluster.store(victim).ctx.faults;
        faults.kill_at_split_step.store(step, Ordering::Relaxed);
        let at = format!("m{}", 9 - round / 2);
        let child = 10 + round as u64;
        let others: Vec<u64> = (1..=3).filter(|node| *node != victim).collect();
        let split = async {
            // By whoever leads; a leader that dies in the middle is what this is about.
            let range = cluster.locate(at.as_bytes());
            let leader = cluster.leader(range.id).await;
            let keys = vec![Key::from(at.clone())];
            let store = cluster.store(leader);
            let split = store.split(range.id, range.epoch, keys, vec![RangeId(child)]);
            let _ = tokio::time::timeout(Duration::from_secs(3), split).await;
        };
        split.await;
        let applied = || {
            let hosts = |node: &u64| cluster.store(*node).replica(RangeId(child)).is_some();
            others.iter().all(hosts)
        };
        wait_for("the others have applied the split", applied).await;
        cluster.crash_node(victim).await;
        cluster.start_node(victim).await;
        let hosts = || cluster.store(victim).replica(RangeId(child)).is_some();
        wait_for("the child is here", hosts).await;
        cluster.assert_replicas_agree(&at).await;
        cluster.assert_replicas_agree("b").await;
    }
    keys.sort();
    assert_eq!(cluster.keys().await, keys);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_of_an_install_is_rolled_forward() {
    let tuning = StoreTuning {
        flush_interval: Duration::from_millis(50),
        log_retain_bytes: 1 << 10,
        log_retain_node_bytes: 1 << 10,
        ..StoreTuning::default()
    };
    let mut cluster = Cluster::start(3, tuning).await;
    cluster.seed(&[("", "")]).await;
    let mut keys = BTreeSet::new();
    // 1: the old rows are deleted; 2: the files are in; 3: all is flushed, the marker still there.
    for step in 1..=3_u64 {
        cluster.crash_node(3).await;
        let before = cluster.leader(R).await;
        let first = cluster.store(before).replicas()[0].first_log_index;
        let mut round = 0;
        // Until the log is purged, however soon that is, and every key was written.
        while round < 70 || cluster.store(before).replicas()[0].first_log_index < first + 40 {
            for n in 0..40 {
                let key = Key::from(format!("k{:03}", (n + round) % 100));
                keys.insert(key.clone());
                cluster.write(vec![WriteOp::Put { key, value: value(2000) }]).await;
            }
            round += 7;
            assert!(round < 2000, "the log is not purged");
        }
        cluster.net.isolate(NodeId(3), true);
        cluster.start_node(3).await;
        let replica = cluster.store(3).replica(R).unwrap();
        let key = ReplicaKey { range: R, replica: replica.id };
        let store = cluster.store(3).clone();
        store.ctx.faults.kill_at_install_step.store(step, Ordering::Relaxed);
        cluster.net.isolate(NodeId(3), false);
        let is_marked = || store.ctx.log.state(key, StateKind::InstallMarker).unwrap().is_some();
        wait_for("an install has begun", is_marked).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(is_marked(), "it cannot end");
        drop((store, replica));
        cluster.crash_node(3).await;
        cluster.start_node(3).await;
        let left = cluster.store(3).ctx.log.state(key, StateKind::InstallMarker).unwrap();
        assert!(left.is_none(), "rolled forward before anything starts");
        // By log or by another snapshot; a replica that gets one takes no checksum below it.
        let applied = |node: u64| cluster.store(node).replica(R).map_or(0, |r| r.applied_index());
        wait_for("it has caught up", || applied(3) >= applied(1).max(applied(2))).await;
        cluster.assert_replicas_agree("k000").await;
    }
    // How many that are depends on when the log was purged.
    assert_eq!(cluster.keys().await, keys.into_iter().collect::<Vec<_>>());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_anywhere_in_flushes_and_purges_lose_nothing() {
    let tuning = StoreTuning {
        flush_interval: Duration::from_millis(20),
        log_retain_bytes: 1,
        log_retain_node_bytes: 1,
        ..StoreTuning::default()
    };
    let mut cluster = Cluster::start(1, tuning).await;
    cluster.seed(&[("", "")]).await;
    let mut purged = 0;
    for round in 0..10_u64 {
        for n in 0..30 + round * 7 {
            let key = Key::from(format!("{round:02}-{n:03}"));
            cluster.write(vec![WriteOp::Put { key, value: value(500) }]).await;
        }
        purged += u64::from(cluster.store(1).replicas()[0].first_log_index > 10);
        cluster.crash_node(1).await;
        cluster.start_node(1).await;
        cluster.leader(R).await;
    }
    assert!(purged > 3, "the log was hardly ever purged");
    let expected = (0..10_u64).map(|round| 30 + round * 7).sum::<u64>();
    assert_eq!(cluster.keys().await.len() as u64, expected);
    cluster.stop().await;
}
