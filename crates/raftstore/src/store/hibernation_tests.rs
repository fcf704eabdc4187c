//! Idle groups sleep, and wake when they must.
#![allow(clippy::unwrap_used)]

use super::{RangeError, Store, StoreTuning};
use crate::command::WriteRequest;
use crate::replica::PointRead;
use crate::testing::{Cluster, put};
use isotherm_types::{Key, NodeId, RangeDescriptor, RangeId};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(2);

fn sleepy() -> StoreTuning {
    StoreTuning { hibernate_after: Duration::from_millis(200), ..StoreTuning::default() }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn sleeps(store: &Store, range: RangeId) -> bool {
    store.replica(range).is_some_and(|r| r.hibernation.is_asleep())
}

/// Waits until every replica of `range` sleeps; the node that leads it.
async fn asleep(cluster: &Cluster, range: RangeId) -> u64 {
    let all = || cluster.stores().all(|(_, store)| sleeps(store, range));
    until("the group does not go to sleep", all).await;
    cluster.leader(range).await
}

fn term(cluster: &Cluster, node: u64, range: RangeId) -> u64 {
    cluster.store(node).replica(range).unwrap().status().term
}

async fn get(store: &Arc<Store>, range: &RangeDescriptor, key: &str) -> Result<String, RangeError> {
    let read = PointRead { key: Key::from(key.to_owned()), at: None };
    let row = store.read(range.id, range.epoch.version, read, WAIT).await?;
    Ok(String::from_utf8(row.expect("it is there").value.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_group_sleeps_sends_nothing_and_wakes_for_reads_and_writes() {
    let cluster = Cluster::start(3, sleepy()).await;
    let range = cluster.seed(&[("", "")]).await.remove(0);
    cluster.write(vec![put("k", "1")]).await;
    let leader = asleep(&cluster, range.id).await;
    let before = term(&cluster, leader, range.id);

    let sent = cluster.net.frames_of(range.id);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(cluster.net.frames_of(range.id), sent, "three election timeouts without a frame");
    assert!(cluster.stores().all(|(_, store)| sleeps(store, range.id)));
    let status = cluster.store(leader).replica(range.id).unwrap().status();
    assert_eq!(status.live_replicas.len(), 3, "its followers live as their nodes do");

    let begun = Instant::now();
    assert_eq!(get(cluster.store(leader), &range, "k").await.unwrap(), "1");
    assert!(begun.elapsed() < Duration::from_millis(400), "one round, and no election");
    asleep(&cluster, range.id).await;
    let begun = Instant::now();
    let (store, id) = (cluster.store(leader), cluster.write_id());
    let request = WriteRequest { id, ops: vec![put("k", "2")] };
    store.write(range.id, range.epoch.version, request, WAIT).await.expect("at the first attempt");
    assert!(begun.elapsed() < Duration::from_millis(400), "likewise");
    assert_eq!(cluster.get("k").await.unwrap(), "2");
    assert_eq!(asleep(&cluster, range.id).await, leader);
    assert_eq!(term(&cluster, leader, range.id), before, "nobody stood for election");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_asking_the_leader_first_a_follower_takes_over() {
    let cluster = Cluster::start(3, sleepy()).await;
    for (_, store) in cluster.stores() {
        store.ctx.faults.wake_followers_first.store(1, Ordering::Relaxed);
    }
    let range = cluster.seed(&[("", "")]).await.remove(0);
    cluster.write(vec![put("k", "1")]).await;
    // A follower that the leader's own wake-up outruns stays one: it takes over in one of many rounds.
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut moved = false;
    while !moved {
        assert!(Instant::now() < deadline, "nobody took over");
        let leader = asleep(&cluster, range.id).await;
        let before = term(&cluster, leader, range.id);
        // Leases that followers still honour run out.
        tokio::time::sleep(Duration::from_secs(1)).await;
        for follower in (1..=3).filter(|node| *node != leader) {
            let _ = get(cluster.store(follower), &range, "k").await;
        }
        let round = Instant::now() + Duration::from_secs(3);
        while !moved && Instant::now() < round {
            moved = (1..=3).any(|node| term(&cluster, node, range.id) > before);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_succession_a_group_that_sleeps_stays_without_a_leader() {
    let mut cluster = Cluster::start(3, sleepy()).await;
    let range = cluster.seed(&[("", "")]).await.remove(0);
    let dead = asleep(&cluster, range.id).await;
    for (_, store) in cluster.stores() {
        store.ctx.faults.no_succession.store(1, Ordering::Relaxed);
    }
    cluster.crash_node(dead).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(cluster.stores().all(|(_, store)| sleeps(store, range.id)), "nobody notices");
    // Until somebody asks: that is noticed in any case.
    let next = (1..=3).find(|node| *node != dead).unwrap();
    assert!(get(cluster.store(next), &range, "k").await.is_err());
    cluster.leader(range.id).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_to_a_sleeping_follower_moves_no_leadership() {
    let cluster = Cluster::start(3, sleepy()).await;
    let range = cluster.seed(&[("", "")]).await.remove(0);
    cluster.write(vec![put("k", "1")]).await;
    let leader = asleep(&cluster, range.id).await;
    let before = term(&cluster, leader, range.id);
    for _ in 0..3 {
        for follower in (1..=3).filter(|node| *node != leader) {
            let refused = get(cluster.store(follower), &range, "k").await;
            let to = Some(NodeId(leader));
            assert!(
                matches!(&refused, Err(RangeError::NotLeader { leader }) if *leader == to),
                "{refused:?}"
            );
            let request = WriteRequest { id: cluster.write_id(), ops: vec![put("k", "2")] };
            let write = cluster.store(follower).write(range.id, range.epoch.version, request, WAIT);
            assert!(matches!(write.await, Err(RangeError::NotLeader { .. })));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(asleep(&cluster, range.id).await, leader);
    assert_eq!(term(&cluster, leader, range.id), before);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pre_vote_wakes_the_leader_before_it_can_be_replaced() {
    let cluster = Cluster::start(3, sleepy()).await;
    let range = cluster.seed(&[("", "")]).await.remove(0);
    let leader = asleep(&cluster, range.id).await;
    let before = term(&cluster, leader, range.id);
    // As after a frame that arrived late: one follower is awake, with its lease long gone.
    let follower = (1..=3).find(|node| *node != leader).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let replica = cluster.store(follower).replica(range.id).unwrap();
    replica.wake(crate::replica::WakeReason::Asked);
    until("the leader does not notice", || !sleeps(cluster.store(leader), range.id)).await;
    assert_eq!(asleep(&cluster, range.id).await, leader);
    assert_eq!(term(&cluster, leader, range.id), before);
    cluster.stop().await;
}

/// Its node dies, or stands still, or is cut off: for its followers that is the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_whose_leader_dies_while_they_sleep_have_another_one_soon() {
    let mut cluster = Cluster::start(3, sleepy()).await;
    let spans = [("", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "f"), ("f", "")];
    let ranges = cluster.seed(&spans).await;
    for key in ["a", "b", "c", "d", "e", "f"] {
        cluster.write(vec![put(key, "1")]).await;
    }
    let mut leaders = Vec::new();
    for range in &ranges {
        leaders.push(asleep(&cluster, range.id).await);
    }
    let dead = leaders[0];
    cluster.crash_node(dead).await;
    let begun = Instant::now();
    let live: Vec<_> = (1..=3).filter(|node| *node != dead).collect();
    let is_led = |range: RangeId| {
        live.iter().any(|n| cluster.store(*n).replica(range).unwrap().status().is_leader)
    };
    let all_led = || ranges.iter().all(|range| is_led(range.id));
    until("some group has no leader", all_led).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "took {:?}", begun.elapsed());
    cluster.write(vec![put("a", "2")]).await;

    // A replica that lives nowhere is not counted, whether its leader sleeps or not.
    for range in &ranges {
        let live = || {
            let statuses =
                live.iter().map(|n| cluster.store(*n).replica(range.id).unwrap().status());
            statuses.filter(|s| s.is_leader).all(|s| s.live_replicas.len() == 2)
        };
        until("the dead replica counts as alive", live).await;
    }
    // They sleep without it …
    for range in &ranges {
        let all = || live.iter().all(|node| sleeps(cluster.store(*node), range.id));
        until("a group with a dead replica does not go to sleep", all).await;
    }
    // … and wake when it is there again, so that it has what it missed.
    cluster.start_node(dead).await;
    for range in &ranges {
        asleep(&cluster, range.id).await;
    }
    cluster.assert_replicas_agree("a").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_again_learns_who_leads_and_disturbs_nobody() {
    let mut cluster = Cluster::start(3, sleepy()).await;
    let range = cluster.seed(&[("", "")]).await.remove(0);
    cluster.write(vec![put("k", "1")]).await;
    let leader = asleep(&cluster, range.id).await;
    let before = term(&cluster, leader, range.id);
    let follower = (1..=3).find(|node| *node != leader).unwrap();
    cluster.crash_node(follower).await;
    cluster.start_node(follower).await;
    assert_eq!(asleep(&cluster, range.id).await, leader);
    assert_eq!(term(&cluster, leader, range.id), before);
    // The leader itself, quicker than anybody misses it: its followers are told by its new start.
    cluster.crash_node(leader).await;
    cluster.start_node(leader).await;
    asleep(&cluster, range.id).await;
    assert_eq!(cluster.get("k").await.unwrap(), "1");
    cluster.stop().await;
}

/// The old leader is cut off while its group sleeps, the others elect and write, and the old one, which
/// knows nothing of it, is asked.
async fn a_read_at_a_deposed_sleeper(breaks_the_rule: bool) -> Result<String, RangeError> {
    let cluster = Cluster::start(3, sleepy()).await;
    let range = cluster.seed(&[("", "")]).await.remove(0);
    cluster.write(vec![put("k", "old")]).await;
    let leader = asleep(&cluster, range.id).await;
    let old = cluster.store(leader).clone();
    cluster.net.isolate(NodeId(leader), true);
    let others: Vec<_> = (1..=3).filter(|node| *node != leader).collect();
    let new_leader = || {
        let led = |n: &&u64| cluster.store(**n).replica(range.id).unwrap().status().is_leader;
        others.iter().find(led).copied()
    };
    until("the others do not elect", || new_leader().is_some()).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let store = cluster.store(new_leader().unwrap_or(others[0]));
        let request = WriteRequest { id: cluster.write_id(), ops: vec![put("k", "new")] };
        if store.write(range.id, range.epoch.version, request, WAIT).await.is_ok() {
            break;
        }
        assert!(Instant::now() < deadline);
    }
    assert!(old.replica(range.id).unwrap().status().is_leader, "it knows nothing of it");
    assert!(sleeps(&old, range.id), "nor did it wake");
    old.ctx.faults.lease_while_asleep.store(u64::from(breaks_the_rule), Ordering::Relaxed);
    let read = get(&old, &range, "k").await;
    cluster.net.isolate(NodeId(leader), false);
    until("the old leader does not learn", || !old.replica(range.id).unwrap().status().is_leader)
        .await;
    drop(old);
    // It is a follower like the others now, and sleeps like them.
    asleep(&cluster, range.id).await;
    cluster.stop().await;
    read
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lease_lasts_through_sleep() {
    let read = a_read_at_a_deposed_sleeper(false).await;
    assert!(read.is_err(), "a value from before: {read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_end_of_leases_a_sleeper_answers_an_old_value() {
    let read = a_read_at_a_deposed_sleeper(true).await;
    assert_eq!(read.unwrap(), "old");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_replicas_that_start_at_once_have_leaders_and_sleep() {
    let mut cluster = Cluster::start(3, sleepy()).await;
    let keys: Vec<String> = (1..300).map(|i| format!("{i:03}")).collect();
    let mut bounds = vec![""];
    bounds.extend(keys.iter().map(String::as_str));
    bounds.push("");
    let spans: Vec<_> = bounds.windows(2).map(|w| (w[0], w[1])).collect();
    let ranges = cluster.seed(&spans).await;
    for range in &ranges {
        asleep(&cluster, range.id).await;
    }
    for node in 1..=3 {
        cluster.crash_node(node).await;
    }
    for node in 1..=3 {
        cluster.start_node(node).await;
    }
    for range in &ranges {
        asleep(&cluster, range.id).await;
    }
    cluster.stop().await;
}
