#![allow(clippy::unwrap_used)]
use crate::machine::Founding;
use crate::member::Meta;
use crate::member::testing::{Net, TestMember, eventually};
use crate::registry::Holds;
use isotherm_proto::internal as pb;
use isotherm_proto::internal::error::Code;
use isotherm_types::{ClusterVersion, Key, RangeDescriptor, RangeId};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const FOUNDING: Founding = Founding { nodes: 3, ranges: 6, replicas: 3 };

pub(super) async fn member(dir: &Path) -> TestMember {
    let net = Arc::new(Net::default());
    let member = TestMember::open(&net, 1, 1, dir, FOUNDING).await;
    eventually("it leads", || member.leads()).await;
    member
}

pub(super) async fn register(meta: &Meta, node: u64, address: &str) -> pb::RegisterNodeResponse {
    let cluster = meta.group.machine().read().cluster().unwrap();
    let request = pb::RegisterNodeRequest {
        node_id: node,
        cluster_id: if node == 0 { 0 } else { cluster.get() },
        address: address.into(),
        ..Default::default()
    };
    meta.register_node(request).await.unwrap()
}

pub(super) fn beat(of: &pb::RegisterNodeResponse) -> pb::HeartbeatRequest {
    let (node_id, incarnation) = (of.node_id, of.incarnation);
    pb::HeartbeatRequest { node_id, incarnation, ..Default::default() }
}

pub(super) fn leader_report(d: &RangeDescriptor, term: u64) -> pb::RangeReport {
    pb::RangeReport {
        descriptor: Some(d.into()),
        is_leader: true,
        term,
        live_replicas: d.replicas.iter().map(|r| r.id.get()).collect(),
        ..Default::default()
    }
}

/// Three nodes that registered, sent a heartbeat and took their first ranges.
pub(super) async fn bootstrapped(meta: &Meta) -> Vec<pb::RegisterNodeResponse> {
    let mut nodes = Vec::new();
    for n in 1..=3 {
        nodes.push(register(meta, 0, &format!("node:{n}")).await);
    }
    let beats = || nodes.iter().map(|n| meta.heartbeat(beat(n)).unwrap()).collect::<Vec<_>>();
    eventually("the bootstrap", || beats().iter().all(|b| b.seed_number == 1)).await;
    for answer in beats() {
        assert_eq!(answer.seed.len(), 6);
        assert_eq!(answer.nodes.len(), 3);
    }
    for node in &nodes {
        let done = pb::HeartbeatRequest { seeded: 1, ..beat(node) };
        assert!(meta.heartbeat(done).unwrap().seed.is_empty());
    }
    let seeding_done = || meta.group.machine().read().seeds().is_empty();
    eventually("the orders to seed are forgotten", seeding_done).await;
    nodes
}

