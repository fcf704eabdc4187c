//! Writes of a batch that have an identity each: done once, however the attempts of the batch cut it.
#![allow(clippy::unwrap_used)]

use super::{RangeError, StoreTuning, TimestampSource};
use crate::command::{OpResult, TooLarge, WriteOp, WriteRequest};
use crate::testing::{Cluster, put, value};
use bytes::Bytes;
use isotherm_types::{ClusterVersion, REQUEST_SEQ, RangeId, SessionId, Timestamp, WriteId};
use std::sync::Arc;
use std::time::Duration;

const R: RangeId = RangeId(1);
const RETENTION_MS: u64 = 62_000;

async fn cluster() -> Cluster {
    let cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&[("", "")]).await;
    cluster.raise_version(ClusterVersion::CURRENT).await;
    cluster
}

async fn batch_id(cluster: &Cluster, number: u64) -> WriteId {
    let birth = cluster.oracle.timestamp().await.unwrap();
    WriteId { session: SessionId { issuer: 99, number }, seq: REQUEST_SEQ, floor: 0, birth }
}

/// The increments of `keys` that stand at these positions of the batch.
fn part(keys: &[&str], positions: &[u32]) -> Vec<WriteOp> {
    let incr = |number: &u32| {
        let key = keys[*number as usize].to_owned().into();
        WriteOp::Numbered { number: *number, op: Box::new(WriteOp::Incr { key, by: 1 }) }
    };
    positions.iter().map(incr).collect()
}

