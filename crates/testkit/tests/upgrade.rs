//! A cluster is upgraded process by process under load, goes back, and is upgraded for good.
//!
//! The newer software is the build with the feature `faults`: it supports a cluster version beyond that of a
//! release, which brings a log entry that a release does not know (an order for a checksum).
//! `make negative-controls` builds it and names it by `ISOTHERM_FAULTS_BIN`.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

mod common;
#[path = "common/load.rs"]
mod load;

use common::{client, eventually, replicas_are_equal};
use isotherm_client::{Client, ErrorKind, UpgradeStatus};
use isotherm_testkit::{ClusterOptions, Member, ProcessCluster, isotherm_binary};
use isotherm_types::ClusterVersion;
use load::{Load, counted};
use std::env;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const NOW: ClusterVersion = ClusterVersion::BOUNDED_WRITES;
const NEXT: ClusterVersion = ClusterVersion::REHEARSAL;

async fn stop(cluster: &mut ProcessCluster, member: Member) {
    cluster.process_mut(member).terminate().unwrap();
    cluster.process_mut(member).wait_ended(PATIENCE).await.unwrap();
}

/// Restarts one process with another binary.
async fn restart(cluster: &mut ProcessCluster, member: Member, program: &Path) {
    stop(cluster, member).await;
    cluster.process_mut(member).spec_mut().program = program.to_owned();
    cluster.start_member(member).unwrap();
    cluster.wait_ready(PATIENCE).await.unwrap();
}

/// Waits until every process has said what it supports.
async fn status(client: &Client) -> UpgradeStatus {
    eventually(PATIENCE, async || {
        let status = client.admin().upgrade_status().await.map_err(|e| e.to_string())?;
        if status.blockers.is_empty() { Ok(()) } else { Err(status.blockers.join("; ")) }
    })
    .await;
    client.admin().upgrade_status().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_upgraded_under_load_goes_back_and_is_upgraded_for_good() {
    let Some(newer) = env::var_os("ISOTHERM_FAULTS_BIN") else {
        println!("skipped: ISOTHERM_FAULTS_BIN is not set: NO UPGRADE WAS TESTED");
        return;
    };
    let (older, newer) = (isotherm_binary().unwrap(), Path::new(&newer));
    let options = ClusterOptions { meta_nodes: 3, ranges: 6, ..ClusterOptions::default() };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(PATIENCE).await.unwrap();
    let client = client(&cluster);
    let began = status(&client).await;
    assert_eq!((began.cluster_version, began.supported_by_all), (NOW, NOW));
    let load = Load::increments(&client, 8, 50);

    for member in cluster.members() {
        restart(&mut cluster, member, newer).await;
        let now = status(&client).await;
        assert_eq!(now.cluster_version, NOW, "only the operator raises it");
        let before = load.done();
        let goes_on =
            async || if load.done() > before { Ok(()) } else { Err("no write".to_owned()) };
        eventually(PATIENCE, goes_on).await;
    }
    assert_eq!(status(&client).await.supported_by_all, NEXT);
    replicas_are_equal(&client).await;

    // Back: nothing newer was written.
    for member in [Member::Node(1), Member::Meta(0)] {
        restart(&mut cluster, member, &older).await;
    }
    let back = status(&client).await;
    assert_eq!((back.cluster_version, back.supported_by_all), (NOW, NOW));
    assert_eq!(client.admin().finalize_upgrade().await.unwrap(), NOW, "never past the lowest");
    replicas_are_equal(&client).await;

    for member in [Member::Node(1), Member::Meta(0)] {
        restart(&mut cluster, member, newer).await;
    }
    // A process that has not said what it supports is not overruled.
    for silent in [Member::Node(2), Member::Meta(2)] {
        cluster.kill(&[silent]).unwrap();
        eventually(PATIENCE, async || match client.admin().finalize_upgrade().await {
            Err(error) if error.kind == ErrorKind::Condition => Ok(()),
            // Until it counts as silent, and while meta elects another leader.
            other => Err(format!("{other:?}")),
        })
        .await;
        cluster.start_member(silent).unwrap();
        cluster.wait_ready(PATIENCE).await.unwrap();
    }
    assert_eq!(status(&client).await.cluster_version, NOW);

    eventually(PATIENCE, async || match client.admin().finalize_upgrade().await {
        Ok(NEXT) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let raised = status(&client).await;
    assert_eq!((raised.cluster_version, raised.replicas_behind), (NEXT, 0));
    // By the entry that only the newer software knows.
    replicas_are_equal(&client).await;

    // For good: the older software is refused, and says what to do.
    let node = Member::Node(0);
    stop(&mut cluster, node).await;
    cluster.process_mut(node).spec_mut().program = older.clone();
    cluster.start_member(node).unwrap();
    let ended = cluster.process_mut(node).wait_ended(PATIENCE).await.unwrap();
    assert!(ended.is_some_and(|status| !status.success()), "{ended:?}");
    let log = std::fs::read_to_string(cluster.process(node).log()).unwrap();
    assert!(log.contains("supports 3 at most"), "{}", &log[log.len().saturating_sub(1000)..]);
    cluster.process_mut(node).spec_mut().program = newer.to_owned();
    cluster.start_member(node).unwrap();
    cluster.wait_ready(PATIENCE).await.unwrap();

    let acknowledged = load.finish().await;
    assert_eq!(counted(&client).await, acknowledged, "nothing lost, nothing twice");
    replicas_are_equal(&client).await;
}
