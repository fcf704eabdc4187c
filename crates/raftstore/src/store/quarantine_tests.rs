//! Bits that flipped on a disk, in rows and in logs.
#![allow(clippy::unwrap_used)]

use super::StoreTuning;
use crate::entry_codec::encode_message;
use crate::replica::seed_log_id;
use crate::testing::{Cluster, put};
use isotherm_storage::{LogOp, StateKind};
use isotherm_types::{KeyRange, NodeId, RangeId, ReplicaId};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

const R: RangeId = RangeId(1);

/// Nothing goes by itself, so that a scenario knows what lies where.
fn calm() -> StoreTuning {
    StoreTuning {
        flush_interval: Duration::from_secs(3600),
        collect_interval: Duration::from_secs(3600),
        scrub_interval: Duration::ZERO,
        hibernate_after: Duration::ZERO,
        ..StoreTuning::default()
    }
}

/// Flips one bit in every place of the files in `dir` that end in `kind` where `text` stands; how many
/// there were.
fn flip(dir: &Path, kind: &str, text: &str) -> usize {
    let mut flipped = 0;
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|e| e != kind) {
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let text = text.as_bytes();
        let places: Vec<_> = (0..bytes.len().saturating_sub(text.len()))
            .filter(|at| bytes[*at..].starts_with(text))
            .collect();
        for at in &places {
            bytes[*at] ^= 1;
        }
        if !places.is_empty() {
            std::fs::write(&path, bytes).unwrap();
        }
        flipped += places.len();
    }
    flipped
}

/// Three replicas (and a node to spare) with rows on disk, of which those of one node are then damaged: of the leader, or of
/// another. Returns the cluster and that node.
async fn with_damaged_rows(of_leader: bool) -> (Cluster, u64) {
    with_rows_damaged_at(of_leader, true).await
}

/// The rows lie below the newest level, or on it.
async fn with_rows_damaged_at(of_leader: bool, below: bool) -> (Cluster, u64) {
    let mut cluster = Cluster::start(4, calm()).await;
    cluster.seed_on(&[1, 2, 3], &[("", "")], 1).await;
    for i in 0..50 {
        cluster.write(vec![put(&format!("k{i:02}"), &format!("value-{i:02}"))]).await;
    }
    let leader = cluster.leader(R).await;
    let node = if of_leader { leader } else { leader % 3 + 1 };
    let applied = |node: u64| cluster.store(node).replica(R).unwrap().applied_index();
    cluster.wait_for("it has them all", || applied(node) == applied(leader)).await;
    if below {
        let data = cluster.store(node).ctx.data.clone();
        data.flush().unwrap();
        data.collect_tombstones(&KeyRange::all());
    }
    cluster.stop_node(node).await;
    assert!(flip(&cluster.path(node).join("data"), "sst", "value-07") > 0, "nothing to flip");
    cluster.start_node(node).await;
    if of_leader {
        // It leads again.
        cluster
            .wait_for("votes are no longer held", || {
                let replica = cluster.store(node).replica(R).unwrap();
                replica.instance.load_full().is_some_and(|i| !i.holds_votes())
            })
            .await;
        cluster.lead(R, node).await;
    }
    (cluster, node)
}

