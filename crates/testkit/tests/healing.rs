//! What a cluster does by itself: hot ranges spread, lost replicas come back, nodes leave.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;
#[path = "common/load.rs"]
mod load;

use common::{client, eventually, ranges, replicas_are_equal};
use isotherm_client::{NodeStatus, RangeLocation};
use isotherm_testkit::{ClusterOptions, ProcessCluster};
use isotherm_types::NodeId;
use load::{Load, counted};
use std::collections::BTreeSet;
use std::time::Duration;

fn find(nodes: &[NodeStatus], id: NodeId) -> &NodeStatus {
    nodes.iter().find(|n| n.id == id).unwrap()
}

/// A node is emptied and leaves, another dies: nobody notices, and all replicas are there again.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_leave_in_peace_and_by_force_and_every_range_keeps_three_replicas() {
    let options = ClusterOptions { nodes: 5, ranges: 6, ..ClusterOptions::default() };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let client = client(&cluster);
    let load = Load::increments(&client, 8, 50);
    // Which process is which node: by where it serves.
    let nodes = client.admin().nodes().await.unwrap();
    let member_of = |id: NodeId| {
        let address = &find(&nodes, id).address;
        let is_there = |m: &isotherm_testkit::Member| {
            cluster.process(*m).spec().listen.to_string() == *address
        };
        cluster.nodes().into_iter().find(is_there).unwrap()
    };
    let all: Vec<NodeId> = nodes.iter().map(|n| n.id).collect();
    let (leaving, dying) = (all[0], all[1]);
    let (leaving_member, dying_member) = (member_of(leaving), member_of(dying));

    client.admin().set_intent(leaving, "draining").await.unwrap();
    eventually(Duration::from_secs(20), async || {
        let led = ranges(&client).await.iter().filter(|r| r.leader == Some(leaving)).count();
        if led == 0 { Ok(()) } else { Err(format!("{led} ranges are led by {leaving}")) }
    })
    .await;
    client.admin().set_intent(leaving, "decommissioning").await.unwrap();
    eventually(Duration::from_secs(60), async || {
        let nodes = client.admin().nodes().await.unwrap();
        let state = find(&nodes, leaving).state.clone();
        if state == "decommissioned" { Ok(()) } else { Err(state) }
    })
    .await;
    assert!(ranges(&client).await.iter().all(|r| r.descriptor.replica_on(leaving).is_none()));
    let error = client.admin().set_intent(leaving, "active").await.unwrap_err();
    assert!(error.message.contains("for good"), "{error}");

    // Its process ends, and its disk is refused for ever.
    cluster.kill(&[leaving_member]).unwrap();
    cluster.start_member(leaving_member).unwrap();
    let process = cluster.process_mut(leaving_member);
    let ended = process.wait_ended(Duration::from_secs(20)).await.unwrap();
    assert_eq!(ended.and_then(|status| status.code()), Some(8));
    let log = isotherm_testkit::tail(process.log(), 5);
    assert!(log.contains("decommissioned"), "{log}");

    // One of four dies and does not come back.
    client.admin().set_setting("replica.dead_after", "2s").await.unwrap();
    cluster.kill(&[dying_member]).unwrap();
    eventually(Duration::from_secs(90), async || {
        let ranges = ranges(&client).await;
        let ill = ranges.iter().filter(|r| {
            let on_dead = r.descriptor.replica_on(dying).is_some();
            on_dead || r.live_replicas.len() != 3 || r.descriptor.replicas.len() != 3
        });
        let ill: Vec<_> = ill.map(|r| r.descriptor.id.to_string()).collect();
        if ill.is_empty() { Ok(()) } else { Err(format!("ill: {}", ill.join(", "))) }
    })
    .await;
    let acknowledged = load.finish().await;
    assert!(acknowledged > 500, "{acknowledged}");
    assert_eq!(counted(&client).await, acknowledged, "nothing lost, nothing twice");
    replicas_are_equal(&client).await;
}

