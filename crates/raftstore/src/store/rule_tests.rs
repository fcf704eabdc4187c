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
