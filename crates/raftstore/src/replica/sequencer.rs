//! The one task of a replica that gives writes their timestamp and proposes them.
//!
//! Life of a batch: wait until an entry is worth it (`in_flight.rs`) → gather what waits → refuse what
//! cannot be served (nothing is proposed yet, so every refusal is safe to retry elsewhere) → note it in
//! `pending` → request ONE timestamp → propose ONE entry under the leadership that was held when the
//! timestamp was requested → answer when it is applied here. Several entries are in flight; they are
//! proposed in the order in which their timestamps were requested, because one task does it.

use super::{BatchNumber, Instance, Replica};
use crate::command::{
    Body, Envelope, NotApplied, RangeReply, Split, WriteEntry, WriteOutcome, WriteReply,
    WriteRequest,
};
use crate::sizes::{ORIGINS_MAX, Raftstore};
use crate::store::RangeError;
use crate::type_config::{
    ClientWriteError, Command, CommittedLeaderId, ProgressResponder, Reply, WriteResult,
};
use isotherm_storage::codec::Record;
use isotherm_types::{ClusterVersion, KeyRange, RangeDescriptor, Timestamp};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Something to be proposed.
pub enum Proposal {
    /// A client's batch.
    Write {
        /// Version half of the epoch that it was routed by.
        version: u64,
        /// What to write.
        request: WriteRequest,
        /// Not proposed after this.
        deadline: Instant,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<WriteOutcome, RangeError>>,
    },
    /// Cuts the range.
    Split {
        /// How.
        split: Split,
        /// Where the answer goes: parent and children.
        answer: oneshot::Sender<Result<Vec<RangeDescriptor>, RangeError>>,
    },
    /// A step of a merge.
    Merge {
        /// Which.
        body: Body,
        /// Where the answer goes: the range after it, and whether it has absorbed its neighbour.
        answer: oneshot::Sender<Result<(RangeDescriptor, bool), RangeError>>,
    },
    /// Raises the version of the range's rules.
    Raise {
        /// To this one.
        to: ClusterVersion,
        /// Where the answer goes: the range's version after it.
        answer: oneshot::Sender<Result<ClusterVersion, RangeError>>,
    },
    /// Orders a checksum.
    Checksum {
        /// Where the answer goes: the index of the state that is summed.
        answer: oneshot::Sender<Result<u64, RangeError>>,
    },
}

/// While entries are on their way, the leadership is looked at that often.
const LOOK_UP_EVERY: Duration = Duration::from_millis(100);

/// When a range that is behind the cluster's version is asked again.
const RAISED_SOON: Duration = Duration::from_millis(100);
/// Numbered writes are refused while a range remembers so many times the results that it may: those of the newest
/// seconds are kept however many they are.
const REMEMBERED_FACTOR_MAX: usize = 8;

type Waiter = oneshot::Sender<Result<WriteOutcome, RangeError>>;

struct Batch {
    /// The range's version that all of its writes were checked against.
    version: u64,
    writes: Vec<WriteRequest>,
    waiters: Vec<Waiter>,
}

/// Refuses what all replicas would have to keep and to send: before it is proposed.
pub fn check_entry(bytes: usize) -> Result<(), RangeError> {
    let max = <Envelope as Record<Raftstore>>::BYTES_MAX;
    if bytes <= max {
        return Ok(());
    }
    Err(RangeError::Invalid(format!("an entry of {bytes} bytes is too large: the limit is {max}")))
}

/// Refuses a cut or a merge after which a range would consult the results of too many others.
pub fn check_origins(count: usize) -> Result<(), RangeError> {
    if count <= ORIGINS_MAX {
        return Ok(());
    }
    Err(RangeError::Condition(format!(
        "the range was cut and merged {count} times within the time for which results are remembered, \
         the limit is {ORIGINS_MAX}: try again in a minute"
    )))
}

impl Batch {
    fn refuse(self, error: &RangeError) {
        for waiter in self.waiters {
            // A client that gave up does not mind.
            let _ = waiter.send(Err(error.clone()));
        }
    }
}

/// What became of a proposed entry.
enum Fate {
    Applied { index: u64, reply: RangeReply },
    Refused(RangeError),
    Unknown,
}

/// Timestamp and leadership that an entry is proposed under.
struct Slot {
    number: BatchNumber,
    ts: Timestamp,
    leadership: CommittedLeaderId,
    instance: Arc<Instance>,
}

