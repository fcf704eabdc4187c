//! Reads at past times while history goes: what can be read is exact, what cannot is refused.
#![allow(clippy::unwrap_used)]

use super::{RangeError, Store, StoreTuning};
use crate::command::WriteOp;
use crate::replica::{Page, PageRead, PointRead};
use crate::testing::{Cluster, put, value};
use isotherm_storage::Garbage;
use isotherm_types::{Key, KeyRange, NodeId, RangeId, Timestamp};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(5);

fn tuning() -> StoreTuning {
    StoreTuning {
        flush_interval: Duration::from_millis(100),
        // Tests collect when they want to.
        collect_interval: Duration::from_secs(3600),
        ..StoreTuning::default()
    }
}

fn delete(key: &str) -> WriteOp {
    WriteOp::Delete { key: key.to_owned().into() }
}

fn page_read(from: &str, at: Timestamp, max_keys: u32) -> PageRead {
    PageRead {
        span: KeyRange::new(from.to_owned(), String::new()).unwrap(),
        at: Some(at),
        max_keys,
        max_bytes: 0,
        reverse: false,
        keys_only: false,
    }
}

/// Both kinds of reads of "k" at `at` by the leader of the one range.
async fn read_at(
    cluster: &Cluster,
    at: Timestamp,
) -> (Result<Option<String>, RangeError>, Result<Page, RangeError>) {
    let range = cluster.locate(b"k");
    let store = cluster.store(cluster.leader(range.id).await).clone();
    let version = range.epoch.version;
    let point = PointRead { key: Key::from_static(b"k"), at: Some(at) };
    let row = store.read(range.id, version, point, WAIT).await;
    let text = |row: isotherm_storage::Row| String::from_utf8(row.value.to_vec()).unwrap();
    let page = store.scan(range.id, version, page_read("", at, 0), WAIT).await;
    (row.map(|row| row.map(text)), page)
}

fn too_old(safe_point: Timestamp) -> RangeError {
    RangeError::SnapshotTooOld { safe_point }
}

/// Has one store drop what it may.
async fn collect(store: &Arc<Store>) {
    let data = store.ctx.data.clone();
    let collect = move || {
        data.flush().unwrap();
        data.collect_history(&KeyRange::all());
        data.collect_tombstones(&KeyRange::all());
    };
    tokio::task::spawn_blocking(collect).await.unwrap();
}

async fn survey(store: &Arc<Store>) -> Garbage {
    let data = store.ctx.data.clone();
    tokio::task::spawn_blocking(move || data.survey(&KeyRange::all()).unwrap()).await.unwrap()
}

