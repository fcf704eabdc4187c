//! Reads that cost much: they end, they give way, and they hold nothing for a client that is gone or
//! does not read.
#![allow(missing_docs, clippy::unwrap_used)]

use isotherm_client::{Client, ClientOptions, ScanOptions, Write};
use isotherm_proto::v1::aggregate_response::Part;
use isotherm_proto::v1::kv_client::KvClient;
use isotherm_proto::v1::{AggregateRequest, AggregateResponse, GetRequest, ScanRequest};
use isotherm_testkit::{ClusterOptions, ProcessCluster};
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// How long a stream that is not read lasts here.
const IDLE: Duration = Duration::from_secs(2);

/// One node, so that all of it is read in one place.
async fn start() -> (ProcessCluster, Client, KvClient<Channel>) {
    let env = [("ISOTHERM_STREAM_IDLE".to_owned(), format!("{}s", IDLE.as_secs()))].into();
    let options =
        ClusterOptions { nodes: 1, replicas: 1, ranges: 1, env, ..ClusterOptions::default() };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let meta = cluster.meta_addresses();
    let client = Client::connect(ClientOptions { meta, ..ClientOptions::default() }).unwrap();
    let node = cluster.nodes()[0];
    let address = format!("http://{}", cluster.process(node).spec().listen);
    let thin = KvClient::connect(address).await.unwrap();
    (cluster, client, thin)
}