/// Heat on one range spreads over all nodes within seconds, and why is said; when it is cold again its
/// pieces become one.
#[tokio::test(flavor = "multi_thread")]
async fn a_hot_range_is_cut_and_its_pieces_are_led_by_all_nodes_until_they_are_cold() {
    let options = ClusterOptions { ranges: 1, ..ClusterOptions::default() };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let client = client(&cluster);
    // So low that a machine that is busy with other tests reaches it too.
    client.admin().set_setting("split.hot_cores", "0.02").await.unwrap();
    let first = ranges(&client).await[0].descriptor.id;
    let load = Load::increments(&client, 64, 50);
    eventually(Duration::from_secs(60), async || {
        let ranges = ranges(&client).await;
        let leaders: BTreeSet<_> = ranges.iter().filter_map(|r| r.leader).collect();
        if ranges.len() >= 3 && leaders.len() == 3 {
            return Ok(());
        }
        Err(format!("{} ranges, led by {leaders:?}", ranges.len()))
    })
    .await;
    let explained = client.admin().explain(first).await.unwrap();
    let cut = explained.decisions.iter().find(|d| d.rule == "Split" && d.action.is_some());
    assert!(cut.is_some_and(|d| d.reason.contains("hot")), "{explained:?}");
    let hot = client.admin().hot(0).await.unwrap();
    assert!(!hot.is_empty() && hot.iter().any(|r| !r.load.keys.is_empty()), "{hot:?}");
    let reached = load.done();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(load.done() > reached, "the load goes on");
    let acknowledged = load.finish().await;
    assert_eq!(counted(&client).await, acknowledged, "nothing lost, nothing twice");

    client.admin().set_setting("merge.after", "3s").await.unwrap();
    eventually(Duration::from_secs(60), async || match ranges(&client).await.len() {
        1 => Ok(()),
        pieces => Err(format!("{pieces} ranges")),
    })
    .await;
    assert_eq!(counted(&client).await, acknowledged, "as before");
    let operations = client.admin().operations().await.unwrap();
    let merges: Vec<_> = operations.iter().filter(|o| o.kind == "merge").collect();
    assert!(merges.len() >= 2 && merges.iter().any(|o| o.state == "done"), "{merges:?}");
    client.incr("z/after", 1).await.unwrap();
    replicas_are_equal(&client).await;
}

