//! Giving leaderships away while the disk does not answer (`disk_probe.rs`).
//!
//! A leader whose own log is not synced still replicates, so the others have all that it has. It stops
//! serving, has the follower that is closest, on a node whose disk answers, take over, and from then on
//! refuses at once: its own consensus may be waiting for the disk and not know yet that it was replaced.

use super::Store;
use super::operation::{matched, matched_index, wait_until};
use crate::disk_probe::{LOOK_EVERY, PROBE, PROBE_TIMEOUT, RETRY_EVERY, end_process, is_alone};
use crate::replica::Replica;
use crate::sender::FrameHeader;
use bytes::Bytes;
use futures::StreamExt;
use isotherm_types::{NodeId, ReplicaId};
use openraft::type_config::async_runtime::watch::WatchReceiver;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Leaderships that are given away at a time.
const AT_ONCE: usize = 64;

impl Store {
    /// Runs until the store stops.
    pub(super) async fn run_stall_watch(self: Arc<Self>) {
        let stop = self.ctx.stop.clone();
        let (after, limit) = (self.ctx.tuning.stall_after, self.ctx.tuning.stall_limit);
        let (mut is_stalled, mut tried) = (false, None::<Instant>);
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            let waited = self.ctx.log.waiting();
            if waited < after {
                if std::mem::take(&mut is_stalled) {
                    tracing::warn!("the disk answers again");
                    metrics::gauge!("isotherm_disk_stalled").set(0.0);
                    self.all().iter().for_each(|r| r.yielded.store(false, Ordering::Release));
                }
                continue;
            }
            if !std::mem::replace(&mut is_stalled, true) {
                let ms = waited.as_millis() as u64;
                tracing::error!(ms, "the disk does not answer: leaderships are given away");
                metrics::gauge!("isotherm_disk_stalled").set(1.0);
            }
            if tried.is_some_and(|tried| tried.elapsed() < RETRY_EVERY) {
                continue;
            }
            let Some((asked, healthy)) = stop.run_until_cancelled(self.healthy_nodes()).await
            else {
                return;
            };
            if self.ctx.log.waiting() >= after {
                let give = self.give_all_to(&healthy);
                if stop.run_until_cancelled(give).await.is_none() {
                    return;
                }
            }
            let waited = self.ctx.log.waiting();
            if !limit.is_zero() && waited >= limit && is_alone(asked, healthy.len()) {
                end_process(waited);
            }
            tried = Some(Instant::now());
        }
    }

    /// The nodes that have replicas of ranges here: how many there are, and whose disks answer.
    async fn healthy_nodes(&self) -> (usize, BTreeSet<NodeId>) {
        let mut nodes = BTreeMap::new();
        for replica in self.all() {
            for other in replica.descriptor().voters().filter(|v| v.node != self.ctx.node) {
                let header = FrameHeader {
                    range: replica.range,
                    from_replica: replica.id,
                    to_replica: other.id,
                    method: PROBE,
                };
                nodes.entry(other.node).or_insert(header);
            }
        }
        let asked = nodes.len();
        let ask = |(node, header)| async move {
            let asked = self.ctx.sender.call(node, header, Bytes::new(), PROBE_TIMEOUT);
            asked.await.is_ok().then_some(node)
        };
        let answers = futures::stream::iter(nodes.into_iter().map(ask)).buffer_unordered(AT_ONCE);
        (asked, answers.filter_map(futures::future::ready).collect().await)
    }

    async fn give_all_to(&self, healthy: &BTreeSet<NodeId>) {
        let is_led = |r: &Arc<Replica>| r.status().is_leader && !r.yielded.load(Ordering::Acquire);
        let mut led: Vec<_> = self.all().into_iter().filter(is_led).collect();
        // Those that are used first.
        led.sort_by_key(|r| !r.hibernation.is_awake());
        let gifts = led.into_iter().map(|replica| async move {
            let range = replica.range;
            if !self.give_to(replica, healthy).await {
                tracing::debug!(range_id = %range, "nobody takes a range whose disk does not answer");
            }
        });
        futures::stream::iter(gifts).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    }

    /// Has the closest follower on a healthy node lead; whether one was asked to.
    async fn give_to(&self, replica: Arc<Replica>, healthy: &BTreeSet<NodeId>) -> bool {
        let Some(instance) = replica.instance.load_full() else { return false };
        let descriptor = replica.descriptor();
        let lost = replica.lost.lock().clone();
        let others = descriptor.voters().filter(|v| {
            let is_well = healthy.contains(&v.node) && !lost.contains(&v.id);
            v.id != replica.id && v.role.may_lead() && is_well
        });
        let closest = others.max_by_key(|v| matched_index(&instance, v.id.get()));
        let Some(target) = closest.map(|v| v.id) else { return false };
        // From here on nothing is proposed, so that somebody can have it all. Given back if nobody does.
        let yielding = Yielding::begin(replica);
        let replica = &yielding.replica;
        replica.touch();
        let patience = Duration::from_millis(self.ctx.timing.election_max_ms);
        if !wait_until(patience, || matched(&instance, target.get())).await {
            return false;
        }
        let term = instance.raft.metrics().borrow_watched().current_term;
        if instance.raft.trigger().transfer_leader(target.get()).await.is_err() {
            return false;
        }
        let replica = yielding.keep();
        tracing::info!(range_id = %replica.range, to = %target, "leadership given away: the disk does not answer");
        // Consensus here cannot tell while it waits for the disk: the target is asked.
        self.see_to_it(&replica, term, target, patience).await;
        true
    }

    /// Has `target` stand once more if it does not lead in time: an order to take over is sent once.
    async fn see_to_it(&self, replica: &Replica, term: u64, target: ReplicaId, patience: Duration) {
        let Some(node) = replica.descriptor().replica(target).map(|r| r.node) else { return };
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if self.ask_whether_it_leads(replica, (target, node)).await {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.ask_to_campaign(replica, term, target.get()).await;
    }
}

/// A leader that stops serving. It goes on if nobody is asked to take its place.
struct Yielding {
    replica: Arc<Replica>,
    keeps: bool,
}

impl Yielding {
    fn begin(replica: Arc<Replica>) -> Self {
        replica.yielded.store(true, Ordering::Release);
        Self { replica, keeps: false }
    }

    fn keep(mut self) -> Arc<Replica> {
        self.keeps = true;
        self.replica.clone()
    }
}

impl Drop for Yielding {
    fn drop(&mut self) {
        if !self.keeps {
            self.replica.yielded.store(false, Ordering::Release);
        }
    }
}
