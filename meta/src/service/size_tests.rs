//! What meta takes in, at its largest and one byte, or one thing, more.

use super::tests::{beat, bootstrapped, leader_report, member, register};
use isotherm_proto::internal as pb;
use isotherm_proto::internal::error::Code;
use isotherm_types::limits::{
    ADDRESS_BYTES_MAX, BOUND_BYTES_MAX, DAMAGED_RANGES_MAX, HOT_MAX, KEY_BYTES_MAX,
    LABEL_BYTES_MAX, LABELS_BYTES_MAX, LABELS_MAX, LISTED_BYTES_MAX, NODES_MAX,
    OPERATIONS_LISTED_MAX, RANGES_MAX, REPLICAS_MAX, SPLIT_KEYS_MAX, TEXT_BYTES_MAX,
};
use isotherm_types::{KeyRange, NodeId, RangeDescriptor, RangeId};
use prost::Message;
use std::collections::HashMap;

fn address(bytes: usize) -> String {
    let port = ":7101";
    format!("{}{port}", "a".repeat(bytes - port.len()))
}

/// So many labels of so many bytes each.
fn labels(count: usize, bytes: usize) -> HashMap<String, String> {
    (0..count).map(|n| (format!("{n:010}"), "v".repeat(bytes - 10))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_registers_with_the_largest_details_and_not_with_one_byte_more() {
    let dir = tempfile::tempdir().expect("a directory");
    let member = member(dir.path()).await;
    let meta = &member.meta;
    let request = || pb::RegisterNodeRequest { address: address(20), ..Default::default() };
    type Change = Box<dyn Fn(&mut pb::RegisterNodeRequest, usize)>;
    let each: [(&str, Change); 7] = [
        ("address", Box::new(|r, more| r.address = address(ADDRESS_BYTES_MAX + more))),
        ("HTTP", Box::new(|r, more| r.http_address = "h".repeat(ADDRESS_BYTES_MAX + more))),
        ("version", Box::new(|r, more| r.version = "v".repeat(LABEL_BYTES_MAX + more))),
        ("64 labels", Box::new(|r, more| r.labels = labels(LABELS_MAX + more, 20))),
        (
            "256 bytes",
            Box::new(|r, more| {
                r.labels = [("n".repeat(LABEL_BYTES_MAX + more), "v".to_owned())].into();
            }),
        ),
        (
            "256 bytes",
            Box::new(|r, more| {
                r.labels = [("n".to_owned(), "v".repeat(LABEL_BYTES_MAX + more))].into();
            }),
        ),
        (
            "4096 bytes together",
            Box::new(|r, more| {
                r.labels = labels(16, LABELS_BYTES_MAX / 16);
                r.labels
                    .insert("0000000000".to_owned(), "v".repeat(LABELS_BYTES_MAX / 16 - 10 + more));
            }),
        ),
    ];
    for (what, change) in each {
        let mut largest = request();
        change(&mut largest, 0);
        assert!(meta.register_node(largest).await.is_ok(), "{what}");
        let mut larger = request();
        change(&mut larger, 1);
        let refused = meta.register_node(larger).await.expect_err(what);
        assert_eq!(refused.code(), Code::Invalid, "{what}");
        assert!(refused.to_string().contains(what), "{refused}");
    }
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nodes_and_clients_ask_is_taken_up_to_its_limits() {
    let dir = tempfile::tempdir().expect("a directory");
    let member = member(dir.path()).await;
    let meta = &member.meta;
    let nodes = bootstrapped(meta).await;
    // Ids of new ranges.
    let most = u32::try_from(RANGES_MAX - 6).expect("it fits");
    let ids = |count| meta.allocate_ids(pb::AllocateIdsRequest { count, ..Default::default() });
    assert!(ids(most).await.is_ok());
    let refused = ids(most + 1).await.expect_err("one range too many");
    assert_eq!(refused.code(), Code::Condition);
    assert!(refused.to_string().contains("the limit of 100000"), "{refused}");
    // Spans.
    let ranges = |bytes: usize| {
        let span = Some(pb::KeyRange { start: vec![b'k'; bytes].into(), end: Vec::new().into() });
        meta.get_ranges(pb::GetRangesRequest { span, ..Default::default() })
    };
    assert!(ranges(BOUND_BYTES_MAX).is_ok());
    let refused = ranges(BOUND_BYTES_MAX + 1).expect_err("a bound of one byte more");
    assert!(refused.to_string().contains("more than 8192 bytes"), "{refused}");
    // Reports.
    let nodes_of = |count: usize| (1..=count as u64).map(NodeId).collect::<Vec<_>>();
    let range = |replicas: usize| {
        let span = KeyRange::new("x", "y").expect("ordered");
        RangeDescriptor::first(RangeId(777), span, &nodes_of(replicas))
    };
    let report = |replicas: usize, live: usize, children: usize| {
        let mut report = leader_report(&range(replicas), 1);
        report.live_replicas = vec![1; live];
        report.split_children = vec![(&range(1)).into(); children];
        meta.heartbeat(pb::HeartbeatRequest { reports: vec![report], seeded: 1, ..beat(&nodes[0]) })
    };
    assert!(report(REPLICAS_MAX, REPLICAS_MAX, SPLIT_KEYS_MAX).is_ok());
    for (replicas, live, children, what) in [
        (REPLICAS_MAX + 1, 1, 0, "replicas"),
        (1, REPLICAS_MAX + 1, 0, "live_replicas"),
        (1, 1, SPLIT_KEYS_MAX + 1, "split_children"),
    ] {
        let refused = report(replicas, live, children).expect_err(what);
        assert_eq!(refused.code(), Code::Invalid);
        assert!(refused.to_string().contains(what), "{refused}");
    }
    // Ranges that a node cannot read: more are not kept.
    let damaged = |count: usize| {
        let damaged_ranges = (1..=count as u64).collect();
        let beat = pb::HeartbeatRequest { seeded: 1, damaged_ranges, ..beat(&nodes[1]) };
        assert!(meta.heartbeat(beat).is_ok());
        meta.registry.lock().damaged_ranges()[&NodeId(nodes[1].node_id)].len()
    };
    assert_eq!(damaged(DAMAGED_RANGES_MAX), DAMAGED_RANGES_MAX);
    assert_eq!(damaged(DAMAGED_RANGES_MAX + 1), DAMAGED_RANGES_MAX);
    // What an error repeats.
    let intent = "\u{1}".repeat(1 << 20);
    let request = pb::SetIntentRequest { node_id: 1, intent };
    let refused = meta.set_intent(request).await.expect_err("no such intent");
    assert!(refused.0.message.len() <= TEXT_BYTES_MAX, "{}", refused.0.message.len());
    // Nodes that are known come back, whatever their number.
    assert_eq!(register(meta, nodes[0].node_id, "node:1").await.node_id, nodes[0].node_id);
    member.close().await;
}

#[test]
fn texts_for_people_are_cut() {
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    let decision = isotherm_scheduler::Decision {
        range: RangeId(1),
        rule: isotherm_scheduler::Rule::Split,
        action: Some(isotherm_scheduler::Action::Split {
            range: RangeId(1),
            keys: vec![vec![0; 4096].into(); 8],
        }),
        reason: long.clone(),
    };
    let said = super::heat::decision_message(&decision, std::time::Duration::ZERO, long.clone());
    for text in [&said.action, &said.reason, &said.outcome] {
        assert!(text.len() <= TEXT_BYTES_MAX, "{} bytes", text.len());
    }
    assert!(said.outcome.ends_with('…'));
    let failed = crate::machine::OperationState::Failed(long);
    let (_, reason) = super::operations::state_of(&failed, "");
    assert!(reason.len() <= TEXT_BYTES_MAX && reason.ends_with('…'));
}

#[test]
fn hot_ranges_are_listed_up_to_their_number_and_their_bytes() {
    let listed = |count: usize, asked: usize| {
        let hot = std::iter::repeat_n(pb::HotRange::default(), count);
        super::heat::listed(hot, u32::try_from(asked).unwrap_or(u32::MAX)).len()
    };
    assert_eq!(listed(HOT_MAX, HOT_MAX), HOT_MAX);
    assert_eq!(listed(HOT_MAX + 1, HOT_MAX + 1), HOT_MAX);
    assert_eq!(listed(HOT_MAX + 1, usize::MAX), HOT_MAX);
    assert_eq!(listed(HOT_MAX, 0), 20);
    // Each with a sample as large as it may be.
    let key = bytes::Bytes::from(vec![b'k'; KEY_BYTES_MAX]);
    let sample = vec![pb::KeySample { key: key.clone(), ..Default::default() }; 8];
    let load = Some(pb::RangeLoad { sample, ..Default::default() });
    let hot = pb::HotRange { start: key.clone(), end: key, load, ..Default::default() };
    let fit = LISTED_BYTES_MAX / hot.encoded_len();
    assert!(fit < HOT_MAX);
    for count in [fit, fit + 1] {
        let listed = super::heat::listed(std::iter::repeat_n(hot.clone(), count), u32::MAX);
        let bytes: usize = listed.iter().map(Message::encoded_len).sum();
        assert!(listed.len() == fit && bytes <= LISTED_BYTES_MAX, "{} of {count}", listed.len());
    }
}

#[test]
fn the_newest_operations_are_listed() {
    let listed = |count: u64| {
        let operation = |id| pb::Operation { id, ..Default::default() };
        let listed = super::operations::newest((1..=count).map(operation).collect());
        (listed.len(), listed.first().map(|newest| newest.id))
    };
    let most = OPERATIONS_LISTED_MAX;
    assert_eq!(listed(most as u64), (most, Some(most as u64)));
    assert_eq!(listed(most as u64 + 1), (most, Some(most as u64 + 1)));
}

#[test]
fn one_node_too_many_is_refused() {
    assert!(super::register::check_new(NODES_MAX - 1).is_ok(), "the last one");
    let refused = super::register::check_new(NODES_MAX).expect_err("one too many");
    assert_eq!(refused.code(), Code::Condition);
    assert!(refused.to_string().contains("knows 2000 nodes"), "{refused}");
}
