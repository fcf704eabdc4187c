//! Aggregates: every key counts once, whatever moves meanwhile.

use crate::scripted::{Reply, Scripted, range};
use isotherm_client::aggregate::{Fold, Query, QueryText, Rules};
use isotherm_client::{AggregateOptions, ClientError, ErrorKind};
use isotherm_proto::internal::error::Code;
use isotherm_proto::internal::{self as pb};
use isotherm_types::KeyRange;
use std::sync::Arc;
use tokio::sync::Semaphore;

fn counting() -> QueryText {
    QueryText { functions: "count".into(), ..QueryText::default() }
}

fn span(start: &str, end: &str) -> pb::KeyRange {
    (&KeyRange::new(start.to_owned(), end.to_owned()).unwrap()).into()
}

/// `rows` rows in a span.
fn rows(start: &str, end: &str, rows: usize) -> pb::AggregateResponse {
    let query = Query::parse(&counting()).unwrap();
    let mut fold = Fold::new(&query);
    (0..rows).for_each(|_| fold.add(b"k", b"").unwrap());
    let partial = fold.finish().encode(&query).unwrap().into();
    pb::AggregateResponse { covered: vec![span(start, end)], partial, ..Default::default() }
}

fn refusal(
    range_id: u64,
    code: Code,
    leader_node: u64,
    descriptors: Vec<pb::Descriptor>,
) -> pb::AggregateResponse {
    let error = pb::Error { code: code.into(), leader_node, descriptors, ..Default::default() };
    let refusals = vec![pb::AggregateRefusal { range_id, error: Some(error) }];
    pb::AggregateResponse { refusals, ..Default::default() }
}

async fn start(
    ranges: Vec<pb::Descriptor>,
    script: impl FnMut(usize, u64, &pb::AggregateRequest) -> Vec<pb::AggregateResponse> + Send + 'static,
) -> Scripted {
    let cluster = Scripted::start(ranges, |_, _| Reply::Silence).await;
    *cluster.state.aggregate_script.lock().unwrap() = Some(Box::new(script));
    cluster
}

async fn count(cluster: &Scripted) -> Result<(u64, u64), ClientError> {
    let options = AggregateOptions { query: counting(), ..AggregateOptions::default() };
    cluster.client.aggregate(options).await.map(|done| (done.answer.rows, done.repeated))
}

/// The spans that were asked for, by node.
fn asked(cluster: &Scripted) -> Vec<(u64, Vec<(u64, pb::KeyRange)>)> {
    let parts = |request: pb::AggregateRequest| {
        request.parts.into_iter().map(|part| (part.range_id, part.span.unwrap())).collect()
    };
    cluster.state.aggregates().into_iter().map(|(node, request)| (node, parts(request))).collect()
}

#[tokio::test]
async fn a_node_is_asked_once_for_everything_that_it_leads() {
    let ranges = vec![range(1, "", "m", 1), range(2, "m", "", 1)];
    let cluster = start(ranges, |_, _, _| vec![rows("m", "", 3), rows("", "m", 4)]).await;
    assert_eq!(count(&cluster).await.unwrap(), (7, 0));
    assert_eq!(asked(&cluster), [(1, vec![(1, span("", "m")), (2, span("m", ""))])]);
}

#[tokio::test]
async fn only_what_is_left_is_asked_again_where_it_is_now_at_the_same_timestamp() {
    let cluster = start(vec![range(1, "", "", 1)], |number, node, _| match (number, node) {
        (0, 1) => vec![rows("", "g", 10), refusal(1, Code::NotLeader, 2, Vec::new())],
        (1, 2) => vec![rows("g", "", 5)],
        other => panic!("{other:?}"),
    })
    .await;
    assert_eq!(count(&cluster).await.unwrap(), (15, 1));
    assert_eq!(asked(&cluster)[1], (2, vec![(1, span("g", ""))]));
    let at: Vec<_> =
        cluster.state.aggregates().into_iter().map(|(_, request)| request.at).collect();
    assert_eq!(at[0], at[1]);
}

