//! The applied state of a replica and the rules by which entries change it.
//!
//! Everything here is deterministic: the same entries over the same state give the same rows, the
//! same answers and the same persisted state on every replica, whatever the hardware, the clock
//! or the cutting of entries into write batches.

use super::applied::{AppliedState, Origin, SessionMemory};
use super::bounds;
use super::members::described;
use super::sessions::{DedupRow, Sessions};
use crate::command::{
    Body, Envelope, NotApplied, OpResult, RangeReply, Refusal, Split, WriteEntry, WriteOp,
    WriteOutcome, WriteReply, WriteRequest,
};
use crate::type_config::{Host, LogId, Membership, StoredMembership};
use bytes::Bytes;
use isotherm_storage::{DataBatch, DataEngine, Garbage, LocalKey, Overlay, StorageError, codec};
use isotherm_types::{
    ClusterVersion, RangeDescriptor, RangeEpoch, RangeId, ReplicaDescriptor, ReplicaId, SessionId,
    Timestamp, WriteId, numbered_seq,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Descriptor, applied state and remembered results of one replica.
pub struct Core {
    /// The consensus instance that may change this state.
    pub generation: u64,
    /// The descriptor as of `applied`.
    pub descriptor: Arc<RangeDescriptor>,
    /// Progress, persisted with the data.
    pub applied: AppliedState,
    /// Results of writes that took effect.
    pub sessions: Sessions,
    /// What was written since this state was loaded that will be garbage some day: never falls.
    pub garbage: Garbage,
}

/// What an entry holds, decoded.
pub enum Work {
    /// Nothing: a new leader's first entry.
    Blank,
    /// A membership.
    Membership(Membership),
    /// A command.
    Envelope(Envelope),
}

/// One entry to apply.
pub struct Step {
    /// Its place in the log.
    pub log_id: LogId,
    /// What it holds.
    pub work: Work,
    /// Whether its proposer waits here for the answers of its writes: elsewhere they are not kept.
    pub is_awaited: bool,
}

/// What the last entry of a batch did to more than its own range.
pub enum Structural {
    /// A split: the children in key order, each with its state.
    Born(Vec<(RangeDescriptor, Core)>),
    /// A merge: the range that is part of this one now.
    Absorbed(RangeDescriptor),
}

/// By which settings entries are applied.
#[derive(Debug, Clone, Copy)]
pub struct ApplyRules {
    /// How long results of writes are remembered.
    pub retention_ms: u64,
    /// How many are, at most.
    pub results_max: u32,
    /// A switch for tests: evaluates retries again.
    pub no_dedup: bool,
    /// A switch for tests: evaluates writes however old they are.
    pub no_session_floor: bool,
    /// openraft's storage suite applies entries that do not follow each other.
    pub suite: bool,
}

/// Index of the state that a range starts from: its log begins after it.
pub const SEED_INDEX: u64 = 5;

/// The log id that a range starts from. Term 0, so that openraft finds the log's head by itself.
pub fn seed_log_id() -> LogId {
    LogId::new(crate::type_config::LeaderId { term: 0, node_id: 0 }, SEED_INDEX)
}

/// The membership of a descriptor with voters only.
pub fn membership_of(descriptor: &RangeDescriptor) -> Membership {
    let voters: BTreeSet<u64> = descriptor.voters().map(|r| r.id.get()).collect();
    let hosts: BTreeMap<u64, Host> =
        descriptor.replicas.iter().map(|r| (r.id.get(), Host(r.node.get()))).collect();
    Membership::new(vec![voters], hosts).expect("a descriptor has voters, each with its node")
}

impl Core {
    /// The state of a range that starts now, at the first version of all: an entry of its log raises it,
    /// so that all of its replicas begin alike whatever software they run.
    pub fn seed(descriptor: RangeDescriptor, last_ts: Timestamp, memory: SessionMemory) -> Self {
        let at = seed_log_id();
        let membership = StoredMembership::new(Some(at), membership_of(&descriptor));
        let applied = AppliedState {
            log_id: Some(at),
            membership,
            last_ts,
            apply_version: ClusterVersion::FIRST,
            memory,
            frozen: None,
            absorbed: VecDeque::new(),
        };
        let descriptor = Arc::new(descriptor);
        let (sessions, garbage) = (Sessions::default(), Garbage::default());
        Self { generation: 0, descriptor, applied, sessions, garbage }
    }

    /// The state on disk, if the range is there.
    pub fn load(
        data: &DataEngine,
        range: isotherm_types::RangeId,
    ) -> Result<Option<Self>, StorageError> {
        let Some(descriptor) = data.local(&LocalKey::Descriptor(range))? else { return Ok(None) };
        let Some(applied) = data.local(&LocalKey::Applied(range))? else { return Ok(None) };
        let descriptor: RangeDescriptor = codec::decode(&descriptor)?;
        let applied = AppliedState::decode(&applied)?;
        let mut sessions = Sessions::default();
        let snapshot = data.snapshot();
        let floor = applied.memory.floor;
        let origins = applied.memory.origins.iter().map(|o| (o.range, o.upto));
        for (origin, upto) in origins.chain([(range, Timestamp::MAX)]) {
            for row in snapshot.dedup_rows(origin, floor) {
                let (ts, bytes) = row?;
                if ts > upto {
                    break;
                }
                sessions.insert(ts, codec::decode::<DedupRow, _>(&bytes)?);
            }
        }
        let (descriptor, garbage) = (Arc::new(descriptor), Garbage::default());
        Ok(Some(Self { generation: 0, descriptor, applied, sessions, garbage }))
    }

    /// Adds the rows of descriptor and applied state.
    pub fn persist_into(&self, batch: &mut DataBatch) {
        self.persist_descriptor_into(batch);
        self.persist_applied_into(batch);
    }

    pub(super) fn persist_descriptor_into(&self, batch: &mut DataBatch) {
        let range = self.descriptor.id;
        batch.put_local(&LocalKey::Descriptor(range), &codec::encode(&*self.descriptor));
    }

    fn persist_applied_into(&self, batch: &mut DataBatch) {
        let range = self.descriptor.id;
        batch.put_local(&LocalKey::Applied(range), &codec::encode(&self.applied));
    }

    /// Applies `steps` in order; rows of one or more entries leave in one batch each, cut between
    /// entries at about `bytes_max`. Returns one reply per entry.
    ///
    /// No split or merge is among `steps` unless it is the last entry; what it did is returned, and the
    /// caller flushes before anything shows it. For a merge the caller passes the state of the `right`
    /// neighbour, under its lock.
    pub fn apply(
        &mut self,
        data: &DataEngine,
        steps: Vec<Step>,
        mut right: Option<&mut Core>,
        rules: ApplyRules,
        bytes_max: usize,
    ) -> Result<(Vec<RangeReply>, Option<Structural>), StorageError> {
        let mut replies = Vec::with_capacity(steps.len());
        let mut structural = None;
        let mut overlay = Overlay::new(data);
        let mut batch = DataBatch::new();
        let mut steps = VecDeque::from(steps);
        // How many of the next steps have had their values read ahead.
        let mut ahead = 0;
        loop {
            if ahead == 0 {
                ahead = prefetch(&steps, &mut overlay, bytes_max)?;
            }
            ahead = ahead.saturating_sub(1);
            let Some(Step { log_id, work, is_awaited }) = steps.pop_front() else { break };
            assert!(structural.is_none(), "a split or a merge is the last entry of a batch");
            if rules.suite {
                self.applied.log_id = Some(log_id);
            } else {
                self.applied.advance(log_id);
            }
            let reply = match work {
                Work::Blank => RangeReply::Writes(Vec::new()),
                Work::Membership(m) => {
                    self.descriptor = Arc::new(described(&self.descriptor, &m));
                    self.persist_descriptor_into(&mut batch);
                    self.applied.membership = StoredMembership::new(Some(log_id), m);
                    RangeReply::Writes(Vec::new())
                }
                Work::Envelope(Envelope { ts, range_version, body, .. }) => {
                    match self.admit(ts, range_version) {
                        Err(why) => RangeReply::NotApplied(why),
                        Ok(()) => match body {
                            Body::Checksum => RangeReply::ChecksumOrdered,
                            #[cfg(feature = "faults")]
                            Body::Rehearsal => RangeReply::ChecksumOrdered,
                            Body::Writes(entry) => {
                                let replies =
                                    self.apply_writes(entry, ts, &mut overlay, &mut batch, rules)?;
                                if is_awaited { replies } else { RangeReply::Writes(Vec::new()) }
                            }
                            Body::Raise(to) => {
                                let version = &mut self.applied.apply_version;
                                *version = to.max(*version);
                                RangeReply::Raised(*version)
                            }
                            Body::Split(split) => {
                                let (reply, born) = self.apply_split(split, ts, &mut batch);
                                structural = born.map(Structural::Born);
                                reply
                            }
                            Body::Freeze(freeze) => self.apply_freeze(freeze, ts, &mut batch),
                            Body::Thaw(thaw) => self.apply_thaw(thaw, &mut batch),
                            Body::Fence(fence) => self.apply_fence(fence, &mut batch),
                            Body::Absorb(absorb) => {
                                let right = right.take();
                                let (reply, gone) =
                                    self.apply_absorb(absorb, ts, right, &mut batch)?;
                                structural = gone.map(Structural::Absorbed);
                                reply
                            }
                        },
                    }
                }
            };
            replies.push(reply);
            let pending = overlay.pending_bytes() + batch.size_bytes();
            if pending > bytes_max || (ahead == 0 && overlay.size_bytes() > bytes_max) {
                self.persist_applied_into(&mut batch);
                // What was read ahead for the next steps stays: nobody else changes these rows.
                overlay.drain_into(&mut batch);
                self.garbage += batch.garbage();
                data.write(std::mem::take(&mut batch))?;
                if ahead == 0 {
                    overlay = Overlay::new(data);
                }
            }
        }
        self.persist_applied_into(&mut batch);
        overlay.drain_into(&mut batch);
        self.garbage += batch.garbage();
        data.write(batch)?;
        Ok((replies, structural))
    }

    /// Whether an entry with this timestamp that was proposed for this version counts; then it is
    /// the newest.
    fn admit(&mut self, ts: Timestamp, range_version: u64) -> Result<(), NotApplied> {
        if ts <= self.applied.last_ts {
            return Err(NotApplied::OldTimestamp);
        }
        if range_version != self.descriptor.epoch.version {
            return Err(NotApplied::StaleVersion(Box::new((*self.descriptor).clone())));
        }
        self.applied.last_ts = ts;
        Ok(())
    }

    fn apply_writes(
        &mut self,
        entry: WriteEntry,
        ts: Timestamp,
        overlay: &mut Overlay,
        batch: &mut DataBatch,
        rules: ApplyRules,
    ) -> Result<RangeReply, StorageError> {
        if self.applied.frozen.is_some() {
            // Its leader proposes none. One that did would be wrong, and so would applying it be.
            return Ok(refused("the range is about to be merged"));
        }
        let bounded = self.applied.apply_version >= ClusterVersion::BOUNDED_WRITES;
        let span = &self.descriptor.span;
        if bounded && !entry.writes.iter().flat_map(|w| &w.ops).all(|op| span.contains(op.key())) {
            // It was proposed for a version that it was not checked against: its rows would enter a
            // span that another range owns.
            let current = Box::new((*self.descriptor).clone());
            return Ok(RangeReply::NotApplied(NotApplied::StaleVersion(current)));
        }
        let mut index = 0u32;
        let (mut row, mut weight) = (DedupRow::new(), 0u32);
        let mut replies = Vec::with_capacity(entry.writes.len());
        for write in entry.writes {
            let first = index;
            index += write.ops.len() as u32;
            if write.is_numbered() {
                let remembered = row.len();
                replies.push(self.apply_numbered(write, ts, first, overlay, &mut row, rules)?);
                weight = weight.saturating_add(bounds::weight_numbered(row.len() - remembered));
                continue;
            }
            if let Some(answer) = self.recall(&write, &row, rules).filter(|_| !rules.no_dedup) {
                replies.push(answer);
                continue;
            }
            if bounded && let Err(why) = bounds::check(&write.ops, overlay)? {
                replies.push(WriteReply::TooLarge(why));
                continue;
            }
            let count = write.ops.len();
            let results = evaluate_all(write.ops, ts, first, overlay)?;
            let outcome = WriteOutcome { ts, index: first, results };
            let known = if bounded { bounds::remembered(&outcome) } else { outcome.clone() };
            weight = weight.saturating_add(if bounded { bounds::weight(count) } else { 1 });
            row.push((write.id.session, write.id.seq, known));
            replies.push(WriteReply::Done(outcome));
        }
        if !row.is_empty() {
            let key = LocalKey::Dedup { origin: self.descriptor.id, ts };
            batch.put_local(&key, &codec::encode(&row));
            self.sessions.insert(ts, row);
            let memory = &mut self.applied.memory;
            let keeps_a_slot = self.applied.apply_version >= ClusterVersion::NUMBERED_WRITES;
            let slots_min = if keeps_a_slot { 2 } else { 1 };
            memory.remember(ts, weight, rules.retention_ms, rules.results_max, slots_min);
            self.sessions.forget(memory.floor);
        }
        Ok(RangeReply::Writes(replies))
    }

    /// The answer to a write that must not be evaluated (again). `row` holds what this entry did
    /// so far: two attempts of one write can meet in one entry.
    fn recall(
        &self,
        write: &WriteRequest,
        row: &DedupRow,
        rules: ApplyRules,
    ) -> Option<WriteReply> {
        let id = &write.id;
        if id.seq < id.floor {
            return Some(WriteReply::Stale);
        }
        if self.is_expired(id, rules) {
            return Some(WriteReply::Expired);
        }
        let here = row.iter().find(|(s, seq, _)| (*s, *seq) == (id.session, id.seq));
        let known = here.map(|(_, _, outcome)| outcome);
        let remembered = || self.remembered(id.session, id.seq);
        known.or_else(remembered).cloned().map(WriteReply::Done)
    }

    /// Whether results as old as this write are forgotten.
    fn is_expired(&self, id: &WriteId, rules: ApplyRules) -> bool {
        id.birth < self.applied.memory.floor && !rules.no_session_floor
    }

    /// The result of an earlier entry, if its time is not over. Replicas differ in which results they still
    /// hold whose time is over: those must not count. Before, no write could ask for one: it was born before
    /// its first attempt.
    fn remembered(&self, session: SessionId, seq: u64) -> Option<&WriteOutcome> {
        let is_exact = self.applied.apply_version >= ClusterVersion::CONDITIONAL_REMOVALS;
        let floor = if is_exact { self.applied.memory.floor } else { Timestamp::default() };
        self.sessions.get(session, seq, floor)
    }

    /// A request whose operations are remembered one by one: those that took effect in an earlier attempt are
    /// answered, the others are evaluated, all or none of them. `row` is what the entry did so far, and gets
    /// what they do.
    fn apply_numbered(
        &self,
        write: WriteRequest,
        ts: Timestamp,
        first: u32,
        overlay: &mut Overlay,
        row: &mut DedupRow,
        rules: ApplyRules,
    ) -> Result<WriteReply, StorageError> {
        if self.is_expired(&write.id, rules) {
            return Ok(WriteReply::Expired);
        }
        let session = write.id.session;
        let seq = |op: &WriteOp| op.number().map_or(write.id.seq, numbered_seq);
        let earlier = {
            let of_session = row.iter().filter(|(s, _, _)| *s == session);
            let here: HashMap<u64, &WriteOutcome> = of_session.map(|(_, n, o)| (*n, o)).collect();
            let known = |op: &WriteOp| {
                let seq = seq(op);
                let outcome = here.get(&seq).copied().or_else(|| self.remembered(session, seq));
                let outcome = outcome.filter(|_| !rules.no_dedup)?;
                let result = Box::new(outcome.results.first()?.clone());
                Some(OpResult::Earlier { ts: outcome.ts, result })
            };
            write.ops.iter().map(known).collect::<Vec<_>>()
        };
        let is_new = |(op, earlier): (WriteOp, &Option<OpResult>)| {
            earlier.is_none().then(|| (seq(&op), op.into_plain()))
        };
        let (seqs, new): (Vec<_>, Vec<_>) =
            write.ops.into_iter().zip(&earlier).filter_map(is_new).unzip();
        if let Err(why) = bounds::check(&new, overlay)? {
            return Ok(WriteReply::TooLarge(why));
        }
        let done = evaluate_all(new, ts, first, overlay)?;
        for ((index, seq), result) in (first..).zip(seqs).zip(&done) {
            let outcome = WriteOutcome { ts, index, results: vec![result.clone()] };
            row.push((session, seq, bounds::remembered(&outcome)));
        }
        let mut done = done.into_iter();
        let results = earlier.into_iter().filter_map(|earlier| earlier.or_else(|| done.next()));
        Ok(WriteReply::Done(WriteOutcome { ts, index: first, results: results.collect() }))
    }

    fn apply_split(
        &mut self,
        split: Split,
        ts: Timestamp,
        batch: &mut DataBatch,
    ) -> (RangeReply, Option<Vec<(RangeDescriptor, Core)>>) {
        let refuse = |why: &str| (refused(why), None);
        if self.applied.frozen.is_some() {
            return refuse("the range is about to be merged");
        }
        let parent = &*self.descriptor;
        if split.epoch != parent.epoch {
            return refuse("the range's epoch has changed");
        }
        let Some(spans) = parent.span.split_at(&split.keys) else {
            return refuse(
                "a split key is not strictly inside the range, or they are not ascending",
            );
        };
        if !parent.is_settled() {
            return refuse("the members of the range are changing");
        }
        if split.children.len() != split.keys.len()
            || split.children.iter().any(|c| c.replicas.len() != parent.replicas.len())
        {
            return refuse("the split does not name a replica of every child on every node");
        }
        let mut spans = spans.into_iter();
        let narrowed = RangeDescriptor {
            span: spans.next().expect("a split leaves the parent its first piece"),
            epoch: parent.epoch.next_version(),
            ..parent.clone()
        };
        let mut children = Vec::with_capacity(split.children.len());
        for (child, span) in split.children.iter().zip(spans) {
            let place =
                |(id, r): (&ReplicaId, &ReplicaDescriptor)| ReplicaDescriptor { id: *id, ..*r };
            let newest = child.replicas.iter().max().map_or(0, |id| id.get());
            let descriptor = RangeDescriptor {
                id: child.range,
                span,
                epoch: RangeEpoch { version: narrowed.epoch.version, ..RangeEpoch::FIRST },
                replicas: child.replicas.iter().zip(&parent.replicas).map(place).collect(),
                next_replica_id: ReplicaId(newest + 1),
            };
            let mut memory = self.applied.memory.clone();
            memory.origins.push(Origin { range: parent.id, upto: ts });
            let mut core = Core::seed(descriptor.clone(), ts, memory);
            core.applied.apply_version = self.applied.apply_version;
            core.sessions = self.sessions.fork();
            core.persist_into(batch);
            children.push((descriptor, core));
        }
        self.descriptor = Arc::new(narrowed);
        self.persist_into(batch);
        let all = std::iter::once(&*self.descriptor).chain(children.iter().map(|(d, _)| d));
        let reply = RangeReply::Split(all.cloned().collect());
        (reply, Some(children))
    }
}

pub(super) fn refused(why: &str) -> RangeReply {
    RangeReply::NotApplied(NotApplied::Refused(why.to_owned()))
}

impl Work {
    /// What it absorbs, if it does.
    pub fn absorbs(&self) -> Option<RangeId> {
        match self {
            Self::Envelope(Envelope { body: Body::Absorb(absorb), .. }) => Some(absorb.right.id),
            _ => None,
        }
    }

    /// Whether the entry must be the last of its batch: a split, a step of a merge, or a checksum that
    /// needs the state exactly at it.
    pub fn ends_batch(&self) -> bool {
        match self {
            Self::Envelope(e) => !matches!(e.body, Body::Writes(_) | Body::Raise(_)),
            Self::Blank | Self::Membership(_) => false,
        }
    }

    /// The writes in it.
    pub fn writes(&self) -> impl Iterator<Item = &WriteRequest> {
        let entry = match self {
            Self::Envelope(Envelope { body: Body::Writes(entry), .. }) => Some(entry),
            _ => None,
        };
        entry.into_iter().flat_map(|e| &e.writes)
    }
}

/// Keys that are read ahead at most, and together.
const AHEAD_KEYS_MAX: usize = 64;
const TOGETHER: usize = 16;

/// Reads what the first of `steps` touch, a few keys together, until it is many keys or more than
/// `bytes_max`; returns for how many steps. Requests with many operations are left out: their keys are
/// read in their turn, when it is known how much they may take.
fn prefetch(
    steps: &VecDeque<Step>,
    overlay: &mut Overlay,
    bytes_max: usize,
) -> Result<usize, StorageError> {
    let (mut keys, mut total, mut covered) = (Vec::new(), 0, 0);
    for step in steps {
        let small = step.work.writes().filter(|w| w.ops.len() <= TOGETHER);
        let wanted: Vec<&[u8]> = small.flat_map(|w| &w.ops).map(|op| &op.key()[..]).collect();
        if keys.len() + wanted.len() > TOGETHER {
            overlay.prefetch(keys.drain(..))?;
        }
        let is_enough = total + wanted.len() > AHEAD_KEYS_MAX || overlay.size_bytes() > bytes_max;
        if covered > 0 && is_enough {
            break;
        }
        total += wanted.len();
        keys.extend(wanted);
        covered += 1;
    }
    overlay.prefetch(keys.into_iter())?;
    Ok(covered)
}

fn evaluate_all(
    ops: Vec<WriteOp>,
    ts: Timestamp,
    first: u32,
    overlay: &mut Overlay,
) -> Result<Vec<OpResult>, StorageError> {
    let mut results = Vec::with_capacity(ops.len());
    for (at, op) in ops.iter().enumerate() {
        if ops.len() > TOGETHER && at % TOGETHER == 0 {
            let next = &ops[at..ops.len().min(at + TOGETHER)];
            overlay.prefetch(next.iter().map(|op| &op.key()[..]))?;
        }
        let index = first + u32::try_from(at).expect("a request has few operations");
        results.push(evaluate(op.clone(), ts, index, overlay)?);
    }
    Ok(results)
}

/// Evaluates one operation. No result depends on whether a tombstone is still there: the overlay
/// shows it as absence.
fn evaluate(
    op: WriteOp,
    ts: Timestamp,
    index: u32,
    overlay: &mut Overlay,
) -> Result<OpResult, StorageError> {
    Ok(match op {
        WriteOp::Numbered { op, .. } => return evaluate(*op, ts, index, overlay),
        WriteOp::Put { key, value } => {
            overlay.set(&key, Some(value), ts, index)?;
            OpResult::Put
        }
        WriteOp::Delete { key } => {
            let existed = overlay.get(&key)?.is_some();
            if existed {
                overlay.set(&key, None, ts, index)?;
            }
            OpResult::Deleted { existed }
        }
        WriteOp::Cas { key, expected, value } => {
            let current = overlay.get(&key)?.map(|row| row.value);
            if current == expected {
                overlay.set(&key, Some(value), ts, index)?;
                OpResult::Cas { applied: true, current: None }
            } else {
                OpResult::Cas { applied: false, current }
            }
        }
        WriteOp::CasRemove { key, expected } => {
            let current = overlay.get(&key)?.map(|row| row.value);
            if current == expected {
                if current.is_some() {
                    overlay.set(&key, None, ts, index)?;
                }
                OpResult::Cas { applied: true, current: None }
            } else {
                OpResult::Cas { applied: false, current }
            }
        }
        WriteOp::RemoveVersion { key, ts: of } => {
            let existed = overlay.get(&key)?.is_some_and(|row| row.ts == of);
            if existed {
                overlay.set(&key, None, ts, index)?;
            }
            OpResult::Deleted { existed }
        }
        WriteOp::Incr { key, by } => {
            let current = match overlay.get(&key)? {
                None => 0,
                Some(row) => match parse_i64(&row.value) {
                    Some(n) => n,
                    None => return Ok(OpResult::Refused { reason: Refusal::NotANumber }),
                },
            };
            match current.checked_add(by) {
                None => OpResult::Refused { reason: Refusal::Overflow },
                Some(value) => {
                    overlay.set(&key, Some(Bytes::from(value.to_string())), ts, index)?;
                    OpResult::Incr { value }
                }
            }
        }
    })
}

fn parse_i64(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}
