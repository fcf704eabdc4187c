#![allow(clippy::unwrap_used)]
use crate::{BootstrapConfig, MetaConfig, MetaError, run};
use isotherm_proto::internal as pb;
use isotherm_proto::internal::meta_service_client::MetaServiceClient;
use isotherm_transport::channel;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

type Client = MetaServiceClient<Channel>;

fn free_ports(count: usize) -> Vec<u16> {
    let bind = |_| std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners: Vec<_> = (0..count).map(bind).collect();
    listeners.iter().map(|l| l.local_addr().unwrap().port()).collect()
}

fn config(id: usize, ports: &[u16], dir: &Path) -> MetaConfig {
    let address = |port: &u16| format!("127.0.0.1:{port}");
    MetaConfig {
        id: id as u64,
        listen: SocketAddr::from(([127, 0, 0, 1], ports[id - 1])),
        http: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        advertise: None,
        data_dir: dir.join(format!("m{id}")),
        peers: (1..).zip(ports.iter().map(address)).collect(),
        bootstrap: BootstrapConfig { nodes: 1, ranges: 4, replicas: 3 },
        disk_reserve_bytes: None,
        disk_stall_limit_ms: None,
    }
}

struct Running {
    stop: CancellationToken,
    ended: JoinHandle<Result<(), MetaError>>,
}

impl Running {
    fn start(config: MetaConfig) -> Self {
        let stop = CancellationToken::new();
        let ended = tokio::spawn(run(config, stop.clone()));
        Self { stop, ended }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.ended.await.unwrap().unwrap();
    }
}

fn client(port: u16) -> Client {
    MetaServiceClient::new(channel(&format!("127.0.0.1:{port}")).unwrap())
}

/// The leader's client, once `ports` agree that there is one that serves.
async fn leader(ports: &[u16]) -> (u64, Client) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        for port in ports {
            let mut asked = client(*port);
            let nodes = asked.list_nodes(pb::ListNodesRequest {}).await;
            if nodes.is_ok_and(|answer| answer.into_inner().error.is_none()) {
                let members = asked.members(pb::MembersRequest {}).await.unwrap().into_inner();
                return (members.answered_by, asked);
            }
        }
        assert!(Instant::now() < deadline, "no leader");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `requests` answers of one stream; none if the member lost its leadership meanwhile.
async fn try_timestamps(client: &mut Client, requests: u64) -> Option<Vec<u64>> {
    let requests = (1..=requests).map(|id| pb::TimestampsRequest { id, count: 2, cluster_id: 0 });
    let sent: Vec<_> = requests.collect();
    let expected = sent.len();
    let mut answers = client.timestamps(tokio_stream::iter(sent)).await.ok()?.into_inner();
    let mut firsts = Vec::new();
    while let Some(answer) = answers.message().await.ok()? {
        assert_eq!(answer.id, firsts.len() as u64 + 1);
        if answer.error.is_some() {
            return None;
        }
        firsts.push(answer.first);
    }
    assert_eq!(firsts.len(), expected);
    Some(firsts)
}

