//! The public surface of a node, as a program in any language meets it.
#![allow(missing_docs, clippy::unwrap_used)]

use isotherm_client::aggregate::{Figure, QueryText};
use isotherm_client::{
    AggregateOptions, Client, ClientError, ClientOptions, ErrorKind, ScanOptions,
    Write as ClientWrite,
};
use isotherm_proto::v1::kv_client::KvClient;
use isotherm_proto::v1::{
    AggregateGroup, AggregateRequest, AggregateResponse, Applied, BatchRequest, BatchWrite,
    CompareAndSetRequest, CompareAndSetWrite, DeleteRequest, DeleteWrite, GetManyRequest,
    GetRequest, HoldRequest, IncrementRequest, IncrementWrite, PutRequest, PutWrite, Reason,
    ReleaseRequest, ScanRequest, TimestampRequest, aggregate_response::Part, batch_write,
    write_outcome,
};
use isotherm_testkit::{ClusterOptions, Member, ProcessCluster};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_types::StatusExt;

fn batch(kinds: Vec<batch_write::Kind>) -> BatchRequest {
    let write = |kind| BatchWrite { kind: Some(kind) };
    BatchRequest { writes: kinds.into_iter().map(write).collect(), ..BatchRequest::default() }
}

/// All parts of an answer.
async fn parts(mut messages: Streaming<AggregateResponse>) -> Result<Vec<Part>, Status> {
    let mut parts = Vec::new();
    while let Some(message) = messages.message().await? {
        parts.push(message.part.unwrap());
    }
    Ok(parts)
}

/// Reason and what is said about the outcome.
fn said(status: &Status) -> (String, String) {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no details: {status}"));
    assert_eq!(info.domain, "isotherm.v1");
    (info.reason, info.metadata["applied"].clone())
}

