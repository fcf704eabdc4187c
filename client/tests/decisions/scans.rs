//! Scans: all pages at one timestamp, and an exact tiling of what was asked.

use crate::scripted::{Reply, Scripted, epoch_mismatch, page, range};
use isotherm_client::{ErrorKind, ScanOptions};
use isotherm_types::{KeyRange, Timestamp};

fn options(start: &str, end: &str) -> ScanOptions {
    let span = KeyRange::new(start.to_owned(), end.to_owned()).unwrap();
    ScanOptions { span, ..ScanOptions::default() }
}

#[tokio::test]
async fn after_a_split_only_what_is_left_is_asked_again_at_the_same_timestamp() {
    let cluster = Scripted::start(vec![range(1, "", "", 1)], |n, _| match n {
        0 => page(77, "b", "d", &["b", "c"]),
        1 => epoch_mismatch(vec![range(1, "", "m", 2), range(2, "m", "", 2)]),
        2 => Reply::HangUp,
        3 => page(77, "d", "m", &["e"]),
        _ => page(77, "m", "y", &["x"]),
    })
    .await;
    let rows = cluster.client.scan(options("b", "y")).collect().await.unwrap();
    let keys: Vec<_> = rows.iter().map(|(key, _)| key.as_ref()).collect();
    assert_eq!(keys, [&b"b"[..], b"c", b"e", b"x"]);
    let asked: Vec<_> = cluster.state.asked();
    let asked: Vec<_> = asked
        .iter()
        .map(|a| (a.range, a.scan().at, a.scan().span.clone().unwrap().start))
        .map(|(range, at, start)| (range, at, String::from_utf8_lossy(&start).into_owned()))
        .collect();
    let expected = [(1, 0, "b"), (1, 77, "d"), (1, 77, "d"), (1, 77, "d"), (2, 77, "m")];
    assert_eq!(asked, expected.map(|(range, at, start)| (range, at, start.to_owned())));
}

#[tokio::test]
async fn a_page_that_does_not_fit_is_refused() {
    let odd: [fn() -> Reply; 4] = [
        || page(77, "c", "y", &["x"]),
        || page(77, "b", "z", &["x"]),
        || page(78, "b", "y", &["x"]),
        || page(77, "b", "d", &["x"]),
    ];
    for odd in odd {
        let cluster = Scripted::start(vec![range(1, "", "", 1)], move |_, _| odd()).await;
        let at = Some(Timestamp(77));
        let mut scan = cluster.client.scan(ScanOptions { at, ..options("b", "y") });
        assert_eq!(scan.next_page().await.unwrap_err().kind, ErrorKind::Internal);
    }
}

#[tokio::test]
async fn a_scan_at_zero_is_refused_and_not_read_as_of_now() {
    let cluster = Scripted::start(vec![range(1, "", "", 1)], |_, _| page(77, "b", "y", &[])).await;
    let at = Some(Timestamp::ZERO);
    let mut scan = cluster.client.scan(ScanOptions { at, ..options("b", "y") });
    assert_eq!(scan.next_page().await.unwrap_err().kind, ErrorKind::SnapshotTooOld);
}

#[tokio::test]
async fn a_limit_ends_a_scan() {
    let cluster = Scripted::start(vec![range(1, "", "", 1)], |n, asked| {
        assert_eq!(asked.scan().max_keys, 3 - 2 * n as u32);
        if n == 0 { page(77, "b", "d", &["b", "c"]) } else { page(77, "d", "e\0", &["e"]) }
    })
    .await;
    let limited = ScanOptions { limit: Some(3), ..options("b", "y") };
    assert_eq!(cluster.client.scan(limited).collect().await.unwrap().len(), 3);
    assert_eq!(cluster.state.asked().len(), 2);
}

#[tokio::test]
async fn a_scan_downwards_begins_at_the_end_however_many_ranges_there_are() {
    let cut = |i: u64| if i == 0 || i == 1000 { String::new() } else { format!("{i:03}") };
    let ranges = (0..1000).map(|i| range(i + 1, &cut(i), &cut(i + 1), 1)).collect();
    let cluster = Scripted::start(ranges, |_, asked| match asked.range {
        1000 => page(77, "999", "", &["999x"]),
        500 => page(77, "499", "4995", &["4991"]),
        other => panic!("range {other} was asked"),
    })
    .await;
    let downwards = |start, end| {
        let options = ScanOptions { reverse: true, ..options(start, end) };
        cluster.client.scan(options).collect()
    };
    assert_eq!(downwards("999", "").await.unwrap().len(), 1);
    assert_eq!(downwards("499", "4995").await.unwrap().len(), 1);
}
