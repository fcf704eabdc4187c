//! Long reads: registered when they need it, renewed, ended when their registration is lost.

use crate::scripted::{Scripted, page, range};
use isotherm_client::{ErrorKind, ScanOptions};
use isotherm_types::{KeyRange, Timestamp};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A span that takes ten pages.
async fn ten_pages() -> Scripted {
    Scripted::start(vec![range(1, "", "", 1)], |_, asked| {
        let start = asked.scan().span.clone().unwrap().start;
        let n = start[0];
        let next = char::from(n + 1).to_string();
        let key = char::from(n).to_string();
        page(77, &key, &next, &[&key])
    })
    .await
}

fn options(at: Option<u64>) -> ScanOptions {
    let span = KeyRange::new("0", ":").unwrap();
    ScanOptions { span, at: at.map(Timestamp), ..ScanOptions::default() }
}

fn registered(cluster: &Scripted) -> Vec<(u64, u64)> {
    cluster.state.holds.lock().unwrap().iter().map(|h| (h.id, h.at)).collect()
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_scan_at_a_given_time_registers_before_its_first_page_and_says_when_it_is_done() {
    let cluster = ten_pages().await;
    let mut scan = cluster.client.scan(options(Some(77)));
    scan.next_page().await.unwrap();
    assert_eq!(registered(&cluster), [(0, 77)]);
    assert_eq!(scan.collect().await.unwrap().len(), 9);
    assert_eq!(registered(&cluster).len(), 1);
    assert_eq!(*cluster.state.released.lock().unwrap(), [5]);
    cluster.state.safe_point.store(78, Ordering::SeqCst);
    let mut late = cluster.client.scan(options(Some(77)));
    assert_eq!(late.next_page().await.unwrap_err().kind, ErrorKind::SnapshotTooOld);
}

#[tokio::test]
async fn a_scan_as_of_now_registers_only_if_it_takes_long() {
    let cluster = ten_pages().await;
    assert_eq!(cluster.client.scan(options(None)).collect().await.unwrap().len(), 10);
    assert!(registered(&cluster).is_empty());
    let mut slow = cluster.client.scan(options(None));
    slow.next_page().await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    slow.next_page().await.unwrap();
    assert_eq!(registered(&cluster), [(0, 77)]);
    drop(slow);
    let released = || !cluster.state.released.lock().unwrap().is_empty();
    eventually("a scan that is dropped releases", released).await;
}

#[tokio::test]
async fn a_scan_that_lost_its_registration_ends() {
    let cluster = ten_pages().await;
    cluster.state.hold_lifetime_ms.store(300, Ordering::SeqCst);
    let mut scan = cluster.client.scan(options(Some(77)));
    scan.next_page().await.unwrap();
    let renewed = || registered(&cluster).iter().filter(|hold| **hold == (5, 77)).count() >= 5;
    eventually("it is renewed under its id", renewed).await;
    scan.next_page().await.unwrap();
    cluster.state.safe_point.store(78, Ordering::SeqCst);
    let told = registered(&cluster).len();
    eventually("the next renewal", || registered(&cluster).len() > told).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let asked = cluster.state.asked().len();
    assert_eq!(scan.next_page().await.unwrap_err().kind, ErrorKind::SnapshotTooOld);
    assert_eq!(cluster.state.asked().len(), asked, "no node was asked");
}

#[tokio::test]
async fn a_registration_that_nobody_renews_runs_out() {
    let cluster = ten_pages().await;
    cluster.state.hold_lifetime_ms.store(300, Ordering::SeqCst);
    let hold = cluster.client.hold(Timestamp(77)).await.unwrap();
    hold.check().unwrap();
    cluster.state.is_meta_silent.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(450)).await;
    assert_eq!(hold.check().unwrap_err().kind, ErrorKind::SnapshotTooOld);
}
