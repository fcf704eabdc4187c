//! A meta leader that is cut off from the other members, and from nobody else.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{client, eventually, replicas_are_equal};
use isotherm_client::{Client, ClientOptions};
use isotherm_proto::internal::MembersRequest;
use isotherm_proto::internal::meta_service_client::MetaServiceClient;
use isotherm_testkit::{ClusterOptions, Member, NetworkError, ProcessCluster};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Within this time writes go on.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a cut lasts.
const CUT: Duration = Duration::from_secs(12);

/// Three members, three nodes; nothing where no network can be made: skipped, and it says so.
async fn started() -> Option<ProcessCluster> {
    let options = ClusterOptions { meta_nodes: 3, cut_network: true, ..ClusterOptions::default() };
    let mut cluster = match ProcessCluster::start(&options) {
        Ok(cluster) => cluster,
        Err(error) => match error.downcast_ref::<NetworkError>() {
            Some(NetworkError::Unsupported(why)) => {
                isotherm_testkit::skip(why);
                return None;
            }
            None => panic!("{error:?}"),
        },
    };
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    Some(cluster)
}

/// What one writer did: keys that were acknowledged, with the time at which they were.
#[derive(Default)]
struct Written {
    acknowledged: Mutex<Vec<(Instant, String)>>,
    stop: AtomicBool,
}

impl Written {
    /// Writes one key after the other.
    async fn write(self: Arc<Self>, client: Client, name: &'static str) {
        let mut n = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let key = format!("{name}-{n:06}");
            // An attempt that failed may have been applied: only what was acknowledged counts.
            if client.put(key.clone(), "v").await.is_ok() {
                self.acknowledged.lock().unwrap().push((Instant::now(), key));
            }
            n += 1;
        }
    }

    /// The longest time between two acknowledgements from `since` on.
    fn longest_pause(&self, since: Instant) -> Duration {
        let acknowledged = self.acknowledged.lock().unwrap();
        let times = acknowledged.iter().map(|(at, _)| *at).filter(|at| *at >= since);
        let times: Vec<_> =
            Some(since).into_iter().chain(times).chain(Some(Instant::now())).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    }
}

/// What each member says: who leads, in which term.
async fn said(cluster: &ProcessCluster) -> Vec<(u64, u64)> {
    let mut said = Vec::new();
    for member in cluster.metas() {
        let address = format!("http://{}", cluster.process(member).spec().listen);
        let asked = async {
            let mut client = MetaServiceClient::connect(address).await.ok()?;
            Some(client.members(MembersRequest {}).await.ok()?.into_inner())
        };
        let answer = tokio::time::timeout(Duration::from_secs(2), asked).await.ok().flatten();
        said.push(answer.map_or((0, 0), |answer| (answer.leader, answer.term)));
    }
    said
}

/// All members name the same leader.
async fn one_leader(cluster: &ProcessCluster) -> usize {
    let found = Mutex::new(0);
    eventually(Duration::from_secs(10), async || {
        let said = said(cluster).await;
        *found.lock().unwrap() = said[0].0 as usize;
        let agree = said[0].0 != 0 && said.iter().all(|one| *one == said[0]);
        if agree { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
    found.into_inner().unwrap()
}

/// Cuts what `is_cut` says of (from the leader, to the leader), while clients write.
async fn writes_go_on(from_leader: bool, to_leader: bool) {
    let Some(cluster) = started().await else { return };
    let leader = Member::Meta(one_leader(&cluster).await - 1);
    let others: Vec<_> = cluster.metas().into_iter().filter(|m| *m != leader).collect();
    let written = Arc::new(Written::default());
    // The members as they are given to clients and nodes, and with the leader first, whose word would
    // be taken if the first word was.
    let address = |member: Member| cluster.process(member).spec().listen.to_string();
    let meta = Some(leader).into_iter().chain(others.iter().copied()).map(address).collect();
    let first_asked = ClientOptions { meta, ..ClientOptions::default() };
    let known = tokio::spawn(written.clone().write(client(&cluster), "known"));
    tokio::time::sleep(Duration::from_secs(1)).await;

    let cut_at = Instant::now();
    for &other in &others {
        if from_leader {
            cluster.network().cut(leader, other).unwrap();
        }
        if to_leader {
            cluster.network().cut(other, leader).unwrap();
        }
    }
    // One that knows nothing yet comes while it lasts.
    tokio::time::sleep(PAUSE_MAX).await;
    let begun = Instant::now();
    Client::connect(first_asked.clone()).unwrap().put("new", "v").await.unwrap();
    let new_client = begun.elapsed();
    tokio::time::sleep(CUT.saturating_sub(cut_at.elapsed())).await;
    let pause = written.longest_pause(cut_at);
    let during = said(&cluster).await;

    cluster.network().heal().unwrap();
    let healed_at = Instant::now();
    one_leader(&cluster).await;
    let agreed = healed_at.elapsed();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let pause_after = written.longest_pause(healed_at);
    written.stop.store(true, Ordering::Relaxed);
    known.await.unwrap();
    eprintln!(
        "from the leader {from_leader}, to the leader {to_leader}: longest pause {pause:?}, a new \
         client {new_client:?}, said {during:?}; healed: one leader after {agreed:?}, longest pause \
         {pause_after:?}"
    );
    assert!(pause < PAUSE_MAX && new_client < PAUSE_MAX && pause_after < PAUSE_MAX);
    // Whoever names a leader names the same one.
    let mut named: Vec<_> = during.iter().filter(|(leader, _)| *leader != 0).collect();
    named.dedup();
    assert_eq!(named.len(), 1, "{during:?}");

    let reader = client(&cluster);
    let acknowledged = std::mem::take(&mut *written.acknowledged.lock().unwrap());
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    for (_, key) in acknowledged {
        assert!(reader.get(key.clone()).await.unwrap().is_some(), "{key} is lost");
    }
    replicas_are_equal(&reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meta_leader_that_is_cut_off_from_the_others_holds_nobody() {
    writes_go_on(true, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meta_leader_that_does_not_reach_the_others_holds_nobody() {
    writes_go_on(true, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meta_leader_that_does_not_hear_the_others_holds_nobody() {
    writes_go_on(false, true).await;
}