/// The whole answer.
async fn whole(
    thin: &mut KvClient<Channel>,
    request: AggregateRequest,
) -> Result<Vec<AggregateResponse>, Status> {
    let mut messages = thin.aggregate(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(message) = messages.message().await? {
        all.push(message);
    }
    Ok(all)
}

/// A scan as of a time before nearly all of the rows were written.
#[tokio::test(flavor = "multi_thread")]
async fn a_scan_among_later_inserts_gets_on_page_by_page() {
    let (_cluster, client, mut thin) = start().await;
    client.put("k5", "early").await.unwrap();
    let at = client.timestamp().await.unwrap();
    for batch in 0..20_u32 {
        let key = |n: u32| format!("k{:07}", n * 20 + batch);
        let writes = (0..10_000).map(|n| Write::put(key(n), "late"));
        client.batch(writes.collect()).await.unwrap();
    }
    for reverse in [false, true] {
        let options =
            ScanOptions { limit: Some(1), at: Some(at), reverse, ..ScanOptions::default() };
        let mut scan = client.scan(options);
        let (mut pages, mut keys, mut longest) = (0, Vec::new(), Duration::ZERO);
        loop {
            let begun = Instant::now();
            let Some(page) = scan.next_page().await.unwrap() else { break };
            longest = longest.max(begun.elapsed());
            pages += 1;
            keys.extend(page.rows.into_iter().map(|(key, _)| key));
        }
        eprintln!("reverse {reverse}: {pages} pages, the longest {longest:?}");
        assert_eq!(keys, ["k5"]);
        assert!(reverse || pages > 3, "{pages} pages");
    }
    // A thin client is not told of pages without rows.
    let request = ScanRequest { at: Some(at.get()), ..ScanRequest::default() };
    let mut pages = thin.scan(request).await.unwrap().into_inner();
    let mut rows = Vec::new();
    while let Some(page) = pages.message().await.unwrap() {
        rows.push(page.rows.len());
    }
    // But of the first and of the last.
    let between = &rows[1..rows.len() - 1];
    assert!(between.iter().all(|n| *n > 0) && rows.iter().sum::<usize>() == 1, "{rows:?}");
}

/// Documents of 1 MB with 300 fields each, and a condition that looks at all of them.
#[tokio::test(flavor = "multi_thread")]
async fn large_documents_under_a_long_condition_starve_nobody() {
    const DOCUMENTS: u32 = 80;
    let (_cluster, client, mut thin) = start().await;
    let field = |n: u32| format!("\"f{n}\":\"{}\"", "x".repeat(3_400));
    let document = format!("{{{}}}", (0..300).map(field).collect::<Vec<_>>().join(","));
    for n in 0..DOCUMENTS {
        client.put(format!("doc{n:04}"), document.clone()).await.unwrap();
    }
    for n in 0..7 {
        client.put(format!("small{n}"), "1").await.unwrap();
    }
    let paths: Vec<_> = (0..300).map(|n| format!("json:f{n} = 1")).collect();
    let request = AggregateRequest {
        figures: vec!["count".to_owned()],
        filter: paths.join(" or "),
        ..AggregateRequest::default()
    };
    let small = || async {
        let span = isotherm_types::KeyRange::prefix(b"small");
        let begun = Instant::now();
        let options = ScanOptions { span, ..ScanOptions::default() };
        let rows = client.scan(options).collect().await.unwrap();
        assert_eq!(rows.len(), 7);
        begun.elapsed()
    };
    let begun = Instant::now();
    let reading = {
        let (mut thin, request) = (thin.clone(), request.clone());
        tokio::spawn(async move { whole(&mut thin, request).await.map(drop) })
    };
    let mut longest = small().await;
    while !reading.is_finished() && begun.elapsed() < Duration::from_secs(60) {
        longest = longest.max(small().await);
    }
    assert!(reading.is_finished(), "it does not end");
    reading.await.unwrap().unwrap();
    let took = begun.elapsed();
    eprintln!("{DOCUMENTS} documents in {took:?}; 7 rows beside them {longest:?}");
    assert!(longest < Duration::from_secs(2), "7 rows took {longest:?}");

    // Callers that go away, early in an answer, leave the threads to others.
    let mut gone = 0;
    for _ in 0..4 {
        let asked = whole(&mut thin, request.clone());
        gone += u32::from(tokio::time::timeout(took / 8, asked).await.is_err());
    }
    assert!(gone > 0, "every answer was there within an eighth of {took:?}");
    let after = small().await;
    eprintln!("7 rows after 4 callers that went away: {after:?}");
    assert!(after < Duration::from_secs(1), "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_functions_that_is_too_long_holds_up_nobody() {
    let (_cluster, client, thin) = start().await;
    client.put("k", "v").await.unwrap();
    let functions: Vec<_> =
        (0..250_000).map(|n| format!("p{}.{:04}", n / 10_000, n % 10_000)).collect();
    let asked: Vec<_> = (0..2)
        .map(|_| {
            let mut thin = thin.clone();
            let functions = functions.clone();
            let request = AggregateRequest { figures: functions, ..AggregateRequest::default() };
            tokio::spawn(async move { thin.aggregate(request).await.map(|_| ()) })
        })
        .collect();
    let mut longest = Duration::ZERO;
    while asked.iter().any(|asked| !asked.is_finished()) {
        let begun = Instant::now();
        thin.clone().get(GetRequest { key: "k".into(), at: None }).await.unwrap();
        longest = longest.max(begun.elapsed());
    }
    for asked in asked {
        assert_eq!(asked.await.unwrap().unwrap_err().code(), Code::InvalidArgument);
    }
    assert!(longest < Duration::from_secs(1), "a get took {longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_cut_for_thin_clients_and_end_when_they_are_not_read() {
    const ROWS: u32 = 300;
    let (_cluster, client, mut thin) = start().await;
    for n in 0..ROWS {
        let name = format!("{n:05}{}", "n".repeat(30_000));
        client.put(format!("k{n}"), format!("{{\"name\":\"{name}\"}}")).await.unwrap();
    }
    // 9 MB of names, by messages that a client takes without being told to.
    let request = AggregateRequest {
        figures: vec!["count".to_owned()],
        group_by: vec!["json:name".to_owned()],
        ..AggregateRequest::default()
    };
    let mut messages = thin.aggregate(request.clone()).await.unwrap().into_inner();
    let mut groups = 0;
    while let Some(message) = messages.message().await.unwrap() {
        if let Some(Part::Groups(part)) = message.part {
            groups += part.groups.len();
        }
    }
    assert_eq!(groups, ROWS as usize);

    let mut answer = thin.aggregate(request).await.unwrap().into_inner();
    let mut pages = thin.scan(ScanRequest::default()).await.unwrap().into_inner();
    assert!(answer.message().await.unwrap().is_some() && pages.message().await.unwrap().is_some());
    tokio::time::sleep(IDLE * 2).await;
    // An error, and not an end that looks like that of the whole.
    let ended = loop {
        match answer.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the groups end as if all were sent"),
            Err(error) => break error,
        }
    };
    assert_eq!(ended.code(), Code::Aborted, "{ended}");
    let ended = loop {
        match pages.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the scan ends as if all was read"),
            Err(error) => break error,
        }
    };
    assert_eq!(ended.code(), Code::Aborted, "{ended}");
    assert!(ended.message().contains("nothing was read"), "{ended}");
}
