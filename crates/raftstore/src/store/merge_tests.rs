//! Two ranges become one: under writes, through crashes, and back when it does not come to it.
#![allow(clippy::unwrap_used)]

use super::{RangeError, StoreTuning};
use crate::command::{OpResult, WriteOp, WriteRequest};
use crate::replica::PointRead;
use crate::testing::{Cluster, put, value};
use isotherm_storage::{ReplicaKey, StateKind};
use isotherm_types::{Key, KeyRange, NodeId, RangeId, ReplicaId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const L: RangeId = RangeId(1);
const R: RangeId = RangeId(2);
const WAIT: Duration = Duration::from_secs(2);

fn halves() -> [(&'static str, &'static str); 2] {
    [("", "m"), ("m", "")]
}

fn purging() -> StoreTuning {
    StoreTuning {
        flush_interval: Duration::from_millis(50),
        log_retain_bytes: 1 << 10,
        log_retain_node_bytes: 1 << 10,
        ..StoreTuning::default()
    }
}

fn incr(key: &str) -> WriteOp {
    WriteOp::Incr { key: key.to_owned().into(), by: 1 }
}

fn is_whole(cluster: &Cluster, node: u64) -> bool {
    let store = cluster.store(node);
    let left = store.replica(L).is_some_and(|r| r.descriptor().span == KeyRange::all());
    left && store.replica(R).is_none()
}

fn is_cleared(cluster: &Cluster, node: u64) -> bool {
    let key = ReplicaKey { range: R, replica: ReplicaId(node) };
    let log = &cluster.store(node).ctx.log;
    let has = |kind| log.state(key, kind).unwrap().is_some();
    has(StateKind::Tombstone) && !has(StateKind::Vote)
}

async fn read_at(
    cluster: &Cluster,
    node: u64,
    range: RangeId,
    key: &str,
) -> Result<Option<String>, RangeError> {
    let store = cluster.store(node);
    let version = store.replica(range).map_or(0, |r| r.descriptor().epoch.version);
    let read = PointRead { key: key.to_owned().into(), at: None };
    let row = store.read(range, version, read, WAIT).await?;
    Ok(row.map(|row| String::from_utf8(row.value.to_vec()).unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_become_one_under_writes_and_remember_what_both_did() {
    let cluster = Arc::new(Cluster::start(3, StoreTuning::default()).await);
    cluster.seed(&halves()).await;
    let (left_id, right_id) = (cluster.write_id(), cluster.write_id());
    let first = cluster.write_as(right_id, vec![incr("z")]).await;
    cluster.write_as(left_id, vec![incr("a")]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = ["b", "c", "x", "y"]
        .into_iter()
        .map(|key| {
            let (cluster, stop) = (cluster.clone(), stop.clone());
            tokio::spawn(async move {
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) {
                    cluster.write(vec![incr(key)]).await;
                    done += 1;
                }
                (key, done)
            })
        })
        .collect();
    for round in 0..4 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let merged = cluster.merge("a").await;
        assert_eq!((merged.id, &merged.span), (L, &KeyRange::all()), "round {round}");
        // An attempt that was answered before the merge, by the range that is no more.
        let again = cluster.write_as(right_id, vec![incr("z")]).await;
        assert_eq!((again.ts, again.results), (first.ts, vec![OpResult::Incr { value: 1 }]));
        tokio::time::sleep(Duration::from_millis(100)).await;
        cluster.split("m", 10 + round).await;
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        let (key, done) = writer.await.unwrap();
        assert!(done > 10, "{key} was written {done} times");
        assert_eq!(cluster.get(key).await, Some(done.to_string()), "{key}");
    }
    assert_eq!(cluster.get("z").await.as_deref(), Some("1"));
    cluster.assert_replicas_agree("a").await;
    cluster.assert_replicas_agree("z").await;
    Arc::into_inner(cluster).expect("the load has ended").stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_of_a_merge_leaves_two_ranges_or_one() {
    // 1: in memory, not flushed; 2: flushed, not shown; 3: shown, the other's log still there.
    for (step, victim) in [(1, 1), (2, 2), (3, 3), (1, 2), (2, 3), (3, 1)] {
        let mut cluster = Cluster::start(3, StoreTuning::default()).await;
        cluster.seed(&halves()).await;
        for key in ["a", "z"] {
            cluster.write(vec![put(key, "before")]).await;
        }
        let m = cluster.plan_merge("a");
        cluster.freeze_everywhere(&m).await;
        let faults = &cluster.store(victim).ctx.faults;
        faults.kill_at_absorb_step.store(step, Ordering::Relaxed);
        // By whoever leads; a leader that dies in the middle is what this is about.
        let _ = tokio::time::timeout(Duration::from_secs(3), cluster.absorb(&m)).await;
        let others: Vec<u64> = (1..=3).filter(|node| *node != victim).collect();
        let applied = || others.iter().all(|node| is_whole(&cluster, *node));
        cluster.wait_for("the others have merged", applied).await;
        cluster.crash_node(victim).await;
        cluster.start_node(victim).await;
        cluster.wait_for("it is merged", || is_whole(&cluster, victim)).await;
        cluster.wait_for("the log is gone", || (1..=3).all(|n| is_cleared(&cluster, n))).await;
        cluster.write(vec![put("zz", "after")]).await;
        cluster.assert_replicas_agree("a").await;
        let keys = cluster.keys().await;
        assert_eq!(keys, ["a", "z", "zz"].map(Key::from), "step {step} on {victim}");
        cluster.crash_node(victim).await;
        cluster.start_node(victim).await;
        assert!(is_whole(&cluster, victim));
        cluster.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_missed_the_merge_comes_to_it_in_its_log() {
    let mut cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&halves()).await;
    cluster.write(vec![put("z", "1")]).await;
    let m = cluster.plan_merge("a");
    cluster.freeze_everywhere(&m).await;
    cluster.crash_node(3).await;
    cluster.absorb(&m).await.unwrap();
    cluster.write(vec![put("z", "2")]).await;
    // Both ranges are on its disk, the right one frozen.
    cluster.start_node(3).await;
    cluster.wait_for("it has merged", || is_whole(&cluster, 3)).await;
    cluster.assert_replicas_agree("z").await;
    assert_eq!(cluster.get("z").await.as_deref(), Some("2"));
    assert_eq!(cluster.net.snapshots.load(Ordering::Relaxed), 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_missed_the_merge_and_its_log_gets_a_snapshot_over_both_ranges() {
    // 0: nothing dies; the steps are those of a snapshot's install.
    for step in 0..=3_u64 {
        let mut cluster = Cluster::start(3, purging()).await;
        cluster.seed(&halves()).await;
        cluster.write(vec![put("z", "1")]).await;
        cluster.write(vec![put("y", "only before")]).await;
        let m = cluster.plan_merge("a");
        cluster.freeze_everywhere(&m).await;
        cluster.crash_node(3).await;
        cluster.absorb(&m).await.unwrap();
        cluster.write(vec![WriteOp::Delete { key: "y".into() }]).await;
        let before = cluster.leader(L).await;
        let first = |cluster: &Cluster| cluster.store(before).replicas()[0].first_log_index;
        let begun = first(&cluster);
        while first(&cluster) < begun + 40 {
            for n in 0..40 {
                let key = Key::from(format!("k{n:03}"));
                cluster.write(vec![WriteOp::Put { key, value: value(2000) }]).await;
            }
        }
        cluster.net.isolate(NodeId(3), true);
        cluster.start_node(3).await;
        let store = cluster.store(3).clone();
        store.ctx.faults.kill_at_install_step.store(step, Ordering::Relaxed);
        cluster.net.isolate(NodeId(3), false);
        if step > 0 {
            let key = ReplicaKey { range: L, replica: ReplicaId(3) };
            let marked = || store.ctx.log.state(key, StateKind::InstallMarker).unwrap().is_some();
            cluster.wait_for("an install has begun", marked).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            drop(store);
            cluster.crash_node(3).await;
            cluster.start_node(3).await;
        } else {
            drop(store);
        }
        cluster.wait_for("it has merged", || is_whole(&cluster, 3)).await;
        cluster.wait_for("the log is gone", || is_cleared(&cluster, 3)).await;
        cluster.assert_replicas_agree("z").await;
        assert!(cluster.net.snapshots.load(Ordering::Relaxed) > 0);
        assert_eq!(cluster.keys().await.len(), 41, "step {step}");
        cluster.crash_node(3).await;
        cluster.start_node(3).await;
        assert!(is_whole(&cluster, 3));
        cluster.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_range_stands_still_through_crashes_until_it_is_thawed() {
    let mut cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&halves()).await;
    cluster.write(vec![put("z", "1")]).await;
    let m = cluster.plan_merge("a");
    cluster.freeze_everywhere(&m).await;
    assert_eq!(cluster.freeze(&m).await.unwrap(), cluster.locate(b"z"), "asked again");
    for node in 1..=3 {
        cluster.crash_node(node).await;
    }
    for node in 1..=3 {
        cluster.start_node(node).await;
    }
    let leader = cluster.leader(R).await;
    let (store, frozen) = (cluster.store(leader), cluster.locate(b"z"));
    let request = WriteRequest { id: cluster.write_id(), ops: vec![put("z", "2")] };
    let written = store.write(R, frozen.epoch.version, request, WAIT).await;
    assert!(matches!(written, Err(RangeError::Busy { .. })), "{written:?}");
    cluster.wait_for("it leads", || store.replica(R).unwrap().status().is_leader).await;
    let read = read_at(&cluster, leader, R, "z").await;
    assert!(
        matches!(read, Err(RangeError::Busy { .. } | RangeError::NotLeader { .. })),
        "{read:?}"
    );
    let split = store.split(R, frozen.epoch, vec!["t".into()], vec![RangeId(9)]).await;
    assert!(matches!(split, Err(RangeError::Condition(_))), "{split:?}");
    let learner = store.add_learner(R, frozen.epoch, NodeId(4), ReplicaId(7)).await;
    assert!(matches!(learner, Err(RangeError::Condition(_) | RangeError::NotLeader { .. })));
    assert!(!cluster.fence(&m).await, "nothing was absorbed");
    let thawed = cluster.thaw(&m).await;
    assert_eq!(thawed.epoch.version, frozen.epoch.version + 1);
    cluster.write(vec![put("z", "2")]).await;
    assert_eq!(cluster.get("z").await.as_deref(), Some("2"));
    // What comes late finds epochs that have passed.
    assert!(cluster.absorb(&m).await.is_err());
    assert!(cluster.freeze(&m).await.is_err());
    assert!(!cluster.fence(&m).await);
    assert_eq!(cluster.thaw(&m).await, thawed);
    let merged = cluster.merge("a").await;
    assert_eq!(merged.span, KeyRange::all(), "a new merge is another matter");
    assert!(cluster.fence(&cluster_merge(&m, &merged)).await, "it was absorbed");
    assert_eq!(cluster.get("z").await.as_deref(), Some("2"));
    cluster.stop().await;
}

fn cluster_merge(
    m: &crate::testing::Merge,
    merged: &isotherm_types::RangeDescriptor,
) -> crate::testing::Merge {
    crate::testing::Merge { left_epoch: merged.epoch, ..*m }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_that_comes_after_the_thaw_is_refused() {
    let cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&halves()).await;
    let m = cluster.plan_merge("a");
    assert!(!cluster.fence(&m).await);
    cluster.thaw(&m).await;
    assert!(cluster.freeze(&m).await.is_err());
    cluster.write(vec![put("z", "1")]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_fence_a_late_order_absorbs_a_range_that_writes() {
    let cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&halves()).await;
    for (_, store) in cluster.stores() {
        store.ctx.faults.no_fence.store(1, Ordering::Relaxed);
    }
    let m = cluster.plan_merge("a");
    cluster.freeze_everywhere(&m).await;
    // The order to absorb is checked, and then on its way for a while.
    let held = cluster.oracle.gate.clone().write_owned().await;
    let leader = cluster.leader(L).await;
    let store = cluster.store(leader).clone();
    let late = tokio::spawn(async move { store.absorb(m.left, m.left_epoch, m.right).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!cluster.fence(&m).await);
    drop(held);
    let absorbed = late.await.unwrap();
    assert!(absorbed.is_ok(), "nothing stops it: {absorbed:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_waits_for_every_replica() {
    for no_wait in [0, 1] {
        let cluster = Cluster::start(3, StoreTuning::default()).await;
        cluster.seed(&halves()).await;
        let leaders = [cluster.leader(L).await, cluster.leader(R).await];
        let far = (1..=3).find(|node| !leaders.contains(node)).unwrap();
        cluster.net.isolate(NodeId(far), true);
        let m = cluster.plan_merge("a");
        let frozen = cluster.freeze(&m).await.unwrap();
        cluster.store(far).ctx.faults.no_freeze_wait.store(no_wait, Ordering::Relaxed);
        let all = cluster.await_frozen(&[1, 2, 3], &frozen, Duration::from_secs(2)).await;
        assert_eq!(all, no_wait == 1);
        if all {
            // What the rule prevents: the one that was away can never apply the merge.
            cluster.absorb(&m).await.unwrap();
            // While one of the right range's other replicas is there still, it can send the freeze.
            let near = (1..=3).filter(|&n| n != far);
            let are_whole = || near.clone().all(|n| is_whole(&cluster, n));
            cluster.wait_for("both of the others have merged", are_whole).await;
            cluster.net.isolate(NodeId(far), false);
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert!(!is_whole(&cluster, far));
        } else {
            cluster.net.isolate(NodeId(far), false);
            assert!(cluster.await_frozen(&[1, 2, 3], &frozen, Duration::from_secs(20)).await);
            cluster.absorb(&m).await.unwrap();
            cluster.wait_for("all have merged", || (1..=3).all(|n| is_whole(&cluster, n))).await;
        }
        cluster.stop().await;
    }
}

/// Reads by the right range's leader, whose lease lasts, after the left one took a write of its keys.
async fn reads_beside_a_merge(read_while_frozen: u64) -> Result<Option<String>, RangeError> {
    let cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&halves()).await;
    cluster.write(vec![put("z", "old")]).await;
    let old = cluster.leader(R).await;
    if cluster.leader(L).await == old {
        let other = (1..=3).find(|node| *node != old).unwrap();
        cluster.store(old).transfer_leader(L, NodeId(other)).await.unwrap();
        cluster
            .wait_for("another leads", || {
                cluster.store(other).replica(L).unwrap().status().is_leader
            })
            .await;
    }
    cluster.store(old).ctx.faults.read_while_frozen.store(read_while_frozen, Ordering::Relaxed);
    let m = cluster.plan_merge("a");
    cluster.freeze_everywhere(&m).await;
    // Its lease lasts from now.
    let _ = read_at(&cluster, old, R, "z").await;
    cluster.net.isolate(NodeId(old), true);
    let left = cluster.leader(L).await;
    let merged = cluster.store(left).absorb(m.left, m.left_epoch, m.right).await.unwrap();
    let request = WriteRequest { id: cluster.write_id(), ops: vec![put("z", "new")] };
    cluster.store(left).write(L, merged.epoch.version, request, WAIT).await.unwrap();
    let read = read_at(&cluster, old, R, "z").await;
    cluster.net.isolate(NodeId(old), false);
    cluster.stop().await;
    read
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_range_serves_no_reads_because_another_may_take_its_writes() {
    let read = reads_beside_a_merge(0).await;
    assert!(
        matches!(read, Err(RangeError::Busy { .. } | RangeError::NotLeader { .. })),
        "{read:?}"
    );
    // The rule can be seen to matter while the lease lasts, which another load can spoil.
    for _ in 0..10 {
        match reads_beside_a_merge(1).await {
            Ok(stale) => return assert_eq!(stale.as_deref(), Some("old")),
            Err(error) => assert!(matches!(error, RangeError::NotLeader { .. }), "{error:?}"),
        }
    }
    panic!("the lease never lasted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leftover_of_a_merged_range_is_destroyed_by_the_word_of_the_range_that_absorbed_it() {
    let cluster = Cluster::start(4, StoreTuning::default()).await;
    cluster.seed_on(&[1, 2, 3], &halves(), 1).await;
    cluster.write(vec![put("z", "1")]).await;
    // A fourth replica of the right range that is taken away again while its node does not hear.
    let learner = cluster.add_learner(R, 4).await;
    cluster.wait_for("it is there", || cluster.store(4).replica(R).is_some()).await;
    cluster.net.isolate(NodeId(4), true);
    cluster.step(R, async |store, d| store.remove_learner(R, d.epoch, learner).await).await;
    let m = cluster.plan_merge("a");
    let frozen = cluster.freeze(&m).await.unwrap();
    // One that its neighbour here has yet to absorb is left alone.
    assert!(cluster.await_frozen(&[1, 2, 3], &frozen, WAIT).await);
    let mut said = cluster.locate(b"a");
    (said.span, said.epoch.version) = (KeyRange::all(), frozen.epoch.version + 1);
    cluster.store(1).take_newer(vec![said]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(cluster.store(1).replica(R).is_some());
    let merged = cluster.absorb(&m).await.unwrap();
    cluster.net.isolate(NodeId(4), false);
    let narrow = frozen.clone();
    cluster.store(4).take_newer(vec![narrow]);
    assert!(cluster.store(4).replica(R).is_some(), "its own range says nothing of it");
    cluster.store(4).take_newer(vec![merged]);
    cluster.wait_for("it is destroyed", || cluster.store(4).replica(R).is_none()).await;
    assert_eq!(cluster.get("z").await.as_deref(), Some("1"));
    cluster.stop().await;
}

/// The merge of the first test, after which the range is cut where it was put together; one node missed
/// both, and the log of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leftover_that_its_neighbour_will_never_absorb_gives_its_place_to_a_child() {
    const CHILD: RangeId = RangeId(3);
    let mut cluster = Cluster::start(3, purging()).await;
    cluster.seed(&halves()).await;
    cluster.write(vec![put("z", "1")]).await;
    let m = cluster.plan_merge("a");
    cluster.freeze_everywhere(&m).await;
    cluster.crash_node(3).await;
    cluster.absorb(&m).await.unwrap();
    let split = cluster.split("m", CHILD.get()).await;
    cluster.write(vec![put("z", "2")]).await;
    let before = cluster.leader(L).await;
    let first =
        |cluster: &Cluster| cluster.store(before).replica(L).unwrap().status().first_log_index;
    let begun = first(&cluster);
    while first(&cluster) < begun + 40 {
        for n in 0..40 {
            let key = Key::from(format!("k{n:03}"));
            cluster.write(vec![WriteOp::Put { key, value: value(2000) }]).await;
        }
    }
    cluster.start_node(3).await;
    let version = |node: u64| {
        let left = cluster.store(node).replica(L).unwrap();
        left.descriptor().epoch.version
    };
    cluster.wait_for("a snapshot of the left range", || version(3) == version(before)).await;
    let leftover = cluster.store(3).replica(R).unwrap();
    assert!(leftover.is_frozen());
    // An instance of the left range that is built again does not take it for its own.
    let left = cluster.store(3).replica(L).unwrap();
    let instance = left.instance.load_full().unwrap();
    instance.raft.shutdown().await.unwrap();
    let rebuilt = || left.instance.load_full().is_some_and(|i| i.generation > instance.generation);
    cluster.wait_for("it is built again", rebuilt).await;
    drop((leftover, left, instance));
    // As meta does it, again and again.
    let child = split.into_iter().find(|d| d.id == CHILD).unwrap();
    let taken = || {
        cluster.store(3).take_newer(vec![child.clone()]);
        cluster.store(3).replica(CHILD).is_some_and(|r| r.applied_index() > 0)
    };
    cluster.wait_for("the child has a replica here", taken).await;
    assert!(cluster.store(3).replica(R).is_none());
    cluster.assert_replicas_agree("z").await;
    cluster.assert_replicas_agree("a").await;
    assert_eq!(cluster.get("z").await.as_deref(), Some("2"));
    cluster.crash_node(3).await;
    cluster.start_node(3).await;
    assert!(cluster.store(3).replica(CHILD).is_some());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_stay_while_a_freeze_is_on_its_way_whoever_waits_for_it() {
    let cluster = Cluster::start(4, StoreTuning::default()).await;
    cluster.seed_on(&[1, 2, 3], &halves(), 1).await;
    let m = cluster.plan_merge("a");
    let leader = cluster.leader(R).await;
    let (store, replica) = (cluster.store(leader), cluster.store(leader).replica(R).unwrap());
    let held = cluster.oracle.gate.clone().write_owned().await;
    let frozen = store.freeze(m.right, m.right_epoch, m.left, m.left_epoch);
    assert!(tokio::time::timeout(Duration::from_millis(200), frozen).await.is_err());
    let learner = store.add_learner(R, m.right_epoch, NodeId(4), ReplicaId(4)).await;
    assert!(matches!(learner, Err(RangeError::Condition(_))), "{learner:?}");
    drop(held);
    cluster.wait_for("it is frozen", || replica.is_frozen()).await;
    let is_free = || !replica.changing.load(Ordering::Acquire);
    cluster.wait_for("its hold has ended", is_free).await;
    assert!(!cluster.fence(&m).await);
    cluster.thaw(&m).await;
    drop(replica);
    cluster.stop().await;
}
