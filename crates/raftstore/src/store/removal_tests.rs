//! Replicas that were removed from their range: who destroys them, who must not, what a crash does.
#![allow(clippy::unwrap_used)]

use super::StoreTuning;
use super::create::CreationRecord;
use super::destroy::bury;
use crate::network::Method;
use crate::sender::{FrameHeader, FrameReceiver};
use crate::testing::{Cluster, put};
use bytes::Bytes;
use isotherm_storage::{LocalKey, ReplicaKey, StateKind, codec};
use isotherm_types::{
    KeyRange, NodeId, RangeDescriptor, RangeEpoch, RangeId, ReplicaId, Timestamp,
};
use std::sync::atomic::Ordering;
use std::time::Duration;

const R: RangeId = RangeId(1);
const CREATE: u32 = 103;

fn small() -> StoreTuning {
    StoreTuning { flush_interval: Duration::from_millis(200), ..StoreTuning::default() }
}

/// What a store says to a call as of `from`.
async fn call(
    cluster: &Cluster,
    node: u64,
    from: ReplicaId,
    to: ReplicaId,
    method: u32,
    payload: Bytes,
) -> Result<Bytes, String> {
    let header = FrameHeader { range: R, from_replica: from, to_replica: to, method };
    cluster.store(node).clone().call(NodeId(1), header, payload).await
}

async fn create(
    cluster: &Cluster,
    node: u64,
    descriptor: &RangeDescriptor,
) -> Result<Bytes, String> {
    let me = descriptor.replica_on(NodeId(node)).unwrap().id;
    let record = codec::encode(&CreationRecord { descriptor: descriptor.clone() });
    call(cluster, node, ReplicaId(1), me, CREATE, record.into()).await
}

