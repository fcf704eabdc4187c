//! Bits that flip on the disks of real processes: nobody reads anything wrong, and the range has three good
//! replicas again, or the status says what a person must do.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{client, eventually, ranges, replicas_are_equal};
use isotherm_client::Client;
use isotherm_testkit::{ClusterOptions, Member, ProcessCluster};
use isotherm_types::{NodeId, RangeId};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ROWS: usize = 200;

fn key(n: usize) -> String {
    format!("k{n:03}")
}

/// Letters that do not repeat, so that they lie on the disk as they are.
fn value(n: usize) -> String {
    let mut random = fastrand::Rng::with_seed(n as u64);
    let noise: String = std::iter::repeat_with(|| random.alphanumeric()).take(400).collect();
    format!("value-{n:03}-{noise}")
}

struct Damaged {
    cluster: ProcessCluster,
    client: Client,
}

impl Damaged {
    /// One range with three replicas on `nodes` nodes, and rows that are flushed soon.
    async fn start(nodes: usize, env: &[(&str, &str)]) -> Self {
        let mut all = BTreeMap::from([
            ("ISOTHERM_FLUSH_INTERVAL".to_owned(), "300ms".to_owned()),
            ("ISOTHERM_BLOCK_CACHE_BYTES".to_owned(), "4096".to_owned()),
        ]);
        all.extend(env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        let options = ClusterOptions { nodes, ranges: 1, env: all, ..ClusterOptions::default() };
        let mut cluster = ProcessCluster::start(&options).unwrap();
        cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
        let client = client(&cluster);
        client.admin().set_setting("replica.dead_after", "3s").await.unwrap();
        for n in 0..ROWS {
            client.put(key(n), value(n)).await.unwrap();
        }
        Self { cluster, client }
    }

    async fn member(&self, id: NodeId) -> Member {
        let nodes = self.client.admin().nodes().await.unwrap();
        let address = &nodes.iter().find(|node| node.id == id).unwrap().address;
        let is_it = |m: &Member| self.cluster.process(*m).spec().listen.to_string() == *address;
        self.cluster.nodes().into_iter().find(is_it).unwrap()
    }

    fn dir(&self, member: Member, part: &str) -> PathBuf {
        self.cluster.process(member).spec().data_dir.join(part)
    }

    async fn leader(&self) -> NodeId {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(leader) = ranges(&self.client).await[0].leader {
                return leader;
            }
            assert!(Instant::now() < deadline, "nobody leads");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Reads every row once. What is answered is right.
    async fn read_all(&self) {
        for n in 0..ROWS {
            let begun = Instant::now();
            let row = loop {
                match self.client.get(key(n)).await {
                    Ok(row) => break row,
                    Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}"),
                }
            };
            assert_eq!(row.unwrap().value, value(n), "{}", key(n));
        }
    }

    /// The range has three replicas that are there, other than `lost`.
    async fn is_whole(&self, lost: (RangeId, NodeId, isotherm_types::ReplicaId)) {
        let begun = Instant::now();
        eventually(Duration::from_secs(90), async || {
            let ranges = ranges(&self.client).await;
            let range = ranges.iter().find(|r| r.descriptor.id == lost.0).unwrap();
            let d = &range.descriptor;
            let is_gone = d.replica(lost.2).is_none();
            if is_gone && d.is_settled() && d.replicas.len() == 3 && range.live_replicas.len() == 3
            {
                return Ok(());
            }
            let problems = self.client.admin().status().await.map(|status| status.problems);
            Err(format!("{range:?} {problems:?}"))
        })
        .await;
        eprintln!("three good replicas after {:?}", begun.elapsed());
        self.read_all().await;
        replicas_are_equal(&self.client).await;
        // Also what the node itself could not mend is said.
        for member in self.cluster.nodes() {
            let damage = self.dir(member, "DAMAGE");
            if damage.exists() {
                self.says_what_to_do(lost.1).await;
            }
        }
    }

    async fn says_what_to_do(&self, node: NodeId) {
        let begins = format!("node {node} (");
        eventually(Duration::from_secs(30), async || {
            let problems = self.client.admin().status().await.map_err(|e| e.to_string())?.problems;
            let said = problems.iter().find(|p| p.starts_with(&begins));
            let is_clear = said.is_some_and(|said| {
                said.contains("damaged") && said.contains("empty data directory")
            });
            if !is_clear {
                return Err(format!("{problems:?}"));
            }
            eprintln!("{}", said.unwrap());
            Ok(())
        })
        .await;
    }
}

/// Flips one bit wherever `text` stands in the files of `dir` that end in `kind`, beside whoever uses them;
/// how many there were.
fn flip(dir: &Path, kind: &str, text: &str) -> usize {
    let mut flipped = 0;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            flipped += flip(&path, kind, text);
            continue;
        }
        if path.extension().is_none_or(|e| e != kind) {
            continue;
        }
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let places = bytes.windows(text.len()).enumerate();
        for (at, _) in places.filter(|(_, window)| *window == text.as_bytes()) {
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
            flipped += 1;
        }
    }
    flipped
}

