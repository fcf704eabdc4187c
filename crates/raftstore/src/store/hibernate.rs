//! Putting idle groups to sleep: the leader's side and the followers' side.
//!
//! 1. A leader that nobody used for a while, and whose followers have everything, stops its clock
//!    ([`Phase`](crate::replica::Phase)).
//! 2. One heartbeat interval later no heartbeat of it is on its way any more: one that arrives late
//!    would wake a follower again.
//! 3. Each follower's node is asked once, for all groups that go to sleep at this moment. A follower
//!    agrees if it has applied exactly what the leader has, under the same leadership.
//! 4. If all agreed, the leader sleeps; else it goes on, and its next heartbeat wakes the others.
//!
//! Followers on a node that is lost are left out: when it is there again, the leaders that have
//! replicas on it wake up.

use super::Store;
use super::rouse::SLEEP;
use crate::replica::Replica;
use crate::sender::FrameHeader;
use crate::type_config::CommittedLeaderId;
use bytes::Bytes;
use futures::StreamExt;
use isotherm_storage::codec;
use isotherm_types::{NodeId, RangeId, ReplicaId};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Groups that are put to sleep at a time.
pub(crate) const SLEEP_ORDERS_MAX: usize = 1000;
const CALL_TIMEOUT: Duration = Duration::from_millis(500);
const LOOK_MIN: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_millis(500);
/// How long a leader whose follower was not ready waits before it asks again, at least.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// Asks one follower to sleep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SleepOrder {
    range: u64,
    follower: u64,
    leader: u64,
    /// The leadership is (term, leader).
    term: u64,
    /// Index of the last entry.
    last: u64,
}

/// All that go to sleep on one node at a moment; the answer says which do not: indexes into it.
pub(crate) type SleepOrders = Vec<SleepOrder>;
pub(crate) type Refused = Vec<u64>;

impl Store {
    /// Runs until the store stops.
    pub(super) async fn run_hibernation(self: Arc<Self>) {
        let stop = self.ctx.stop.clone();
        loop {
            let idle = self.ctx.hibernate_after();
            let look = idle.map_or(LOOK_MAX, |idle| (idle / 4).clamp(LOOK_MIN, LOOK_MAX));
            if stop.run_until_cancelled(tokio::time::sleep(look)).await.is_none() {
                return;
            }
            match idle {
                Some(idle) => self.lull(idle).await,
                None => self.wake_all_leaders(),
            }
        }
    }

    /// One round: whoever is idle goes to sleep.
    async fn lull(self: &Arc<Self>, idle: Duration) {
        let (mut idlers, mut asleep) = (Vec::new(), 0_u64);
        for replica in self.replicas.read().values() {
            if !replica.hibernation.is_awake() {
                asleep += u64::from(replica.hibernation.is_asleep());
            } else if idlers.len() < SLEEP_ORDERS_MAX && replica.may_sleep(idle).is_some() {
                idlers.push(replica.clone());
            }
        }
        metrics::gauge!("isotherm_replicas_asleep").set(asleep as f64);
        idlers.retain(|replica| self.has_known_followers(replica) && replica.doze(idle));
        if idlers.is_empty() {
            return;
        }
        let in_flight = Duration::from_millis(self.ctx.timing.heartbeat_ms);
        tokio::time::sleep(in_flight).await;
        self.ask_to_sleep(idlers, idle).await;
    }

    /// Whether every follower's node answers, or is known to be lost. Those that were never asked
    /// are from now on.
    fn has_known_followers(&self, replica: &Replica) -> bool {
        let (liveness, now) = (&self.ctx.liveness, Instant::now());
        let descriptor = replica.descriptor();
        let others = descriptor.voters().filter(|v| v.id != replica.id);
        let unknown = others.filter(|other| {
            liveness.watch(other.node, now);
            !liveness.answers(other.node) && !liveness.is_lost(other.node)
        });
        unknown.count() == 0
    }

