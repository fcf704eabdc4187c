//! What a rule is for: each scenario once with the rule, and once without it, where it must show the
//! very fault that the rule prevents.
#![allow(clippy::unwrap_used)]

use super::{RangeError, StoreTuning, TimestampSource};
use crate::command::{OpResult, WriteOp, WriteRequest};
use crate::replica::PointRead;
use crate::testing::{Cluster, put};
use isotherm_types::{Key, NodeId, RangeId, WriteId};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const R: RangeId = RangeId(1);

fn incr(key: &str) -> WriteOp {
    WriteOp::Incr { key: key.to_owned().into(), by: 1 }
}

async fn write_once(
    cluster: &Cluster,
    id: WriteId,
    op: WriteOp,
) -> Result<Vec<OpResult>, RangeError> {
    let leader = cluster.leader(R).await;
    let request = WriteRequest { id, ops: vec![op] };
    let written = cluster.store(leader).write(R, 1, request, Duration::from_secs(5)).await;
    written.map(|outcome| outcome.results)
}

/// A write was acknowledged, its result forgotten by age, and then a duplicate of it arrives that was
/// on its way all the time. Returns the answer to it and the value after it.
async fn late_duplicate(without_rule: bool) -> (Result<Vec<OpResult>, RangeError>, String) {
    let retention = Duration::from_secs(1);
    let tuning = StoreTuning { session_retention: retention, ..StoreTuning::default() };
    let cluster = Cluster::start(3, tuning).await;
    cluster.seed(&[("", "")]).await;
    for (_, store) in cluster.stores() {
        store.ctx.faults.no_session_floor.store(without_rule.into(), Ordering::Relaxed);
    }
    let id = cluster.write_id();
    cluster.write_as(id, vec![incr("n")]).await;
    cluster.oracle.skip_ms(5_000);
    let fresh = WriteId { birth: cluster.oracle.timestamp().await.unwrap(), ..cluster.write_id() };
    cluster.write_as(fresh, vec![put("other", "x")]).await;
    let answer = write_once(&cluster, id, incr("n")).await;
    let value = cluster.get("n").await.unwrap();
    cluster.stop().await;
    (answer, value)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_duplicate_from_before_what_is_remembered_is_refused() {
    assert_eq!(late_duplicate(false).await, (Err(RangeError::Expired), "1".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_floor_of_sessions_a_late_duplicate_counts_twice() {
    let (answer, value) = late_duplicate(true).await;
    assert_eq!((answer, value.as_str()), (Ok(vec![OpResult::Incr { value: 2 }]), "2"));
}

/// A leader got a timestamp for a write and stalls; it is deposed, another leads and answers a
/// snapshot above that timestamp; it leads again, and only now goes on. Returns what the snapshot
/// showed then, and what the same snapshot shows at the end.
async fn held_timestamp(without_rule: bool) -> (Option<String>, Option<String>) {
    let cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&[("", "")]).await;
    cluster.write(vec![put("warm", "x")]).await;
    let first = cluster.leader(R).await;
    let store = cluster.store(first).clone();
    store.ctx.faults.any_leadership.store(without_rule.into(), Ordering::Relaxed);
    store.ctx.faults.hold_ts_ms.store(60_000, Ordering::Relaxed);
    let write = {
        let (store, id) = (store.clone(), cluster.write_id());
        let request = WriteRequest { id, ops: vec![put("k", "late")] };
        tokio::spawn(async move { store.write(R, 1, request, Duration::from_secs(30)).await })
    };
    let replica = store.replica(R).unwrap();
    while replica.pending.is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    cluster.net.isolate(NodeId(first), true);
    let deadline = Instant::now() + Duration::from_secs(40);
    let leads = |node: u64| {
        let status = cluster.store(node).replica(R).map(|r| r.status());
        status.is_some_and(|s| s.is_leader)
    };
    let snapshot = async |nodes: &[u64], at| loop {
        for node in nodes {
            let read = PointRead { key: Key::from_static(b"k"), at: Some(at) };
            let read = cluster.store(*node).read(R, 1, read, Duration::from_secs(1)).await;
            match read {
                Ok(row) => return row.map(|row| String::from_utf8(row.value.to_vec()).unwrap()),
                Err(error) => assert!(Instant::now() < deadline, "{nodes:?}: {error}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let others: Vec<u64> = (1..=3).filter(|node| *node != first).collect();
    while !others.iter().any(|node| leads(*node)) {
        assert!(Instant::now() < deadline, "nobody took over");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let at = cluster.oracle.timestamp().await.unwrap();
    let shown = snapshot(&others, at).await;
    cluster.net.isolate(NodeId(first), false);
    // It leads again, under another leadership than the one that it holds the timestamp of.
    while !leads(first) || others.iter().any(|node| leads(*node)) {
        assert!(Instant::now() < deadline, "the first leader does not lead again");
        for node in others.iter().filter(|node| leads(**node)) {
            let _ = cluster.store(*node).transfer_leader(R, NodeId(first)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    store.ctx.faults.hold_ts_ms.store(0, Ordering::Relaxed);
    let _ = write.await.unwrap();
    let later = snapshot(&[1, 2, 3], at).await;
    cluster.stop().await;
    (shown, later)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timestamp_held_over_a_lost_leadership_is_not_used() {
    assert_eq!(held_timestamp(false).await, (None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_leadership_a_held_timestamp_changes_a_snapshot_that_was_answered() {
    assert_eq!(held_timestamp(true).await, (None, Some("late".to_owned())));
}

/// Reads at the leader of a range whose disk stands still while it applies a split, a key that the new
/// range has by now and that was written there.
async fn read_beside_a_stalled_split(
    without_gate: bool,
    without_confirmation: bool,
) -> Result<Option<String>, RangeError> {
    const CHILD: RangeId = RangeId(9);
    let cluster = Cluster::start(3, StoreTuning::default()).await;
    let range = cluster.seed(&[("", "")]).await.remove(0);
    cluster.write(vec![put("z", "old")]).await;
    let old = cluster.leader(R).await;
    let store = cluster.store(old).clone();
    let faults = &store.ctx.faults;
    faults.no_split_gate.store(without_gate.into(), Ordering::Relaxed);
    faults.skip_read_confirmation.store(without_confirmation.into(), Ordering::Relaxed);
    faults.stall_split_ms.store(60_000, Ordering::Relaxed);
    let splitting = store.clone();
    let split = tokio::spawn(async move {
        splitting.split(R, range.epoch, vec![Key::from_static(b"m")], vec![CHILD]).await
    });
    let leads = |node: &u64| {
        let child = cluster.store(*node).replica(CHILD);
        child.is_some_and(|replica| replica.status().is_leader)
    };
    let others: Vec<u64> = (1..=3).filter(|node| *node != old).collect();
    cluster.wait_for("the new range is led", || others.iter().any(leads)).await;
    let request = WriteRequest { id: cluster.write_id(), ops: vec![put("z", "new")] };
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        // Led by one, and a moment later perhaps by the other.
        let new = others.iter().find(|node| leads(node)).unwrap_or(&others[0]);
        let child = cluster.store(*new).replica(CHILD).unwrap().descriptor();
        let (version, wait) = (child.epoch.version, Duration::from_secs(2));
        match cluster.store(*new).write(CHILD, version, request.clone(), wait).await {
            Ok(_) => break,
            Err(_) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => {
                faults.stall_split_ms.store(0, Ordering::Relaxed);
                panic!("{error}");
            }
        }
    }
    let read = PointRead { key: Key::from_static(b"z"), at: None };
    let read = store.read(R, 1, read, Duration::from_secs(2)).await;
    faults.stall_split_ms.store(0, Ordering::Relaxed);
    split.await.unwrap().unwrap();
    drop(store);
    cluster.stop().await;
    Ok(read?.map(|row| String::from_utf8(row.value.to_vec()).unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_slow_to_apply_a_split_serves_nothing_of_what_left() {
    let read = read_beside_a_stalled_split(false, false).await;
    assert!(matches!(read, Err(RangeError::Busy { .. } | RangeError::Unavailable(_))), "{read:?}");
    // Two rules say so, each of them alone: the gate, and to wait until what is committed is applied.
    let gate = read_beside_a_stalled_split(false, true).await;
    assert!(matches!(gate, Err(RangeError::Busy { .. })), "{gate:?}");
    let wait = read_beside_a_stalled_split(true, false).await;
    assert!(matches!(wait, Err(RangeError::Unavailable(_))), "{wait:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_gate_and_confirmation_a_read_beside_a_stalled_split_is_stale() {
    let read = read_beside_a_stalled_split(true, true).await;
    assert_eq!(read.unwrap().as_deref(), Some("old"));
}

/// Reads at a leader that is cut off, after the consensus instances of both others failed and were
/// built again, and one of them stood for election at once; it was elected and wrote.
async fn read_beside_rebuilt_followers(without_hold: bool) -> Result<Option<String>, RangeError> {
    let cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&[("", "")]).await;
    cluster.write(vec![put("k", "old")]).await;
    let old = cluster.leader(R).await;
    let others: Vec<u64> = (1..=3).filter(|node| *node != old).collect();
    let replica = |node: u64| cluster.store(node).replica(R).unwrap();
    let generation = |node: u64| replica(node).instance.load_full().map_or(0, |i| i.generation);
    for node in &others {
        cluster.store(*node).ctx.faults.no_vote_hold.store(without_hold.into(), Ordering::Relaxed);
    }
    // The lease is theirs both: who never heard of the leader promised nothing and holds nothing,
    // and whoever promised does not stand by itself, as it is made to here.
    let applied = |node: u64| *replica(node).applied.borrow();
    cluster.wait_for("all have it", || others.iter().all(|n| applied(*n) >= applied(old))).await;
    let before: Vec<u64> = others.iter().map(|node| generation(*node)).collect();
    cluster.net.isolate(NodeId(old), true);
    for node in &others {
        let instance = replica(*node).instance.load_full().unwrap();
        tokio::spawn(async move { instance.raft.shutdown().await });
    }
    let rebuilt = || others.iter().zip(&before).all(|(node, before)| generation(*node) > *before);
    cluster.wait_for("both are built again", rebuilt).await;
    let led = || others.iter().copied().find(|node| replica(*node).status().is_leader);
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut patience = Duration::from_millis(20);
    let new = 'elected: loop {
        assert!(Instant::now() < deadline, "nobody is elected");
        if let Some(instance) = replica(others[0]).instance.load_full() {
            let _ = instance.raft.trigger().elect(false).await;
        }
        // Each try ends the one before it: on a slow machine it needs more time than on a fast one.
        let next = Instant::now() + patience;
        while Instant::now() < next {
            if let Some(new) = led() {
                break 'elected new;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        patience = (patience * 2).min(Duration::from_secs(2));
    };
    let request = WriteRequest { id: cluster.write_id(), ops: vec![put("k", "new")] };
    let written = cluster.store(new).write(R, 1, request, Duration::from_millis(300)).await;
    let read = PointRead { key: Key::from_static(b"k"), at: None };
    let read = cluster.store(old).read(R, 1, read, Duration::from_secs(1)).await;
    cluster.net.isolate(NodeId(old), false);
    cluster.stop().await;
    written?;
    Ok(read?.map(|row| String::from_utf8(row.value.to_vec()).unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_that_were_built_again_elect_nobody_while_a_lease_may_last() {
    let read = read_beside_rebuilt_followers(false).await;
    assert!(read.is_err(), "{read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_hold_of_votes_followers_that_were_built_again_make_a_lease_a_lie() {
    // While the lease lasts, which another load on the machine can spoil.
    for _ in 0..20 {
        if let Ok(stale) = read_beside_rebuilt_followers(true).await {
            return assert_eq!(stale.as_deref(), Some("old"));
        }
    }
    panic!("the lease never lasted");
}

/// An increment is committed, and the worker that is about to apply it stands still; its instance fails,
/// another one is built and applies it, the value is read; only then the worker goes on. Returns the
/// answer to the increment and the value that was read.
async fn old_worker_goes_on(without_rule: bool) -> (Result<Vec<OpResult>, RangeError>, String) {
    let cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&[("", "")]).await;
    cluster.write(vec![put("warm", "x")]).await;
    let store = cluster.store(cluster.leader(R).await).clone();
    let faults = &store.ctx.faults;
    faults.no_generations.store(without_rule.into(), Ordering::Relaxed);
    let replica = store.replica(R).unwrap();
    let old = replica.instance.load_full().unwrap();
    let before = replica.applied_index();
    faults.stall_apply_of.store(old.generation, Ordering::Relaxed);
    let write = {
        let (store, id) = (store.clone(), cluster.write_id());
        let request = WriteRequest { id, ops: vec![incr("n")] };
        tokio::spawn(async move { store.write(R, 1, request, Duration::from_secs(60)).await })
    };
    let others: Vec<_> = cluster.stores().filter(|(_, s)| s.ctx.node != store.ctx.node).collect();
    let applied = |s: &super::Store| s.replica(R).map_or(0, |r| r.applied_index());
    let committed = || others.iter().any(|(_, other)| applied(other) > before);
    cluster.wait_for("the increment is committed", committed).await;
    let failing = old.clone();
    tokio::spawn(async move { failing.raft.shutdown().await });
    let rebuilt = || {
        let instance = replica.instance.load_full();
        instance.is_some_and(|i| i.generation > old.generation) && replica.applied_index() > before
    };
    cluster.wait_for("a new instance has applied it", rebuilt).await;
    // From its rows: a read of the range waits for the write that is still on its way.
    let row = store.ctx.data.snapshot().get(b"n", None).unwrap().unwrap();
    let value = String::from_utf8(row.value.to_vec()).unwrap();
    faults.stall_apply_of.store(0, Ordering::Relaxed);
    let answer = write.await.unwrap().map(|outcome| outcome.results);
    drop((replica, old));
    drop(store);
    cluster.stop().await;
    (answer, value)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker_of_a_failed_instance_answers_nothing() {
    let (answer, value) = old_worker_goes_on(false).await;
    assert_eq!((answer, value.as_str()), (Err(RangeError::Indeterminate), "1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_generations_the_worker_of_a_failed_instance_denies_what_was_done() {
    let (answer, value) = old_worker_goes_on(true).await;
    // Whoever believes it increments again, under a new identity.
    let denied = matches!(answer, Err(RangeError::NotLeader { .. }));
    assert!(denied && value == "1", "{answer:?} {value}");
}
