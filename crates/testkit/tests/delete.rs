//! `isotherm delete` of a span removes what was there when it began.
#![allow(missing_docs, clippy::unwrap_used)]

use isotherm_client::{Client, ClientOptions, ScanOptions, Write};
use isotherm_testkit::{ClusterOptions, ProcessCluster, isotherm_binary};
use isotherm_types::KeyRange;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_after_a_delete_began_stays() {
    const KEYS: usize = 60_000;
    const REWRITTEN: usize = 400;
    let mut cluster = ProcessCluster::start(&ClusterOptions::default()).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let meta = cluster.meta_addresses();
    let client = Client::connect(ClientOptions { meta, ..ClientOptions::default() }).unwrap();
    let key = |n: usize| format!("p/{n:06}");
    for n in (0..KEYS).step_by(10_000) {
        let writes = (n..n + 10_000).map(|n| Write::put(key(n), "old"));
        client.batch(writes.collect()).await.unwrap();
    }
    let mut delete = Command::new(isotherm_binary().unwrap())
        .args(["--meta", &cluster.meta_addresses().join(","), "delete", "--prefix", "p/", "--yes"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while client.get(key(0)).await.unwrap().is_some() {
        assert!(Instant::now() < until, "it removes nothing");
    }
    // It has begun, and these are far away.
    let rewritten = KEYS - REWRITTEN..KEYS;
    let writes = rewritten.clone().map(|n| Write::put(key(n), "new"));
    client.batch(writes.collect()).await.unwrap();
    assert!(delete.try_wait().unwrap().is_none(), "it ended before the keys were written");
    let done = delete.wait_with_output().unwrap();
    assert!(done.status.success());
    let span = KeyRange::prefix(b"p/");
    let left = client.scan(ScanOptions { span, ..ScanOptions::default() }).collect().await.unwrap();
    let left: Vec<_> = left.into_iter().map(|(key, row)| (key, row.value)).collect();
    let expected: Vec<_> = rewritten.map(|n| (key(n).into(), "new".into())).collect();
    assert_eq!(left.len(), REWRITTEN);
    assert_eq!(left, expected);
}
