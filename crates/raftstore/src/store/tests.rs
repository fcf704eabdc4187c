//! Stores that form a cluster in one process: the spine, crashes, splits, snapshots.
#![allow(clippy::unwrap_used)]

use super::{RangeError, StoreTuning, TimestampSource};
use crate::command::{OpResult, Refusal, WriteOp};
use crate::testing::{Cluster, ORACLE_START_MS, put, value};
use isotherm_types::limits::{KEY_BYTES_MAX, SPLIT_KEYS_MAX};
use isotherm_types::{Key, NodeId, RangeId, Timestamp, WriteId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn incr(key: &str, by: i64) -> WriteOp {
    WriteOp::Incr { key: key.to_owned().into(), by }
}

fn small() -> StoreTuning {
    StoreTuning { flush_interval: Duration::from_millis(300), ..StoreTuning::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_does_what_it_says_on_three_nodes() {
    let cluster = Cluster::start(3, small()).await;
    cluster.seed(&[("", "m"), ("m", "")]).await;
    let first = cluster.write(vec![put("a", "1"), put("b", "x")]).await;
    assert_eq!(first.results, [OpResult::Put, OpResult::Put]);
    let second = cluster.write(vec![incr("a", 4), incr("a", -2), incr("b", 1), incr("c", 7)]).await;
    let not_a_number = OpResult::Refused { reason: Refusal::NotANumber };
    let expected = [
        OpResult::Incr { value: 5 },
        OpResult::Incr { value: 3 },
        not_a_number,
        OpResult::Incr { value: 7 },
    ];
    assert_eq!(second.results, expected);
    let (expected, value) = (Some("3".to_owned().into()), "4".to_owned().into());
    let cas = WriteOp::Cas { key: "a".to_owned().into(), expected, value };
    let cas = cluster.write(vec![cas.clone(), cas]).await;
    let current = Some("4".to_owned().into());
    let (set, not_set) =
        (OpResult::Cas { applied: true, current: None }, OpResult::Cas { applied: false, current });
    assert_eq!(cas.results, [set, not_set]);
    let delete = |key: &str| WriteOp::Delete { key: key.to_owned().into() };
    let deleted = cluster.write(vec![delete("a"), delete("a")]).await;
    let existed = |existed| OpResult::Deleted { existed };
    assert_eq!(deleted.results, [existed(true), existed(false)]);
    assert_eq!(cluster.get("a").await, None);
    assert_eq!(cluster.get("c").await.as_deref(), Some("7"));
    let past = cluster.read("a", Some(second.ts)).await.unwrap();
    assert_eq!((&past.value[..], past.ts), (&b"3"[..], second.ts));
    let too_new = Timestamp::from_physical_ms(ORACLE_START_MS * 2);
    let range = cluster.locate(b"a");
    let leader = cluster.leader(range.id).await;
    let read = crate::replica::PointRead { key: Key::from_static(b"a"), at: Some(too_new) };
    let read = cluster.store(leader).read(range.id, 1, read, Duration::from_secs(1)).await;
    assert_eq!(read, Err(RangeError::TsTooNew));
    cluster.write(vec![put("z", "other range")]).await;
    assert_eq!(cluster.keys().await, ["b", "c", "z"]);
    cluster.assert_replicas_agree("a").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_under_the_same_id_takes_effect_once_even_across_a_split_and_a_crash() {
    let mut cluster = Cluster::start(3, small()).await;
    cluster.seed(&[("", "")]).await;
    let id = cluster.write_id();
    let first = cluster.write_as(id, vec![incr("n", 5)]).await;
    assert_eq!(cluster.write_as(id, vec![incr("n", 5)]).await, first);
    cluster.split("m", 2).await;
    assert_eq!(cluster.write_as(id, vec![incr("n", 5)]).await, first, "the child remembers");
    for node in 1..=3 {
        cluster.crash_node(node).await;
        cluster.start_node(node).await;
    }
    assert_eq!(cluster.write_as(id, vec![incr("n", 5)]).await, first, "after a crash of all");
    assert_eq!(cluster.get("n").await.as_deref(), Some("5"));
    let range = cluster.locate(b"n");
    let leader = cluster.leader(range.id).await;
    let attempt = async |id: WriteId| {
        let request = crate::command::WriteRequest { id, ops: vec![incr("n", 1)] };
        let wait = Duration::from_secs(2);
        cluster.store(leader).write(range.id, range.epoch.version, request, wait).await
    };
    let late = WriteId { floor: id.seq + 1, ..id };
    assert_eq!(attempt(late).await, Err(RangeError::Stale), "below the floor");
    let seq = cluster.write_id().seq;
    let old = WriteId { seq, birth: Timestamp(1), ..id };
    // The memory's floor rises above zero with the first write after the retention.
    cluster.oracle.skip_ms(120_000);
    cluster.write(vec![put("x", "later")]).await;
    assert_eq!(attempt(old).await, Err(RangeError::Expired), "born before what is remembered");
    assert_eq!(cluster.get("n").await.as_deref(), Some("5"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_a_crash_of_all_nodes() {
    let mut cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&[("", "k050"), ("k050", "")]).await;
    for i in 0..100 {
        cluster.write(vec![put(&format!("k{i:03}"), &i.to_string())]).await;
    }
    for node in 1..=3 {
        cluster.net.isolate(NodeId(node), true);
    }
    for node in 1..=3 {
        cluster.crash_node(node).await;
    }
    for node in 1..=3 {
        cluster.start_node(node).await;
    }
    for i in 0..100 {
        assert_eq!(cluster.get(&format!("k{i:03}")).await, Some(i.to_string()));
    }
    cluster.assert_replicas_agree("k000").await;
    cluster.assert_replicas_agree("k099").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_keeps_every_key_and_survives_a_crash_right_after_it() {
    let mut cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&[("", "")]).await;
    for i in 0..60 {
        cluster.write(vec![put(&format!("k{i:03}"), "before")]).await;
    }
    let started = Instant::now();
    let descriptors = cluster.split("k030", 2).await;
    assert_eq!(descriptors.len(), 2);
    cluster.write(vec![put("k040", "after")]).await;
    let paused = started.elapsed();
    assert!(paused < Duration::from_secs(3), "the child was led after {paused:?}");
    for node in 1..=3 {
        cluster.crash_node(node).await;
    }
    for node in 1..=3 {
        cluster.start_node(node).await;
    }
    assert_eq!(cluster.get("k040").await.as_deref(), Some("after"));
    assert_eq!(cluster.keys().await.len(), 60);
    let again = cluster.split("k045", 3).await;
    assert_eq!(again[0].id, RangeId(2), "a child splits like any other range");
    assert_eq!(cluster.keys().await.len(), 60);
    for key in ["k000", "k031", "k059"] {
        cluster.assert_replicas_agree(key).await;
    }
    cluster.stop().await;
}

/// As many keys as one split may have, each as long as a key may be; and one more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_is_cut_at_as_many_keys_at_once_as_may_be() {
    let cluster = Cluster::start(1, StoreTuning::default()).await;
    cluster.seed(&[("", "")]).await;
    let range = cluster.locate(b"k");
    let split = async |count: usize| {
        let key = |n: usize| {
            let mut key = format!("k{n:04}").into_bytes();
            key.resize(KEY_BYTES_MAX, b'k');
            Key::from(key)
        };
        let children = (2..).take(count).map(RangeId).collect();
        cluster.store(1).split(range.id, range.epoch, (0..count).map(key).collect(), children).await
    };
    let refused = split(SPLIT_KEYS_MAX + 1).await.unwrap_err();
    assert!(
        matches!(&refused, RangeError::Invalid(why) if why.contains("at 256 keys")),
        "{refused}"
    );
    assert_eq!(split(SPLIT_KEYS_MAX).await.unwrap().len(), SPLIT_KEYS_MAX + 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_too_far_behind_catches_up_by_snapshot_while_writes_go_on() {
    let tuning = StoreTuning {
        flush_interval: Duration::from_millis(50),
        log_retain_bytes: 1 << 10,
        log_retain_node_bytes: 1 << 10,
        snapshot_file_bytes: 64 << 10,
        // With so little log kept, it is a race between the snapshot and the writes.
        snapshot_bytes_per_second: 0,
        ..StoreTuning::default()
    };
    let mut cluster = Cluster::start(3, tuning).await;
    cluster.seed(&[("", "")]).await;
    cluster.write(vec![put("first", "1")]).await;
    cluster.stop_node(3).await;
    let write_some = async |cluster: &Cluster, from: usize, to: usize| {
        for i in from..to {
            let key = Key::from(format!("k{:03}", i % 200));
            cluster.write(vec![WriteOp::Put { key, value: value(2000) }]).await;
        }
    };
    write_some(&cluster, 0, 400).await;
    cluster.split("k100", 2).await;
    write_some(&cluster, 400, 800).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    write_some(&cluster, 800, 900).await;
    let purged = cluster.store(1).replicas().iter().all(|r| r.first_log_index > 10);
    assert!(purged, "{:?}", cluster.store(1).replicas());
    cluster.start_node(3).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut extra = 0;
    loop {
        write_some(&cluster, 900 + extra, 910 + extra).await;
        extra += 10;
        let behind = |range| {
            let applied = |node| {
                let replica = cluster.store(node).replica(RangeId(range));
                replica.map_or(0, |r| r.applied_index())
            };
            applied(3) + 3 < applied(1)
        };
        if !behind(1) && !behind(2) {
            break;
        }
        assert!(Instant::now() < deadline, "node 3: {:?}", cluster.store(3).replicas());
    }
    assert!(cluster.net.snapshots.load(Ordering::Relaxed) >= 2);
    cluster.assert_replicas_agree("k000").await;
    cluster.assert_replicas_agree("k150").await;
    cluster.crash_node(3).await;
    cluster.start_node(3).await;
    cluster.assert_replicas_agree("k000").await;
    cluster.assert_replicas_agree("k150").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_on_request_and_writes_go_on_after_a_lost_leader() {
    let mut cluster = Cluster::start(3, small()).await;
    let range = cluster.seed(&[("", "")]).await[0].id;
    cluster.write(vec![incr("n", 1)]).await;
    for to in [1, 2, 3, 1] {
        let from = cluster.leader(range).await;
        cluster.store(from).transfer_leader(range, NodeId(to)).await.unwrap();
        assert_eq!(cluster.leader(range).await, to);
        cluster.write(vec![incr("n", 1)]).await;
    }
    cluster.crash_node(1).await;
    let started = Instant::now();
    cluster.write(vec![incr("n", 1)]).await;
    let paused = started.elapsed();
    assert!(paused < Duration::from_secs(5), "no leader for {paused:?}");
    cluster.start_node(1).await;
    assert_eq!(cluster.get("n").await.as_deref(), Some("6"));
    cluster.assert_replicas_agree("n").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_answers_no_read_after_its_lease() {
    let cluster = Cluster::start(3, small()).await;
    let range = cluster.seed(&[("", "")]).await[0].id;
    cluster.write(vec![put("k", "old")]).await;
    let old = cluster.leader(range).await;
    let read = || {
        let read = crate::replica::PointRead { key: Key::from_static(b"k"), at: None };
        cluster.store(old).read(range, 1, read, Duration::from_secs(1))
    };
    assert!(read().await.unwrap().is_some());
    cluster.net.isolate(NodeId(old), true);
    let deadline = Instant::now() + Duration::from_secs(10);
    let new = loop {
        let led = |node: u64| {
            let replica = cluster.store(node).replica(range);
            replica.is_some_and(|r| r.status().is_leader)
        };
        if let Some(new) = (1..=3).find(|n| *n != old && led(*n)) {
            break new;
        }
        assert!(Instant::now() < deadline, "no new leader");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(read().await.is_err(), "the old leader {old} still answers beside the new one, {new}");
    cluster.net.isolate(NodeId(old), false);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_instance_is_rebuilt_and_every_increment_counts_once() {
    let cluster = Arc::new(Cluster::start(3, small()).await);
    let range = cluster.seed(&[("", "")]).await[0].id;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (cluster, stop) = (cluster.clone(), stop.clone());
            tokio::spawn(async move {
                let mut acknowledged = 0;
                while !stop.load(Ordering::Relaxed) {
                    cluster.write(vec![incr("n", 1)]).await;
                    acknowledged += 1;
                }
                acknowledged
            })
        })
        .collect();
    let mut rebuilt = 0;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let leader = cluster.leader(range).await;
        let replica = cluster.store(leader).replica(range).unwrap();
        let instance = replica.instance.load_full().unwrap();
        // Its next append fails, which ends this consensus instance with work in flight.
        instance.log.close();
        let deadline = Instant::now() + Duration::from_secs(20);
        while replica.instance.load_full().is_none_or(|i| i.generation <= instance.generation) {
            assert!(Instant::now() < deadline, "the instance of node {leader} was not rebuilt");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        rebuilt += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = 0;
    for writer in writers {
        acknowledged += writer.await.unwrap();
    }
    assert_eq!(rebuilt, 4);
    assert!(acknowledged > 50, "only {acknowledged} increments");
    assert_eq!(cluster.get("n").await, Some(acknowledged.to_string()));
    cluster.assert_replicas_agree("n").await;
}

/// Two threads hand the lock of a replica to each other, as apply does in many ranges: it is never free,
/// and everybody gets a turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn remembered_results_go_while_their_range_is_busy() {
    let tuning = StoreTuning { session_retention: Duration::from_secs(1), ..small() };
    let cluster = Cluster::start(1, tuning).await;
    cluster.seed(&[("", "")]).await;
    for i in 0..20 {
        cluster.write(vec![incr("n", i)]).await;
    }
    let replica = cluster.store(1).replica(RangeId(1)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..2)
        .map(|_| {
            let (replica, stop) = (replica.clone(), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let core = replica.core.lock();
                    std::thread::sleep(Duration::from_millis(3));
                    parking_lot::MutexGuard::unlock_fair(core);
                }
            })
        })
        .collect();
    cluster.oracle.skip_ms(5_000);
    let fresh = WriteId { birth: cluster.oracle.timestamp().await.unwrap(), ..cluster.write_id() };
    cluster.write_as(fresh, vec![incr("n", 1)]).await;
    let remembered = || {
        let snapshot = cluster.store(1).ctx.data.snapshot();
        snapshot.dedup_rows(RangeId(1), Timestamp::ZERO).count()
    };
    let dropped = async {
        while remembered() > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let dropped = tokio::time::timeout(Duration::from_secs(10), dropped).await;
    stop.store(true, Ordering::Relaxed);
    busy.into_iter().for_each(|thread| thread.join().unwrap());
    dropped.unwrap();
    drop(replica);
    cluster.stop().await;
}