fn rows(cluster: &Cluster, node: u64) -> usize {
    let snapshot = cluster.store(node).ctx.data.snapshot();
    snapshot.scan(&KeyRange::all(), Timestamp::MAX, false, true).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destruction_goes_on_after_a_crash_at_each_step() {
    let mut cluster = Cluster::start(4, small()).await;
    cluster.seed_on(&[1, 2, 3], &[("", "")], 1).await;
    for i in 0..20 {
        cluster.write(vec![put(&format!("k{i:02}"), "v")]).await;
    }
    let (mut from, mut to) = (3, 4);
    for step in 1..=4 {
        let before = cluster.locate(b"k");
        let old = before.replica_on(NodeId(from)).unwrap().id;
        let added = cluster.add_learner(R, to).await;
        let after = cluster.promote(R, added, old).await;
        let store = cluster.store(from).clone();
        store.ctx.faults.kill_at_destroy_step.store(step, Ordering::Relaxed);
        store.destroy(after.id, &after).await.unwrap_err();
        assert!(store.ctx.spans.reserve(RangeId(9), &after.span).is_err(), "not done, not free");
        drop(store);
        cluster.crash_node(from).await;
        cluster.start_node(from).await;
        let store = cluster.store(from);
        assert!(store.replica(R).is_none(), "step {step}");
        assert_eq!(rows(&cluster, from), 0, "step {step}");
        assert!(store.ctx.data.local(&LocalKey::Applied(R)).unwrap().is_none());
        let key = ReplicaKey { range: R, replica: old };
        assert!(store.ctx.log.last(key).unwrap().is_none(), "its log is gone");
        let refused = create(&cluster, from, &before).await.unwrap_err();
        assert!(refused.contains("removed for good"), "{refused}");
        // The next move brings the range back, under a new id.
        std::mem::swap(&mut from, &mut to);
    }
    assert_eq!(cluster.keys().await.len(), 20);
    cluster.assert_replicas_agree("k").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_map_does_not_destroy_a_promoted_learner() {
    let cluster = Cluster::start(4, small()).await;
    let stale = cluster.seed_on(&[1, 2, 3], &[("", "")], 1).await.remove(0);
    cluster.write(vec![put("k", "v")]).await;
    cluster.move_replica(R, 3, 4).await;
    // A rumour: newer by its number, but of a range that never had this replica.
    let rumour =
        RangeDescriptor { epoch: RangeEpoch { conf_ver: 100, ..stale.epoch }, ..stale.clone() };
    for map in [&stale, &rumour] {
        assert!(!cluster.store(4).destroy(map.id, map).await.unwrap());
    }
    assert_eq!(cluster.store(4).replica(R).unwrap().id, ReplicaId(4));
    cluster.assert_replicas_agree("k").await;
    // What the rule is for: without it the same map takes a voter away.
    cluster.store(4).ctx.faults.trust_any_map.store(1, Ordering::Relaxed);
    assert!(cluster.store(4).destroy(stale.id, &stale).await.unwrap());
    assert!(cluster.store(4).replica(R).is_none());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_disk_that_comes_back_disturbs_nobody_and_is_cleared() {
    let mut cluster = Cluster::start(4, small()).await;
    cluster.seed_on(&[1, 2, 3], &[("", "")], 1).await;
    cluster.write(vec![put("k1", "v")]).await;
    cluster.stop_node(3).await;
    let old_disk = cluster.copy_disk(3);
    cluster.start_node(3).await;
    let after = cluster.move_replica(R, 3, 4).await;
    cluster.write(vec![put("k2", "v")]).await;
    cluster.stop_node(3).await;
    cluster.replace_disk(3, old_disk);
    cluster.start_node(3).await;
    let ghost = cluster.store(3).replica(R).unwrap();
    assert_eq!((ghost.id, ghost.descriptor().epoch.conf_ver), (ReplicaId(3), 1));
    let led_by = cluster.leader(R).await;
    let term = cluster.store(led_by).replica(R).unwrap().status().term;
    // It stands for election by force, again and again, under ever higher terms.
    for _ in 0..20 {
        ghost.instance.load_full().unwrap().raft.trigger().elect(false).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!ghost.status().is_leader);
    assert!(ghost.status().term > term, "it did try");
    let status = cluster.store(led_by).replica(R).unwrap().status();
    assert!(status.is_leader && status.term == term, "{status:?}");
    let vote =
        call(&cluster, led_by, ReplicaId(3), status.replica, Method::Vote.number(), Bytes::new());
    assert!(vote.await.unwrap_err().contains("was removed"));
    drop(ghost);
    cluster.remove_from(3, &after).await;
    assert_eq!(rows(&cluster, 3), 0);
    assert_eq!(cluster.keys().await.len(), 2);
    // Cleared, the node can have the range again.
    cluster.move_replica(R, 4, 3).await;
    cluster.assert_replicas_agree("k1").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_applied_its_own_removal_waits_for_metas_word() {
    let mut cluster = Cluster::start(4, small()).await;
    cluster.seed_on(&[1, 2, 3], &[("", "")], 1).await;
    let added = cluster.add_learner(R, 4).await;
    let after = cluster.promote(R, added, ReplicaId(3)).await;
    cluster.write(vec![put("k", "v")]).await;
    cluster.crash_node(3).await;
    cluster.start_node(3).await;
    assert_eq!(cluster.store(3).replica(R).unwrap().id, ReplicaId(3), "it knows who it was");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(cluster.store(3).replica(R).is_some(), "nobody else's word counts");
    cluster.remove_from(3, &after).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_and_its_snapshot_are_refused_while_their_span_overlaps() {
    let cluster = Cluster::start(4, small()).await;
    cluster.seed_on(&[1, 2, 3], &[("", "")], 1).await;
    let other = cluster.seed_on(&[4], &[("c", "d")], 7).await.remove(0);
    cluster.write(vec![put("a", "1")]).await;
    let leader = cluster.leader(R).await;
    // Not even created: nobody can vote here and be replaced later.
    let epoch = cluster.locate(b"a").epoch;
    let added = cluster.store(leader).add_learner(R, epoch, NodeId(4), ReplicaId(4)).await.unwrap();
    let refused = create(&cluster, 4, &added).await.unwrap_err();
    assert!(refused.contains("overlaps"), "{refused}");
    assert!(cluster.store(4).replica(R).is_none());
    // Created with a narrower span, as of another time: then the snapshot is refused.
    let span = KeyRange::new("".to_owned(), "b".to_owned()).unwrap();
    let narrow = RangeDescriptor { span, ..added.clone() };
    create(&cluster, 4, &narrow).await.unwrap();
    let sent = || cluster.net.snapshots.load(Ordering::Relaxed) >= 2;
    cluster.wait_for("snapshots are tried", sent).await;
    assert_eq!(cluster.store(4).replica(R).unwrap().applied_index(), 0);
    // The other range goes: the next snapshot is taken.
    let gone = RangeDescriptor {
        epoch: RangeEpoch { conf_ver: 2, ..other.epoch },
        replicas: Vec::new(),
        ..other
    };
    assert!(cluster.store(4).destroy(gone.id, &gone).await.unwrap());
    let learned = || cluster.store(4).replica(R).unwrap().applied_index() > 0;
    cluster.wait_for("the snapshot is installed", learned).await;
    cluster.promote(R, ReplicaId(4), ReplicaId(if leader == 3 { 2 } else { 3 })).await;
    cluster.assert_replicas_agree("a").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_was_removed_here_before_its_split_is_deleted_instead_of_started() {
    let mut cluster = Cluster::start(3, small()).await;
    cluster.seed(&[("", "")]).await;
    for key in ["a", "x", "y"] {
        cluster.write(vec![put(key, "1")]).await;
    }
    let child = RangeId(2);
    let key = ReplicaKey { range: child, replica: ReplicaId(3) };
    bury(&cluster.store(3).ctx, key, 5).await.unwrap();
    cluster.split("m", child.get()).await;
    let narrowed = || cluster.store(3).replica(R).unwrap().descriptor().epoch.version == 2;
    cluster.wait_for("the split is applied", narrowed).await;
    assert!(cluster.store(3).replica(child).is_none());
    assert_eq!(rows(&cluster, 3), 1, "only the parent's row is left");
    cluster.crash_node(3).await;
    cluster.start_node(3).await;
    assert!(cluster.store(3).replica(child).is_none());
    assert_eq!(rows(&cluster, 3), 1);
    assert_eq!(cluster.keys().await.len(), 3, "the child's others serve it");
    cluster.stop().await;
}

/// Its disk is put back to an earlier moment, as by a machine that was restored from a backup.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lacks_what_it_acknowledged_is_removed_and_built_again() {
    let mut cluster = Cluster::start(3, small()).await;
    cluster.seed(&[("", "")]).await;
    cluster.write(vec![put("k00", "v")]).await;
    let leader = cluster.leader(R).await;
    let back = if leader == 3 { 2 } else { 3 };
    cluster.stop_node(back).await;
    let old_disk = cluster.copy_disk(back);
    cluster.start_node(back).await;
    for i in 1..20 {
        cluster.write(vec![put(&format!("k{i:02}"), "v")]).await;
    }
    let applied = |node: u64| cluster.store(node).replica(R).unwrap().applied_index();
    cluster.wait_for("it has them all", || applied(back) == applied(leader)).await;
    let lost = cluster.locate(b"k").replica_on(NodeId(back)).unwrap().id;
    cluster.crash_node(back).await;
    cluster.replace_disk(back, old_disk);
    cluster.start_node(back).await;
    cluster.write(vec![put("more", "v")]).await;
    let abstains = || cluster.store(back).replica(R).is_none_or(|r| r.abstains());
    cluster.wait_for("it votes no more", abstains).await;
    let on_leader = || cluster.store(leader).replica(R).unwrap().descriptor();
    cluster
        .wait_for("it is removed", || on_leader().is_settled() && on_leader().has_passed(lost))
        .await;
    let after = on_leader();
    assert_eq!(after.voters().count(), 2);
    // As its node does when meta tells it.
    assert!(cluster.store(back).destroy(R, &after).await.unwrap());
    let added = cluster.add_learner(R, back).await;
    cluster.promote(R, added, ReplicaId(0)).await;
    assert_eq!(cluster.keys().await.len(), 21);
    cluster.assert_replicas_agree("k").await;
    assert_eq!(cluster.leader(R).await, leader, "its leader went on");
    cluster.stop().await;
}

/// A learner is promoted although its node has no place for its snapshot. Whether it was, and what it has.
async fn promoted_without_a_snapshot(without_rule: bool) -> (bool, u64) {
    let cluster = Cluster::start(4, small()).await;
    cluster.seed_on(&[1, 2, 3], &[("", "")], 1).await;
    cluster.seed_on(&[4], &[("c", "d")], 7).await;
    cluster.write(vec![put("a", "1")]).await;
    let leader = cluster.leader(R).await;
    let store = cluster.store(4);
    store.ctx.faults.promise_snapshots.store(without_rule.into(), Ordering::Relaxed);
    let epoch = cluster.locate(b"a").epoch;
    let added = cluster.store(leader).add_learner(R, epoch, NodeId(4), ReplicaId(4)).await.unwrap();
    let span = KeyRange::new("".to_owned(), "b".to_owned()).unwrap();
    create(&cluster, 4, &RangeDescriptor { span, ..added.clone() }).await.unwrap();
    let tried = || cluster.net.snapshots.load(Ordering::Relaxed) >= 1;
    cluster.wait_for("a snapshot is tried", tried).await;
    let drop = ReplicaId(if leader == 3 { 2 } else { 3 });
    let promoted = cluster.store(leader).change_replicas(R, added.epoch, ReplicaId(4), drop).await;
    let applied = cluster.store(4).replica(R).unwrap().applied_index();
    cluster.stop().await;
    (promoted.is_ok(), applied)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_refused_its_snapshot_does_not_vote() {
    assert_eq!(promoted_without_a_snapshot(false).await, (false, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_refusal_of_a_snapshot_a_replica_votes_that_has_nothing() {
    assert_eq!(promoted_without_a_snapshot(true).await, (true, 0));
}

/// A range of two voters: without the one that lost something there is no quorum.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_voters_one_that_lost_something_keeps_its_vote() {
    let mut cluster = Cluster::start(2, small()).await;
    cluster.seed(&[("", "")]).await;
    cluster.write(vec![put("k00", "v")]).await;
    let leader = cluster.leader(R).await;
    let back = 3 - leader;
    cluster.stop_node(back).await;
    let old_disk = cluster.copy_disk(back);
    cluster.start_node(back).await;
    for i in 1..20 {
        cluster.write(vec![put(&format!("k{i:02}"), "v")]).await;
    }
    let applied =
        |cluster: &Cluster, node: u64| cluster.store(node).replica(R).unwrap().applied_index();
    cluster
        .wait_for("it has them all", || applied(&cluster, back) == applied(&cluster, leader))
        .await;
    cluster.crash_node(back).await;
    cluster.replace_disk(back, old_disk);
    cluster.start_node(back).await;
    cluster.write(vec![put("more", "v")]).await;
    cluster
        .wait_for("it is fed again", || applied(&cluster, back) >= applied(&cluster, leader))
        .await;
    // Long enough to be dismissed, or told to abstain.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let status = cluster.store(leader).replica(R).unwrap();
    assert!(status.lost.lock().is_empty(), "it is whole again, and may lead");
    drop(status);
    assert!(!cluster.store(back).replica(R).unwrap().abstains());
    cluster.crash_node(leader).await;
    cluster.start_node(leader).await;
    cluster.write(vec![put("after", "v")]).await;
    assert_eq!(cluster.keys().await.len(), 22);
    cluster.assert_replicas_agree("k").await;
    cluster.stop().await;
}

/// It was told so when there were more voters, or by an older version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_abstains_although_its_range_has_no_quorum_without_it_votes_again() {
    const ABSTAIN: u32 = 131;
    let mut cluster = Cluster::start(2, small()).await;
    cluster.seed(&[("", "")]).await;
    cluster.write(vec![put("k", "v")]).await;
    let leader = cluster.leader(R).await;
    let follower = 3 - leader;
    let id = |node: u64| cluster.store(node).replica(R).unwrap().id;
    let told = call(&cluster, follower, id(leader), id(follower), ABSTAIN, Bytes::new());
    told.await.unwrap();
    assert!(cluster.store(follower).replica(R).unwrap().abstains());
    let votes = || !cluster.store(follower).replica(R).unwrap().abstains();
    cluster.wait_for("it votes again", votes).await;
    let key = ReplicaKey { range: R, replica: id(follower) };
    let lost = cluster.store(follower).ctx.log.state(key, StateKind::Lost).unwrap();
    assert!(lost.is_none(), "after a restart, too");
    cluster.crash_node(leader).await;
    cluster.start_node(leader).await;
    cluster.write(vec![put("k2", "v")]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_lost_something_goes_also_beside_a_single_voter() {
    let cluster = Cluster::start(2, small()).await;
    cluster.seed_on(&[1], &[("", "")], 1).await;
    cluster.write(vec![put("k", "v")]).await;
    let learner = cluster.add_learner(R, 2).await;
    let replica = cluster.store(1).replica(R).unwrap();
    let learned = || cluster.store(2).replica(R).is_some_and(|r| r.applied_index() > 0);
    cluster.wait_for("it learns", learned).await;
    replica.lost_its_log(learner);
    let promoted =
        cluster.store(1).change_replicas(R, replica.descriptor().epoch, learner, ReplicaId(0));
    assert!(promoted.await.is_err());
    cluster.wait_for("it is removed", || replica.descriptor().has_passed(learner)).await;
    assert!(!cluster.store(2).replica(R).unwrap().abstains());
    drop(replica);
    let added = cluster.locate(b"k");
    cluster.remove_from(2, &added).await;
    let again = cluster.add_learner(R, 2).await;
    cluster.promote(R, again, ReplicaId(0)).await;
    cluster.assert_replicas_agree("k").await;
    cluster.stop().await;
}

/// A node of the founding that was started again, and is ordered its first ranges as if it were new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_range_that_was_removed_from_here_is_not_founded_twice() {
    let mut cluster = Cluster::start(4, small()).await;
    let founded = cluster.seed_on(&[1, 2, 3], &[("", "m"), ("m", "")], 1).await;
    cluster.write(vec![put("k", "v")]).await;
    cluster.move_replica(R, 3, 4).await;
    cluster.store(3).seed(&founded).await.unwrap();
    assert!(cluster.store(3).replica(R).is_none(), "it was buried here");
    cluster.crash_node(3).await;
    cluster.start_node(3).await;
    cluster.store(3).seed(&founded).await.unwrap();
    assert!(cluster.store(3).replica(R).is_none(), "it was buried here");
    assert!(cluster.store(3).replica(RangeId(2)).is_some());
    // It can come back only under a new id.
    cluster.move_replica(R, 4, 3).await;
    assert_eq!(cluster.store(3).replica(R).unwrap().id, ReplicaId(5));
    cluster.assert_replicas_agree("k").await;
    cluster.stop().await;
}
