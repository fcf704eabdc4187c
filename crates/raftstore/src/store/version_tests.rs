//! The version of a range's rules, and what the rules of the newest one bound: each scenario also by the
//! rules before it, where it shows the fault that they have.
#![allow(clippy::unwrap_used)]

use super::{RangeError, StoreTuning, TimestampSource};
use crate::command::{OpResult, TooLarge, WriteOp, WriteRequest};
use crate::testing::{Cluster, put, value};
use bytes::Bytes;
use isotherm_types::{
    ClusterVersion, Key, KeyRange, NodeId, REQUEST_SEQ, RangeId, SessionId, WriteId,
};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const R: RangeId = RangeId(1);
const MIB: usize = 1 << 20;
const FIRST: ClusterVersion = ClusterVersion::FIRST;
const CURRENT: ClusterVersion = ClusterVersion::CURRENT;

async fn cluster_at(version: ClusterVersion) -> Cluster {
    let cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&[("", "")]).await;
    if version > FIRST {
        cluster.raise_version(version).await;
    }
    cluster
}

/// One attempt; the answer or the refusal of the range.
async fn attempt(
    cluster: &Cluster,
    id: WriteId,
    ops: Vec<WriteOp>,
) -> Result<Vec<OpResult>, RangeError> {
    let leader = cluster.leader(R).await;
    let request = WriteRequest { id, ops };
    let written = cluster.store(leader).write(R, 1, request, Duration::from_secs(20)).await;
    written.map(|outcome| outcome.results)
}

fn put_bytes(key: &str, bytes: usize) -> WriteOp {
    WriteOp::Put { key: key.to_owned().into(), value: value(bytes) }
}

/// A condition that does not hold.
fn lost_cas(key: &str) -> WriteOp {
    let (key, value) = (key.to_owned().into(), Bytes::from_static(b"new"));
    WriteOp::Cas { key, expected: Some(Bytes::from_static(b"no")), value }
}