    async fn ask_to_sleep(&self, dozing: Vec<Arc<Replica>>, idle: Duration) {
        let mut orders: HashMap<NodeId, SleepOrders> = HashMap::new();
        let mut asking: HashMap<RangeId, Arc<Replica>> = HashMap::new();
        for replica in dozing {
            // Whoever used it meanwhile has woken it.
            let Some((leadership, last)) = replica.may_sleep(idle) else {
                replica.stay_awake(Duration::ZERO);
                continue;
            };
            let descriptor = replica.descriptor();
            for other in descriptor.voters().filter(|v| v.id != replica.id) {
                if self.ctx.liveness.is_lost(other.node) {
                    continue;
                }
                orders.entry(other.node).or_default().push(SleepOrder {
                    range: replica.range.get(),
                    follower: other.id.get(),
                    leader: replica.id.get(),
                    term: leadership.term,
                    last,
                });
            }
            asking.insert(replica.range, replica);
        }
        let calls = orders.into_iter().map(|(node, orders)| self.order_sleep(node, orders));
        let refused: Vec<Vec<u64>> =
            futures::stream::iter(calls).buffer_unordered(usize::MAX).collect().await;
        let refused: HashSet<u64> = refused.into_iter().flatten().collect();
        let pause = idle.max(REFUSED_PAUSE);
        for (range, replica) in asking {
            if refused.contains(&range.get()) {
                replica.stay_awake(pause);
            } else {
                replica.sleep_leading();
            }
        }
    }

    /// The ranges whose followers on `node` do not sleep.
    async fn order_sleep(&self, node: NodeId, orders: SleepOrders) -> Vec<u64> {
        let header = FrameHeader {
            range: RangeId(0),
            from_replica: ReplicaId(0),
            to_replica: ReplicaId(0),
            method: SLEEP,
        };
        let payload = codec::encode(&orders).into();
        let asked = self.ctx.sender.call(node, header, payload, CALL_TIMEOUT).await;
        let all = || orders.iter().map(|order| order.range).collect();
        match asked.map(|answer| codec::decode::<Refused, _>(&answer)) {
            Ok(Ok(refused)) => {
                let order = |i: u64| orders.get(usize::try_from(i).ok()?).map(|o| o.range);
                refused.into_iter().filter_map(order).collect()
            }
            Ok(Err(_)) => all(),
            Err(error) => {
                tracing::debug!(node_id = %node, groups = orders.len(), error = %error, "followers were not put to sleep");
                all()
            }
        }
    }

    /// Followers here are asked to sleep.
    pub(super) fn take_sleep_orders(&self, from: NodeId, payload: &Bytes) -> Result<Bytes, String> {
        let orders: SleepOrders = codec::decode(payload).map_err(|e| e.to_string())?;
        let mut refused = Refused::new();
        for (i, order) in (0..).zip(&orders) {
            if let Err(why) = self.take_sleep_order(from, order) {
                tracing::debug!(range_id = order.range, from_node = %from, why, "a follower stays awake");
                refused.push(i);
            }
        }
        Ok(codec::encode(&refused).into())
    }

    fn take_sleep_order(&self, from: NodeId, order: &SleepOrder) -> Result<(), &'static str> {
        if self.ctx.hibernate_after().is_none() {
            return Err("hibernation is off");
        }
        if !self.ctx.liveness.is_heard(from, Instant::now()) {
            // Nothing would tell it when that node dies.
            return Err("the leader's node is not heard");
        }
        let replica = self.replica(RangeId(order.range)).ok_or("not here")?;
        if replica.id.get() != order.follower {
            return Err("another replica is here");
        }
        let leadership = CommittedLeaderId { term: order.term, node_id: order.leader };
        replica.sleep_following(ReplicaId(order.leader), from, leadership, order.last)
    }

    /// Idle groups sleep after this; `None`: they do not.
    pub fn set_hibernate_after(&self, idle: Option<Duration>) {
        let ms = idle.map_or(0, |idle| u64::try_from(idle.as_millis()).unwrap_or(u64::MAX).max(1));
        self.ctx.hibernate_after_ms.store(ms, Ordering::Relaxed);
    }

    /// How many replicas here sleep.
    pub fn asleep(&self) -> usize {
        self.replicas.read().values().filter(|r| r.hibernation.is_asleep()).count()
    }
}
