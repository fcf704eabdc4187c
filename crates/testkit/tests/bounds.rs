//! What a small request can make a cluster produce is bounded: on real processes, through every door.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

mod common;

use common::{client, replicas_are_equal};
use isotherm_client::{ErrorKind, Write as ClientWrite, WriteResult};
use isotherm_proto::v1::kv_client::KvClient;
use isotherm_proto::v1::{BatchRequest, BatchWrite, CompareAndSetWrite, PutRequest, batch_write};
use isotherm_testkit::{ClusterOptions, Member, ProcessCluster, isotherm_binary};
use std::process::Command;
use std::time::Duration;
use tonic::Code;

const MIB: usize = 1 << 20;
/// How much larger a process may become, at its peak.
const GROWTH_MIB_MAX: u64 = 300;

/// The peak of a process's memory since it was last reset, in MiB.
fn peak_mib(cluster: &ProcessCluster, node: Member) -> u64 {
    let pid = cluster.process(node).pid().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

fn reset_peak(cluster: &ProcessCluster, node: Member) {
    let pid = cluster.process(node).pid().unwrap();
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}

/// 24 kB of request that 16 GiB could answer: refused through the client and through the public API,
/// in the same words, and no process notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_batch_with_large_answers_is_refused_and_costs_nothing() {
    let options = ClusterOptions { ranges: 4, ..ClusterOptions::default() };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let client = client(&cluster);
    // Every range is at the version whose rules bound it.
    common::eventually(Duration::from_secs(30), async || {
        let status = client.admin().upgrade_status().await.map_err(|e| e.to_string())?;
        let raised = status.cluster_version.0 >= 3 && status.replicas_behind == 0;
        if raised && status.blockers.is_empty() { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    client.put("large", vec![b'x'; MIB]).await.unwrap();
    let nodes = cluster.nodes();
    nodes.iter().for_each(|node| reset_peak(&cluster, *node));
    let before: Vec<u64> = nodes.iter().map(|node| peak_mib(&cluster, *node)).collect();

    let address = format!("http://{}", cluster.process(nodes[0]).spec().listen);
    let mut kv = KvClient::connect(address).await.unwrap();
    for count in [5, 17, 1_500, 16_384] {
        let lost = || ClientWrite::Cas {
            key: "large".into(),
            expected: Some("no".into()),
            value: "new".into(),
        };
        let refused = client.batch((0..count).map(|_| lost()).collect()).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::TooLarge, "{count}: {refused}");
        assert!(refused.message.contains("send fewer"), "{refused}");
        let lost = CompareAndSetWrite {
            key: "large".into(),
            expected: Some("no".into()),
            value: Some("new".into()),
        };
        let write = BatchWrite { kind: Some(batch_write::Kind::CompareAndSet(lost)) };
        for request_id in [vec![], vec![count as u8; 16]] {
            let writes = vec![write.clone(); count];
            let request_id = request_id.into();
            let request = BatchRequest { writes, request_id, request_since: None };
            let refused = kv.batch(request).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{count}: {refused}");
            assert!(refused.message().contains("send fewer"), "{refused}");
        }
        // The shared stream of this client still works, and a lost condition is answered alone.
        let lost = client.cas("large", Some("no".into()), "new").await.unwrap();
        assert_eq!((lost.applied, lost.current.unwrap().len()), (false, MIB));
    }
    // Two hundred that are answered, each with the whole value: remembered is only that they were lost.
    for _ in 0..200 {
        client.cas("large", Some("no".into()), "new").await.unwrap();
    }
    let put = PutRequest { key: "after".into(), value: "v".into(), ..PutRequest::default() };
    kv.put(put).await.unwrap();
    replicas_are_equal(&client).await;
    for (node, before) in nodes.iter().zip(before) {
        let grown = peak_mib(&cluster, *node).saturating_sub(before);
        println!("{node}: {before} MiB before, {grown} MiB more at the peak");
        assert!(grown < GROWTH_MIB_MAX, "{node} grew by {grown} MiB");
    }
    assert!(cluster.ended().unwrap().is_empty());
}

/// What is removed by prefix is removed however large its values are: in smaller batches.
#[tokio::test(flavor = "multi_thread")]
async fn many_large_values_are_removed_and_overwritten_in_pieces() {
    let options = ClusterOptions { ranges: 1, ..ClusterOptions::default() };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let client = client(&cluster);
    common::eventually(Duration::from_secs(30), async || {
        let status = client.admin().upgrade_status().await.map_err(|e| e.to_string())?;
        if status.replicas_behind == 0 { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    let keys: Vec<String> = (0..36).map(|n| format!("big/{n:03}")).collect();
    for key in &keys {
        client.put(key.clone(), vec![b'x'; MIB]).await.unwrap();
    }
    let small =
        || keys.iter().map(|key| ClientWrite::put(key.clone(), "small")).collect::<Vec<_>>();
    let refused = client.batch(small()).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::TooLarge, "{refused}");
    assert_eq!(client.get("big/000").await.unwrap().unwrap().value.len(), MIB, "all or nothing");
    let written = client.write_all(small()).await.unwrap();
    assert!(written.iter().all(|result| matches!(result, WriteResult::Put { .. })));
    for key in &keys {
        client.put(key.clone(), vec![b'y'; MIB]).await.unwrap();
    }
    let mut delete = Command::new(isotherm_binary().unwrap());
    delete.args(["delete", "--prefix", "big/", "--yes", "-o", "json"]);
    delete.env("ISOTHERM_META", cluster.meta_addresses().join(","));
    let deleted = tokio::task::spawn_blocking(move || delete.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&deleted.stdout).into_owned();
    assert!(deleted.status.success() && said.contains("\"deleted\":36"), "{deleted:?}");
    replicas_are_equal(&client).await;
}