/// For each result the value, and the timestamp of the earlier attempt that it comes from.
fn sums(results: &[OpResult]) -> Vec<(i64, Option<Timestamp>)> {
    let sum = |result: &OpResult| match result {
        OpResult::Incr { value } => (*value, None),
        OpResult::Earlier { ts, result } => match **result {
            OpResult::Incr { value } => (value, Some(*ts)),
            ref other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    results.iter().map(sum).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_write_of_a_batch_takes_effect_once_however_ranges_are_cut_between_attempts() {
    let mut cluster = cluster().await;
    let keys = ["a", "n", "b", "o", "c", "a"];
    let id = batch_id(&cluster, 1).await;
    // Of the first attempt a part is done.
    let first = cluster.write_as(id, part(&keys, &[0, 1])).await;
    assert_eq!(sums(&first.results), [(1, None), (1, None)]);
    cluster.split("m", 2).await;
    // The next one meets two ranges: each does what is new to it, and answers all.
    let left = cluster.write_as(id, part(&keys, &[0, 2, 4, 5])).await;
    let expected = [(1, Some(first.ts)), (1, None), (1, None), (2, None)];
    assert_eq!(sums(&left.results), expected, "the same key twice is two writes");
    let right = cluster.write_as(id, part(&keys, &[1, 3])).await;
    assert_eq!(sums(&right.results), [(1, Some(first.ts)), (1, None)]);
    // After a restart as well, on whatever replica leads then.
    for node in 1..=3 {
        cluster.crash_node(node).await;
        cluster.start_node(node).await;
    }
    let again = cluster.write_as(id, part(&keys, &[0, 2, 4, 5])).await;
    let expected =
        [(1, Some(first.ts)), (1, Some(left.ts)), (1, Some(left.ts)), (2, Some(left.ts))];
    assert_eq!(sums(&again.results), expected);
    let again = cluster.write_as(id, part(&keys, &[1, 3])).await;
    assert_eq!(sums(&again.results), [(1, Some(first.ts)), (1, Some(right.ts))]);
    for (key, value) in [("a", "2"), ("b", "1"), ("c", "1"), ("n", "1"), ("o", "1")] {
        assert_eq!(cluster.get(key).await.as_deref(), Some(value), "{key}");
    }
    // Of another name it is another batch.
    let other = batch_id(&cluster, 2).await;
    assert_eq!(sums(&cluster.write_as(other, part(&keys, &[0])).await.results), [(3, None)]);
    cluster.assert_replicas_agree("a").await;
    cluster.assert_replicas_agree("n").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_that_absorbed_another_knows_what_both_did_of_a_batch() {
    let cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&[("", "m"), ("m", "")]).await;
    cluster.raise_version(ClusterVersion::CURRENT).await;
    let keys = ["a", "n", "b", "o"];
    let id = batch_id(&cluster, 1).await;
    let right = cluster.write_as(id, part(&keys, &[1])).await;
    cluster.merge("a").await;
    let all = cluster.write_as(id, part(&keys, &[0, 1, 2, 3])).await;
    assert_eq!(sums(&all.results), [(1, None), (1, Some(right.ts)), (1, None), (1, None)]);
    cluster.assert_replicas_agree("a").await;
    cluster.stop().await;
}

/// Attempts through two nodes at once, also in one entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_that_meet_do_each_write_once() {
    let cluster = Arc::new(cluster().await);
    let keys = ["a", "b", "c"];
    for round in 1..=30 {
        let id = batch_id(&cluster, round).await;
        let attempts = [&[0, 1][..], &[1, 2], &[0, 2], &[0, 1, 2]].map(|positions| {
            let cluster = cluster.clone();
            tokio::spawn(async move { cluster.write_as(id, part(&keys, positions)).await })
        });
        for attempt in attempts {
            let done = attempt.await.unwrap();
            let values: Vec<i64> = sums(&done.results).into_iter().map(|(sum, _)| sum).collect();
            assert!(values.iter().all(|sum| *sum == round as i64), "round {round}: {values:?}");
        }
    }
    cluster.assert_replicas_agree("a").await;
    Arc::into_inner(cluster).unwrap().stop().await;
}

/// What is new of a request takes effect together or not at all, and is bounded like a batch without a name;
/// what was done before takes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_new_of_a_batch_is_bounded_and_done_as_a_whole() {
    let cluster = cluster().await;
    let mib = WriteOp::Put { key: "k".to_owned().into(), value: value(1 << 20) };
    cluster.write(vec![mib]).await;
    let id = batch_id(&cluster, 1).await;
    let lost = |number| {
        let (key, value) = ("k".to_owned().into(), Bytes::from_static(b"new"));
        let expected = Some(Bytes::from_static(b"no"));
        let op = Box::new(WriteOp::Cas { key, expected, value });
        WriteOp::Numbered { number, op }
    };
    let set = |number| {
        let op = Box::new(put("side", "effect"));
        WriteOp::Numbered { number, op }
    };
    let attempt = async |ops: Vec<WriteOp>| {
        let leader = cluster.leader(R).await;
        let request = WriteRequest { id, ops };
        cluster.store(leader).write(R, 1, request, Duration::from_secs(20)).await
    };
    let ops: Vec<_> = std::iter::once(set(0)).chain((1..6).map(lost)).collect();
    let refused = attempt(ops.clone()).await.unwrap_err();
    assert!(matches!(refused, RangeError::TooLarge(TooLarge::Answer { .. })), "{refused}");
    assert_eq!(cluster.get("side").await, None, "nothing of it was done");
    // Cut in two it goes, and then the whole is answered: what stood there is not remembered.
    attempt(ops[..3].to_vec()).await.unwrap();
    attempt(ops[3..].to_vec()).await.unwrap();
    let again = attempt(ops).await.unwrap().results;
    let forgotten = |result: &OpResult| matches!(result, OpResult::Earlier { result, .. } if **result == OpResult::CasLost);
    assert!(again[1..].iter().all(forgotten), "{again:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_not_done_again_after_its_results_are_forgotten() {
    let cluster = cluster().await;
    let keys = ["a", "b"];
    let id = batch_id(&cluster, 1).await;
    cluster.write_as(id, part(&keys, &[0])).await;
    cluster.oracle.skip_ms(RETENTION_MS);
    cluster.write(vec![put("z", "v")]).await;
    let leader = cluster.leader(R).await;
    let request = WriteRequest { id, ops: part(&keys, &[0, 1]) };
    let late = cluster.store(leader).write(R, 1, request, Duration::from_secs(20)).await;
    assert!(matches!(late, Err(RangeError::Expired)), "{late:?}");
    assert_eq!(cluster.get("a").await.as_deref(), Some("1"));
    assert_eq!(cluster.get("b").await, None);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_of_an_older_version_takes_no_numbered_writes() {
    let cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&[("", "")]).await;
    cluster.raise_version(ClusterVersion::CONDITIONAL_REMOVALS).await;
    let leader = cluster.leader(R).await;
    let id = batch_id(&cluster, 1).await;
    let request = WriteRequest { id, ops: part(&["a"], &[0]) };
    let refused = cluster.store(leader).write(R, 1, request, Duration::from_secs(20)).await;
    let why = refused.unwrap_err();
    assert!(matches!(&why, RangeError::Condition(why) if why.contains("finalize")), "{why}");
    assert_eq!(cluster.get("a").await, None);
    cluster.stop().await;
}

/// Results whose time is over linger on some replicas. They hide none that counts, whatever layer they are in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_lingers_hides_none_that_counts() {
    let mut cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&[("", "m"), ("m", "")]).await;
    cluster.raise_version(ClusterVersion::CURRENT).await;
    let keys = ["a"];
    // Attempts that do not say when the first one was.
    let attempt = async |cluster: &Cluster| {
        let id = batch_id(cluster, 1).await;
        sums(&cluster.write_as(id, part(&keys, &[0])).await.results)[0].0
    };
    assert_eq!(attempt(&cluster).await, 1);
    cluster.oracle.skip_ms(RETENTION_MS);
    // The floor of the right range rises, and with the merge that of the left one.
    cluster.write(vec![put("z", "v")]).await;
    cluster.merge("a").await;
    assert_eq!(attempt(&cluster).await, 2, "a new write, as documented");
    let leader = cluster.leader(R).await;
    let other = if leader == 3 { 2 } else { 3 };
    cluster.crash_node(other).await;
    cluster.start_node(other).await;
    assert_eq!(attempt(&cluster).await, 2, "within its time it is one write");
    cluster.split("m", 20).await;
    assert_eq!(attempt(&cluster).await, 2);
    cluster.merge("a").await;
    assert_eq!(attempt(&cluster).await, 2);
    cluster.assert_replicas_agree("a").await;
    cluster.stop().await;
}
