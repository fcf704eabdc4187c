//! A node's data directory was copied, and both are started: one of them is the node at any time, the other
//! ends with an ERROR, and whichever is left can be started again.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

#[path = "common/beside.rs"]
mod beside;
mod common;
#[path = "common/load.rs"]
mod load;

use beside::{Beside, copy, start_beside};
use common::{client, eventually, replicas_are_equal};
use isotherm_client::Client;
use isotherm_testkit::{ClusterOptions, Member, ProcessCluster, alarms_in};
use load::{Load, counted};
use std::path::Path;
use std::time::{Duration, Instant};

/// The node whose directory is copied.
const MEMBER: Member = Member::Node(1);
/// From the start of one to the end of the other.
const NOTICED: Duration = Duration::from_secs(20);

/// So many increments more are acknowledged.
async fn passes(load: &Load, more: u64) {
    let until = load.done() + more;
    eventually(Duration::from_secs(60), async || match load.done() {
        done if done >= until => Ok(()),
        done => Err(format!("{done} of {until}")),
    })
    .await;
}

/// All three nodes are there, with all of their replicas.
async fn is_healthy(client: &Client) {
    eventually(Duration::from_secs(120), async || {
        let status = client.admin().status().await.map_err(|e| e.to_string())?;
        let up = status.nodes.iter().filter(|node| node.state == "up").count();
        if up == 3 && status.problems.is_empty() { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

/// The last lines of a process that ended because another one has taken its place.
#[track_caller]
fn says_why(log: &Path) {
    let alarms = alarms_in(log).unwrap();
    let is_said = alarms.iter().any(|alarm| alarm.line.contains("was started again as"));
    assert!(is_said, "{alarms:?}");
}

/// Waits until the original has ended by itself.
async fn original_ends(cluster: &mut ProcessCluster) {
    let begun = Instant::now();
    let ended = cluster.process_mut(MEMBER).wait_ended(NOTICED).await.unwrap();
    assert_eq!(ended.and_then(|status| status.code()), Some(8), "no zombie, and no crash");
    println!("the original ended {:?} after the copy was started", begun.elapsed());
    says_why(cluster.process(MEMBER).log());
}

/// Waits until the copy has ended by itself.
async fn copy_ends(copied: &mut Beside) {
    let deadline = Instant::now() + NOTICED;
    let status = loop {
        match copied.child.try_wait().unwrap() {
            Some(status) => break status,
            None => assert!(Instant::now() < deadline, "the copy runs beside the original"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(status.code(), Some(8));
    says_why(&copied.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_node_and_its_copy_one_runs_and_nothing_acknowledged_is_lost() {
    let options = ClusterOptions { ranges: 4, ..ClusterOptions::default() };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let client = client(&cluster);
    let load = Load::increments(&client, 8, 50);
    passes(&load, 500).await;
    let clone = cluster.dir().join("copy");
    cluster.kill(&[MEMBER]).unwrap();
    copy(&cluster.process(MEMBER).spec().data_dir, &clone);
    cluster.start_member(MEMBER).unwrap();
    is_healthy(&client).await;
    // The copy lacks what the original acknowledges from now on.
    passes(&load, 500).await;

    let mut copied = start_beside(&cluster, &clone);
    original_ends(&mut cluster).await;
    passes(&load, 500).await;
    is_healthy(&client).await;

    // A service manager starts the original again: the node is back where it was.
    cluster.start_member(MEMBER).unwrap();
    copy_ends(&mut copied).await;
    passes(&load, 500).await;
    is_healthy(&client).await;

    // The copy once more, and then it is gone for good.
    let copied = start_beside(&cluster, &clone);
    original_ends(&mut cluster).await;
    passes(&load, 500).await;
    is_healthy(&client).await;
    drop(copied);
    passes(&load, 100).await;
    cluster.start_member(MEMBER).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    is_healthy(&client).await;
    passes(&load, 500).await;
    let acknowledged = load.finish().await;
    assert_eq!(counted(&client).await, acknowledged);
    replicas_are_equal(&client).await;
    let nodes = client.admin().nodes().await.unwrap();
    let own = cluster.process(MEMBER).spec().listen.to_string();
    assert!(nodes.len() == 3 && nodes.iter().any(|node| node.address == own), "{nodes:?}");
    println!("{acknowledged} increments");
}
