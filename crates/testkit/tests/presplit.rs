//! A cluster right after `import --presplit`: well, evenly led, with sizes that are true.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use isotherm_testkit::{ClusterOptions, ProcessCluster, isotherm_binary};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_presplit_import_leaves_a_cluster_that_is_well_and_even() {
    let options = ClusterOptions { ranges: 1, ..ClusterOptions::default() };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let meta = cluster.meta_addresses().join(",");
    let run = |args: &[&str]| -> Output {
        let mut command = Command::new(isotherm_binary().unwrap());
        command.args(args).env("ISOTHERM_META", &meta).env_remove("ISOTHERM_OUTPUT");
        command.output().unwrap()
    };
    let file = cluster.dir().join("rows.tsv");
    let value = "v".repeat(200);
    let rows: String = (0..20_000).map(|i| format!("row/{i:06}\t{value}\n")).collect();
    std::fs::write(&file, &rows).unwrap();
    let is_done = AtomicBool::new(false);
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            // A monitor looks all the time, and for a while after it.
            let monitor = scope.spawn(|| {
                let (mut looks, mut until) = (0, None);
                while until.is_none_or(|until| Instant::now() < until) {
                    let status = run(&["status", "-o", "json"]);
                    let said = String::from_utf8_lossy(&status.stdout).into_owned();
                    assert_eq!(status.status.code(), Some(0), "after {looks} looks: {said}");
                    looks += 1;
                    if is_done.load(Ordering::Relaxed) {
                        until.get_or_insert_with(|| Instant::now() + Duration::from_secs(3));
                    }
                }
                looks
            });
            let imported = run(&["import", file.to_str().unwrap(), "--presplit", "12"]);
            is_done.store(true, Ordering::Relaxed);
            assert!(imported.status.success(), "{imported:?}");
            println!("{} looks found the cluster healthy", monitor.join().unwrap());
        });
    });
    let ranges = || -> Vec<Value> {
        serde_json::from_slice(&run(&["range", "list", "-o", "json"]).stdout).unwrap()
    };
    let mut leaders: BTreeMap<u64, usize> = BTreeMap::new();
    let found = ranges();
    for range in &found {
        *leaders.entry(range["leader"].as_u64().unwrap_or(0)).or_default() += 1;
    }
    assert_eq!(found.len(), 12);
    // The load may have moved one or two since.
    assert!(leaders.len() == 3 && leaders.values().all(|n| (2..=6).contains(n)), "{leaders:?}");
    // Long before the first flush.
    let deadline = Instant::now() + Duration::from_secs(4);
    let sizes = loop {
        let sizes: Vec<_> = ranges().iter().map(|r| r["size"].as_u64().unwrap()).collect();
        if sizes.iter().all(|size| *size > 100_000) {
            break sizes;
        }
        assert!(Instant::now() < deadline, "{sizes:?} of {} bytes", rows.len());
        std::thread::sleep(Duration::from_millis(200));
    };
    let (all, wanted) = (sizes.iter().sum::<u64>() as f64, rows.len() as f64);
    println!("{sizes:?}: {all} of {wanted} bytes");
    assert!(all > 0.7 * wanted && all < 2.0 * wanted, "{all} bytes for {wanted}");
    // Words for one and for many.
    let explained = run(&["aggregate", "--explain", "-o", "table", "--prefix", "row/000001"]);
    let said = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(said.contains("1 range on 1 node,"), "{said}");
}