/// Replicas spread over zones by themselves, numbers do not undo it, and why is said.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_spread_over_zones_and_stay_so_although_numbers_are_uneven() {
    let mut options = ClusterOptions { nodes: 4, ranges: 8, ..ClusterOptions::default() };
    for (n, zone) in ["a", "b", "c", "c"].into_iter().enumerate() {
        let label = ["--label".into(), format!("zone={zone}").into()];
        options.member_args.insert(isotherm_testkit::Member::Node(n), label.into());
    }
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let client = client(&cluster);
    // Neither cuts nor merges: what moves is to be seen.
    client.admin().set_setting("split.hot_cores", "64").await.unwrap();
    let load = Load::increments(&client, 4, 50);
    let zone = |nodes: &[NodeStatus], id: NodeId| find(nodes, id).labels["zone"].clone();
    let spread = async || {
        let nodes = client.admin().nodes().await.unwrap();
        let ranges = ranges(&client).await;
        let zones = |r: &RangeLocation| -> Vec<String> {
            let mut zones: Vec<_> =
                r.descriptor.replicas.iter().map(|on| zone(&nodes, on.node)).collect();
            zones.sort();
            zones
        };
        let ill: Vec<_> = ranges.iter().map(zones).filter(|z| *z != ["a", "b", "c"]).collect();
        if ill.is_empty() { Ok(()) } else { Err(format!("{ill:?}")) }
    };
    // So from the start, and so again after somebody broke it by hand.
    spread().await.unwrap();
    let nodes = client.admin().nodes().await.unwrap();
    let range = ranges(&client).await.swap_remove(0).descriptor;
    let on = |wanted: &str| {
        range.replicas.iter().map(|r| r.node).find(|&id| zone(&nodes, id) == wanted).unwrap()
    };
    let free = nodes.iter().find(|n| range.replica_on(n.id).is_none()).unwrap().id;
    let limit = Duration::from_secs(30);
    let moved = client.admin().move_range(range.id, on("b"), free, limit).await.unwrap();
    let moved = client.admin().wait_for_operation(moved.id).await.unwrap();
    assert_eq!(moved.state, "done", "{moved:?}");
    eventually(Duration::from_secs(60), spread).await;
    // The nodes of a and b have eight replicas each, the two of c about four each; so again after
    // somebody put most on one of them.
    let nodes = client.admin().nodes().await.unwrap();
    let twins: Vec<_> = nodes.iter().filter(|n| n.labels["zone"] == "c").map(|n| n.id).collect();
    let on = async |n: usize| -> Vec<_> {
        let ranges = ranges(&client).await.into_iter().map(|r| r.descriptor);
        ranges.filter(|r| r.replica_on(twins[n]).is_some()).map(|r| r.id).collect()
    };
    for range in on(0).await.split_off(2) {
        // The scheduler may be quicker with the same range, or have had enough already.
        let moved = client.admin().move_range(range, twins[0], twins[1], limit).await;
        if let Ok(moved) = moved {
            client.admin().wait_for_operation(moved.id).await.unwrap();
        }
    }
    eventually(Duration::from_secs(30), async || {
        let nodes = client.admin().nodes().await.unwrap();
        let mut counts: Vec<_> = nodes.iter().map(|n| n.replicas).collect();
        counts.sort_unstable();
        if counts[0] >= 3 && counts[2..] == [8, 8] { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    eventually(Duration::from_secs(20), async || {
        let mut reasons = Vec::new();
        for range in ranges(&client).await {
            let explained = client.admin().explain(range.descriptor.id).await.unwrap();
            reasons.extend(explained.decisions.into_iter().map(|d| d.reason));
        }
        let says = |what: &str| reasons.iter().any(|reason| reason.contains(what));
        let is_said = says("zone a+b+c then") && says("ruled out by labels");
        if is_said { Ok(()) } else { Err(format!("{reasons:#?}")) }
    })
    .await;
    // A move under way has both of its replicas.
    eventually(Duration::from_secs(20), spread).await;
    let acknowledged = load.finish().await;
    assert_eq!(counted(&client).await, acknowledged, "nothing lost, nothing twice");
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A node comes back with the disk of an earlier moment: what it acknowledged since is not there. Its
/// replicas are removed and built again, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_what_it_acknowledged_gets_its_replicas_anew() {
    let options = ClusterOptions { ranges: 6, ..ClusterOptions::default() };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let client = client(&cluster);
    // Neither cuts nor merges nor hand-overs.
    client.admin().set_setting("scheduler.enabled", "false").await.unwrap();
    let member = isotherm_testkit::Member::Node(2);
    let data = cluster.process(member).spec().data_dir.clone();
    let backup = data.with_extension("backup");
    cluster.kill(&[member]).unwrap();
    copy_dir(&data, &backup);
    cluster.start_member(member).unwrap();
    cluster.wait_ready(Duration::from_secs(30)).await.unwrap();
    let load = Load::increments(&client, 8, 50);
    eventually(Duration::from_secs(30), async || match load.done() {
        done if done >= 2_000 => Ok(()),
        done => Err(format!("{done} increments")),
    })
    .await;
    cluster.kill(&[member]).unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&backup, &data).unwrap();
    cluster.start_member(member).unwrap();
    client.admin().set_setting("scheduler.enabled", "true").await.unwrap();
    eventually(Duration::from_secs(60), async || {
        let ranges = ranges(&client).await;
        let is_anew = |r: &RangeLocation| r.descriptor.replicas.iter().any(|r| r.id.get() > 3);
        let is_whole = |r: &RangeLocation| {
            r.live_replicas.len() == 3
                && r.descriptor.replicas.len() == 3
                && r.descriptor.is_settled()
        };
        let (anew, whole) = (ranges.iter().any(is_anew), ranges.iter().all(is_whole));
        if anew && whole { Ok(()) } else { Err(format!("anew {anew}, whole {whole}")) }
    })
    .await;
    let acknowledged = load.finish().await;
    assert_eq!(counted(&client).await, acknowledged, "nothing lost, nothing twice");
    replicas_are_equal(&client).await;
}
