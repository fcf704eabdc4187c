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
    let deadline = Instant::now() + Duration::from_secs(20);
    let second = loop {
        let leads = |node: &u64| {
            let status = cluster.store(*node).replica(R).map(|r| r.status());
            *node != first && status.is_some_and(|s| s.is_leader)
        };
        if let Some(node) = (1..=3).find(leads) {
            break node;
        }
        assert!(Instant::now() < deadline, "nobody took over");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let at = cluster.oracle.timestamp().await.unwrap();
    let snapshot = async |node: u64| loop {
        let read = PointRead { key: Key::from_static(b"k"), at: Some(at) };
        match cluster.store(node).read(R, 1, read, Duration::from_secs(2)).await {
            Ok(row) => return row.map(|row| String::from_utf8(row.value.to_vec()).unwrap()),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let shown = snapshot(second).await;
    cluster.net.isolate(NodeId(first), false);
    while !store.replica(R).unwrap().status().is_leader {
        assert!(Instant::now() < deadline, "the first leader does not lead again");
        let _ = cluster.store(second).transfer_leader(R, NodeId(first)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    store.ctx.faults.hold_ts_ms.store(0, Ordering::Relaxed);
    let _ = write.await.unwrap();
    let later = snapshot(first).await;
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

/// A follower that granted its leader a lease is rebuilt, and a third node asks it for its vote at
/// once, while the leader is cut off and trusts the lease. Returns what the old leader answers after
/// the new one, if there is one, has changed the value.
async fn vote_after_rebuild(without_rule: bool) -> Option<String> {
    let cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&[("", "")]).await;
    let old = cluster.leader(R).await;
    let others: Vec<u64> = (1..=3).filter(|node| *node != old).collect();
    let (rebuilt, candidate) = (others[0], others[1]);
    let faults = &cluster.store(rebuilt).ctx.faults;
    faults.no_vote_hold.store(without_rule.into(), Ordering::Relaxed);
    cluster.write(vec![put("k", "old")]).await;
    cluster.net.isolate(NodeId(old), true);
    let replica = cluster.store(rebuilt).replica(R).unwrap();
    let instance = replica.instance.load_full().unwrap();
    // The vote request itself is what it fails at: it comes again.
    instance.log.close();
    let asks = cluster.store(candidate).replica(R).unwrap().instance.load_full().unwrap();
    let lease = Duration::from_millis(500);
    let begun = Instant::now();
    let mut answer = None;
    while begun.elapsed() < lease && answer.is_none() {
        let _ = asks.raft.trigger().elect(true).await;
        tokio::time::sleep(Duration::from_millis(15)).await;
        if asks.leadership().is_some() {
            let request = WriteRequest { id: cluster.write_id(), ops: vec![put("k", "new")] };
            let write = cluster.store(candidate).write(R, 1, request, Duration::from_millis(200));
            if write.await.is_ok() {
                let read = PointRead { key: Key::from_static(b"k"), at: None };
                let read = cluster.store(old).read(R, 1, read, Duration::from_millis(50)).await;
                let row = read.ok().flatten();
                answer = row.map(|row| String::from_utf8(row.value.to_vec()).unwrap());
                break;
            }
        }
    }
    cluster.net.isolate(NodeId(old), false);
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuilt_replica_does_not_vote_while_its_word_may_be_a_lease() {
    assert_eq!(vote_after_rebuild(false).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_hold_a_rebuilt_replica_makes_an_old_leader_answer_stale() {
    // A matter of half a second: a slow machine gets more tries.
    for _ in 0..10 {
        if vote_after_rebuild(true).await.as_deref() == Some("old") {
            return;
        }
    }
    panic!("the fault that the rule prevents did not show");
}
