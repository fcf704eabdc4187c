//! What a service manager and load balancers are told: `sd_notify`, `grpc.health.v1`, and addresses.
#![allow(missing_docs, clippy::unwrap_used)]

use isotherm_testkit::{ClusterOptions, Member, ProcessCluster, isotherm_binary};
use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const NODE: Member = Member::Node(0);
const META: Member = Member::Meta(0);

/// The socket of a service manager, and all that came in.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<(Instant, String)>,
}

impl Manager {
    fn listen(path: &std::path::Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Self { socket, heard: Vec::new() }
    }

    /// Waits until a message has a line that is `line`.
    fn wait_for(&mut self, line: &str, within: Duration) -> Instant {
        let deadline = Instant::now() + within;
        let mut message = [0; 4096];
        loop {
            if let Ok(length) = self.socket.recv(&mut message) {
                let text = String::from_utf8_lossy(&message[..length]).into_owned();
                self.heard.push((Instant::now(), text.clone()));
                if text.lines().any(|said| said == line) {
                    return Instant::now();
                }
            }
            assert!(Instant::now() < deadline, "{line} is not among {:?}", self.heard);
        }
    }

    fn has_heard(&self, line: &str) -> bool {
        self.heard.iter().any(|(_, text)| text.lines().any(|said| said == line))
    }
}

async fn health(cluster: &ProcessCluster, member: Member) -> Option<ServingStatus> {
    let address = format!("http://{}", cluster.process(member).spec().listen);
    let channel = tonic::transport::Endpoint::from_shared(address).ok()?.connect().await.ok()?;
    let mut health = HealthClient::new(channel);
    let said = health.check(HealthCheckRequest { service: String::new() }).await.ok()?;
    Some(said.into_inner().status())
}

/// A node whose cluster waits for a second one: it is alive, is not ready, and says so everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn processes_tell_how_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let env = |name: &str| -> BTreeMap<String, String> {
        let socket = dir.path().join(name).to_string_lossy().into_owned();
        let pairs = [("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", "900000".to_owned())];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    };
    let mut meta = Manager::listen(&dir.path().join("meta"));
    let mut node = Manager::listen(&dir.path().join("node"));
    let mut options = ClusterOptions { nodes: 2, replicas: 2, ranges: 2, ..Default::default() };
    options.member_env = BTreeMap::from([(META, env("meta")), (NODE, env("node"))]);
    let second = Member::Node(1);
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.kill(&[second]).unwrap();
    meta.wait_for("READY=1", Duration::from_secs(20));
    node.wait_for("WATCHDOG=1", Duration::from_secs(10));
    node.wait_for("EXTEND_TIMEOUT_USEC=60000000", Duration::from_secs(10));
    // The second may have registered before it was killed, and then the cluster begins without it.
    if !node.has_heard("READY=1") {
        let deadline = Instant::now() + Duration::from_secs(10);
        let said = loop {
            match health(&cluster, NODE).await {
                Some(said) => break said,
                None => assert!(Instant::now() < deadline, "it does not serve gRPC"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(said, ServingStatus::NotServing);
    }
    cluster.start_member(second).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    if !node.has_heard("READY=1") {
        node.wait_for("READY=1", Duration::from_secs(10));
    }
    for member in [META, NODE] {
        assert_eq!(health(&cluster, member).await, Some(ServingStatus::Serving), "{member}");
    }
    for manager in [&mut meta, &mut node] {
        let first = manager.wait_for("WATCHDOG=1", Duration::from_secs(2));
        let second = manager.wait_for("WATCHDOG=1", Duration::from_secs(2));
        assert!(second - first < Duration::from_millis(900), "{:?}", second - first);
    }
    for (member, manager) in [(NODE, &mut node), (META, &mut meta)] {
        assert!(!manager.has_heard("STOPPING=1"), "{member}");
        cluster.process_mut(member).terminate().unwrap();
        manager.wait_for("STOPPING=1", Duration::from_secs(10));
        let ended = cluster.process_mut(member).wait_ended(Duration::from_secs(20)).await.unwrap();
        assert!(ended.unwrap().success(), "{member}: {ended:?}");
    }
}

/// Without an address to connect to a process does not start, and says what to give it.
#[test]
fn a_wildcard_is_no_address() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data").to_string_lossy().into_owned();
    let node = ["node", "--listen", "0.0.0.0:0", "--meta", "127.0.0.1:7001", "--data-dir", &data];
    let meta = ["meta", "--id", "1", "--listen", "0.0.0.0:17901", "--data-dir", &data];
    for args in [&node[..], &meta[..]] {
        let mut command = Command::new("timeout");
        let ended = command.arg("20").arg(isotherm_binary().unwrap()).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success() && ended.status.code() != Some(124), "{args:?}: {said}");
        assert!(said.contains("--advertise HOST:PORT"), "{args:?}: {said}");
        assert!(!dir.path().join("data").exists(), "nothing was touched");
    }
}