/// A node of the founding died before it said that it has its first ranges: they move on without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_ranges_that_have_left_a_node_are_not_ordered_there_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let member = member(dir.path()).await;
    let meta = &member.meta;
    let mut nodes = Vec::new();
    for n in 1..=3 {
        nodes.push(register(meta, 0, &format!("node:{n}")).await);
    }
    let beats = || nodes.iter().map(|n| meta.heartbeat(beat(n)).unwrap()).collect::<Vec<_>>();
    eventually("the bootstrap", || beats().iter().all(|b| b.seed_number == 1)).await;
    for node in &nodes[..2] {
        meta.heartbeat(pb::HeartbeatRequest { seeded: 1, ..beat(node) }).unwrap();
    }
    let first: Vec<_> = meta.group.machine().read().ranges().iter().cloned().collect();
    let without_dead = |d: &RangeDescriptor| {
        let mut after = RangeDescriptor { epoch: d.epoch.next_conf_ver(), ..d.clone() };
        after.replicas.retain(|r| r.node.get() != nodes[2].node_id);
        after
    };
    let leave = |ranges: &[RangeDescriptor]| {
        let reports = ranges.iter().map(|d| leader_report(&without_dead(d), 3)).collect();
        let news = pb::HeartbeatRequest { seeded: 1, reports, ..beat(&nodes[0]) };
        meta.heartbeat(news).unwrap();
    };
    leave(&first[..1]);
    let left = |d: &RangeDescriptor| {
        let machine = meta.group.machine().read();
        machine.ranges().get(d.id).is_some_and(|now| now.replicas.len() == 2)
    };
    eventually("one is in the map", || left(&first[0])).await;
    // It was started again meanwhile, and has forgotten what it did.
    let ordered = meta.heartbeat(beat(&nodes[2])).unwrap().seed;
    assert!(ordered.iter().all(|d| d.id != first[0].id.get()) && ordered.len() == 5);
    leave(&first[1..]);
    let seeding_done = || meta.group.machine().read().seeds().is_empty();
    eventually("the orders are forgotten without it", seeding_done).await;
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_join_and_the_cluster_bootstraps() {
    let dir = tempfile::tempdir().unwrap();
    let member = member(dir.path()).await;
    let meta = &member.meta;
    let before = meta.status().await.unwrap();
    assert!(!before.bootstrapped);
    assert_eq!(before.problems[0], "not bootstrapped: waiting for 3 of 3 nodes");
    let early = meta.get_ranges(pb::GetRangesRequest::default()).unwrap_err();
    assert_eq!(early.code(), Code::Unavailable);
    let nodes = bootstrapped(meta).await;
    assert!(nodes.iter().all(|n| n.ts > 0 && n.cluster_id != 0 && n.timing.is_some()));
    let ranges = meta.get_ranges(pb::GetRangesRequest::default()).unwrap();
    assert_eq!((ranges.ranges.len(), ranges.nodes.len()), (6, 3));
    let status = meta.status().await.unwrap();
    assert_eq!((status.ranges_total, status.ranges_unavailable), (6, 0));
    assert!(status.problems.is_empty(), "{:?}", status.problems);
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_keeps_its_id_and_its_former_start_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let member = member(dir.path()).await;
    let meta = &member.meta;
    let first = register(meta, 0, "node:1").await;
    let second = register(meta, first.node_id, "node:2").await;
    assert_eq!(second.node_id, first.node_id);
    assert!(second.incarnation > first.incarnation && second.ts > first.ts);
    assert_eq!(meta.heartbeat(beat(&first)).unwrap_err().code(), Code::Condition);
    assert!(meta.heartbeat(beat(&second)).is_ok());
    let stranger = pb::HeartbeatRequest { node_id: 99, ..beat(&second) };
    assert_eq!(meta.heartbeat(stranger).unwrap_err().code(), Code::NotFound);
    let foreign = pb::RegisterNodeRequest {
        node_id: 1,
        cluster_id: first.cluster_id ^ 1,
        address: "node:1".into(),
        ..Default::default()
    };
    assert_eq!(meta.register_node(foreign).await.unwrap_err().code(), Code::Incompatible);
    // Every heartbeat and every member's snapshot would carry it.
    let long = pb::RegisterNodeRequest {
        address: "node:3".into(),
        labels: [("zone".into(), "z".repeat(1_000))].into(),
        ..Default::default()
    };
    assert_eq!(meta.register_node(long).await.unwrap_err().code(), Code::Invalid);
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stays_out_is_down_and_the_status_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let member = member(dir.path()).await;
    let meta = &member.meta;
    let nodes = bootstrapped(meta).await;
    let (out, cluster_id) = (&nodes[1], nodes[1].cluster_id);
    let damage = |node_id| pb::ReportDamageRequest { cluster_id, node_id, what: "x".repeat(9999) };
    assert_eq!(meta.report_damage(damage(99)).unwrap_err().code(), Code::NotFound);
    let begins = format!("node n{} (", out.node_id);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let said = loop {
        // Again and again, as one that is started again and again.
        meta.report_damage(damage(out.node_id)).unwrap();
        for node in nodes.iter().filter(|node| node.node_id != out.node_id) {
            let damaged_ranges = vec![3; 1000];
            meta.heartbeat(pb::HeartbeatRequest { seeded: 1, damaged_ranges, ..beat(node) })
                .unwrap();
        }
        let problems = meta.status().await.unwrap().problems;
        if let Some(said) = problems.iter().find(|p| p.starts_with(&begins)) {
            assert!(problems.iter().any(|p| p.contains("cannot read its replicas of ranges r3")));
            break said.clone();
        }
        assert!(std::time::Instant::now() < deadline, "it counts as alive");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert!(said.contains("empty data directory") && said.len() < 700, "{said}");
    for node in &nodes {
        meta.heartbeat(pb::HeartbeatRequest { seeded: 1, ..beat(node) }).unwrap();
    }
    let problems = meta.status().await.unwrap().problems;
    assert!(
        !problems.iter().any(|p| p.contains("damage") || p.contains("cannot read")),
        "{problems:?}"
    );
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_for_another_cluster_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let member = member(dir.path()).await;
    let meta = &member.meta;
    let nodes = bootstrapped(meta).await;
    let (cluster_id, other) = (nodes[0].cluster_id, nodes[0].cluster_id ^ 1);
    let beat = |cluster_id| pb::HeartbeatRequest { cluster_id, ..beat(&nodes[0]) };
    let refused = meta.heartbeat_confirmed(beat(other)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Incompatible);
    assert!(refused.0.message.contains("founded again"), "{refused}");
    for known in [cluster_id, 0] {
        let answer = meta.heartbeat_confirmed(beat(known)).await.unwrap();
        assert!(answer.nodes.iter().all(|n| n.incarnation != 0), "{:?}", answer.nodes);
    }
    let ranges =
        |cluster_id| meta.get_ranges(pb::GetRangesRequest { cluster_id, ..Default::default() });
    assert_eq!(ranges(other).unwrap_err().code(), Code::Incompatible);
    assert_eq!(ranges(cluster_id).unwrap().cluster_id, cluster_id);
    assert_eq!(ranges(0).unwrap().cluster_id, cluster_id);
    let ids = |cluster_id| meta.allocate_ids(pb::AllocateIdsRequest { count: 1, cluster_id });
    assert_eq!(ids(other).await.unwrap_err().code(), Code::Incompatible);
    assert!(ids(cluster_id).await.is_ok());
    member.close().await;
}

/// A refusal of a heartbeat ends the node: a leader that was replaced without knowing it must not say
/// one, because it may not have heard of the node's last start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_cut_off_refuses_no_start_of_which_it_has_not_heard() {
    let dir = tempfile::tempdir().unwrap();
    let net = Arc::new(Net::default());
    let mut members = Vec::new();
    for me in 1..=3 {
        let dir = dir.path().join(me.to_string());
        members.push(TestMember::open(&net, me, 3, &dir, FOUNDING).await);
    }
    let leads = |m: &TestMember| m.leads();
    eventually("a leader", || members.iter().any(leads)).await;
    let old = members.iter().position(leads).unwrap();
    let first = register(&members[old].meta, 0, "node:1").await;
    net.set_cut(members[old].meta.me, true);
    let next = || (0..3).find(|i| *i != old && members[*i].leads());
    eventually("another leader", || next().is_some()).await;
    let new = next().unwrap();
    let second = register(&members[new].meta, first.node_id, "node:1").await;
    let fresh = register(&members[new].meta, 0, "node:2").await;
    for registered in [&second, &fresh] {
        let refused = members[old].meta.heartbeat_confirmed(beat(registered)).await.unwrap_err();
        assert!(matches!(refused.code(), Code::Unavailable | Code::NotLeader), "{refused}");
    }
    let refused = members[new].meta.heartbeat_confirmed(beat(&first)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Condition);
    assert!(refused.0.message.contains("started again"), "{refused}");
    for member in members {
        member.close().await;
    }
}

