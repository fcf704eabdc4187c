//! What leaders do beside serving: have new ranges led soon, help replicas that are missing, finish
//! changes of members that an earlier leader began, remove those that lost a part of their log.
//!
//! These are calls between stores, beside openraft's own:
//! * `READY`: does this node host the range and is it flushed? (a split child announces itself)
//! * `CAMPAIGN`: stand for election now, by order of a leader (the fallback of a hand-over);
//! * `ROOM`: is there room for a snapshot? (`store/rooms.rs`)
//! * `LEADS`: does this replica lead the range?
//! * `PROBE`: does the disk of this node answer (`disk_probe.rs`)?
//! * `CREATE`: create a replica that the descriptor names and that is not here, because the log
//!   entry that would have created it was purged.

use super::create::CreationRecord;
use super::operation::dismiss;
use super::rooms::ROOM;
use super::{Store, rouse};
use crate::disk_probe::PROBE;
use crate::network::{self, CampaignOrder};
use crate::replica::{Instance, Replica, WakeReason};
use crate::sender::FrameHeader;
use bytes::Bytes;
use isotherm_storage::codec;
use isotherm_types::{NodeId, RangeId, ReplicaId};
use openraft::type_config::async_runtime::watch::WatchReceiver;
use std::sync::Arc;
use std::time::{Duration, Instant};

const READY: u32 = 101;
const CAMPAIGN: u32 = 102;
const CREATE: u32 = 103;
const LEADS: u32 = 108;

/// Between two looks whether a new range is ready, growing.
const CAMPAIGN_PAUSE: Duration = Duration::from_millis(20);
const CAMPAIGN_PAUSE_MAX: Duration = Duration::from_millis(500);
/// New ranges that try to have a leader at a time.
pub(super) const CAMPAIGNS_AT_ONCE: usize = 64;

const CALL_TIMEOUT: Duration = Duration::from_millis(500);

/// Answers a call that is not openraft's; `None` if it is.
pub(super) async fn receive(
    store: &Arc<Store>,
    from: NodeId,
    header: &FrameHeader,
    payload: &Bytes,
) -> Option<Result<Bytes, String>> {
    if let Some(answer) = rouse::receive(store, from, header, payload) {
        return Some(answer);
    }
    if let Some(answer) = dismiss::receive(store, header, payload).await {
        return Some(answer);
    }
    match header.method {
        READY => Some(match store.replica(header.range) {
            Some(_) => Ok(Bytes::new()),
            None => Err("not here yet".into()),
        }),
        CAMPAIGN => Some(store.take_campaign_order(header, payload).await),
        ROOM => Some(store.promise_room(header)),
        LEADS => Some(match store.replica(header.range) {
            Some(replica) if replica.status().is_leader => Ok(Bytes::new()),
            _ => Err("it does not lead".into()),
        }),
        PROBE => Some(match store.ctx.probe.answers().await {
            true => Ok(Bytes::new()),
            false => Err("the disk does not answer".into()),
        }),
        CREATE => {
            // Its caller's patience does not cut it off half done.
            let (store, header, payload) = (store.clone(), *header, payload.clone());
            let tasks = store.ctx.tasks.clone();
            let create = async move { store.create_replica(from, &header, &payload).await };
            let created = tasks.spawn(create).await.unwrap_or_else(|e| Err(e.to_string()));
            Some(created.map(|()| Bytes::new()))
        }
        _ => None,
    }
}

impl Store {
    /// The instance that may stand for election in `replica`, which is woken for it.
    fn candidate(replica: &Replica) -> Result<Arc<Instance>, String> {
        if !replica.may_lead() {
            return Err("this replica is lost: it is built again".into());
        }
        replica.wake(WakeReason::Asked);
        let instance = replica.instance.load_full().ok_or("the range is starting")?;
        if instance.holds_votes() {
            return Err("votes are held back after a start".into());
        }
        Ok(instance)
    }

    async fn take_campaign_order(
        &self,
        header: &FrameHeader,
        order: &[u8],
    ) -> Result<Bytes, String> {
        let replica = self.replica(header.range).filter(|r| r.id == header.to_replica);
        let replica = replica.ok_or("that replica is not here")?;
        let instance = Self::candidate(&replica)?;
        network::campaign(&instance.raft, header.from_replica, order).await?;
        Ok(Bytes::new())
    }

    /// Stands for election in a range that nobody leads; a lease that this replica has promised by now is
    /// kept.
    async fn campaign(&self, replica: &Replica) -> Result<(), String> {
        let instance = Self::candidate(replica)?;
        instance.raft.trigger().elect(true).await.map_err(|e| e.to_string())
    }