/// The sequencer of one replica.
pub struct Sequencer {
    replica: Arc<Replica>,
    queue: mpsc::Receiver<Proposal>,
    last_proposed: Timestamp,
    /// Taken from the queue but not fit for the batch that was gathered.
    held: Option<Proposal>,
}

impl Sequencer {
    /// For `replica`, over its queue.
    pub fn new(replica: Arc<Replica>, queue: mpsc::Receiver<Proposal>) -> Self {
        Self { replica, queue, last_proposed: Timestamp::ZERO, held: None }
    }

    /// Runs until the replica stops.
    pub async fn run(mut self) {
        let stop = self.replica.stop.clone();
        while let Some(Some(first)) = stop.run_until_cancelled(self.next()).await {
            match first {
                Proposal::Write { .. } => self.propose_writes(first).await,
                // Whoever asked for it has given up.
                Proposal::Split { answer, .. } if answer.is_closed() => {}
                Proposal::Merge { answer, .. } if answer.is_closed() => {}
                Proposal::Raise { answer, .. } if answer.is_closed() => {}
                Proposal::Checksum { answer } if answer.is_closed() => {}
                Proposal::Split { split, answer } => {
                    let result = self.propose_split(split).await;
                    let _ = answer.send(result);
                }
                Proposal::Merge { body, answer } => {
                    let result = self.propose_merge(body).await;
                    let _ = answer.send(result);
                }
                Proposal::Raise { to, answer } => self.propose_raise(to, answer).await,
                Proposal::Checksum { answer } => {
                    let result = self.propose_checksum().await;
                    let _ = answer.send(result);
                }
            }
        }
        self.queue.close();
        while let Some(proposal) = self.take() {
            let error = RangeError::NotLeader { leader: None };
            if let Proposal::Write { answer, .. } = proposal {
                let _ = answer.send(Err(error));
            }
        }
    }

    /// The first of what waits, as soon as an entry for it may begin; none if nothing will come.
    async fn next(&mut self) -> Option<Proposal> {
        let (replica, tuning) = (&self.replica, &self.replica.ctx.tuning);
        let (full, entries_max) = (tuning.entry_ops_max, tuning.entries_in_flight);
        loop {
            let (held, queued) = (usize::from(self.held.is_some()), || self.queue.len());
            let may_begin = replica.in_flight.may_begin(held, queued, full, entries_max);
            if tokio::time::timeout(LOOK_UP_EVERY, may_begin).await.is_ok() {
                break;
            }
            // What is on its way takes long. Who does not lead any more refuses what waits, so that
            // it goes elsewhere, instead of holding it until then.
            let instance = replica.instance.load();
            let leadership = instance.as_ref().and_then(|instance| instance.leadership());
            if leadership.is_none() || replica.is_transferring() {
                break;
            }
        }
        match self.held.take() {
            Some(proposal) => Some(proposal),
            None => self.queue.recv().await,
        }
    }

    /// What waits longest, without waiting for it.
    fn take(&mut self) -> Option<Proposal> {
        self.held.take().or_else(|| self.queue.try_recv().ok())
    }

    async fn propose_writes(&mut self, first: Proposal) {
        let batch = self.gather(first);
        if batch.writes.is_empty() {
            return;
        }
        let flight = self.replica.in_flight.begin(batch.writes.len());
        let keys: Vec<_> = batch.writes.iter().flat_map(|w| &w.ops).map(|op| op.key()).collect();
        self.replica.heat.note_proposed(keys.iter().copied());
        let slot = match self.slot(keys.iter().map(|key| &key[..])).await {
            Ok(slot) => slot,
            Err(error) => return batch.refuse(&error),
        };
        let Batch { version, writes, waiters } = batch;
        let proposed = self.propose(&slot, version, Body::Writes(WriteEntry { writes })).await;
        let fate = match proposed {
            Ok(fate) => fate,
            Err(error) => {
                self.replica.pending.finish(slot.number);
                return Batch { version, writes: Vec::new(), waiters }.refuse(&error);
            }
        };
        let replica = self.replica.clone();
        self.replica.ctx.tasks.spawn(async move {
            let fate = fate.await;
            replica.pending.finish(slot.number);
            drop(flight);
            answer_writes(fate, waiters);
        });
    }