/// Never past what every node supports, nor while one has not said it; then nothing older is let in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_raised_to_what_all_of_it_supports_and_lets_in_nothing_older() {
    let dir = tempfile::tempdir().unwrap();
    let member = member(dir.path()).await;
    let meta = &member.meta;
    // They do not say what they support: the first version only.
    let mut nodes = bootstrapped(meta).await;
    let version = || meta.group.machine().read().version();
    let (first, newest) = (ClusterVersion::FIRST, ClusterVersion::CURRENT);
    let say = |node: &pb::RegisterNodeResponse, supports: ClusterVersion| {
        let supports_version = supports.to_wire();
        meta.heartbeat(pb::HeartbeatRequest { seeded: 1, supports_version, ..beat(node) })
    };
    say(&nodes[0], newest).unwrap();
    say(&nodes[1], newest).unwrap();
    assert_eq!(meta.finalize_upgrade().await.unwrap().cluster_version, first.to_wire());
    assert_eq!(version(), first, "the third node supports no more");
    nodes[2] = register(meta, nodes[2].node_id, "node:3").await;
    let refused = meta.finalize_upgrade().await.unwrap_err();
    assert_eq!(refused.code(), Code::Condition);
    assert!(refused.0.message.contains("node 3"), "{refused}");
    assert_eq!(version(), first, "it was started again, and has not said");
    nodes.iter().for_each(|node| drop(say(node, newest).unwrap()));
    assert_eq!(meta.finalize_upgrade().await.unwrap().cluster_version, newest.to_wire());
    assert_eq!(version(), newest);

    assert_eq!(say(&nodes[0], first).unwrap_err().code(), Code::Incompatible);
    assert!(say(&nodes[0], newest).is_ok());
    let start = |from: u32, to: u32| {
        let address = "node:4".to_owned();
        let (supports_from, supports_version) = (from, to);
        let default = pb::RegisterNodeRequest::default();
        meta.register_node(pb::RegisterNodeRequest {
            address,
            supports_from,
            supports_version,
            ..default
        })
    };
    let current = newest.to_wire();
    for (from, to) in [(0, 0), (0, current - 1), (current + 1, current + 2)] {
        let refused = start(from, to).await.unwrap_err();
        assert_eq!(refused.code(), Code::Incompatible, "{from} to {to}");
    }
    assert!(start(0, current).await.is_ok() && start(current, current + 1).await.is_ok());
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_enters_the_map_when_both_halves_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let member = member(dir.path()).await;
    let meta = &member.meta;
    let nodes = bootstrapped(meta).await;
    let ids = meta.allocate_ids(pb::AllocateIdsRequest { count: 1, cluster_id: 0 }).await.unwrap();
    assert_eq!(ids.first, 7);
    let old = meta.group.machine().read().ranges().get(RangeId(6)).unwrap().clone();
    let spans = old.span.split_at(&[Key::from_static(b"~~")]).unwrap();
    let epoch = old.epoch.next_version();
    let parent = RangeDescriptor { span: spans[0].clone(), epoch, ..old.clone() };
    let child = RangeDescriptor { id: RangeId(7), span: spans[1].clone(), epoch, ..old };
    let report = |d| pb::HeartbeatRequest {
        seeded: 1,
        reports: vec![leader_report(d, 3)],
        ..beat(&nodes[0])
    };
    meta.heartbeat(report(&child)).unwrap();
    let len = || meta.group.machine().read().ranges().len();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(len(), 6);
    meta.heartbeat(report(&parent)).unwrap();
    eventually("the split is in the map", || len() == 7).await;
    meta.group.machine().read().ranges().check_tiling();
    let asked = pb::GetRangesRequest { range_id: 7, ..Default::default() };
    let located = meta.get_ranges(asked).unwrap().ranges.remove(0);
    assert_eq!((located.leader_node, located.leader_term), (nodes[0].node_id, 3));
    let missing = pb::GetRangesRequest { range_id: 99, ..Default::default() };
    assert_eq!(meta.get_ranges(missing).unwrap_err().code(), Code::NotFound);
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_down_and_its_ranges_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let member = member(dir.path()).await;
    let meta = &member.meta;
    let nodes = bootstrapped(meta).await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        for node in &nodes[..2] {
            meta.heartbeat(pb::HeartbeatRequest { seeded: 1, ..beat(node) }).unwrap();
        }
    }
    let status = meta.status().await.unwrap();
    assert_eq!((status.ranges_unavailable, status.ranges_under_replicated), (0, 6));
    assert!(status.problems[0].contains("is down"), "{:?}", status.problems);
    assert!(status.problems[1].contains("6 of 6 ranges are under-replicated"));
    assert_eq!(meta.list_nodes().unwrap().nodes[2].state, "down");
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_change_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = member(dir.path()).await;
    let set =
        |value: &str| pb::SetSettingRequest { name: "read.confirm".into(), value: value.into() };
    first.meta.set_setting(set("quorum")).await.unwrap();
    assert_eq!(first.meta.set_setting(set("no")).await.unwrap_err().code(), Code::Invalid);
    let registered = register(&first.meta, 0, "node:1").await;
    first.close().await;
    let second = member(dir.path()).await;
    let settings = second.meta.get_settings().unwrap().settings;
    assert!(settings.iter().any(|s| s.name == "read.confirm" && s.value == "quorum"));
    let again = register(&second.meta, registered.node_id, "node:1").await;
    assert_eq!(again.cluster_id, registered.cluster_id);
    assert!(again.incarnation > registered.incarnation && again.ts > registered.ts);
    second.close().await;
}