    pub(super) async fn ask(
        &self,
        replica: &Replica,
        to: (ReplicaId, NodeId),
        method: u32,
        payload: Bytes,
    ) -> Result<Bytes, crate::sender::SendError> {
        let header = FrameHeader {
            range: replica.range,
            from_replica: replica.id,
            to_replica: to.0,
            method,
        };
        self.ctx.sender.call(to.1, header, payload, CALL_TIMEOUT).await
    }

    /// Whether another replica says that it leads the range.
    pub(super) async fn ask_whether_it_leads(
        &self,
        replica: &Replica,
        other: (ReplicaId, NodeId),
    ) -> bool {
        self.ask(replica, other, LEADS, Bytes::new()).await.is_ok()
    }

    /// Asks an up-to-date follower to stand for election, by order of the leadership of `term`, which
    /// serves nothing any more: `target` if it answers, else another.
    pub(super) async fn ask_to_campaign(&self, replica: &Replica, term: u64, target: u64) {
        let order = CampaignOrder { term }.encode();
        let descriptor = replica.descriptor();
        let mut others: Vec<_> = descriptor.voters().filter(|v| v.id != replica.id).collect();
        others.sort_by_key(|v| v.id.get() != target);
        for other in others {
            let asked = self.ask(replica, (other.id, other.node), CAMPAIGN, order.clone()).await;
            if asked.is_ok() {
                return;
            }
        }
    }

    /// Campaigns for a new range if its id points at this replica.
    pub(super) async fn campaign_if_first(self: Arc<Self>, range: RangeId) {
        let Some(replica) = self.replica(range) else { return };
        let descriptor = replica.descriptor();
        let position = (range.get() % descriptor.replicas.len() as u64) as usize;
        if descriptor.replicas[position].node == self.ctx.node {
            self.campaign_when_ready(range).await;
        }
    }

    /// Stands for election as soon as a quorum hosts the range: before that an election cannot
    /// succeed and would only raise the term.
    pub(super) async fn campaign_when_ready(self: Arc<Self>, range: RangeId) {
        let Some(replica) = self.replica(range) else { return };
        let descriptor = replica.descriptor();
        let quorum = descriptor.voters().count() / 2 + 1;
        let patience = Duration::from_millis(self.ctx.timing.election_max_ms * 4);
        let stop = replica.stop.clone();
        let campaign = async {
            // Thousands of new ranges take turns.
            let Ok(_turn) = self.campaigns.acquire().await else { return };
            let (deadline, mut pause) = (Instant::now() + patience, CAMPAIGN_PAUSE);
            while Instant::now() < deadline {
                let mut ready = 1;
                for other in descriptor.voters().filter(|v| v.id != replica.id) {
                    let asked = self.ask(&replica, (other.id, other.node), READY, Bytes::new());
                    ready += usize::from(asked.await.is_ok());
                }
                let led = replica.instance.load_full().and_then(|i| i.leader()).is_some();
                if led {
                    return;
                }
                if ready >= quorum && self.campaign(&replica).await.is_ok() {
                    return;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(CAMPAIGN_PAUSE_MAX);
            }
        };
        stop.run_until_cancelled(campaign).await;
    }

    /// Runs until the store stops.
    pub(super) async fn run_tending(self: Arc<Self>) {
        let stop = self.ctx.stop.clone();
        let every = Duration::from_millis(self.ctx.timing.election_max_ms);
        while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            // Groups sleep only when nothing is missing.
            let awake = |r: &Arc<Replica>| r.hibernation.is_awake();
            for replica in self.all() {
                self.tend_lost(&replica);
                if !awake(&replica) {
                    continue;
                }
                self.help_missing(&replica).await;
                self.settle_members(&replica).await;
            }
        }
    }

    /// Has replicas created that this leader's descriptor names and that never answered.
    async fn help_missing(&self, replica: &Replica) {
        let Some(instance) = replica.instance.load_full() else { return };
        let silent: Vec<u64> = {
            let metrics = instance.raft.metrics();
            let metrics = metrics.borrow_watched();
            let matched = metrics.replication.iter().flatten();
            matched.filter(|(_, id)| id.is_none()).map(|(follower, _)| *follower).collect()
        };
        for follower in silent.into_iter().map(ReplicaId).filter(|id| *id != replica.id) {
            self.ask_to_create(replica, follower).await;
        }
    }

    /// Asks the node of `follower` to create it, if the descriptor names it.
    pub(super) async fn ask_to_create(&self, replica: &Replica, follower: ReplicaId) {
        let descriptor = replica.descriptor();
        let Some(follower) = descriptor.replica(follower) else { return };
        let payload = codec::encode(&CreationRecord { descriptor: (*descriptor).clone() });
        let asked = self.ask(replica, (follower.id, follower.node), CREATE, payload.into());
        if let Err(error) = asked.await {
            tracing::debug!(range_id = %replica.range, node_id = %follower.node, error = %error, "a missing replica was not created");
        }
    }
}