    /// Takes what waits, as far as it fits into one entry, and refuses what cannot be served.
    fn gather(&mut self, first: Proposal) -> Batch {
        let tuning = &self.replica.ctx.tuning;
        let (ops_max, bytes_max) = (tuning.entry_ops_max, tuning.entry_bytes_max);
        let now = Instant::now();
        let descriptor = self.replica.descriptor();
        let is_frozen = self.replica.is_frozen();
        let rules = self.replica.version();
        let (mut ops, mut bytes) = (0, 0);
        let version = descriptor.epoch.version;
        let mut batch = Batch { version, writes: Vec::new(), waiters: Vec::new() };
        let mut next = Some(first);
        while let Some(proposal) = next.take() {
            let Proposal::Write { version: routed, request, deadline, answer } = proposal else {
                self.held = Some(proposal);
                break;
            };
            let size = request.size_bytes();
            let fits = ops + request.ops.len() <= ops_max && bytes + size <= bytes_max;
            if !fits && !batch.writes.is_empty() {
                self.held = Some(Proposal::Write { version: routed, request, deadline, answer });
                break;
            }
            let inside = request.ops.iter().all(|op| descriptor.span.contains(op.key()));
            if answer.is_closed() {
                // Its client gave up; it was never proposed.
            } else if routed != version || !inside {
                let _ = answer.send(Err(self.replica.epoch_mismatch()));
            } else if request.since() > rules {
                let _ = answer.send(Err(self.needs(request.since(), rules)));
            } else if is_frozen {
                // A merge takes a moment; what comes of it the client learns by asking again.
                let _ = answer.send(Err(Replica::standing_still()));
            } else if request.is_numbered() && self.remembers_too_much() {
                // The newest results are kept whatever they take: what makes many waits for its turn.
                let later = RangeError::Busy { retry_after: Duration::from_secs(1) };
                let _ = answer.send(Err(later));
            } else if deadline <= now {
                let late = RangeError::Busy { retry_after: Duration::from_millis(50) };
                let _ = answer.send(Err(late));
            } else {
                ops += request.ops.len();
                bytes += size;
                batch.writes.push(request);
                batch.waiters.push(answer);
            }
            next = self.take();
        }
        batch
    }

    /// Whether results take several times the memory that a range may have for them.
    fn remembers_too_much(&self) -> bool {
        let max = self.replica.ctx.tuning.session_results_max as usize;
        self.replica.remembered.load(Ordering::Relaxed) > max.saturating_mul(REMEMBERED_FACTOR_MAX)
    }

    /// Refuses what the range does not know yet: it will in a moment, if the cluster does.
    fn needs(&self, since: ClusterVersion, rules: ClusterVersion) -> RangeError {
        let cluster = self.replica.ctx.cluster_version.load(Ordering::Acquire);
        if since.0 <= cluster {
            return RangeError::Busy { retry_after: RAISED_SOON };
        }
        RangeError::Condition(format!(
            "this needs cluster version {since}, and the range is at {rules}: finish the upgrade with \
             `isotherm upgrade finalize`"
        ))
    }