fn hold(id: u64, at: u64) -> pb::HoldSnapshotRequest {
    pb::HoldSnapshotRequest { id, at }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_safe_point_follows_time_stops_at_a_long_read_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = member(dir.path()).await;
    let meta = &first.meta;
    let set = pb::SetSettingRequest { name: "history.retention".into(), value: "1s".into() };
    meta.set_setting(set).await.unwrap();
    let node = register(meta, 0, "node:1").await;
    let told = || meta.heartbeat(beat(&node)).unwrap().safe_point;
    let read_at = meta.oracle.timestamps(1).await.unwrap().get();
    // A leader that is new has not heard of all readers.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(told(), 0);
    let lifetime = Duration::from_millis(1500);
    *meta.holds.lock() = Holds::new(Instant::now() - lifetime, lifetime);
    let held = meta.hold_snapshot(hold(0, read_at)).await.unwrap();
    assert_eq!(held.lifetime_ms, 1500);
    eventually("it is raised to the read", || told() == read_at).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        meta.hold_snapshot(hold(held.id, read_at)).await.unwrap();
        assert_eq!(told(), read_at, "the read holds it, however long it takes");
    }
    eventually("a read that is gone holds nothing", || told() > read_at).await;
    let lost = meta.hold_snapshot(hold(held.id, read_at)).await.unwrap_err();
    assert_eq!(lost.code(), Code::SnapshotTooOld);
    assert!(lost.0.safe_point > read_at);
    let now = meta.oracle.timestamps(1).await.unwrap();
    assert!(told() <= now.minus_ms(1000).get(), "never younger than the retention");
    let before = meta.safe_point();
    first.close().await;
    let second = member(dir.path()).await;
    assert!(second.meta.safe_point() >= before, "it never falls");
    let lost = second.meta.hold_snapshot(hold(held.id, read_at)).await.unwrap_err();
    assert_eq!(lost.code(), Code::SnapshotTooOld);
    second.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_does_not_lead_names_the_leader_and_a_new_leader_asks_for_all_reports() {
    let dir = tempfile::tempdir().unwrap();
    let net = Arc::new(Net::default());
    let mut members = Vec::new();
    for me in 1..=3 {
        let dir = dir.path().join(me.to_string());
        members.push(TestMember::open(&net, me, 3, &dir, FOUNDING).await);
    }
    let leads = |m: &TestMember| m.leads();
    eventually("a leader", || members.iter().any(leads)).await;
    let leader = members.iter().position(leads).unwrap();
    let follower = (leader + 1) % 3;
    let leader_id = members[leader].meta.me.get();
    let names_leader = || members[follower].meta.answer_members().leader == leader_id;
    eventually("the follower knows the leader", names_leader).await;
    let refused = members[follower].meta.list_nodes().unwrap_err();
    assert_eq!((refused.code(), refused.0.leader_node), (Code::NotLeader, leader_id));
    let nodes = bootstrapped(&members[leader].meta).await;
    members[leader].meta.group.transfer_away().await;
    let next = || (0..3).find(|i| *i != leader && members[*i].leads());
    eventually("another leader", || next().is_some()).await;
    let meta = &members[next().unwrap()].meta;
    let unheard = meta.status().await.unwrap();
    assert_eq!(unheard.ranges_unavailable, 0, "{:?}", unheard.problems);
    let heartbeat = pb::HeartbeatRequest { replicas: 6, seeded: 1, ..beat(&nodes[0]) };
    assert!(meta.heartbeat(heartbeat.clone()).unwrap().report_all);
    let descriptors: Vec<_> = meta.group.machine().read().ranges().iter().cloned().collect();
    let reports = descriptors.iter().map(|d| leader_report(d, 5)).collect();
    let all = pb::HeartbeatRequest { reports, ..heartbeat };
    assert!(!meta.heartbeat(all).unwrap().report_all);
    for member in members {
        member.close().await;
    }
}

