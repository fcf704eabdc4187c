//! What a node holds in memory for its clients is bounded, whatever they do.
#![allow(missing_docs, clippy::unwrap_used)]

#[expect(dead_code, reason = "each test uses a part of what is common")]
mod common;

use common::{client, eventually, ranges};
use isotherm_proto::internal::range_service_client::RangeServiceClient;
use isotherm_proto::internal::{RangeRequest, RangeRequests, ReadPoint, range_request};
use isotherm_testkit::{ClusterOptions, Member, ProcessCluster, http};
use std::time::Duration;

const NODE: Member = Member::Node(0);
const MIB: u64 = 1 << 20;

async fn one_node_with(memory_bytes: u64) -> ProcessCluster {
    let memory = ("ISOTHERM_REQUEST_MEMORY_BYTES".to_owned(), memory_bytes.to_string());
    let options = ClusterOptions {
        nodes: 1,
        replicas: 1,
        ranges: 1,
        env: [memory].into(),
        ..ClusterOptions::default()
    };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    cluster
}

/// The resident memory of the node, in MiB.
fn resident_mib(cluster: &ProcessCluster) -> u64 {
    let pid = cluster.process(NODE).pid().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// The sum of a metric over its labels.
async fn metric(cluster: &ProcessCluster, name: &str) -> Option<f64> {
    let address = cluster.process(NODE).http();
    let (_, text) = http::get(address, "/metrics", Duration::from_secs(2)).await.ok()?;
    let of = |line: &&str| line.split(['{', ' ']).next() == Some(name);
    let values: Vec<f64> =
        text.lines().filter(of).filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    (!values.is_empty()).then(|| values.into_iter().sum())
}

/// The system's allocator keeps what RocksDB's threads leave behind: memory that nothing uses grows for hours.
#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_the_databases_comes_from_the_allocator_of_the_process() {
    let cluster = one_node_with(256 * MIB).await;
    let client = client(&cluster);
    let before = metric(&cluster, "process_allocated_memory_bytes").await.unwrap();
    for n in 0..40 {
        client.put(format!("large/{n}"), vec![7_u8; MIB as usize]).await.unwrap();
    }
    eventually(Duration::from_secs(20), async || {
        let figure = async |name| metric(&cluster, name).await.unwrap_or(0.0) / MIB as f64;
        let database = figure("isotherm_data_memory_bytes").await;
        let allocated = figure("process_allocated_memory_bytes").await - before / MIB as f64;
        let held = figure("process_allocator_memory_bytes").await;
        if database > 30.0 && allocated > 30.0 && held > allocated {
            return Ok(());
        }
        Err(format!("MiB: {database} of the database, {allocated} more allocated, {held} held"))
    })
    .await;
}

/// Thousands of reads of large values, and nobody who takes the answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_no_answers_costs_a_node_no_more_than_its_share() {
    let cluster = one_node_with(64 * MIB).await;
    let client = client(&cluster);
    client.put("large", vec![7_u8; MIB as usize]).await.unwrap();
    let range = ranges(&client).await.remove(0).descriptor;
    let before = resident_mib(&cluster);

    let address = format!("http://{}", cluster.process(NODE).spec().listen);
    let mut raw = RangeServiceClient::connect(address).await.unwrap();
    let read = |id| RangeRequest {
        id,
        range_id: range.id.get(),
        version: range.epoch.version,
        timeout_ms: 20_000,
        body: Some(range_request::Body::Read(ReadPoint {
            key: "large".into(),
            ..ReadPoint::default()
        })),
    };
    let messages = (0..4u64).map(move |n| RangeRequests {
        cluster_id: 0,
        requests: (0..500).map(|i| read(n * 500 + i)).collect(),
    });
    let (sender, requests) = futures::channel::mpsc::unbounded();
    messages.for_each(|message| sender.unbounded_send(message).unwrap());
    let answers = raw.stream(requests).await.unwrap();
    let mut most = 0;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        most = most.max(resident_mib(&cluster).saturating_sub(before));
        assert!(most < 250, "{most} MiB for answers that nobody takes");
    }
    // Others are served.
    client.put("small", "value").await.unwrap();
    assert_eq!(client.get("large").await.unwrap().unwrap().value.len(), MIB as usize);
    // The connection ends only when its requests end too.
    drop((sender, answers, raw));
    eventually(Duration::from_secs(20), async || {
        match metric(&cluster, "isotherm_request_bytes").await {
            Some(bytes) if bytes < 1000.0 => Ok(()),
            bytes => Err(format!("{bytes:?}")),
        }
    })
    .await;
    eprintln!("at most {most} MiB more than before");
}

/// More large writes at once than the node has memory for: the client waits its turn.
#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_memory_of_a_node_are_busy_and_succeed_in_their_turn() {
    let cluster = one_node_with(8 * MIB).await;
    let client = client(&cluster);
    let put = |n: u32| {
        let client = client.clone();
        async move { client.put(format!("k{n}"), vec![7_u8; MIB as usize]).await }
    };
    let written = futures::future::join_all((0..64).map(put)).await;
    assert!(written.iter().all(Result::is_ok), "{written:?}");
    let refused = metric(&cluster, "isotherm_requests_refused_total").await;
    assert!(refused.is_some_and(|n| n > 0.0), "{refused:?}");
    for n in 0..64 {
        let row = client.get(format!("k{n}")).await.unwrap().unwrap();
        assert_eq!(row.value.len(), MIB as usize);
    }
}