    /// Notes a batch as on its way and requests its timestamp, under the leadership held now.
    async fn slot<'a>(&mut self, keys: impl Iterator<Item = &'a [u8]>) -> Result<Slot, RangeError> {
        let replica = &self.replica;
        let Some(instance) = replica.instance.load_full() else {
            return Err(RangeError::NotLeader { leader: None });
        };
        let leadership = instance.leadership().filter(|_| !replica.is_transferring());
        let Some(leadership) = leadership else { return Err(replica.not_leader(&instance)) };
        replica.touch();
        if replica.hibernation.has_lapsed() {
            // Consensus takes no proposal of a leader whose lease ran out: a quorum renews it.
            replica.confirm_leadership().await?;
        }
        replica.ctx.check_oracle()?;
        let number = replica.pending.begin(keys);
        loop {
            match replica.ctx.timestamp().await {
                // One that is not above the last proposed would be a no-op: throw it away.
                Ok(ts) if ts <= self.last_proposed => continue,
                Ok(ts) => {
                    replica.pending.set_ts(number, ts);
                    replica.ctx.faults.holding_ts().await;
                    return Ok(Slot { number, ts, leadership, instance });
                }
                Err(error) => {
                    replica.pending.finish(number);
                    return Err(error);
                }
            }
        }
    }

    /// Proposes one entry that was checked against `version` of the range: a leader that has yet to apply
    /// what an earlier one committed can be at another one by now, and then the entry must not count.
    /// An error is certain (nothing was appended), unless it is [`RangeError::Indeterminate`].
    async fn propose(
        &mut self,
        slot: &Slot,
        version: u64,
        body: Body,
    ) -> Result<impl Future<Output = Fate> + Send + use<>, RangeError> {
        let (since, rules) = (body.since(), self.replica.version());
        if since > rules && !matches!(body, Body::Raise(_)) {
            return Err(self.needs(since, rules));
        }
        let version = match self.replica.ctx.faults.any_version() {
            0 => version,
            _ => self.replica.descriptor().epoch.version,
        };
        let envelope = Envelope {
            apply_version: since.max(rules),
            range_version: version,
            ts: slot.ts,
            closed_ts: Timestamp::ZERO,
            flags: 0,
            body,
        };
        let (responder, outcome) = ProgressResponder::<WriteResult>::complete_only();
        let command = Command(envelope.encode());
        check_entry(command.0.len())?;
        let raft = &slot.instance.raft;
        let leadership = match self.replica.ctx.faults.any_leadership() {
            0 => slot.leadership,
            _ => slot.instance.leadership().unwrap_or(slot.leadership),
        };
        let write = raft.write(command).with_leader(leadership).responder(responder);
        if write.await.is_err() {
            // The instance died before it took the message, or after: only the first is certain,
            // and they cannot be told apart.
            return Err(RangeError::Indeterminate);
        }
        self.last_proposed = slot.ts;
        let replica = self.replica.clone();
        let instance = slot.instance.clone();
        Ok(async move {
            match outcome.await {
                Ok(Ok(done)) => match done.data {
                    Reply::Range(reply) => {
                        Fate::Applied { index: done.log_id.index, reply: *reply }
                    }
                    _ => Fate::Unknown,
                },
                Ok(Err(ClientWriteError::ForwardToLeader(_))) => {
                    Fate::Refused(replica.not_leader(&instance))
                }
                Ok(Err(_)) | Err(_) => Fate::Unknown,
            }
        })
    }

    /// Splits in line: nothing else is proposed until the split is applied here, because it would
    /// be proposed for a version that is about to end.
    async fn propose_split(&mut self, split: Split) -> Result<Vec<RangeDescriptor>, RangeError> {
        let descriptor = self.replica.descriptor();
        if split.epoch != descriptor.epoch {
            return Err(self.replica.epoch_mismatch());
        }
        // A child consults this range's results too.
        check_origins(self.replica.core.lock().applied.memory.origins.len() + 1)?;
        let data = self.replica.ctx.data.clone();
        // What precedes the split is durable then, so that a crash right after it replays little.
        tokio::task::spawn_blocking(move || data.flush())
            .await
            .map_err(|e| RangeError::Internal(e.to_string()))?
            .map_err(|e| RangeError::Internal(e.to_string()))?;
        let version = split.epoch.version;
        let slot = self.slot(std::iter::empty()).await?;
        let affected = KeyRange::new(split.keys[0].clone(), descriptor.span.end().clone());
        let affected = affected.map_err(|e| RangeError::Invalid(e.to_string()))?;
        *self.replica.gate.lock() = Some((slot.leadership.term, affected));
        let fate = match self.propose(&slot, version, Body::Split(split)).await {
            Ok(fate) => fate.await,
            Err(error) => {
                self.replica.pending.finish(slot.number);
                return Err(error);
            }
        };
        self.replica.pending.finish(slot.number);
        let open_gate = || *self.replica.gate.lock() = None;
        match fate {
            Fate::Applied { reply: RangeReply::Split(descriptors), .. } => {
                open_gate();
                Ok(descriptors)
            }
            Fate::Applied { reply: RangeReply::NotApplied(why), .. } => {
                open_gate();
                Err(not_applied(why))
            }
            Fate::Refused(error) => {
                open_gate();
                Err(error)
            }
            // Unknown: the gate stays. It names this leadership only, and the next one serves
            // nothing before everything of this one is applied or gone.
            Fate::Applied { .. } | Fate::Unknown => Err(RangeError::Indeterminate),
        }
    }

    /// Steps of a merge in line, like splits: what follows is proposed for the version that they make.
    async fn propose_merge(&mut self, body: Body) -> Result<(RangeDescriptor, bool), RangeError> {
        let version = self.replica.descriptor().epoch.version;
        let slot = self.slot(std::iter::empty()).await?;
        let fate = match self.propose(&slot, version, body).await {
            Ok(fate) => fate.await,
            Err(error) => Fate::Refused(error),
        };
        self.replica.pending.finish(slot.number);
        match fate {
            Fate::Applied { reply: RangeReply::Merge { descriptor, absorbed }, .. } => {
                Ok((descriptor, absorbed))
            }
            Fate::Applied { reply: RangeReply::NotApplied(why), .. } => Err(not_applied(why)),
            Fate::Refused(error) => Err(error),
            Fate::Applied { .. } | Fate::Unknown => Err(RangeError::Indeterminate),
        }
    }

    /// Ends no version of the range: what waits goes on meanwhile.
    async fn propose_raise(
        &mut self,
        to: ClusterVersion,
        answer: oneshot::Sender<Result<ClusterVersion, RangeError>>,
    ) {
        if self.replica.version() >= to {
            let _ = answer.send(Ok(self.replica.version()));
            return;
        }
        let version = self.replica.descriptor().epoch.version;
        let slot = match self.slot(std::iter::empty()).await {
            Ok(slot) => slot,
            Err(error) => {
                let _ = answer.send(Err(error));
                return;
            }
        };
        let fate = match self.propose(&slot, version, Body::Raise(to)).await {
            Ok(fate) => fate,
            Err(error) => {
                self.replica.pending.finish(slot.number);
                let _ = answer.send(Err(error));
                return;
            }
        };
        let replica = self.replica.clone();
        self.replica.ctx.tasks.spawn(async move {
            let fate = fate.await;
            replica.pending.finish(slot.number);
            let _ = answer.send(match fate {
                Fate::Applied { reply: RangeReply::Raised(version), .. } => Ok(version),
                Fate::Applied { reply: RangeReply::NotApplied(why), .. } => Err(not_applied(why)),
                Fate::Refused(error) => Err(error),
                Fate::Applied { .. } | Fate::Unknown => Err(RangeError::Indeterminate),
            });
        });
    }

    async fn propose_checksum(&mut self) -> Result<u64, RangeError> {
        let version = self.replica.descriptor().epoch.version;
        let slot = self.slot(std::iter::empty()).await?;
        let body = checksum_order(self.replica.version());
        let fate = match self.propose(&slot, version, body).await {
            Ok(fate) => fate.await,
            Err(error) => Fate::Refused(error),
        };
        self.replica.pending.finish(slot.number);
        match fate {
            Fate::Applied { index, reply: RangeReply::ChecksumOrdered } => Ok(index),
            Fate::Applied { reply: RangeReply::NotApplied(why), .. } => Err(not_applied(why)),
            Fate::Refused(error) => Err(error),
            Fate::Applied { .. } | Fate::Unknown => Err(RangeError::Indeterminate),
        }
    }
}

