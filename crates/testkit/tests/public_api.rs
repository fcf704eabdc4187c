//! The public surface of a node, as a program in any language meets it.
#![allow(missing_docs, clippy::unwrap_used)]

use isotherm_proto::v1::kv_client::KvClient;
use isotherm_proto::v1::{
    BatchRequest, CompareAndSetRequest, DeleteRequest, GetRequest, IncrementRequest, PutRequest,
    ScanRequest, Write, write, write_result,
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
