//! A node whose ranges are all hot, with keys as long as they may be: what it reports of them does not
//! fit into one message.
#![allow(missing_docs, clippy::unwrap_used)]

use isotherm_client::{Client, ClientOptions, RangeLocation};
use isotherm_testkit::{ClusterOptions, ProcessCluster};
use isotherm_types::KeyRange;
use isotherm_types::limits::KEY_BYTES_MAX;
use std::time::{Duration, Instant};

/// 256 keys of 4 KiB of each are more than the 16 MiB that a message may have.
const RANGES: usize = 24;
const WRITERS: usize = 96;

async fn ranges(client: &Client) -> Vec<RangeLocation> {
    client.admin().ranges(&KeyRange::all()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_node_with_long_keys_stays_up() {
    let options =
        ClusterOptions { nodes: 1, replicas: 1, ranges: RANGES, ..ClusterOptions::default() };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let meta = cluster.meta_addresses();
    let client = Client::connect(ClientOptions { meta, ..ClientOptions::default() }).unwrap();
    // Where it is hot nothing else is to happen.
    client.admin().set_setting("scheduler.enabled", "false").await.unwrap();
    let starts: Vec<_> =
        ranges(&client).await.iter().map(|r| r.descriptor.span.start().to_vec()).collect();
    assert_eq!(starts.len(), RANGES);
    let until = Instant::now() + Duration::from_secs(15);
    let writers = (0..WRITERS).map(|n| {
        let (client, start) = (client.clone(), starts[n % RANGES].clone());
        tokio::spawn(async move {
            let mut written = 0u64;
            while Instant::now() < until {
                let mut key = start.clone();
                key.extend_from_slice(format!("{:016x}", fastrand::u64(..)).as_bytes());
                key.resize(KEY_BYTES_MAX, b'k');
                client.put(key, "v").await.unwrap();
                written += 1;
            }
            written
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut longest = Duration::ZERO;
    let mut warm = 0;
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let node = client.admin().nodes().await.unwrap().remove(0);
        longest = longest.max(node.last_heartbeat);
        let hot = ranges(&client).await.iter().filter(|r| r.load.fast.cores > 0.04).count();
        warm = warm.max(hot);
    }
    let mut written = 0;
    for writer in writers {
        written += writer.await.unwrap();
    }
    eprintln!("{written} writes, {warm} warm ranges at once; longest silence {longest:?}");
    assert!(longest < Duration::from_secs(3), "it looked dead: silent for {longest:?}");
}