fn answered_bytes(results: &[OpResult]) -> usize {
    let bytes = |result: &OpResult| match result {
        OpResult::Cas { current: Some(current), .. } => current.len(),
        _ => 0,
    };
    results.iter().map(bytes).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_conditions_that_could_answer_too_much_are_refused_before_they_are_evaluated() {
    let cluster = cluster_at(CURRENT).await;
    cluster.write(vec![put_bytes("k", MIB)]).await;
    let refused = Err(RangeError::TooLarge(TooLarge::Answer { limit: 4 << 20 }));
    for count in [5, 17, 1_500, 16_384] {
        let mut ops = vec![lost_cas("k"); count];
        ops[0] = put("other", "set");
        ops.push(lost_cas("k"));
        assert_eq!(attempt(&cluster, cluster.write_id(), ops).await, refused, "{count}");
    }
    assert_eq!(cluster.get("other").await, None, "nothing of a refused batch takes effect");
    // What this batch itself would leave there counts as well.
    cluster.write(vec![put("small", "x")]).await;
    let mut ops = vec![put_bytes("small", MIB)];
    ops.extend(vec![lost_cas("small"); 5]);
    assert_eq!(attempt(&cluster, cluster.write_id(), ops).await, refused);
    // The most that is answered, and one that is alone however large its answer.
    let most = attempt(&cluster, cluster.write_id(), vec![lost_cas("k"); 4]).await.unwrap();
    assert_eq!(answered_bytes(&most), 4 * MIB);
    let alone = attempt(&cluster, cluster.write_id(), vec![lost_cas("k")]).await.unwrap();
    assert_eq!(answered_bytes(&alone), MIB);
    cluster.assert_replicas_agree("k").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_the_rules_before_lost_conditions_answer_more_than_a_message_holds() {
    let cluster = cluster_at(FIRST).await;
    cluster.write(vec![put_bytes("k", MIB)]).await;
    let id = cluster.write_id();
    let answered = attempt(&cluster, id, vec![lost_cas("k"); 17]).await.unwrap();
    assert_eq!(answered_bytes(&answered), 17 * MIB);
    let again = attempt(&cluster, id, vec![lost_cas("k"); 17]).await.unwrap();
    assert_eq!(answered_bytes(&again), 17 * MIB, "the remembered answer is as large");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_of_a_lost_condition_learns_that_it_was_lost_without_the_value() {
    let cluster = cluster_at(CURRENT).await;
    cluster.write(vec![put_bytes("k", MIB)]).await;
    let (id, ops) = (cluster.write_id(), vec![lost_cas("k"), lost_cas("absent"), put("z", "1")]);
    let first = attempt(&cluster, id, ops.clone()).await.unwrap();
    assert_eq!(answered_bytes(&first), MIB);
    let again = attempt(&cluster, id, ops).await.unwrap();
    let absent = OpResult::Cas { applied: false, current: None };
    assert_eq!(again, [OpResult::CasLost, absent, OpResult::Put]);
    cluster.stop().await;
}

fn cas_remove(key: &str, expected: Option<&'static str>) -> WriteOp {
    let expected = expected.map(|value| Bytes::from_static(value.as_bytes()));
    WriteOp::CasRemove { key: key.to_owned().into(), expected }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_on_a_condition_removes_what_it_names_and_nothing_else() {
    let cluster = cluster_at(CURRENT).await;
    cluster.write(vec![put("k", "old"), put("z", "1")]).await;
    let ts_of = async |key: &str| {
        let leader = cluster.leader(R).await;
        let read = crate::PointRead { key: key.to_owned().into(), at: None };
        cluster.store(leader).read(R, 1, read, Duration::from_secs(5)).await.unwrap().unwrap().ts
    };
    let old = ts_of("k").await;
    cluster.write(vec![put("k", "new")]).await;
    let version = |ts| WriteOp::RemoveVersion { key: "k".into(), ts };
    let write = async |ops| attempt(&cluster, cluster.write_id(), ops).await.unwrap();
    let current = |value: &'static str| Some(Bytes::from_static(value.as_bytes()));
    let lost = |current| OpResult::Cas { applied: false, current };
    let won = OpResult::Cas { applied: true, current: None };

    assert_eq!(write(vec![version(old)]).await, [OpResult::Deleted { existed: false }]);
    assert_eq!(write(vec![cas_remove("k", Some("old"))]).await, [lost(current("new"))]);
    assert_eq!(write(vec![cas_remove("k", None)]).await, [lost(current("new"))]);
    assert_eq!(cluster.get("k").await.as_deref(), Some("new"));
    let new = ts_of("k").await;
    assert_eq!(write(vec![version(new)]).await, [OpResult::Deleted { existed: true }]);
    assert_eq!(cluster.get("k").await, None);
    assert_eq!(write(vec![version(new)]).await, [OpResult::Deleted { existed: false }]);
    // Of what is absent: expected, and not.
    let of_absent = write(vec![cas_remove("k", None), cas_remove("k", Some("x"))]).await;
    assert_eq!(of_absent, [won.clone(), lost(None)]);
    // Later operations of a batch see earlier ones; a retry is answered, not evaluated.
    let (id, ops) = (cluster.write_id(), vec![put("k", "v"), cas_remove("k", Some("v"))]);
    let first = attempt(&cluster, id, ops.clone()).await.unwrap();
    assert_eq!(first, [OpResult::Put, won]);
    cluster.write(vec![put("k", "later")]).await;
    assert_eq!(attempt(&cluster, id, ops).await.unwrap(), first);
    assert_eq!(cluster.get("k").await.as_deref(), Some("later"));
    cluster.assert_replicas_agree("k").await;
    cluster.stop().await;
}

/// An entry that a replica of the version before would not know is not proposed, and does not take what is
/// proposed with it along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_on_a_condition_is_refused_until_the_range_knows_it() {
    let cluster = cluster_at(ClusterVersion::BOUNDED_WRITES).await;
    cluster.write(vec![put("k", "v")]).await;
    for i in 0..50 {
        let refused = attempt(&cluster, cluster.write_id(), vec![cas_remove("k", Some("v"))]);
        let taken = attempt(&cluster, cluster.write_id(), vec![put(&format!("n{i:02}"), "v")]);
        let (refused, taken) = tokio::join!(refused, taken);
        let why = refused.unwrap_err();
        assert!(matches!(&why, RangeError::Condition(why) if why.contains("finalize")), "{why}");
        assert_eq!(taken.unwrap(), [OpResult::Put]);
    }
    // The cluster knows it already: the range will in a moment, and says so.
    let leader = cluster.leader(R).await;
    cluster.store(leader).set_cluster_version(CURRENT);
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match attempt(&cluster, cluster.write_id(), vec![cas_remove("k", Some("v"))]).await {
            Ok(_) => break,
            Err(error) => assert!(matches!(error, RangeError::Busy { .. }), "{error}"),
        }
        assert!(Instant::now() < until, "it is never raised");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(cluster.get("k").await, None);
    cluster.stop().await;
}

/// A repeated attempt may say a newer birth than the first one did. Replicas differ in what they hold of results
/// whose time is over: one that was split keeps them with newer ones, one that was started again does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_whose_time_is_over_counts_on_no_replica() {
    let mut cluster = cluster_at(CURRENT).await;
    let incr = || vec![WriteOp::Incr { key: "a".into(), by: 1 }];
    let session = SessionId { issuer: 7, number: 9 };
    let birth = cluster.oracle.timestamp().await.unwrap();
    let id = WriteId { session, seq: REQUEST_SEQ, floor: 0, birth };
    assert_eq!(cluster.write_as(id, incr()).await.results, [OpResult::Incr { value: 1 }]);
    cluster.oracle.skip_ms(30_000);
    cluster.write(vec![put("b", "v")]).await;
    cluster.split("m", 2).await;
    let leader = cluster.leader(R).await;
    let other = if leader == 3 { 2 } else { 3 };
    cluster.crash_node(other).await;
    cluster.start_node(other).await;
    // Within its time it is one write, whatever birth it says.
    let now = cluster.oracle.timestamp().await.unwrap();
    let again = cluster.write_as(WriteId { birth: now, ..id }, incr()).await;
    assert_eq!(again.results, [OpResult::Incr { value: 1 }]);
    cluster.oracle.skip_ms(32_000);
    cluster.write(vec![put("b", "v")]).await;
    let now = cluster.oracle.timestamp().await.unwrap();
    let late = cluster.write_as(WriteId { birth: now, ..id }, incr()).await;
    assert_eq!(late.results, [OpResult::Incr { value: 2 }], "a new write, as documented");
    cluster.assert_replicas_agree("a").await;
    cluster.stop().await;
}

/// A small value is remembered, and so a retry learns it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_of_a_lost_condition_on_a_small_value_learns_the_value() {
    let cluster = cluster_at(CURRENT).await;
    cluster.write(vec![put("k", "small")]).await;
    let id = cluster.write_id();
    let first = attempt(&cluster, id, vec![lost_cas("k")]).await.unwrap();
    cluster.write(vec![put("k", "newer")]).await;
    let again = attempt(&cluster, id, vec![lost_cas("k")]).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(answered_bytes(&again), "small".len());
    cluster.stop().await;
}

/// Many small operations over large values, applied at once by a replica that was away: what was read
/// ahead for one entry is used for the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_away_applies_small_operations_over_large_values() {
    let mut cluster = cluster_at(CURRENT).await;
    let keys: Vec<String> = (0..60).map(|n| format!("k{n:02}")).collect();
    for key in &keys {
        cluster.write(vec![put_bytes(key, MIB)]).await;
    }
    let leader = cluster.leader(R).await;
    let away = (1..=3).find(|node| *node != leader).unwrap();
    cluster.crash_node(away).await;
    for round in 0..3 {
        for key in &keys {
            let op = if round == 1 { put_bytes(key, MIB) } else { put(key, "small") };
            cluster.write(vec![op]).await;
        }
    }
    cluster.start_node(away).await;
    cluster.assert_replicas_agree("k").await;
    assert_eq!(cluster.get("k07").await.as_deref(), Some("small"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_replaces_too_much_is_refused_and_its_halves_are_not() {
    let cluster = cluster_at(CURRENT).await;
    let keys: Vec<String> = (0..33).map(|n| format!("k{n:02}")).collect();
    for key in &keys {
        cluster.write(vec![put_bytes(key, MIB)]).await;
    }
    let delete = |key: &String| WriteOp::Delete { key: key.clone().into() };
    let all: Vec<_> = keys.iter().map(delete).collect();
    let refused = attempt(&cluster, cluster.write_id(), all.clone()).await;
    assert_eq!(refused, Err(RangeError::TooLarge(TooLarge::Replaced { limit: 32 << 20 })));
    for ops in all.chunks(32) {
        let gone = attempt(&cluster, cluster.write_id(), ops.to_vec()).await.unwrap();
        assert!(gone.iter().all(|r| *r == OpResult::Deleted { existed: true }));
    }
    cluster.assert_replicas_agree("k").await;
    cluster.stop().await;
}

/// A range is raised by an entry: replicas that were away, restarts and children follow its log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_of_a_range_changes_its_rules_at_the_same_entry() {
    let mut cluster = cluster_at(FIRST).await;
    let child = |cluster: &Cluster, node, range| {
        let replica = cluster.store(node).replica(RangeId(range));
        replica.map(|replica| replica.version())
    };
    cluster.split("g", 7).await;
    cluster
        .wait_for("the child is everywhere", || (1..=3).all(|n| child(&cluster, n, 7).is_some()))
        .await;
    assert!((1..=3).all(|node| child(&cluster, node, 7) == Some(FIRST)), "as its parent");
    let leader = cluster.leader(R).await;
    let away = (1..=3).find(|node| *node != leader).unwrap();
    cluster.crash_node(away).await;
    cluster.raise_version(CURRENT).await;
    cluster.split("t", 8).await;
    cluster.start_node(away).await;
    let all = |range| (1..=3).all(|node| child(&cluster, node, range) == Some(CURRENT));
    cluster.wait_for("who was away follows", || [1, 7, 8].into_iter().all(all)).await;
    cluster.crash_node(away).await;
    cluster.start_node(away).await;
    let back = |range| child(&cluster, away, range) == Some(CURRENT);
    cluster.wait_for("a restart keeps it", || [1, 7, 8].into_iter().all(back)).await;
    cluster.write(vec![put("a", "1"), put("b", "2")]).await;
    for key in ["a", "h", "z"] {
        cluster.assert_replicas_agree(key).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_this_software_does_not_know_is_not_taken_over() {
    let cluster = cluster_at(FIRST).await;
    cluster.store(1).set_cluster_version(ClusterVersion(CURRENT.0 + 1));
    assert_eq!(cluster.store(1).cluster_version(), FIRST);
    cluster.stop().await;
}

/// A leader that has yet to apply a split which an earlier one committed takes a write for a key of the
/// child, gets its timestamp, applies the split, and goes on. Returns the answer to the write.
async fn write_across_an_inherited_split(
    version: ClusterVersion,
    without_rule: bool,
) -> Result<Vec<OpResult>, RangeError> {
    let cluster = cluster_at(version).await;
    cluster.write(vec![put("z", "old")]).await;
    let first = cluster.leader(R).await;
    let next = (1..=3).find(|node| *node != first).unwrap();
    let (old, new) = (cluster.store(first).clone(), cluster.store(next).clone());
    let replica = new.replica(R).unwrap();
    let faults = &new.ctx.faults;
    faults.any_version.store(without_rule.into(), Ordering::Relaxed);
    let generation = replica.generation.load(Ordering::Acquire);
    faults.stall_apply_of.store(generation, Ordering::Relaxed);
    let epoch = old.replica(R).unwrap().descriptor().epoch;
    old.split(R, epoch, vec![Key::from_static(b"m")], vec![RangeId(9)]).await.unwrap();
    faults.hold_ts_ms.store(60_000, Ordering::Relaxed);
    cluster.net.isolate(NodeId(first), true);
    let leads = || replica.status().is_leader;
    while !leads() {
        // The other follower may win: only one that stalls is of interest.
        let raft = replica.instance.load_full().unwrap().raft.clone();
        raft.trigger().elect(false).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let request = WriteRequest { id: cluster.write_id(), ops: vec![put("z", "new")] };
    let write = {
        let new = new.clone();
        tokio::spawn(async move { new.write(R, 1, request, Duration::from_secs(20)).await })
    };
    cluster.wait_for("it has its timestamp", || !replica.pending.is_empty()).await;
    assert_eq!(replica.descriptor().epoch.version, 1, "the split is not applied yet");
    faults.stall_apply_of.store(0, Ordering::Relaxed);
    cluster.wait_for("the split is applied", || replica.descriptor().epoch.version == 2).await;
    faults.hold_ts_ms.store(0, Ordering::Relaxed);
    let answer = write.await.unwrap().map(|outcome| outcome.results);
    let inside = KeyRange::new("".to_owned(), "m".to_owned()).unwrap();
    assert_eq!(replica.descriptor().span, inside);
    drop((old, new, replica));
    cluster.stop().await;
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_counts_only_for_the_version_that_its_writes_were_checked_against() {
    let checked = write_across_an_inherited_split(FIRST, false).await;
    assert!(matches!(checked, Err(RangeError::EpochMismatch { .. })), "{checked:?}");
    // And if it did count: no key outside the range is written.
    let applied = write_across_an_inherited_split(CURRENT, true).await;
    assert!(matches!(applied, Err(RangeError::EpochMismatch { .. })), "{applied:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_both_rules_a_write_for_the_child_is_acknowledged_by_its_parent() {
    let answer = write_across_an_inherited_split(FIRST, true).await;
    assert_eq!(answer, Ok(vec![OpResult::Put]));
}
