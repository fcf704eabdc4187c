//! Disks that do not answer.
#![allow(clippy::unwrap_used)]

use super::StoreTuning;
use crate::testing::{Cluster, put};
use isotherm_types::RangeId;
use std::time::{Duration, Instant};

const R: RangeId = RangeId(1);
const HANGS: Duration = Duration::from_secs(12);

fn tuning() -> StoreTuning {
    StoreTuning {
        stall_after: Duration::from_millis(300),
        hibernate_after: Duration::ZERO,
        ..StoreTuning::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_hangs_is_replaced() {
    let cluster = Cluster::start(3, tuning()).await;
    cluster.seed(&[("", "")]).await;
    cluster.write(vec![put("a", "1")]).await;
    let leader = cluster.leader(R).await;
    cluster.set_sync_delay(leader, HANGS);
    let begun = Instant::now();
    // What comes first meets the disk; it is repeated, as a client does, until somebody answers.
    let id = cluster.write_id();
    let others: Vec<u64> = (1..=3).filter(|node| *node != leader).collect();
    let replica = cluster.store(leader).replica(R).unwrap();
    let first = cluster.write_to(leader, id, vec![put("b", "2")]);
    let next = async {
        let leads = |node: u64| cluster.store(node).replica(R).unwrap().status().is_leader;
        cluster.wait_for("another leads", || others.iter().any(|node| leads(*node))).await;
        let now = others.iter().copied().find(|node| leads(*node)).unwrap();
        loop {
            let written = cluster.write_to(now, id, vec![put("b", "2")]).await;
            match written {
                Ok(_) => return,
                Err(error) => assert!(begun.elapsed() < HANGS, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (_, ()) = tokio::join!(first, next);
    let took = begun.elapsed();
    assert!(took < HANGS, "{took:?}");
    // Who gave it away says so at once, although its consensus waits for the disk.
    let refused = Instant::now();
    assert!(cluster.write_to(leader, cluster.write_id(), vec![put("c", "3")]).await.is_err());
    assert!(refused.elapsed() < Duration::from_secs(1));
    assert!(replica.is_transferring());
    cluster.set_sync_delay(leader, Duration::ZERO);
    cluster.wait_for("its disk answers again", || !replica.is_transferring()).await;
    cluster.write(vec![put("d", "4")]).await;
    assert_eq!(cluster.get("b").await.unwrap(), "2");
    cluster.assert_replicas_agree("a").await;
    cluster.stop().await;
}

/// Has the next sync of every node take that long, all at the same time; returns when all are done.
async fn stall_all(cluster: &Cluster, delay: Duration) {
    let logs: Vec<_> = (1..=3).map(|node| cluster.store(node).ctx.log.clone()).collect();
    (1..=3).for_each(|node| cluster.set_sync_delay(node, delay));
    let stalled = logs.iter().cloned().map(|log| {
        tokio::task::spawn_blocking(move || log.put_node_state("of-a-test", Vec::new()).unwrap())
    });
    let stalled: Vec<_> = stalled.collect();
    let has_begun = || logs.iter().all(|log| !log.waiting().is_zero());
    cluster.wait_for("all disks hang", has_begun).await;
    (1..=3).for_each(|node| cluster.set_sync_delay(node, Duration::ZERO));
    for node in stalled {
        node.await.unwrap();
    }
}

/// One disk under all of them stalls: everybody keeps what it has, and goes on. First while all replicas have
/// everything, so that nothing but the disks of the others keeps the leader from handing over; then under a
/// write. Both for longer than a process whose disk hangs alone lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_that_all_share_moves_nothing() {
    let stall_limit = Duration::from_millis(1500);
    let cluster = Cluster::start(3, StoreTuning { stall_limit, ..tuning() }).await;
    cluster.seed(&[("", "")]).await;
    cluster.write(vec![put("a", "1")]).await;
    let leader = cluster.leader(R).await;
    let replica = |node: u64| cluster.store(node).replica(R).unwrap();
    let has_all = || (1..=3).all(|n| replica(n).applied_index() == replica(leader).applied_index());
    cluster.wait_for("all have everything", has_all).await;
    let term = replica(leader).status().term;
    stall_all(&cluster, Duration::from_secs(3)).await;
    let written = cluster.write_to(leader, cluster.write_id(), vec![put("b", "2")]).await;
    written.unwrap();
    let write = cluster.write_to(leader, cluster.write_id(), vec![put("c", "3")]);
    let (written, ()) = tokio::join!(write, stall_all(&cluster, Duration::from_secs(3)));
    written.unwrap();
    let status = replica(leader).status();
    assert!(status.is_leader && status.term == term, "{status:?}");
    assert_eq!(cluster.get("c").await.unwrap(), "3");
    cluster.stop().await;
}