/// The range does without the replica of `node` before long, and gets another one elsewhere.
async fn is_built_again(cluster: &Cluster, node: u64, lost: ReplicaId) {
    let removed = || {
        let others = cluster.stores().filter(|(id, _)| *id != node);
        let mut replicas = others.filter_map(|(_, store)| store.replica(R));
        replicas.any(|r| r.descriptor().is_settled() && r.descriptor().has_passed(lost))
    };
    cluster.wait_for("it is removed", removed).await;
    let after = cluster.locate(b"k");
    assert_eq!(after.voters().count(), 2);
    assert_ne!(cluster.leader(R).await, node);
    // As its node does when meta tells it.
    assert!(cluster.store(node).destroy(R, &after).await.unwrap());
    let added = cluster.add_learner(R, 4).await;
    cluster.promote(R, added, ReplicaId(0)).await;
    for i in 0..50 {
        assert_eq!(cluster.get(&format!("k{i:02}")).await.unwrap(), format!("value-{i:02}"));
    }
    cluster.assert_replicas_agree("k").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_cannot_read_a_row_hands_over_and_is_built_again() {
    let (cluster, node) = with_damaged_rows(true).await;
    let lost = cluster.locate(b"k").replica_on(NodeId(node)).unwrap().id;
    // The read is repeated, as a client does, and answered by another.
    assert_eq!(cluster.get("k07").await.unwrap(), "value-07");
    is_built_again(&cluster, node, lost).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_cannot_apply_is_built_again() {
    let (cluster, node) = with_damaged_rows(false).await;
    let lost = cluster.locate(b"k").replica_on(NodeId(node)).unwrap().id;
    // To apply this is to read what stood there.
    cluster.write(vec![put("k07", "value-07")]).await;
    is_built_again(&cluster, node, lost).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrub_finds_what_nobody_reads() {
    let (cluster, node) = with_damaged_rows(false).await;
    let lost = cluster.locate(b"k").replica_on(NodeId(node)).unwrap().id;
    for (id, store) in cluster.stores().filter(|(id, _)| *id != 4) {
        let replica = store.replica(R).unwrap();
        store.scrub(&replica).await;
        assert_eq!(replica.is_damaged(), id == node, "node {id}");
    }
    is_built_again(&cluster, node, lost).await;
    cluster.stop().await;
}

/// What a compaction cannot read is for no replica to mend: the node is to stay out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_that_fails_is_damage_of_the_node() {
    let (cluster, node) = with_rows_damaged_at(false, false).await;
    let store = cluster.store(node).clone();
    assert_eq!(*store.damage().borrow(), None);
    let data = store.ctx.data.clone();
    tokio::task::spawn_blocking(move || data.collect_tombstones(&KeyRange::all())).await.unwrap();
    // Whatever is written next meets it.
    let mut n = 0;
    while store.damage().borrow().is_none() {
        cluster.write(vec![put(&format!("z{n:03}"), "v")]).await;
        n += 1;
        assert!(n < 500, "nobody notices");
    }
    let why = store.damage().borrow().clone().unwrap();
    assert!(why.contains("Corruption") && why.contains("takes no writes"), "{why}");
    drop(store);
    cluster.stop().await;
}

/// A log that ends before what was applied from it: whatever it says of votes is not to be trusted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_ends_before_what_was_applied_votes_no_more() {
    let mut cluster = Cluster::start(4, calm()).await;
    cluster.seed_on(&[1, 2, 3], &[("", "")], 1).await;
    for i in 0..25 {
        cluster.write(vec![put(&format!("k{i:02}"), &format!("value-{i:02}"))]).await;
    }
    let leader = cluster.leader(R).await;
    let node = leader % 3 + 1;
    cluster.stop_node(node).await;
    let old = cluster.copy_disk(node);
    cluster.start_node(node).await;
    for i in 25..50 {
        cluster.write(vec![put(&format!("k{i:02}"), &format!("value-{i:02}"))]).await;
    }
    let leader = cluster.leader(R).await;
    let applied = |node: u64| cluster.store(node).replica(R).unwrap().applied_index();
    cluster.wait_for("it has them all", || applied(node) == applied(leader)).await;
    let lost = cluster.locate(b"k").replica_on(NodeId(node)).unwrap().id;
    cluster.stop_node(node).await;
    // An older log under newer rows.
    let mixed = cluster.copy_disk(node);
    std::fs::remove_dir_all(mixed.join("raft")).unwrap();
    std::fs::rename(old.join("raft"), mixed.join("raft")).unwrap();
    cluster.replace_disk(node, mixed);
    cluster.start_node(node).await;
    assert!(cluster.store(node).replica(R).unwrap().abstains(), "it votes");
    is_built_again(&cluster, node, lost).await;
    cluster.stop().await;
}

/// A replica that cannot even be started does not keep its node from starting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_state_cannot_be_read_does_not_stop_its_node() {
    let mut cluster = Cluster::start(4, calm()).await;
    cluster.seed_on(&[1, 2, 3], &[("", "m"), ("m", "")], 1).await;
    for i in 0..50 {
        cluster.write(vec![put(&format!("k{i:02}"), &format!("value-{i:02}"))]).await;
        cluster.write(vec![put(&format!("z{i:02}"), "v")]).await;
    }
    let leader = cluster.leader(R).await;
    let node = leader % 3 + 1;
    let applied = |node: u64| cluster.store(node).replica(R).unwrap().applied_index();
    cluster.wait_for("it has them all", || applied(node) == applied(leader)).await;
    let lost = cluster.locate(b"k").replica_on(NodeId(node)).unwrap().id;
    let key = cluster.store(node).replica(R).unwrap().key();
    let last = cluster.store(node).replica(R).unwrap().applied_index();
    // Entries that nothing covers are gone.
    let purged = encode_message(&seed_log_id());
    let log = cluster.store(node).ctx.log.clone();
    log.submit(LogOp::Purge { replica: key, upto: last - 2, purged });
    drop(log);
    cluster.stop_node(node).await;
    cluster.start_node(node).await;
    assert!(cluster.store(node).replica(R).unwrap().is_damaged());
    assert!(!cluster.store(node).replica(RangeId(2)).unwrap().is_damaged());
    is_built_again(&cluster, node, lost).await;
    cluster.write(vec![put("z", "after")]).await;
    cluster.stop().await;
}