#[tokio::test]
async fn a_split_in_the_middle_is_followed() {
    let children = vec![range(1, "", "h", 2), range(2, "h", "", 2)];
    let script = move |number: usize, _: u64, request: &pb::AggregateRequest| match number {
        0 => vec![rows("", "c", 1), refusal(1, Code::EpochMismatch, 0, children.clone())],
        // One node or two: who leads the child is not known yet.
        _ => request
            .parts
            .iter()
            .map(|part| match part.range_id {
                1 => rows("c", "h", 2),
                _ => rows("h", "", 3),
            })
            .collect(),
    };
    let cluster = start(vec![range(1, "", "", 1)], script).await;
    assert_eq!(count(&cluster).await.unwrap(), (6, 1));
    let mut again: Vec<_> =
        asked(&cluster).into_iter().skip(1).flat_map(|(_, parts)| parts).collect();
    again.sort_by_key(|(range, _)| *range);
    assert_eq!(again, [(1, span("c", "h")), (2, span("h", ""))]);
}

#[tokio::test]
async fn a_stream_that_ends_early_is_no_answer_to_the_rest() {
    let cluster = start(vec![range(1, "", "", 1)], |number, _, _| match number {
        0 => vec![rows("", "c", 1)],
        _ => vec![rows("c", "", 2)],
    })
    .await;
    assert_eq!(count(&cluster).await.unwrap(), (3, 1));
}

#[tokio::test]
async fn the_beginning_of_an_answer_does_not_count_without_its_end() {
    let begun =
        || pb::AggregateResponse { covered: Vec::new(), has_more: true, ..rows("", "m", 4) };
    let cluster = start(vec![range(1, "", "", 1)], move |number, _, _| match number {
        0 => vec![begun()],
        _ => vec![begun(), rows("", "", 1)],
    })
    .await;
    assert_eq!(count(&cluster).await.unwrap(), (5, 1));
}

#[tokio::test]
async fn what_was_answered_already_or_never_asked_is_not_believed() {
    for (first, second) in [(("", "m"), ("a", "b")), (("", "m"), ("", "")), (("", ""), ("", ""))] {
        let ranges = vec![range(1, "", "", 1)];
        let script = move |_: usize, _: u64, _: &pb::AggregateRequest| {
            vec![rows(first.0, first.1, 1), rows(second.0, second.1, 1), rows("m", "", 1)]
        };
        let cluster = start(ranges, script).await;
        match count(&cluster).await {
            Err(error) => assert_eq!(error.kind, ErrorKind::Internal),
            // The first answer was the whole: nobody listens to the second.
            Ok(counted) => assert_eq!((first, counted), (("", ""), (1, 0))),
        }
    }
}

#[tokio::test]
async fn what_cannot_help_is_not_repeated() {
    let cluster = start(vec![range(1, "", "", 1)], |_, _, _| {
        vec![refusal(1, Code::SnapshotTooOld, 0, Vec::new())]
    })
    .await;
    assert_eq!(count(&cluster).await.unwrap_err().kind, ErrorKind::SnapshotTooOld);
    assert_eq!(cluster.state.aggregates().len(), 1);
    let bad = QueryText { functions: "median".into(), ..QueryText::default() };
    let options = AggregateOptions { query: bad, ..AggregateOptions::default() };
    assert_eq!(cluster.client.aggregate(options).await.unwrap_err().kind, ErrorKind::Invalid);
    assert_eq!(cluster.state.aggregates().len(), 1, "never sent");
}

#[tokio::test]
async fn without_any_answer_it_ends_within_the_time_limit() {
    let cluster =
        start(vec![range(1, "", "", 1)], |_, _, _| vec![refusal(1, Code::Busy, 0, Vec::new())])
            .await;
    let begun = std::time::Instant::now();
    let error = count(&cluster).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(begun.elapsed() < std::time::Duration::from_secs(3));
}

#[tokio::test]
async fn a_node_that_has_not_begun_is_busy() {
    let waiting = pb::AggregateResponse { is_waiting: true, ..Default::default() };
    let cluster = start(vec![range(1, "", "", 1)], move |_, _, _| vec![waiting.clone()]).await;
    cluster.state.hold_aggregates.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(count(&cluster).await.unwrap_err().kind, ErrorKind::Busy);
}

#[tokio::test]
async fn a_sign_of_life_does_not_end_an_answer_of_several_messages() {
    let begun = || pb::AggregateResponse { covered: Vec::new(), has_more: true, ..rows("", "", 4) };
    let cluster = start(vec![range(1, "", "", 1)], move |_, _, _| {
        let alive = pb::AggregateResponse::default;
        vec![alive(), begun(), alive(), begun(), alive(), rows("", "", 1)]
    })
    .await;
    assert_eq!(count(&cluster).await.unwrap(), (9, 0));
}