/// The leader, and timestamps of it.
async fn timestamps(ports: &[u16], requests: u64) -> (u64, Client, Vec<u64>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (id, mut client) = leader(ports).await;
        if let Some(firsts) = try_timestamps(&mut client, requests).await {
            return (id, client, firsts);
        }
        assert!(Instant::now() < deadline, "no timestamps");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_elect_serve_fail_over_and_stop_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let ports = free_ports(3);
    let mut members: Vec<_> =
        (1..=3).map(|id| Some(Running::start(config(id, &ports, dir.path())))).collect();
    let (first_id, mut first, taken) = timestamps(&ports, 100).await;
    assert!(taken.is_sorted_by(|a, b| a + 1 < *b));
    let request = pb::RegisterNodeRequest { address: "node:1".into(), ..Default::default() };
    let node = first.register_node(request).await.unwrap().into_inner();
    assert_eq!(node.error, None);
    members[first_id as usize - 1].take().unwrap().stop().await;
    let rest: Vec<_> =
        (1..=3).filter(|id| *id != first_id).map(|id| ports[id as usize - 1]).collect();
    let (second_id, mut second, later) = timestamps(&rest, 10).await;
    assert_ne!(second_id, first_id);
    assert!(later[0] > *taken.last().unwrap() && later[0] > node.ts);
    let status = second.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.cluster_id, node.cluster_id);
    assert_eq!(status.nodes.len(), 1);
    // The third comes back with what it had.
    let id = first_id as usize;
    members[id - 1] = Some(Running::start(config(id, &ports, dir.path())));
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = client(ports[id - 1]).members(pb::MembersRequest {}).await;
        if answer.is_ok_and(|a| a.get_ref().leader == second_id) {
            break;
        }
        assert!(Instant::now() < deadline, "the member does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for member in members.into_iter().flatten() {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_and_a_foreign_directory_are_refused_clearly() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [taken.local_addr().unwrap().port()];
    let refused = run(config(1, &ports, dir.path()), CancellationToken::new()).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains(&format!("127.0.0.1:{}", ports[0])), "{text}");
    drop(taken);
    let member = Running::start(config(1, &ports, dir.path()));
    timestamps(&ports, 1).await;
    member.stop().await;
    let mut other = config(1, &ports, dir.path());
    other.id = 2;
    other.peers = vec![(2, other.peers[0].1.clone())];
    let refused = run(other, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(refused, MetaError::OtherMember { .. }), "{refused}");
}

/// Whether the member at `port` leads and serves within `limit`.
async fn leads_within(port: u16, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        let answer = client(port).list_nodes(pb::ListNodesRequest {}).await;
        if answer.is_ok_and(|answer| answer.into_inner().error.is_none()) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

/// An entry is on members 2 and 3; 3 loses its directory while only 1 is there, which lacks it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_directory_elects_nobody_before_it_has_learned_everything() {
    let dir = tempfile::tempdir().unwrap();
    let ports = free_ports(3);
    let start = |id: usize| Some(Running::start(config(id, &ports, dir.path())));
    let mut members: Vec<_> = (1..=3).map(start).collect();
    timestamps(&ports, 1).await;
    members[0].take().unwrap().stop().await;
    let (_, mut leading, before) = timestamps(&ports[1..], 10).await;
    let request = pb::RegisterNodeRequest { address: "node:1".into(), ..Default::default() };
    assert_eq!(leading.register_node(request).await.unwrap().into_inner().error, None);
    for member in &mut members[1..] {
        member.take().unwrap().stop().await;
    }
    std::fs::remove_dir_all(dir.path().join("m3")).unwrap();
    members[0] = start(1);
    members[2] = start(3);
    assert!(!leads_within(ports[0], Duration::from_secs(3)).await, "one of three knows nothing");
    members[1] = start(2);
    let (_, mut leading, after) = timestamps(&ports, 10).await;
    assert!(after[0] > *before.last().unwrap());
    let status = leading.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.nodes.len(), 1, "what was registered is there");
    // It has learned everything: it makes a quorum with either of the others.
    let deadline = Instant::now() + Duration::from_secs(20);
    let logs_agree = async || {
        let mut ends = Vec::new();
        for port in &ports {
            let answer = client(*port).members(pb::MembersRequest {}).await;
            ends.push(answer.map_or(0, |a| a.into_inner().last_log_index));
        }
        ends.iter().all(|end| *end > 0 && *end == ends[0])
    };
    while !logs_agree().await {
        assert!(Instant::now() < deadline, "the member learns nothing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    members[1].take().unwrap().stop().await;
    timestamps(&[ports[0], ports[2]], 1).await;
    for member in members.into_iter().flatten() {
        member.stop().await;
    }
}