/// An install that fails while its process goes on has deleted rows that count as applied: it is done to
/// its end before anything else is applied, whether its leader is there or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_install_that_failed_is_finished_before_the_replica_goes_on() {
    let tuning = StoreTuning {
        flush_interval: Duration::from_millis(50),
        log_retain_bytes: 1 << 10,
        log_retain_node_bytes: 1 << 10,
        hibernate_after: Duration::ZERO,
        ..StoreTuning::default()
    };
    let mut cluster = Cluster::start(3, tuning).await;
    cluster.seed(&[("", "")]).await;
    let (leader, large) = (cluster.leader(R).await, "v".repeat(2000));
    let node = leader % 3 + 1;
    cluster.crash_node(node).await;
    let first = cluster.store(leader).replica(R).unwrap().status().first_log_index;
    let mut n = 0;
    while cluster.store(leader).replica(R).unwrap().status().first_log_index < first + 40 {
        cluster.write(vec![put(&format!("k{:03}", n % 100), &large)]).await;
        n += 1;
        assert!(n < 5000, "the log is not purged");
    }
    cluster.net.isolate(NodeId(node), true);
    cluster.start_node(node).await;
    let replica = cluster.store(node).replica(R).unwrap();
    let (key, before) = (replica.key(), replica.applied_index());
    let generation = replica.generation.load(Ordering::Acquire);
    let store = cluster.store(node).clone();
    store.ctx.faults.kill_at_install_step.store(1, Ordering::Relaxed);
    // One snapshot is on its way, and no other one follows: the node is cut off again before it arrives.
    let gate = cluster.net.snapshot_gate.clone().write_owned().await;
    let sent = cluster.net.snapshots.load(Ordering::Relaxed);
    cluster.net.isolate(NodeId(node), false);
    let is_sent = || cluster.net.snapshots.load(Ordering::Relaxed) > sent;
    cluster.wait_for("a snapshot is on its way", is_sent).await;
    cluster.net.isolate(NodeId(node), true);
    drop(gate);
    let is_marked = || store.ctx.log.state(key, StateKind::InstallMarker).unwrap().is_some();
    let has_failed = || is_marked() && replica.generation.load(Ordering::Acquire) > generation;
    cluster.wait_for("its install has failed", has_failed).await;
    store.ctx.faults.kill_at_install_step.store(0, Ordering::Relaxed);
    cluster.wait_for("it has ended", || !is_marked() && replica.applied_index() > before).await;
    assert_eq!(cluster.net.snapshots.load(Ordering::Relaxed), sent + 1, "by the first snapshot");
    cluster.net.isolate(NodeId(node), false);
    let last = cluster.store(leader).replica(R).unwrap().applied_index();
    cluster.wait_for("it has all", || replica.applied_index() >= last).await;
    cluster.assert_replicas_agree("k").await;
    drop((store, replica));
    cluster.stop().await;
}