async fn until(store: &Arc<Store>, what: &str, condition: impl Fn(Garbage) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let found = survey(store).await;
        if condition(found) {
            return;
        }
        assert!(Instant::now() < deadline, "never: {what}; {found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timestamp_from_the_future_is_refused_and_hides_no_later_write() {
    let cluster = Cluster::start(3, tuning()).await;
    cluster.seed(&[("", "")]).await;
    let first = cluster.write(vec![put("k", "1")]).await.ts;
    let second_ahead = Timestamp::from_physical_ms(first.physical_ms() + 1000);
    for at in [Timestamp(1 << 63), second_ahead] {
        let (row, page) = read_at(&cluster, at).await;
        assert_eq!(row, Err(RangeError::TsTooNew));
        assert_eq!(page, Err(RangeError::TsTooNew));
        let written = cluster.write(vec![put("k", "2")]).await.ts;
        assert!(written < second_ahead, "the read pushed nothing ahead");
        let row = cluster.read("k", None).await.unwrap();
        assert_eq!((&row.value[..], row.ts), (&b"2"[..], written));
        let (row, page) = read_at(&cluster, written).await;
        assert_eq!(row.unwrap().as_deref(), Some("2"));
        assert_eq!(page.unwrap().rows.len(), 1);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_below_the_safe_point_is_refused_also_right_after_a_crash_of_all_nodes() {
    let mut cluster = Cluster::start(3, tuning()).await;
    cluster.seed(&[("", "")]).await;
    let first = cluster.write(vec![put("k", "1")]).await.ts;
    let second = cluster.write(vec![put("k", "2")]).await.ts;
    assert_eq!(read_at(&cluster, first).await.0.unwrap().as_deref(), Some("1"));
    cluster.raise_safe_point(second).await;
    cluster.raise_safe_point(first).await;
    for crashed in [false, true] {
        if crashed {
            for node in 1..=3 {
                cluster.crash_node(node).await;
            }
            for node in 1..=3 {
                cluster.start_node(node).await;
            }
        }
        let (row, page) = read_at(&cluster, first).await;
        assert_eq!(row, Err(too_old(second)), "crashed: {crashed}");
        assert_eq!(page, Err(too_old(second)), "crashed: {crashed}");
        let (row, page) = read_at(&cluster, second).await;
        assert_eq!(row.unwrap().as_deref(), Some("2"), "crashed: {crashed}");
        assert_eq!(page.unwrap().rows.len(), 1, "crashed: {crashed}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_is_exact_up_to_its_timestamp_and_refused_once_that_has_passed() {
    let cluster = Cluster::start(3, tuning()).await;
    cluster.seed(&[("", "")]).await;
    let keys: Vec<String> = (0..40).map(|i| format!("k{i:02}")).collect();
    let all = |text: &str| keys.iter().map(|k| put(k, text)).collect::<Vec<_>>();
    let at = cluster.write(all("old")).await.ts;
    let range = cluster.locate(b"k");
    let store = cluster.store(cluster.leader(range.id).await).clone();
    let mut from = String::new();
    let mut seen = 0;
    for step in 0..4 {
        // Everything that the scan wants is overwritten or deleted, and collected as far as it may.
        cluster.write(all("new")).await;
        cluster.write(keys.iter().map(|k| delete(k)).collect()).await;
        cluster.raise_safe_point(at).await;
        collect(&store).await;
        let read = page_read(&from, at, 10);
        let page = store.scan(range.id, 1, read, WAIT).await.unwrap();
        let expected = &keys[seen..seen + 10];
        let rows: Vec<_> = page.rows.iter().map(|(key, _)| key.to_vec()).collect();
        assert_eq!(rows, expected.iter().map(|k| k.as_bytes()).collect::<Vec<_>>(), "page {step}");
        assert!(page.rows.iter().all(|(_, row)| &row.value[..] == b"old"));
        seen += 10;
        from = format!("{}\0", expected[9]);
    }
    let passed = at.next();
    cluster.raise_safe_point(passed).await;
    let last = store.scan(range.id, 1, page_read(&from, at, 10), WAIT).await;
    assert_eq!(last, Err(too_old(passed)));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_whose_history_goes_while_it_waits_is_refused_and_not_answered_with_less() {
    let cluster = Cluster::start(1, tuning()).await;
    cluster.seed(&[("", "")]).await;
    let store = cluster.store(1).clone();
    for is_page in [true, false] {
        let at = cluster.write(vec![put("k", "1")]).await.ts;
        let later = cluster.write(vec![put("k", "2")]).await.ts;
        // A write whose timestamp does not come: reads at a timestamp wait for it.
        let closed = cluster.oracle.gate.clone().write_owned().await;
        let write = cluster.write(vec![put("other", "x")]);
        let read = async {
            while store.replica(RangeId(1)).unwrap().pending.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if is_page {
                let page = store.scan(RangeId(1), 1, page_read("", at, 0), WAIT).await;
                page.map(|page| page.rows.len())
            } else {
                let point = PointRead { key: Key::from_static(b"k"), at: Some(at) };
                store.read(RangeId(1), 1, point, WAIT).await.map(|row| row.iter().count())
            }
        };
        let meanwhile = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            cluster.raise_safe_point(later).await;
            collect(&store).await;
            drop(closed);
        };
        let (_, outcome, ()) = tokio::join!(write, read, meanwhile);
        assert_eq!(outcome, Err(too_old(later)), "page: {is_page}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_agree_when_only_one_of_them_has_collected() {
    let cluster = Cluster::start(3, tuning()).await;
    cluster.seed(&[("", "")]).await;
    cluster.write((0..50).map(|i| put(&format!("k{i:02}"), "1")).collect()).await;
    cluster.write((0..50).map(|i| put(&format!("k{i:02}"), "2")).collect()).await;
    let last = cluster.write((0..25).map(|i| delete(&format!("k{i:02}"))).collect()).await.ts;
    cluster.assert_replicas_agree("k").await;
    let store = cluster.store(2);
    store.raise_safe_point(last).await.unwrap();
    collect(store).await;
    assert_eq!(survey(store).await.tombstone_bytes, 0);
    assert!(survey(cluster.store(1)).await.tombstone_bytes > 0);
    cluster.assert_replicas_agree("k").await;
    // A key that one of them still has a tombstone of behaves as one that was never there.
    cluster.write(vec![put("k00", "3"), delete("k01"), delete("k30")]).await;
    cluster.assert_replicas_agree("k").await;
    assert_eq!(cluster.keys().await.len(), 25);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_brings_its_safe_point_along() {
    let tuning = StoreTuning {
        flush_interval: Duration::from_millis(50),
        log_retain_bytes: 1 << 10,
        log_retain_node_bytes: 1 << 10,
        ..tuning()
    };
    let mut cluster = Cluster::start(3, tuning).await;
    let range = cluster.seed(&[("", "")]).await[0].id;
    let first = cluster.write(vec![put("k", "1")]).await.ts;
    cluster.crash_node(3).await;
    let second = cluster.write(vec![put("k", "2")]).await.ts;
    cluster.raise_safe_point(second).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    let purged = |node| cluster.store(node).replicas()[0].first_log_index > 20;
    while !purged(1) || !purged(2) {
        let key = Key::from_static(b"z");
        cluster.write(vec![WriteOp::Put { key, value: value(2000) }]).await;
        assert!(Instant::now() < deadline, "{:?}", cluster.store(1).replicas());
    }
    for node in [1, 2] {
        collect(cluster.store(node)).await;
    }
    cluster.start_node(3).await;
    let behind = |cluster: &Cluster| {
        let applied = |node| cluster.store(node).replica(range).map_or(0, |r| r.applied_index());
        applied(3) < applied(1)
    };
    while behind(&cluster) {
        assert!(Instant::now() < deadline, "node 3: {:?}", cluster.store(3).replicas());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(cluster.net.snapshots.load(Ordering::Relaxed) > 0);
    assert_eq!(cluster.store(3).safe_point(), second, "nobody else told it");
    let read = loop {
        let leader = cluster.leader(range).await;
        if leader == 3 {
            let point = PointRead { key: Key::from_static(b"k"), at: Some(first) };
            match cluster.store(3).read(range, 1, point, WAIT).await {
                Err(RangeError::NotLeader { .. } | RangeError::Unavailable(_)) => {}
                read => break read,
            }
        } else {
            // It may have just moved.
            let _ = cluster.store(leader).transfer_leader(range, NodeId(3)).await;
        }
        assert!(Instant::now() < deadline, "node 3 does not lead: {leader}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(read, Err(too_old(second)));
    cluster.crash_node(3).await;
    cluster.start_node(3).await;
    assert_eq!(cluster.store(3).safe_point(), second, "it was synced before the install");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_goes_by_itself_also_what_was_written_before_a_restart() {
    let tuning = StoreTuning {
        collect_interval: Duration::from_millis(50),
        collect_bytes: 16 << 10,
        ..tuning()
    };
    let mut cluster = Cluster::start(3, tuning).await;
    cluster.seed(&[("", "")]).await;
    for restarted in [false, true] {
        for _ in 0..100 {
            // What does not compress: sizes on disk are compared.
            let value = (0..4096).map(|_| fastrand::u8(..)).collect::<Vec<u8>>().into();
            cluster.write(vec![WriteOp::Put { key: Key::from_static(b"k"), value }]).await;
        }
        let keys: Vec<String> = (0..1000).map(|i| format!("d{i:04}")).collect();
        cluster.write(keys.iter().map(|k| put(k, "x")).collect()).await;
        let last = cluster.write(keys.iter().map(|k| delete(k)).collect()).await.ts;
        if restarted {
            for node in 1..=3 {
                cluster.store(node).ctx.data.flush().unwrap();
                cluster.crash_node(node).await;
                cluster.start_node(node).await;
            }
        }
        for (node, store) in cluster.stores() {
            let what = format!("node {node} has garbage, restarted: {restarted}");
            let much = |g: Garbage| g.history_bytes > 300_000 && g.tombstone_bytes > 16_000;
            until(store, &what, much).await;
        }
        cluster.raise_safe_point(last).await;
        for (node, store) in cluster.stores() {
            let what = format!("node {node} has none left, restarted: {restarted}");
            until(store, &what, |g| g.history_bytes < 20_000 && g.tombstone_bytes == 0).await;
        }
    }
    assert_eq!(cluster.keys().await, ["k"]);
    cluster.assert_replicas_agree("k").await;
    cluster.stop().await;
}