async fn start() -> (ProcessCluster, Vec<KvClient<Channel>>) {
    let options = ClusterOptions { ranges: 4, ..ClusterOptions::default() };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let mut clients = Vec::new();
    for node in cluster.nodes() {
        let address = format!("http://{}", cluster.process(node).spec().listen);
        clients.push(KvClient::connect(address).await.unwrap());
    }
    (cluster, clients)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_with_a_request_id_takes_effect_once_through_whatever_node() {
    let (_cluster, mut nodes) = start().await;
    let now = nodes[0].timestamp(TimestampRequest {}).await.unwrap().into_inner().ts;
    for (key, since) in [("plain", None), ("dated", Some(now))] {
        let once = |amount| IncrementRequest {
            key: key.into(),
            amount,
            request_id: vec![7; 16].into(),
            request_since: since,
        };
        let once = |amount| IncrementRequest {
            request_id: [key.as_bytes(), &[7; 11]].concat().into(),
            ..once(amount)
        };
        let first = nodes[0].increment(once(5)).await.unwrap().into_inner();
        for node in &mut nodes {
            let again = node.increment(once(5)).await.unwrap().into_inner();
            assert_eq!(again, first, "{key}");
        }
        // Another write of that name gets the answer of the first; one of another kind is refused.
        assert_eq!(nodes[1].increment(once(6)).await.unwrap().into_inner(), first);
        let put = PutRequest {
            key: key.into(),
            value: "v".into(),
            request_id: once(0).request_id,
            request_since: since,
        };
        let refused = nodes[2].put(put).await.unwrap_err();
        assert_eq!(said(&refused).0, "INVALID", "{refused}");
        let got = nodes[2].get(GetRequest { key: key.into(), at: None }).await.unwrap();
        assert_eq!(got.into_inner().value, "5");
    }
    // The range forgot results of that time, so this attempt may be a late one.
    let late = |id: &[u8], since| IncrementRequest {
        key: "plain".into(),
        amount: 1,
        request_id: id.to_vec().into(),
        request_since: since,
    };
    let expired = nodes[0].increment(late(&[1; 16], Some(1))).await.unwrap_err();
    assert_eq!(expired.code(), Code::Aborted);
    assert_eq!(said(&expired), ("REQUEST_EXPIRED".to_owned(), "unknown".to_owned()));
    let future = nodes[0].increment(late(&[2; 16], Some(u64::MAX / 2))).await.unwrap_err();
    assert_eq!(said(&future).0, "TIMESTAMP_TOO_NEW");
    for (id, since) in [(&[3; 15][..], None), (&[3; 17][..], None), (&[][..], Some(now))] {
        let refused = nodes[0].increment(late(id, since)).await.unwrap_err();
        assert_eq!(said(&refused).0, "INVALID", "{refused}");
    }
    let got = nodes[0].get(GetRequest { key: "plain".into(), at: None }).await.unwrap();
    assert_eq!(got.into_inner().value, "5", "nothing of that was applied");
}

/// A batch whose attempts go through different nodes while the ranges under it are split and merged.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_a_request_id_takes_effect_once_however_ranges_are_cut_meanwhile() {
    const KEYS: u32 = 400;
    let (cluster, mut nodes) = start().await;
    let now = nodes[0].timestamp(TimestampRequest {}).await.unwrap().into_inner().ts;
    let options = ClientOptions { meta: cluster.meta_addresses(), ..ClientOptions::default() };
    let admin = Client::connect(options).unwrap();
    let key = |n: u32| format!("k{:03}", n * 7 % KEYS);
    let increments = |count: u32| {
        let incr = |n| IncrementWrite { key: key(n).into(), amount: 1 };
        batch((0..count).map(|n| batch_write::Kind::Increment(incr(n))).collect())
    };
    for round in 0..4_u32 {
        let named = |count| BatchRequest {
            request_id: [&[9; 15][..], &[round as u8]].concat().into(),
            request_since: Some(now),
            ..increments(count)
        };
        // An attempt of which only a part arrived, as far as the ranges can tell.
        let part = nodes[0].batch(named(KEYS / 3)).await.unwrap().into_inner();
        assert!(part.complete, "{part:?}");
        admin.admin().split(format!("k{:03}", 50 + round * 90)).await.unwrap();
        let whole = nodes[1].batch(named(KEYS)).await.unwrap().into_inner();
        assert!(whole.complete, "{whole:?}");
        assert_eq!(whole.outcomes[..part.outcomes.len()], part.outcomes, "each has its answer");
        let again = nodes[2].batch(named(KEYS)).await.unwrap().into_inner();
        assert_eq!(again, whole);
        for outcome in &whole.outcomes {
            let Some(write_outcome::Kind::Increment(done)) = &outcome.kind else {
                panic!("{outcome:?}")
            };
            assert_eq!(done.value, i64::from(round) + 1);
        }
    }
    let named = |kind, id: &[u8], since| BatchRequest {
        request_id: id.to_vec().into(),
        request_since: since,
        ..batch(vec![kind])
    };
    let put = || batch_write::Kind::Put(PutWrite { key: key(0).into(), value: "v".into() });
    // Another batch of that name: a write of another kind is refused, what is new is done.
    let id = [&[9; 15][..], &[0]].concat();
    let mut other = increments(KEYS);
    (other.request_id, other.request_since) = (id.into(), Some(now));
    other.writes[0] = BatchWrite { kind: Some(put()) };
    let beyond = IncrementWrite { key: "beyond".into(), amount: 1 };
    other.writes.push(BatchWrite { kind: Some(batch_write::Kind::Increment(beyond)) });
    let answer = nodes[0].batch(other).await.unwrap().into_inner();
    let Some(write_outcome::Kind::Failure(refused)) = &answer.outcomes[0].kind else {
        panic!("{answer:?}")
    };
    assert_eq!((refused.reason(), refused.applied()), (Reason::Invalid, Applied::No));
    let got = nodes[1].get(GetRequest { key: "beyond".into(), at: None }).await.unwrap();
    assert_eq!(got.into_inner().value, "1");
    let expired = nodes[0].batch(named(put(), &[1; 16], Some(1))).await.unwrap_err();
    assert_eq!(said(&expired).0, "REQUEST_EXPIRED", "{expired}");
    let future = nodes[0].batch(named(put(), &[2; 16], Some(u64::MAX / 2))).await.unwrap_err();
    assert_eq!(said(&future).0, "TIMESTAMP_TOO_NEW", "{future}");
    let short = nodes[0].batch(named(put(), &[3; 5], None)).await.unwrap_err();
    assert_eq!(said(&short).0, "INVALID", "{short}");
    let got = nodes[0].get(GetRequest { key: key(0).into(), at: None }).await.unwrap();
    assert_eq!(got.into_inner().value, "4", "nothing of that was applied");
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_remove_many_keys_are_read_at_once_and_scans_go_on_where_they_broke() {
    let (_cluster, mut nodes) = start().await;
    let kv = &mut nodes[0];
    let put = |key: &str, value: &str| PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..PutRequest::default()
    };
    let old = kv.put(put("k", "old")).await.unwrap().into_inner().ts;
    kv.put(put("k", "new")).await.unwrap();
    // Removals on a condition.
    let removed =
        DeleteRequest { key: "k".into(), written_at: Some(old), ..DeleteRequest::default() };
    assert!(!kv.delete(removed).await.unwrap().into_inner().existed);
    let cas = |expected: &'static str| CompareAndSetRequest {
        key: "k".into(),
        expected: Some(expected.into()),
        ..CompareAndSetRequest::default()
    };
    let lost = kv.compare_and_set(cas("old")).await.unwrap().into_inner();
    assert!(!lost.applied && lost.current.unwrap() == "new");
    assert!(kv.compare_and_set(cas("new")).await.unwrap().into_inner().applied);
    assert!(!kv.get(GetRequest { key: "k".into(), at: None }).await.unwrap().into_inner().found);
    let in_batch = CompareAndSetWrite { key: "k".into(), value: Some("v".into()), expected: None };
    let set = batch_write::Kind::Put(PutWrite { key: "k2".into(), value: "v".into() });
    let kinds = vec![batch_write::Kind::CompareAndSet(in_batch), set];
    assert!(kv.batch(batch(kinds)).await.unwrap().into_inner().complete);

    // Several keys at one timestamp, as many as fit.
    for n in 0..8 {
        kv.put(put(&format!("m{n}"), &"x".repeat(400 << 10))).await.unwrap();
    }
    let keys: Vec<_> = (0..9).map(|n| format!("m{n}").into()).collect();
    let some = GetManyRequest { keys: keys.clone(), at: None };
    let some = kv.get_many(some).await.unwrap().into_inner();
    assert_eq!(some.values.len(), 2, "of 400 KiB each");
    let rest = GetManyRequest { keys: keys[6..].to_vec(), at: Some(some.at) };
    let rest = kv.get_many(rest).await.unwrap().into_inner();
    let found: Vec<_> = rest.values.iter().map(|value| value.found).collect();
    assert_eq!((rest.at, found), (some.at, vec![true, true, false]));
    for keys in [vec![], vec!["k".into(); 1001]] {
        let refused = kv.get_many(GetManyRequest { keys, at: None }).await.unwrap_err();
        assert_eq!(said(&refused).0, "INVALID", "{refused}");
    }

    // A scan that is broken off after each page.
    for reverse in [false, true] {
        let mut request =
            ScanRequest { keys_only: true, reverse, page_bytes_max: 5, ..ScanRequest::default() };
        let (mut keys, mut pages) = (Vec::new(), 0);
        loop {
            let mut stream = kv.scan(request.clone()).await.unwrap().into_inner();
            let page = stream.message().await.unwrap().unwrap();
            pages += 1;
            keys.extend(page.rows.into_iter().map(|row| row.key));
            request.at = Some(page.at);
            match page.resume_key {
                Some(key) if reverse => request.end_key = key,
                Some(key) => request.start_key = key,
                None => break,
            }
        }
        if reverse {
            keys.reverse();
        }
        let expected: Vec<_> = ["k", "k2"].map(str::to_owned).into();
        let expected = [expected, (0..8).map(|n| format!("m{n}")).collect()].concat();
        assert_eq!(keys, expected, "reverse: {reverse}");
        assert!(pages > 4, "{pages} pages");
    }

    // A hold, renewed and released.
    let held = kv.hold(HoldRequest { hold_id: 0, at: None }).await.unwrap().into_inner();
    assert!(held.hold_id > 0 && held.lifetime_ms > 0);
    let renewal = HoldRequest { hold_id: held.hold_id, at: Some(held.at) };
    assert_eq!(kv.hold(renewal).await.unwrap().into_inner().hold_id, held.hold_id);
    kv.release(ReleaseRequest { hold_id: held.hold_id }).await.unwrap();
    let refused = kv.hold(HoldRequest { hold_id: 0, at: Some(0) }).await.unwrap_err();
    assert_eq!(said(&refused).0, "INVALID");

    // More than a message holds is the caller's fault, and no timestamp's.
    let mut large = kv.clone().max_encoding_message_size(usize::MAX);
    let refused = large.put(put("k", &"x".repeat(17 << 20))).await.unwrap_err();
    assert_eq!((refused.code(), said(&refused).0.as_str()), (Code::InvalidArgument, "TOO_LARGE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_was_applied_in_part_tells_the_outcome_of_each_write() {
    let (mut cluster, mut nodes) = start().await;
    // A key of the range of which a quorum is gone, and none of the other ranges.
    let put =
        |key: &'static str| batch_write::Kind::Put(PutWrite { key: key.into(), value: "v".into() });
    let bad = batch_write::Kind::Put(PutWrite { key: "".into(), value: "v".into() });
    let refused = nodes[0].batch(batch(vec![put("!"), bad])).await.unwrap_err();
    assert_eq!(said(&refused), ("INVALID".to_owned(), "no".to_owned()));
    let got = nodes[0].get(GetRequest { key: "!".into(), at: None }).await.unwrap();
    assert!(!got.into_inner().found);
    // Without a quorum nothing is applied, or it is not known of each write.
    let members = cluster.nodes();
    cluster.kill(&members[1..]).unwrap();
    match nodes[0].batch(batch(vec![put("!"), put("~")])).await {
        Err(error) => assert_eq!(said(&error).1, "no", "{error}"),
        Ok(done) => {
            let done = done.into_inner();
            assert!(!done.complete && done.outcomes.len() == 2);
            for outcome in done.outcomes {
                let Some(write_outcome::Kind::Failure(failure)) = outcome.kind else {
                    panic!("{outcome:?}");
                };
                assert_ne!(failure.applied(), Applied::Yes);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_takes_any_key_and_says_what_it_serves() {
    let options = ClusterOptions { ranges: 4, ..ClusterOptions::default() };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let address = |member: Member| format!("http://{}", cluster.process(member).spec().listen);
    let nodes = cluster.nodes();
    let mut first = KvClient::connect(address(nodes[0])).await.unwrap();
    let mut last = KvClient::connect(address(nodes[2])).await.unwrap();

    // Keys all over the key space: each node leads only some of their ranges.
    for key in ["!", "5", "A", "a", "~"] {
        let put = PutRequest { key: key.into(), value: "v".into(), ..PutRequest::default() };
        first.put(put).await.unwrap();
        let got = last.get(GetRequest { key: key.into(), at: None }).await.unwrap().into_inner();
        assert!(got.found && got.value == "v", "{key}");
    }
    let scan = ScanRequest { keys_only: true, ..ScanRequest::default() };
    let mut pages = last.scan(scan).await.unwrap().into_inner();
    let (mut keys, mut at) = (Vec::new(), None);
    while let Some(page) = pages.message().await.unwrap() {
        assert_eq!(*at.get_or_insert(page.at), page.at, "all pages show one instant");
        keys.extend(page.rows.into_iter().map(|row| row.key));
    }
    assert_eq!(keys, ["!", "5", "A", "a", "~"]);

    let incr = |key: &'static str, amount| {
        batch_write::Kind::Increment(IncrementWrite { key: key.into(), amount })
    };
    let remove = DeleteWrite { key: "5".into(), written_at: None };
    let writes = vec![incr("n", 2), incr("a", 1), batch_write::Kind::Remove(remove)];
    let done = first.batch(batch(writes)).await.unwrap().into_inner();
    assert!(done.complete);
    let kinds: Vec<_> = done.outcomes.into_iter().map(|r| r.kind.unwrap()).collect();
    assert!(matches!(&kinds[0], write_outcome::Kind::Increment(i) if i.value == 2));
    let write_outcome::Kind::Failure(no_number) = &kinds[1] else { panic!("{:?}", kinds[1]) };
    assert_eq!((no_number.reason(), no_number.applied()), (Reason::Condition, Applied::No));
    assert!(matches!(&kinds[2], write_outcome::Kind::Remove(d) if d.existed));
    let cas = CompareAndSetRequest {
        key: "n".into(),
        value: Some("9".into()),
        ..CompareAndSetRequest::default()
    };
    let cas = last.compare_and_set(cas).await.unwrap().into_inner();
    assert!(!cas.applied && cas.current.unwrap() == "2");

    let request = AggregateRequest {
        figures: ["count", "sum", "max"].map(str::to_owned).into(),
        group_by: vec!["prefix:1".to_owned()],
        filter: "key > '!'".to_owned(),
        ..AggregateRequest::default()
    };
    let parts = parts(last.aggregate(request.clone()).await.unwrap().into_inner()).await.unwrap();
    let [Part::Header(header), .., Part::Groups(groups), Part::Totals(totals)] = &parts[..] else {
        panic!("{parts:?}");
    };
    assert!(header.at > 0);
    assert_eq!((totals.ranges, totals.rows, totals.skipped), (4, 4, 3));
    let numbers = |group: &AggregateGroup| {
        assert!(group.figures.iter().all(|figure| !figure.approximate));
        let numbers = group.figures.iter().map(|f| f.digits.clone().unwrap_or_default());
        (group.name.clone().unwrap(), numbers.collect::<Vec<_>>().join(" "))
    };
    let groups: Vec<_> = groups.groups.iter().map(numbers).collect();
    let expected = [("A", "1 0 "), ("a", "1 0 "), ("n", "1 2 2"), ("~", "1 0 ")];
    assert_eq!(groups, expected.map(|(name, n)| (name.into(), n.to_owned())));
    let estimate = AggregateRequest { figures: vec!["p50".to_owned()], ..request.clone() };
    let estimate = self::parts(last.aggregate(estimate).await.unwrap().into_inner()).await.unwrap();
    let is_estimate = |part: &Part| match part {
        Part::Groups(groups) => groups.groups.iter().all(|group| group.figures[0].approximate),
        _ => true,
    };
    assert!(estimate.iter().all(is_estimate), "{estimate:?}");
    // One that takes a while says how far it is.
    let rows = (0..200_000).map(|n| ClientWrite::put(format!("row{n:06}"), n.to_string()));
    let rows: Vec<_> = rows.collect();
    let meta = cluster.meta_addresses();
    let rust = Client::connect(ClientOptions { meta, ..ClientOptions::default() }).unwrap();
    for rows in rows.chunks(10_000) {
        rust.batch(rows.to_vec()).await.unwrap();
    }
    let slow = AggregateRequest {
        figures: (1..60).map(|n| format!("p{n}")).collect(),
        group_by: vec!["prefix:7".to_owned()],
        groups_max: 100_000,
        ..AggregateRequest::default()
    };
    let slow = self::parts(last.aggregate(slow).await.unwrap().into_inner()).await.unwrap();
    let [Part::Header(_), Part::Progress(progress), .., Part::Totals(totals)] = &slow[..] else {
        panic!("{} parts, at first {:?}", slow.len(), &slow[..2]);
    };
    assert!(progress.rows > 0 && progress.rows <= totals.rows, "{progress:?} {totals:?}");
    let bad = AggregateRequest { figures: vec!["median".to_owned()], ..request };
    let refused = last.aggregate(bad).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("use count, sum"), "{refused}");

    let put = PutRequest { value: "v".into(), ..PutRequest::default() };
    let refused = first.put(put).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let future = GetRequest { key: "a".into(), at: Some(u64::MAX / 2) };
    assert_eq!(first.get(future).await.unwrap_err().code(), Code::OutOfRange);

    let channel = Endpoint::from_shared(address(nodes[1])).unwrap().connect().await.unwrap();
    let service = "isotherm.v1.Kv".to_owned();
    let mut health = HealthClient::new(channel.clone());
    let state = health.check(HealthCheckRequest { service }).await.unwrap().into_inner();
    assert_eq!(state.status(), ServingStatus::Serving);
    let mut reflection = ServerReflectionClient::new(channel);
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let asked = ServerReflectionRequest { host: String::new(), message_request };
    let asked = reflection.server_reflection_info(futures::stream::iter([asked])).await.unwrap();
    let answer = asked.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("no list of services");
    };
    assert!(list.service.iter().any(|s| s.name == "isotherm.v1.Kv"), "{list:?}");
}

/// count, sum and number of retries, over everything.
async fn totals(client: &Client) -> Result<(String, String, u64), ClientError> {
    let query = QueryText { functions: "count,sum".to_owned(), ..QueryText::default() };
    let done = client.aggregate(AggregateOptions { query, ..AggregateOptions::default() }).await?;
    let figures: Vec<_> = done.answer.groups[0]
        .figures
        .iter()
        .map(|(_, figure)| match figure {
            Figure::Number(digits) => digits.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    Ok((figures[0].clone(), figures[1].clone(), done.repeated))
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_and_totals_cover_every_key_once_while_ranges_split_and_leaders_move() {
    const ROWS: u64 = 6_000;
    let options = ClusterOptions { ranges: 2, ..ClusterOptions::default() };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let client = Client::connect(ClientOptions {
        meta: cluster.meta_addresses(),
        ..ClientOptions::default()
    })
    .unwrap();
    let key = |n: u64| format!("{:04}", n * 9_999 / ROWS) + &format!("{n:05}");
    let writes = (0..ROWS).map(|n| ClientWrite::put(key(n), (n * 3).to_string()));
    client.batch(writes.collect()).await.unwrap();
    let sum = (0..ROWS).map(|n| n * 3).sum::<u64>().to_string();

    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let moving = {
        let (client, stop) = (client.clone(), stop.clone());
        tokio::spawn(async move {
            let (mut splits, mut transfers) = (0, 0);
            for n in 1.. {
                if stop.load(std::sync::atomic::Ordering::SeqCst) {
                    break;
                }
                // Busy ranges refuse; the next round tries another.
                if splits < 30 {
                    let at = format!("{:04}", n * 317 % 9_999);
                    splits += u64::from(client.admin().split(at).await.is_ok());
                }
                let range = client.admin().range_of_key(key(n * 523 % ROWS).as_bytes()).await;
                if let Ok(range) = range {
                    let to = range.descriptor.replicas[n as usize % 3].node;
                    let moved = client.admin().transfer_leader(range.descriptor.id, to).await;
                    transfers += u64::from(moved.is_ok());
                }
            }
            (splits, transfers)
        })
    };
    let (mut repeated, mut rounds) = (0, 0);
    let until = std::time::Instant::now() + Duration::from_secs(6);
    while std::time::Instant::now() < until {
        let (count, total, again) = totals(&client).await.unwrap();
        assert_eq!((count, &total), (ROWS.to_string(), &sum));
        repeated += again;
        rounds += 1;
        let mut scan = client.scan(ScanOptions { keys_only: true, ..ScanOptions::default() });
        let mut keys = Vec::new();
        while let Some(page) = scan.next_page().await.unwrap() {
            keys.extend(page.rows.into_iter().map(|(key, _)| key));
        }
        assert!(keys.is_sorted() && keys.len() as u64 == ROWS, "{} keys", keys.len());
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let (splits, transfers) = moving.await.unwrap();
    // Else nothing moved under any of the reads.
    assert!(splits > 5 && transfers > 5 && rounds > 5, "{splits} {transfers} {rounds}");
    assert!(repeated > 0, "no read met a range that had moved");

    // One that cannot be answered says so instead of an answer without some ranges.
    let nodes = cluster.nodes();
    cluster.kill(&nodes[1..]).unwrap();
    let patient = ClientOptions {
        meta: cluster.meta_addresses(),
        timeout: Duration::from_secs(3),
        ..ClientOptions::default()
    };
    let error = totals(&Client::connect(patient).unwrap()).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Unreachable), "{error:?}");
}
