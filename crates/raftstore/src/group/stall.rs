//! Giving leadership away while the disk does not answer (`disk_probe.rs`).

use super::applied::Machine;
use super::member::Group;
use crate::disk_probe::{LOOK_EVERY, PROBE, PROBE_TIMEOUT, RETRY_EVERY, end_process, is_alone};
use crate::network::CampaignOrder;
use crate::sender::FrameHeader;
use bytes::Bytes;
use isotherm_types::{NodeId, ReplicaId};
use openraft::type_config::async_runtime::watch::WatchReceiver;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A sync that takes longer is a disk that does not answer.
const STALL_AFTER: Duration = Duration::from_secs(1);
/// A lone member whose disk does not answer for so long needs a person.
const LONG: Duration = Duration::from_secs(10);
/// How long a member that is asked to lead may take to have everything.
const PATIENCE: Duration = Duration::from_millis(500);

impl<M: Machine> Group<M> {
    /// Watches the disk until the member stops. One that does not answer for `limit` ends the process,
    /// if those of other members do; without a limit it never does.
    pub async fn watch_disk(self: Arc<Self>, limit: Option<Duration>) {
        let stop = self.stop.clone();
        let (mut is_stalled, mut is_long) = (false, false);
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            let waited = self.engine.waiting();
            if waited < STALL_AFTER {
                is_long = false;
                if std::mem::take(&mut is_stalled) {
                    tracing::warn!("the disk answers again");
                    metrics::gauge!("isotherm_disk_stalled").set(0.0);
                }
                continue;
            }
            let others = self.others();
            let ms = waited.as_millis() as u64;
            if !std::mem::replace(&mut is_stalled, true) {
                metrics::gauge!("isotherm_disk_stalled").set(1.0);
                match others.is_empty() {
                    // A person has nothing to do about a moment, and there is no other to lead.
                    true => tracing::warn!(ms, "the disk does not answer"),
                    false => {
                        tracing::error!(ms, "the disk does not answer: leadership is given away");
                    }
                }
            }
            if others.is_empty() && waited >= LONG && !std::mem::replace(&mut is_long, true) {
                tracing::error!(
                    ms,
                    "the disk does not answer, and there is no other member to lead"
                );
            }
            let ask = stop.run_until_cancelled(self.healthy(&others));
            let Some(healthy) = ask.await else { return };
            if self.engine.waiting() >= STALL_AFTER {
                self.give_to(&healthy).await;
            }
            let waited = self.engine.waiting();
            if limit.is_some_and(|limit| waited >= limit) && is_alone(others.len(), healthy.len()) {
                end_process(waited);
            }
            if stop.run_until_cancelled(tokio::time::sleep(RETRY_EVERY)).await.is_none() {
                return;
            }
        }
    }

    fn others(&self) -> Vec<u64> {
        let Ok(instance) = self.running() else { return Vec::new() };
        let metrics = instance.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters = metrics.membership_config.membership().voter_ids();
        voters.filter(|id| *id != self.member.get()).collect()
    }

    /// The members whose disks answer.
    async fn healthy(&self, others: &[u64]) -> BTreeSet<u64> {
        let ask = |member: u64| async move {
            let asked = self.ask(member, PROBE, Bytes::new(), PROBE_TIMEOUT);
            asked.await.is_ok().then_some(member)
        };
        let answers = futures::future::join_all(others.iter().copied().map(ask)).await;
        answers.into_iter().flatten().collect()
    }

    pub(super) async fn ask(
        &self,
        member: u64,
        method: u32,
        payload: Bytes,
        patience: Duration,
    ) -> Result<Bytes, crate::sender::SendError> {
        let header = FrameHeader {
            range: self.key.range,
            from_replica: self.key.replica,
            to_replica: ReplicaId(member),
            method,
        };
        self.sender.call(NodeId(member), header, payload, patience).await
    }

    /// Has a healthy member that has everything lead, if this one does. From then on this one counts as
    /// one that does not lead in this term: its own consensus may be waiting for the disk, and openraft
    /// does nothing more in a term after it was told to hand over.
    async fn give_to(&self, healthy: &BTreeSet<u64>) {
        let Ok(instance) = self.running() else { return };
        let deadline = Instant::now() + PATIENCE;
        let (term, target) = loop {
            let found = {
                let metrics = instance.raft.metrics();
                let metrics = metrics.borrow_watched();
                if !metrics.state.is_leader() {
                    return;
                }
                let matched = metrics.replication.iter().flatten();
                let has_all = |last: Option<u64>| last >= metrics.last_log_index;
                let target = matched
                    .filter(|(id, last)| {
                        healthy.contains(id) && has_all(last.as_ref().map(|last| last.index))
                    })
                    .map(|(id, _)| *id)
                    .next();
                target.map(|target| (metrics.current_term, target))
            };
            match found {
                Some(found) => break found,
                None if Instant::now() >= deadline => return,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        if self.yielded_term.load(Ordering::Acquire) == term {
            // An order to take over is sent once: whoever did not hear it is told in another way.
            let order = CampaignOrder { term }.encode();
            let _ = self.ask(target, super::receive::CAMPAIGN, order, PROBE_TIMEOUT).await;
            return;
        }
        if instance.raft.trigger().transfer_leader(target).await.is_err() {
            return;
        }
        tracing::info!(to = target, "leadership given away: the disk does not answer");
        self.yielded_term.store(term, Ordering::Release);
        self.leadership.send_if_modified(|leadership| {
            let leads = leadership.is_leader && leadership.term == term;
            if leads {
                *leadership = super::Leadership { term, leader: None, is_leader: false };
            }
            leads
        });
    }
}