/// What of a value stands in the files.
fn needle(n: usize) -> String {
    value(n)[20..60].to_owned()
}

/// Flips a bit in a live table of the leader or of a follower, and reads.
async fn in_a_table(of_leader: bool) {
    let d = Damaged::start(4, &[]).await;
    let leader = d.leader().await;
    let range = ranges(&d.client).await[0].descriptor.clone();
    let of = match of_leader {
        true => range.replica_on(leader).unwrap(),
        false => range.replicas.iter().find(|r| r.node != leader).unwrap(),
    };
    let lost = (range.id, of.node, of.id);
    let tables = d.dir(d.member(of.node).await, "data");
    eventually(Duration::from_secs(20), async || match flip(&tables, "sst", &needle(7)) {
        0 => Err("it is in no table yet".to_owned()),
        _ => Ok(()),
    })
    .await;
    d.read_all().await;
    if !of_leader {
        // To apply this is to read what stood there.
        d.client.put(key(7), value(7)).await.unwrap();
    }
    d.is_whole(lost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_a_table_of_the_leader_is_never_answered_and_mended() {
    in_a_table(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_a_table_of_a_follower_is_mended() {
    in_a_table(false).await;
}

/// The node stays out, and its replicas are built again elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_a_log_costs_the_node_and_the_range_is_whole_without_it() {
    let mut d = Damaged::start(4, &[("ISOTHERM_FLUSH_INTERVAL", "1h")]).await;
    let leader = d.leader().await;
    let range = ranges(&d.client).await[0].descriptor.clone();
    let of = range.replica_on(leader).unwrap();
    let member = d.member(leader).await;
    d.cluster.kill(&[member]).unwrap();
    assert!(flip(&d.dir(member, "raft"), "log", &needle(100)) > 0);
    d.cluster.start_member(member).unwrap();
    let process = d.cluster.process_mut(member);
    let ended = process.wait_ended(Duration::from_secs(20)).await.unwrap();
    assert!(ended.is_some_and(|status| !status.success()));
    d.is_whole((range.id, leader, of.id)).await;
    assert!(d.dir(member, "DAMAGE").exists());
}

/// Three nodes, so that nobody can take over: the status says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_node_to_spare_the_status_says_what_to_do() {
    let mut d = Damaged::start(3, &[("ISOTHERM_FLUSH_INTERVAL", "1h")]).await;
    let node = d.leader().await;
    let member = d.member(node).await;
    d.cluster.kill(&[member]).unwrap();
    assert!(flip(&d.dir(member, "raft"), "log", &needle(100)) > 0);
    d.cluster.start_member(member).unwrap();
    d.says_what_to_do(node).await;
    d.read_all().await;
}

/// What a snapshot brings is damaged on the disk of its receiver before it is installed.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_a_snapshot_file_is_mended() {
    let slow = ("ISOTHERM_SNAPSHOT_BYTES_PER_SECOND", "50000");
    let d = Damaged::start(4, &[slow]).await;
    let leader = d.leader().await;
    let range = ranges(&d.client).await[0].descriptor.clone();
    let from = range.replicas.iter().find(|r| r.node != leader).unwrap();
    let nodes = d.client.admin().nodes().await.unwrap();
    let to = nodes.iter().find(|node| range.replica_on(node.id).is_none()).unwrap().id;
    let staged = d.dir(d.member(to).await, "snapshots");
    d.client.admin().move_range(range.id, from.node, to, Duration::from_secs(100)).await.unwrap();
    let mut flipped = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    while flipped == 0 {
        flipped = flip(&staged, "sst", &needle(3));
        assert!(Instant::now() < deadline, "no file of a snapshot was seen");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    eprintln!("{flipped} places in files of a snapshot");
    // To sum the rows is to read them all.
    let begun = Instant::now();
    eventually(Duration::from_secs(120), async || {
        d.read_all().await;
        let found = ranges(&d.client).await;
        let d2 = &found[0].descriptor;
        let sums = d.client.admin().checksum(range.id).await.map_err(|e| e.to_string())?;
        let sums: Vec<_> = sums.into_iter().map(|sum| sum.checksum).collect();
        let first = sums[0].clone();
        let is_whole = d2.is_settled()
            && d2.replicas.len() == 3
            && found[0].live_replicas.len() == 3
            && sums.len() == 3
            && first.is_ok()
            && sums.iter().all(|sum| *sum == first);
        if is_whole { Ok(()) } else { Err(format!("{d2:?} {sums:?}")) }
    })
    .await;
    eprintln!("three good replicas after {:?}", begun.elapsed());
}
