//! The public surface of a node, as a program in any language meets it.
#![allow(missing_docs, clippy::unwrap_used)]

use isotherm_client::aggregate::{Figure, QueryText};
use isotherm_client::{
    AggregateOptions, Client, ClientError, ClientOptions, ErrorKind, ScanOptions,
    Write as ClientWrite,
};
use isotherm_proto::v1::kv_client::KvClient;
use isotherm_proto::v1::{
    AggregateGroup, AggregateRequest, BatchRequest, CompareAndSetRequest, DeleteRequest,
    GetRequest, IncrementRequest, PutRequest, ScanRequest, Write, write, write_result,
};
use isotherm_testkit::{ClusterOptions, Member, ProcessCluster};
use std::time::Duration;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

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
        let put = PutRequest { key: key.into(), value: "v".into() };
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

    let writes = vec![
        Write { kind: Some(write::Kind::Increment(IncrementRequest { key: "n".into(), by: 2 })) },
        Write { kind: Some(write::Kind::Increment(IncrementRequest { key: "a".into(), by: 1 })) },
        Write { kind: Some(write::Kind::Delete(DeleteRequest { key: "5".into() })) },
    ];
    let results = first.batch(BatchRequest { writes }).await.unwrap().into_inner().results;
    let kinds: Vec<_> = results.into_iter().map(|r| r.kind.unwrap()).collect();
    assert!(matches!(&kinds[0], write_result::Kind::Increment(i) if i.value == 2));
    assert!(matches!(&kinds[1], write_result::Kind::Refused(_)), "text is no number");
    assert!(matches!(&kinds[2], write_result::Kind::Delete(d) if d.existed));
    let cas = CompareAndSetRequest { key: "n".into(), expected: None, value: "9".into() };
    let cas = last.compare_and_set(cas).await.unwrap().into_inner();
    assert!(!cas.applied && cas.current.unwrap() == "2");

    let request = AggregateRequest {
        functions: ["count", "sum", "max"].map(str::to_owned).into(),
        group_by: "prefix:1".to_owned(),
        r#where: "key > '!'".to_owned(),
        ..AggregateRequest::default()
    };
    let mut messages = last.aggregate(request.clone()).await.unwrap().into_inner();
    let answer = messages.message().await.unwrap().unwrap();
    assert_eq!((answer.ranges, answer.rows, answer.skipped), (4, 4, 3));
    let numbers = |group: &AggregateGroup| {
        let numbers = group.figures.iter().map(|f| f.number.clone().unwrap_or_default());
        (group.name.clone().unwrap(), numbers.collect::<Vec<_>>().join(" "))
    };
    let groups: Vec<_> = answer.groups.iter().map(numbers).collect();
    let expected = [("A", "1 0 "), ("a", "1 0 "), ("n", "1 2 2"), ("~", "1 0 ")];
    assert_eq!(groups, expected.map(|(name, n)| (name.into(), n.to_owned())));
    assert!(messages.message().await.unwrap().is_none());
    let bad = AggregateRequest { functions: vec!["median".to_owned()], ..request };
    let refused = last.aggregate(bad).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("use count, sum"), "{refused}");

    let refused = first.put(PutRequest { key: "".into(), value: "v".into() }).await.unwrap_err();
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
