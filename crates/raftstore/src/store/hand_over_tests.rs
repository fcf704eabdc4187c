//! Hand-overs of leadership: who ordered one may be gone, and what comes late breaks no lease.
#![allow(clippy::unwrap_used)]

use super::StoreTuning;
use crate::entry_codec::{decode_message, encode_message};
use crate::network::{CampaignOrder, Method};
use crate::sender::{FrameHeader, FrameReceiver};
use crate::testing::{Cluster, put};
use crate::type_config::{LogId, Vote, VoteRequest, VoteResponse};
use bytes::Bytes;
use isotherm_types::{NodeId, RangeId, ReplicaId};
use std::time::Duration;

const R: RangeId = RangeId(1);
const CAMPAIGN: u32 = 102;

async fn call(
    cluster: &Cluster,
    node: u64,
    from: ReplicaId,
    method: u32,
    payload: Bytes,
) -> Result<Bytes, String> {
    let store = cluster.store(node).clone();
    let to_replica = store.replica(R).unwrap().id;
    let header = FrameHeader { range: R, from_replica: from, to_replica, method };
    store.call(NodeId(1), header, payload).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_hand_over_was_given_up_serves_again() {
    let cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&[("", "")]).await;
    cluster.write(vec![put("k", "1")]).await;
    let leader = cluster.leader(R).await;
    let away = (1..=3).find(|node| *node != leader).unwrap();
    cluster.net.isolate(NodeId(away), true);
    cluster.write(vec![put("k", "2")]).await;
    let (store, replica) = (cluster.store(leader), cluster.store(leader).replica(R).unwrap());
    // It lacks something: the leader waits for it, while its caller does not.
    let ordered = store.transfer_leader(R, NodeId(away));
    assert!(tokio::time::timeout(Duration::from_millis(100), ordered).await.is_err());
    cluster.wait_for("the hand-over ends", || !replica.is_transferring()).await;
    assert!(replica.status().is_leader, "nobody took over");
    cluster.write(vec![put("k", "3")]).await;
    assert_eq!(cluster.get("k").await.as_deref(), Some("3"));
    cluster.net.isolate(NodeId(away), false);
    drop(replica);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_order_to_stand_for_election_disturbs_no_lease() {
    let cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&[("", "")]).await;
    cluster.write(vec![put("k", "1")]).await;
    let old = cluster.leader(R).await;
    let old_status = cluster.store(old).replica(R).unwrap().status();
    let new = (1..=3).find(|node| *node != old).unwrap();
    cluster.store(old).transfer_leader(R, NodeId(new)).await.unwrap();
    let leads = || cluster.store(new).replica(R).unwrap().status().is_leader;
    cluster.wait_for("the other leads", leads).await;
    cluster.write(vec![put("k", "2")]).await;
    let status = cluster.store(new).replica(R).unwrap().status();
    let follower = (1..=3).find(|node| ![old, new].contains(node)).unwrap();
    let follows = || {
        cluster.store(follower).replica(R).unwrap().status().leader_replica == Some(status.replica)
    };
    cluster.wait_for("it is followed", follows).await;
    // The former leader's, which comes only now; one of no leadership at all, as an older version
    // sends it; and one of the leader that is well, whose lease runs.
    let order = |term| CampaignOrder { term }.encode();
    let late = call(&cluster, follower, old_status.replica, CAMPAIGN, order(old_status.term)).await;
    assert!(late.unwrap_err().contains("this member follows"));
    let _ = call(&cluster, follower, old_status.replica, CAMPAIGN, Bytes::new()).await;
    let _ = call(&cluster, follower, status.replica, CAMPAIGN, order(status.term)).await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = cluster.store(follower).replica(R).unwrap().status();
        assert_eq!((now.term, now.leader_replica), (status.term, Some(status.replica)));
    }
    assert!(leads());
    cluster.stop().await;
}

/// Two leaders of one term are told apart by their ids: the higher one would win over the other's lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_of_a_late_hand_over_gets_no_vote_against_the_lease_of_who_leads_by_now() {
    let cluster = Cluster::start(3, StoreTuning::default()).await;
    cluster.seed(&[("", "")]).await;
    cluster.write(vec![put("k", "1")]).await;
    let leader = cluster.leader(R).await;
    let status = cluster.store(leader).replica(R).unwrap().status();
    let follower = (1..=3).find(|node| *node != leader).unwrap();
    let applied = || cluster.store(follower).replica(R).unwrap().applied_index();
    cluster.wait_for("it follows", || applied() == status.applied_index).await;
    let instance = cluster.store(follower).replica(R).unwrap().instance.load_full().unwrap();
    let stand = async |term| {
        let last = LogId::new(Vote::new(status.term, status.replica.get()).leader_id, 1 << 40);
        let request = VoteRequest {
            vote: Vote::new(term, 99),
            last_log_id: Some(last),
            leadership_transfer: true,
        };
        let payload = encode_message(&request).into();
        let vote = call(&cluster, follower, ReplicaId(99), Method::Vote.number(), payload).await;
        decode_message::<VoteResponse>(&vote.unwrap()).unwrap().vote_granted
    };
    assert!(!stand(status.term).await, "its leader's lease runs");
    // One that its leader itself stood back for.
    assert!(stand(status.term + 1).await);
    drop(instance);
    cluster.stop().await;
}
