#![allow(clippy::unwrap_used)]
use super::Refusal;
use crate::machine::Founding;
use crate::member::testing::{Net, TestMember, eventually};
use isotherm_types::Timestamp;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const FOUNDING: Founding = Founding { nodes: 1, ranges: 1, replicas: 1 };

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

async fn three(net: &Arc<Net>, dir: &std::path::Path) -> Vec<TestMember> {
    let mut members = Vec::new();
    for me in 1..=3 {
        let dir = dir.join(me.to_string());
        members.push(TestMember::open(net, me, 3, &dir, FOUNDING).await);
    }
    members
}

/// `count` timestamps from whichever member gives them, `not` excepted.
async fn ask_any(members: &[TestMember], not: Option<usize>, count: u32) -> (usize, Timestamp) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        for (i, member) in members.iter().enumerate().filter(|(i, _)| Some(*i) != not) {
            if let Ok(ts) = member.meta.oracle.timestamps(count).await {
                return (i, ts);
            }
        }
        assert!(Instant::now() < deadline, "nobody gives a timestamp");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timestamps_increase_follow_the_clock_and_survive_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = Timestamp::ZERO;
    for _ in 0..3 {
        let net = Arc::new(Net::default());
        let member = TestMember::open(&net, 1, 1, dir.path(), FOUNDING).await;
        eventually("it leads", || member.leads()).await;
        for _ in 0..200 {
            let first = member.meta.oracle.timestamps(10).await.unwrap();
            assert!(first > last, "{first} after {last}");
            last = Timestamp(first.get() + 9);
        }
        assert!(last.physical_ms().abs_diff(now_ms()) < 20_000);
        assert_eq!(member.meta.oracle.skew_secs(), None);
        member.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_requests_share_rounds_and_never_a_timestamp() {
    let dir = tempfile::tempdir().unwrap();
    let net = Arc::new(Net::default());
    let members = three(&net, dir.path()).await;
    let members = Arc::new(members);
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let members = members.clone();
            tokio::spawn(async move {
                let mut taken = Vec::new();
                for _ in 0..50 {
                    let (_, first) = ask_any(&members, None, 3).await;
                    assert!(taken.last().is_none_or(|last| *last < first));
                    taken.extend((0..3).map(|i| Timestamp(first.get() + i)));
                }
                taken
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    let issued = all.len();
    all.sort();
    all.dedup();
    assert_eq!((all.len(), issued), (2400, 2400));
    for member in Arc::into_inner(members).unwrap() {
        member.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_cut_off_issues_nothing_and_the_next_issues_higher() {
    let dir = tempfile::tempdir().unwrap();
    let net = Arc::new(Net::default());
    let members = three(&net, dir.path()).await;
    let mut last = Timestamp::ZERO;
    for _ in 0..3 {
        let (leader, first) = ask_any(&members, None, 1).await;
        assert!(first > last);
        net.set_cut(members[leader].meta.me, true);
        let (_, second) = ask_any(&members, Some(leader), 1).await;
        assert!(second > first);
        let refused = members[leader].meta.oracle.timestamps(1).await.unwrap_err();
        assert!(matches!(refused, Refusal::NotLeader(_) | Refusal::Unavailable(_)));
        net.set_cut(members[leader].meta.me, false);
        last = second;
    }
    for member in members {
        member.close().await;
    }
}

/// What a leader that stood still after its round, and was deposed meanwhile, says to whom it had
/// covered, and to somebody who asks after its successor has answered; and what that one answered.
async fn ask_beside_a_successor(
    without_rounds: bool,
) -> (Result<Timestamp, Refusal>, Timestamp, Result<Timestamp, Refusal>) {
    let dir = tempfile::tempdir().unwrap();
    let net = Arc::new(Net::default());
    let members = three(&net, dir.path()).await;
    let (leader, before) = ask_any(&members, None, 1).await;
    let old = members[leader].meta.oracle.clone();
    let faults = &old.shared.faults;
    faults.skip_confirm.store(without_rounds.into(), Ordering::Relaxed);
    faults.pause_after_confirm_ms.store(2_000, Ordering::Relaxed);
    let asking = old.clone();
    let covered = tokio::spawn(async move { asking.timestamps(1).await });
    // Its round is over by then: nobody was cut off.
    tokio::time::sleep(Duration::from_millis(500)).await;
    net.set_cut(members[leader].meta.me, true);
    let (_, successor) = ask_any(&members, Some(leader), 1).await;
    faults.pause_after_confirm_ms.store(0, Ordering::Relaxed);
    let late = old.timestamps(1).await;
    let covered = covered.await.unwrap();
    assert!(successor > before);
    drop(old);
    for member in members {
        member.close().await;
    }
    (covered, successor, late)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_pauses_after_its_round_answers_what_it_covers_and_nothing_later() {
    let (covered, successor, late) = ask_beside_a_successor(false).await;
    // It asked before the successor answered: either order is right, the same timestamp is not.
    assert!(covered.is_ok_and(|ts| ts < successor), "its window is its own");
    assert!(matches!(late, Err(Refusal::NotLeader(_) | Refusal::Unavailable(_))), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_round_a_deposed_leader_answers_with_the_past() {
    let (_, successor, late) = ask_beside_a_successor(true).await;
    assert!(late.unwrap() < successor);
}
