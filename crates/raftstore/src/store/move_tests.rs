//! Replicas that move between stores: under writes, by snapshot, through crashes.
#![allow(clippy::unwrap_used)]

use super::{RangeError, StoreTuning};
use crate::command::WriteOp;
use crate::testing::{Cluster, put, value};
use isotherm_types::{Key, NodeId, RangeId, ReplicaId, ReplicaRole};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const R: RangeId = RangeId(1);

fn small() -> StoreTuning {
    StoreTuning { flush_interval: Duration::from_millis(200), ..StoreTuning::default() }
}

fn incr(key: String) -> WriteOp {
    WriteOp::Incr { key: key.into(), by: 1 }
}

/// Increments that count what was acknowledged, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<tokio::task::JoinHandle<u64>>,
}

impl Load {
    fn start(cluster: &Arc<Cluster>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let writer = |n: u64| {
            let (cluster, stop) = (cluster.clone(), stop.clone());
            tokio::spawn(async move {
                let mut acknowledged = 0;
                while !stop.load(Ordering::Relaxed) {
                    cluster.write(vec![incr(format!("n{n}"))]).await;
                    acknowledged += 1;
                }
                acknowledged
            })
        };
        Self { writers: (0..4).map(writer).collect(), stop }
    }

    /// Asserts that each counter is exactly what was acknowledged; returns the sum.
    async fn finish(self, cluster: &Cluster) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = 0;
        for (n, writer) in self.writers.into_iter().enumerate() {
            let acknowledged = writer.await.unwrap();
            assert_eq!(cluster.get(&format!("n{n}")).await, Some(acknowledged.to_string()));
            sum += acknowledged;
        }
        sum
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_under_writes_lose_nothing_and_double_nothing() {
    let cluster = Arc::new(Cluster::start(4, small()).await);
    cluster.seed_on(&[1, 2, 3], &[("", "")], 1).await;
    for i in 0..50 {
        cluster.write(vec![put(&format!("k{i:02}"), "v")]).await;
    }
    let load = Load::start(&cluster);
    // Around the circle; each time it is the leader's replica that goes.
    for _ in 0..4 {
        let from = cluster.leader(R).await;
        let here = |node: &u64| cluster.store(*node).replica(R).is_some();
        let to = (1..=4).find(|node| !here(node)).unwrap();
        let after = cluster.move_replica(R, from, to).await;
        assert!(after.is_settled() && after.replicas.len() == 3, "{after:?}");
        assert!(after.replica_on(NodeId(from)).is_none());
    }
    let acknowledged = load.finish(&cluster).await;
    assert!(acknowledged > 100, "only {acknowledged} increments");
    assert_eq!(cluster.keys().await.len(), 54);
    cluster.assert_replicas_agree("n0").await;
    let newest = cluster.locate(b"n0");
    assert_eq!(newest.epoch.conf_ver, 1 + 4 * 3, "three entries per move");
    assert_eq!(newest.next_replica_id, ReplicaId(8), "an id is never used again");
    // A store that outlives its directory cannot flush, which ends the process.
    Arc::into_inner(cluster).expect("the load has ended").stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_catches_up_by_snapshot_at_the_rate_that_is_set_and_blocks_splits() {
    let tuning = StoreTuning {
        flush_interval: Duration::from_millis(50),
        log_retain_bytes: 1 << 10,
        log_retain_node_bytes: 1 << 10,
        snapshot_file_bytes: 64 << 10,
        snapshot_bytes_per_second: 400 << 10,
        ..StoreTuning::default()
    };
    let mut cluster = Cluster::start(4, tuning).await;
    cluster.seed_on(&[1, 2, 3], &[("", "")], 1).await;
    let mut random = fastrand::Rng::with_seed(7);
    for i in 0..400 {
        // Does not compress, so that what is sent is as large as what was written.
        let value: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(2000).collect();
        let op = WriteOp::Put { key: format!("k{i:03}").into(), value: value.into() };
        cluster.write(vec![op]).await;
    }
    let purged = || cluster.store(1).replicas().iter().all(|r| r.first_log_index > 10);
    cluster.wait_for("the log is purged", purged).await;
    let started = Instant::now();
    let learner = cluster.add_learner(R, 4).await;
    let descriptor = cluster.locate(b"k");
    assert_eq!(descriptor.replica(learner).unwrap().role, ReplicaRole::Learner);
    let leader = cluster.leader(R).await;
    let split =
        cluster.store(leader).split(R, descriptor.epoch, vec!["k2".into()], vec![RangeId(2)]);
    assert!(
        matches!(split.await, Err(RangeError::Condition(_))),
        "a range with a learner is not cut"
    );
    let learned = || cluster.store(4).replica(R).is_some_and(|r| r.applied_index() > 0);
    cluster.wait_for("the learner has a snapshot", learned).await;
    let took = started.elapsed();
    assert!(took > Duration::from_millis(1200), "800 KB at 400 KB/s took {took:?}");
    assert!(cluster.net.snapshots.load(Ordering::Relaxed) >= 1);
    cluster.write(vec![WriteOp::Put { key: "k999".into(), value: value(10) }]).await;
    cluster.assert_replicas_agree("k").await;
    cluster.crash_node(4).await;
    cluster.start_node(4).await;
    assert_eq!(cluster.store(4).replica(R).unwrap().id, learner);
    let voter = cluster.locate(b"k").replica_on(NodeId(3)).unwrap().id;
    cluster.promote(R, learner, voter).await;
    assert_eq!(cluster.keys().await.len(), 401);
    cluster.assert_replicas_agree("k").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_goes_on_after_a_crash_at_each_step() {
    let mut cluster = Cluster::start(4, small()).await;
    cluster.seed_on(&[1, 2, 3], &[("", "")], 1).await;
    let write = async |cluster: &Cluster| cluster.write(vec![incr("n".to_owned())]).await;
    write(&cluster).await;
    // The learner's node dies before and after its snapshot.
    cluster.net.isolate(NodeId(4), true);
    let learner = cluster.add_learner(R, 4).await;
    cluster.net.isolate(NodeId(4), false);
    let created = || cluster.store(4).replica(R).is_some();
    cluster.wait_for("tending creates what add_learner could not", created).await;
    for _ in 0..2 {
        cluster.crash_node(4).await;
        cluster.start_node(4).await;
        assert_eq!(cluster.store(4).replica(R).unwrap().id, learner);
        let learned = || cluster.store(4).replica(R).is_some_and(|r| r.applied_index() > 0);
        cluster.wait_for("the learner catches up", learned).await;
        write(&cluster).await;
    }
    // The leader dies while the learner is in.
    let leader = cluster.leader(R).await;
    cluster.crash_node(leader).await;
    write(&cluster).await;
    cluster.start_node(leader).await;
    let from = cluster.leader(R).await;
    let drop = cluster.locate(b"n").replica_on(NodeId(from)).unwrap().id;
    let after = cluster.promote(R, learner, drop).await;
    write(&cluster).await;
    // All die before the one that left was told.
    for node in 1..=4 {
        cluster.crash_node(node).await;
    }
    for node in 1..=4 {
        cluster.start_node(node).await;
    }
    write(&cluster).await;
    assert_eq!(cluster.locate(b"n").replicas, after.replicas);
    cluster.remove_from(from, &after).await;
    assert_eq!(cluster.get("n").await.as_deref(), Some("6"), "six writes, each once");
    cluster.assert_replicas_agree("n").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_while_two_sets_vote_is_finished_by_the_next() {
    let mut cluster = Cluster::start(4, small()).await;
    cluster.seed_on(&[1, 2, 3], &[("", "")], 1).await;
    cluster.write(vec![put("k", "v")]).await;
    let learner = cluster.add_learner(R, 4).await;
    let leader = cluster.leader(R).await;
    let leaves = (1..=3).find(|node| *node != leader).unwrap();
    let drop = cluster.locate(b"k").replica_on(NodeId(leaves)).unwrap().id;
    let store = cluster.store(leader).clone();
    store.ctx.faults.stall_joint_ms.store(60_000, Ordering::Relaxed);
    let change = {
        let store = store.clone();
        tokio::spawn(async move {
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                let epoch = store.replica(R).unwrap().descriptor().epoch;
                let changed = store.change_replicas(R, epoch, learner, drop).await;
                if !matches!(changed, Err(RangeError::Condition(_))) || Instant::now() > deadline {
                    return changed;
                }
            }
        })
    };
    let joint = |node: u64| {
        let descriptor = cluster.store(node).replica(R).map(|r| r.descriptor());
        descriptor.is_some_and(|d| d.replicas.iter().any(|r| r.role == ReplicaRole::Outgoing))
    };
    cluster.wait_for("two sets vote", || (1..=4).all(joint)).await;
    let split =
        store.split(R, cluster.locate(b"k").epoch, vec!["m".into()], vec![RangeId(2)]).await;
    assert!(matches!(split, Err(RangeError::Condition(_))), "{split:?}");
    std::mem::drop(store);
    change.abort();
    let _ = change.await;
    cluster.crash_node(leader).await;
    let settled = || {
        let descriptor = cluster.locate(b"k");
        descriptor.is_settled() && descriptor.replica(learner).is_some()
    };
    cluster.wait_for("the next leader finishes it", settled).await;
    let after = cluster.locate(b"k");
    assert!(after.has_passed(drop) && after.replicas.len() == 3, "{after:?}");
    cluster.start_node(leader).await;
    cluster.remove_from(leaves, &after).await;
    cluster.write(vec![put("k2", "v")]).await;
    assert_eq!(cluster.keys().await, [Key::from_static(b"k"), Key::from_static(b"k2")]);
    cluster.assert_replicas_agree("k").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_goes_as_it_came_and_stale_orders_are_refused() {
    let cluster = Cluster::start(4, small()).await;
    let before = cluster.seed_on(&[1, 2, 3], &[("", "")], 1).await.remove(0);
    let learner = cluster.add_learner(R, 4).await;
    let leader = cluster.leader(R).await;
    let store = cluster.store(leader);
    let stale = store.add_learner(R, before.epoch, NodeId(4), ReplicaId(9)).await;
    assert!(matches!(stale, Err(RangeError::EpochMismatch { .. })), "{stale:?}");
    let now = cluster.locate(b"k").epoch;
    let twice = store.add_learner(R, now, NodeId(4), learner).await.unwrap();
    assert_eq!(twice.epoch, now, "what is there already changes nothing");
    let to_learner = store.transfer_leader(R, NodeId(4)).await;
    assert!(matches!(to_learner, Err(RangeError::Condition(_))), "{to_learner:?}");
    let after =
        cluster.step(R, async |store, d| store.remove_learner(R, d.epoch, learner).await).await;
    assert!(after.is_settled() && after.has_passed(learner));
    cluster.remove_from(4, &after).await;
    let again = store.add_learner(R, after.epoch, NodeId(4), learner).await;
    assert!(matches!(again, Err(RangeError::Condition(_))), "an id was used twice: {again:?}");
    let fresh = cluster.add_learner(R, 4).await;
    assert!(fresh > learner);
    cluster.stop().await;
}