/// The entry that orders a checksum of a range at `version`.
fn checksum_order(version: ClusterVersion) -> Body {
    #[cfg(feature = "faults")]
    if version >= ClusterVersion::REHEARSAL {
        return Body::Rehearsal;
    }
    let _ = version;
    Body::Checksum
}

fn not_applied(why: NotApplied) -> RangeError {
    match why {
        NotApplied::StaleVersion(current) => RangeError::EpochMismatch { current: vec![*current] },
        NotApplied::OldTimestamp => RangeError::NotLeader { leader: None },
        NotApplied::Refused(why) => RangeError::Condition(why),
    }
}

fn answer_writes(fate: Fate, waiters: Vec<Waiter>) {
    let refuse_all = |error: RangeError, waiters: Vec<Waiter>| {
        for waiter in waiters {
            let _ = waiter.send(Err(error.clone()));
        }
    };
    match fate {
        Fate::Applied { reply: RangeReply::Writes(replies), .. } => {
            for (waiter, reply) in waiters.into_iter().zip(replies) {
                let _ = waiter.send(match reply {
                    WriteReply::Done(outcome) => Ok(outcome),
                    WriteReply::Stale => Err(RangeError::Stale),
                    WriteReply::Expired => Err(RangeError::Expired),
                    WriteReply::TooLarge(why) => Err(RangeError::TooLarge(why)),
                });
            }
        }
        Fate::Applied { reply: RangeReply::NotApplied(why), .. } => {
            refuse_all(not_applied(why), waiters);
        }
        Fate::Refused(error) => refuse_all(error, waiters),
        Fate::Applied { .. } | Fate::Unknown => refuse_all(RangeError::Indeterminate, waiters),
    }
}
