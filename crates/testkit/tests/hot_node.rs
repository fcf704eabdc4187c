//! A node whose ranges are all hot, with keys as long as they may be: what it reports of them does not
//! fit into one message.
#![allow(missing_docs, clippy::unwrap_used)]

use isotherm_client::{Client, ClientOptions, RangeLocation, Write};
use isotherm_testkit::{ClusterOptions, ProcessCluster};
use isotherm_types::KeyRange;
use isotherm_types::limits::KEY_BYTES_MAX;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// 256 keys of 4 KiB of each are more than the 16 MiB that a message may have.
const RANGES: usize = 18;
const WARM_ENOUGH: usize = 17;
const CLIENTS: usize = 6;
const WRITERS: usize = 72;
/// Keys of one write: for the node they are more work than for the client.
const KEYS: usize = 4;
/// Reads wait for no disk: they take all of the processor that they get.
const READERS: usize = 72;
/// How long it stays hot at least, and how long it may take to get there.
const HOT_FOR: Duration = Duration::from_secs(10);
const HOT_WITHIN: Duration = Duration::from_secs(90);
/// For this process and the node: other work on the machine must not keep the node from getting hot.
const NICER_THAN_OTHERS: i32 = -15;

async fn ranges(client: &Client) -> Vec<RangeLocation> {
    client.admin().ranges(&KeyRange::all()).await.unwrap()
}

#[test]
fn a_hot_node_with_long_keys_stays_up() {
    // Before there is another thread: those, and processes, begin with the priority of who starts them.
    if let Err(error) = rustix::process::nice(NICER_THAN_OTHERS) {
        eprintln!(
            "beside other work on this machine this test may fail: its priority stays: {error}"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(a_hot_node_with_long_keys());
}

async fn a_hot_node_with_long_keys() {
    let options =
        ClusterOptions { nodes: 1, replicas: 1, ranges: RANGES, ..ClusterOptions::default() };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let meta = cluster.meta_addresses();
    let connect =
        || Client::connect(ClientOptions { meta: meta.clone(), ..ClientOptions::default() });
    let client = connect().unwrap();
    // What one client sends to a node is taken in by one task there.
    let clients: Vec<_> = (0..CLIENTS).map(|_| connect().unwrap()).collect();
    // Where it is hot nothing else is to happen.
    client.admin().set_setting("scheduler.enabled", "false").await.unwrap();
    let starts: Vec<_> =
        ranges(&client).await.iter().map(|r| r.descriptor.span.start().to_vec()).collect();
    assert_eq!(starts.len(), RANGES);
    let is_over = Arc::new(AtomicBool::new(false));
    let users = (0..WRITERS + READERS).map(|n| {
        let (client, start) = (clients[n % CLIENTS].clone(), starts[n % RANGES].clone());
        let is_over = is_over.clone();
        tokio::spawn(async move {
            let mut done = 0u64;
            let key = || {
                let mut key = start.clone();
                key.extend_from_slice(&fastrand::u64(..).to_be_bytes());
                key.resize(KEY_BYTES_MAX, b'k');
                key
            };
            while !is_over.load(Ordering::Relaxed) {
                if n < WRITERS {
                    let puts = (0..KEYS).map(|_| Write::put(key(), "v")).collect();
                    client.batch(puts).await.unwrap();
                } else {
                    assert_eq!(client.get(key()).await.unwrap(), None);
                }
                done += 1;
            }
            done
        })
    });
    let users: Vec<_> = users.collect();
    let (begun, mut longest, mut warm) = (Instant::now(), Duration::ZERO, 0);
    let mut hot_since = None;
    while hot_since.is_none_or(|since: Instant| since.elapsed() < HOT_FOR)
        && begun.elapsed() < HOT_WITHIN
    {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let node = client.admin().nodes().await.unwrap().remove(0);
        longest = longest.max(node.last_heartbeat);
        let hot = ranges(&client).await.iter().filter(|r| r.load.fast.cores > 0.04).count();
        warm = warm.max(hot);
        if hot >= WARM_ENOUGH {
            hot_since.get_or_insert_with(Instant::now);
        }
    }
    is_over.store(true, Ordering::Relaxed);
    let mut done = 0;
    for user in users {
        done += user.await.unwrap();
    }
    eprintln!("{done} operations, {warm} warm ranges at once; longest silence {longest:?}");
    assert!(longest < Duration::from_secs(3), "it looked dead: silent for {longest:?}");
    if warm < WARM_ENOUGH {
        isotherm_testkit::skip(&format!(
            "only {warm} ranges were warm at once, whose keys fit into a message anyway: this machine has other \
             work to do"
        ));
    }
}
