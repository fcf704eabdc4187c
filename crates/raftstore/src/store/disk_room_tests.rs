//! Disks with little room, and with none.
#![allow(clippy::unwrap_used)]

use super::{DiskRoom, RangeError, StoreTuning};
use crate::command::WriteOp;
use crate::testing::{Cluster, put};
use isotherm_types::{NodeId, RangeId, ReplicaId};
use std::sync::atomic::Ordering;
use std::time::Duration;

const R: RangeId = RangeId(1);

fn delete(key: &str) -> WriteOp {
    WriteOp::Delete { key: key.to_owned().into() }
}

fn tuning() -> StoreTuning {
    StoreTuning { hibernate_after: Duration::ZERO, ..StoreTuning::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_little_room_what_makes_room_is_taken_and_with_none_nothing_is() {
    let cluster = Cluster::start(3, tuning()).await;
    cluster.seed(&[("", "")]).await;
    cluster.write(vec![put("a", "1")]).await;
    let leader = cluster.leader(R).await;
    let write = async |op| cluster.write_to(leader, cluster.write_id(), vec![op]).await;
    cluster.stores().for_each(|(_, store)| store.set_disk_room(DiskRoom::Little));
    assert_eq!(write(put("b", "2")).await, Err(RangeError::DiskFull));
    write(delete("a")).await.unwrap();
    assert_eq!(cluster.get("a").await, None);
    cluster.store(leader).set_disk_room(DiskRoom::None);
    assert_eq!(write(delete("b")).await, Err(RangeError::DiskFull));
    cluster.stores().for_each(|(_, store)| store.set_disk_room(DiskRoom::Enough));
    write(put("b", "2")).await.unwrap();
    cluster.stop().await;
}

/// A follower without room takes no entries, and goes on when it has some. The others go on without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_without_room_takes_no_entries() {
    let cluster = Cluster::start(3, tuning()).await;
    cluster.seed(&[("", "")]).await;
    cluster.write(vec![put("a", "1")]).await;
    let leader = cluster.leader(R).await;
    let full = leader % 3 + 1;
    let last = |node: u64| cluster.store(node).replica(R).unwrap().status().last_log_index;
    cluster.wait_for("it has all", || last(full) == last(leader)).await;
    cluster.store(full).set_disk_room(DiskRoom::None);
    let before = last(full);
    for i in 0..20 {
        cluster.write(vec![put(&format!("k{i:02}"), "v")]).await;
    }
    assert_eq!(last(full), before);
    assert_eq!(cluster.leader(R).await, leader, "it does not stand for want of entries");
    cluster.store(full).set_disk_room(DiskRoom::Enough);
    cluster.wait_for("it has all again", || last(full) == last(leader)).await;
    cluster.assert_replicas_agree("a").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_little_room_takes_no_snapshot_and_no_replica() {
    let cluster = Cluster::start(4, tuning()).await;
    cluster.seed_on(&[1, 2, 3], &[("", "")], 1).await;
    cluster.write(vec![put("a", "1")]).await;
    cluster.store(4).set_disk_room(DiskRoom::Little);
    let added = cluster.add_learner(R, 4).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(cluster.store(4).replica(R).is_none(), "a replica was created");
    cluster.store(4).set_disk_room(DiskRoom::Enough);
    cluster.wait_for("it is created", || cluster.store(4).replica(R).is_some()).await;
    let has_all = || {
        let leader = cluster.stores().filter_map(|(_, s)| s.replica(R)).map(|r| r.applied_index());
        cluster.store(4).replica(R).map(|r| r.applied_index()) >= leader.max()
    };
    cluster.wait_for("it has all", has_all).await;
    assert!(cluster.net.snapshots.load(Ordering::Relaxed) >= 1);
    let drop = cluster.locate(b"a").replica_on(NodeId(3)).unwrap().id;
    assert_ne!(cluster.promote(R, added, drop).await.voters().count(), 0);
    assert_ne!(added, ReplicaId(0));
    cluster.stop().await;
}