#[tokio::test]
async fn groups_take_no_more_memory_than_there_is_for_all_aggregates() {
    let groups = |keys: std::ops::Range<u32>| {
        let text = QueryText { group_by: "prefix:9".into(), ..counting() };
        let query = Query::parse(&text).unwrap();
        let mut fold = Fold::new(&query);
        keys.for_each(|n| fold.add(format!("{n:09}").as_bytes(), b"").unwrap());
        fold.finish().encode(&query).unwrap()
    };
    let cluster = start(vec![range(1, "", "", 1)], move |_, _, _| {
        let (first, last) = (groups(0..2_000).into(), groups(2_000..5_000).into());
        let begun = pb::AggregateResponse { partial: first, has_more: true, ..Default::default() };
        vec![begun, pb::AggregateResponse { partial: last, ..rows("", "", 0) }]
    })
    .await;
    let ask = |memory: &Arc<Semaphore>| {
        let query = QueryText { group_by: "prefix:9".into(), ..counting() };
        let options = AggregateOptions { query, ..AggregateOptions::default() };
        cluster.client.aggregate_within(options, memory.clone(), |_| ())
    };
    const PLENTY: usize = 1 << 30;
    let plenty = Arc::new(Semaphore::new(PLENTY));
    let first = ask(&plenty).await.unwrap();
    let one = PLENTY - plenty.available_permits();
    assert!(one > 5_000 * 30, "{one} bytes for 5,000 groups");
    assert_eq!((first.rows, first.count()), (5_000, 5_000));
    assert_eq!(plenty.available_permits(), PLENTY, "given back");

    let enough_for_one = Arc::new(Semaphore::new(one + one / 2));
    let first = ask(&enough_for_one).await.unwrap();
    let error = ask(&enough_for_one).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Busy, "not enough for a second one");
    drop(first);
    ask(&enough_for_one).await.unwrap();
}

#[tokio::test]
async fn many_parts_with_long_keys_are_asked_in_several_requests() {
    let key = |n: usize| format!("{n:05}{}", "k".repeat(4_000));
    let (count_of, last) = (2_400, 2_399);
    let ranges = (0..count_of).map(|n| {
        let start = if n == 0 { String::new() } else { key(n) };
        range(n as u64 + 1, &start, &if n == last { String::new() } else { key(n + 1) }, 1)
    });
    let cluster = start(ranges.collect(), |_, _, request| {
        let covered = request.parts.iter().map(|part| part.span.clone().unwrap()).collect();
        vec![pb::AggregateResponse { covered, ..rows("", "", request.parts.len()) }]
    })
    .await;
    let (rows, _) = count(&cluster).await.unwrap();
    assert_eq!(rows, count_of as u64);
    // All at once they would be more than a message may have.
    assert!(asked(&cluster).len() > 3, "{} requests", asked(&cluster).len());
}

/// Its answers have no place for what the newer rules know, and take some values for one that differ:
/// one answer must not be put together from both.
#[tokio::test]
async fn all_parts_of_one_answer_are_computed_by_the_rules_that_every_node_knows() {
    let part = |rules: Rules, start: &str, end: &str| {
        let query = Query::parse(&counting()).unwrap().under(rules);
        let mut fold = Fold::new(&query);
        fold.add(b"k", b"").unwrap();
        let partial = fold.finish().encode(&query).unwrap().into();
        pb::AggregateResponse { covered: vec![span(start, end)], partial, ..Default::default() }
    };
    let ranges = vec![range(1, "", "m", 1), range(2, "m", "", 1)];
    let cluster = start(ranges, move |_, _, request| {
        // The node of the second range is of an older version: it does not look at what is asked for.
        vec![part(Rules::agreed(request.rules), "", "m"), part(Rules::First, "m", "")]
    })
    .await;
    assert_eq!(count(&cluster).await.unwrap(), (2, 0));
    let rules: Vec<_> =
        cluster.state.aggregates().into_iter().map(|(_, request)| request.rules).collect();
    assert_eq!(rules, [Rules::Second.number(), Rules::First.number()]);
}