/// It does not hear of its successor: what it still says would keep nodes and clients with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_names_nobody_and_takes_no_heartbeats() {
    let dir = tempfile::tempdir().unwrap();
    let net = Arc::new(Net::default());
    let mut members = Vec::new();
    for me in 1..=3 {
        let dir = dir.path().join(me.to_string());
        members.push(TestMember::open(&net, me, 3, &dir, FOUNDING).await);
    }
    eventually("a leader", || members.iter().any(TestMember::leads)).await;
    let leader = members.iter().position(TestMember::leads).unwrap();
    let meta = &members[leader].meta;
    let node = register(meta, 0, "node:1").await;
    meta.heartbeat(beat(&node)).unwrap();
    assert_eq!(meta.answer_members().leader, meta.me.get());
    net.set_cut(meta.me, true);
    let others = || members.iter().filter(|m| m.meta.me != meta.me);
    eventually("another leader", || others().any(TestMember::leads)).await;
    eventually("it names nobody", || meta.answer_members().leader == 0).await;
    assert!(meta.group.leadership().borrow().is_leader, "it knows of no other");
    let refused = meta.heartbeat(beat(&node)).unwrap_err();
    assert_eq!((refused.code(), refused.0.leader_node), (Code::NotLeader, 0));
    net.set_cut(meta.me, false);
    let next = others().find(|m| m.leads()).unwrap().meta.me.get();
    eventually("it names the other", || meta.answer_members().leader == next).await;
    for member in members {
        member.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_told_which_of_its_replicas_the_map_no_longer_names_until_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let member = member(dir.path()).await;
    let meta = &member.meta;
    let nodes = bootstrapped(meta).await;
    let before = meta.group.machine().read().ranges().get(RangeId(1)).unwrap().clone();
    let leaving = before.replicas[2];
    let leaver = nodes.iter().find(|n| n.node_id == leaving.node.get()).unwrap();
    let of = |d: &RangeDescriptor| pb::RangeReport {
        replica_id: leaving.id.get(),
        is_leader: false,
        ..leader_report(d, 3)
    };
    let beat_with = |reports, gone| {
        let beat = pb::HeartbeatRequest { seeded: 1, reports, gone, ..beat(leaver) };
        meta.heartbeat(beat).unwrap().removed
    };
    assert!(beat_with(vec![of(&before)], vec![]).is_empty());
    let mut after = before.clone();
    after.epoch = before.epoch.next_conf_ver();
    after.replicas.pop();
    let stays = nodes.iter().find(|n| n.node_id == before.replicas[0].node.get()).unwrap();
    let news = vec![leader_report(&after, 3)];
    meta.heartbeat(pb::HeartbeatRequest { seeded: 1, reports: news, ..beat(stays) }).unwrap();
    let known = || meta.group.machine().read().ranges().get(RangeId(1)) == Some(&after);
    eventually("the change is in the map", known).await;
    for _ in 0..2 {
        assert_eq!(beat_with(vec![], vec![]), [pb::Descriptor::from(&after)]);
    }
    assert!(beat_with(vec![], vec![1]).is_empty(), "it said that it is gone");
    // An old disk comes back and reports what it has.
    assert_eq!(beat_with(vec![of(&before)], vec![]), [pb::Descriptor::from(&after)]);
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_missed_a_merge_is_told_who_absorbed_the_range_that_it_still_has() {
    let dir = tempfile::tempdir().unwrap();
    let member = member(dir.path()).await;
    let meta = &member.meta;
    let nodes = bootstrapped(meta).await;
    let get = |range| meta.group.machine().read().ranges().get(RangeId(range)).cloned();
    let (left, right) = (get(1).unwrap(), get(2).unwrap());
    let hosts = |d: &RangeDescriptor, node: &pb::RegisterNodeResponse| pb::RangeReport {
        replica_id: d.replicas.iter().find(|r| r.node.get() == node.node_id).unwrap().id.get(),
        is_leader: false,
        ..leader_report(d, 3)
    };
    let beat_with = |node, reports, gone| {
        let beat = pb::HeartbeatRequest { seeded: 1, reports, gone, ..beat(node) };
        meta.heartbeat(beat).unwrap().removed
    };
    let mut frozen = right.clone();
    frozen.epoch = right.epoch.next_version();
    assert!(beat_with(&nodes[0], vec![hosts(&frozen, &nodes[0])], vec![]).is_empty());
    let mut wide = left.clone();
    wide.epoch.version = frozen.epoch.version + 1;
    let (start, end) = (left.span.start().clone(), right.span.end().clone());
    wide.span = isotherm_types::KeyRange::new(start, end).unwrap();
    beat_with(&nodes[1], vec![leader_report(&wide, 3)], vec![]);
    eventually("the merge is in the map", || get(2).is_none() && get(1) == Some(wide.clone()))
        .await;
    meta.group.machine().read().ranges().check_tiling();
    for _ in 0..2 {
        let told = beat_with(&nodes[0], vec![hosts(&left, &nodes[0])], vec![]);
        assert_eq!(told, [pb::Descriptor::from(&wide)]);
    }
    assert!(beat_with(&nodes[0], vec![], vec![2]).is_empty(), "it said that it is gone");
    assert!(beat_with(&nodes[1], vec![hosts(&wide, &nodes[1])], vec![]).is_empty());
    // Half of a split that the map does not know yet is no leftover.
    let mut child = wide.clone();
    child.id = RangeId(99);
    child.epoch = wide.epoch.next_version();
    child.span = right.span.clone();
    assert!(beat_with(&nodes[0], vec![hosts(&child, &nodes[0])], vec![]).is_empty());
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_is_resumed_by_a_restarted_leader_and_undone_when_its_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let first = member(dir.path()).await;
    bootstrapped(&first.meta).await;
    let to = register(&first.meta, 0, "node:4").await.node_id;
    let d = first.meta.group.machine().read().ranges().get(RangeId(1)).unwrap().clone();
    let from_node = d.replicas[0].node.get();
    let request = pb::MoveRangeRequest { range_id: 1, from_node, to_node: to, limit_ms: 3000 };
    let ordered = first.meta.move_range(request).await.unwrap().operation.unwrap();
    assert_eq!((ordered.state.as_str(), ordered.to_replica), ("running", 4));
    assert_eq!(first.meta.move_range(request).await.unwrap_err().code(), Code::Condition);
    first.close().await;
    let second = member(dir.path()).await;
    let look = || {
        let listed = second.meta.list_operations(pb::ListOperationsRequest { id: ordered.id });
        listed.unwrap().operations.remove(0)
    };
    // Nobody listens at the nodes' addresses: it tries, and says what it meets.
    eventually("it is tried again", || look().step.contains("add learner 4")).await;
    eventually("its time is over", || look().state == "failed").await;
    assert!(look().reason.contains("not done in time") && look().ended_ms > 0);
    let cancel = pb::CancelOperationRequest { id: ordered.id };
    assert_eq!(second.meta.cancel_operation(cancel).await.unwrap_err().code(), Code::Condition);
    let again = second.meta.move_range(request).await.unwrap().operation.unwrap();
    assert_eq!(again.to_replica, 5, "the id of the first is not given again");
    let cancel = pb::CancelOperationRequest { id: again.id };
    second.meta.cancel_operation(cancel).await.unwrap();
    let ended = || {
        let listed = second.meta.list_operations(pb::ListOperationsRequest { id: again.id });
        listed.unwrap().operations.remove(0).state == "cancelled"
    };
    eventually("nothing was to be undone", ended).await;
    second.close().await;
}
