//! Aggregates: parts of ranges that this node leads are folded here, and only what they come to
//! travels.
//!
//! Each part is read in slices of some milliseconds, every slice with its own confirmation of
//! leadership and its own RocksDB snapshot: they all show the same timestamp, so that cutting is
//! free, no snapshot is pinned for long, and many aggregates share the scan threads fairly. What a
//! slice could not read (the range was split, or is led elsewhere now) is refused, and asked again
//! by the client where it is now.

use super::convert::{invalid, key_range, wire_error};
use futures::{StreamExt, stream};
use isotherm_aggregate::{AggregateError, Fold, Partial, Query, QueryText};
use isotherm_proto::internal as pb;
use isotherm_raftstore::{RangeError, Store};
use isotherm_types::{Key, KeyRange, RangeId, Timestamp};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};
use tonic::Status;

/// Aggregates of one node that are read at a time; it bounds the memory of their groups.
const ACTIVE_MAX: usize = 16;
/// Aggregates that may wait for that; more are refused as busy.
const WAITING_MAX: usize = 256;
/// Parts of one request at most.
const PARTS_MAX: usize = 100_000;
/// How long one slice may read.
const SLICE: Duration = Duration::from_millis(20);
/// How often the clock is looked at.
const ROWS_PER_LOOK: u64 = 256;
/// A slice that takes longer than this (a quorum is missing) is given up.
const SLICE_TIMEOUT: Duration = Duration::from_secs(5);
/// What is done is sent at least this often, …
const SEND_EVERY: Duration = Duration::from_millis(500);
/// … together with everything else that is done by then.
const GATHER: Duration = Duration::from_millis(20);
/// Largest partial in one message.
const MESSAGE_BYTES: usize = 4 << 20;
/// A span of more bytes on disk is read by several threads.
const PARALLEL_BYTES: u64 = 8 << 20;
/// A span of more bytes on disk leaves the block cache alone.
const LARGE_BYTES: u64 = 64 << 20;

type Message = Result<pb::AggregateResponse, Status>;

/// Lets so many aggregates read at a time.
#[derive(Debug)]
pub struct Admission {
    active: Semaphore,
    waiting: AtomicUsize,
}

impl Default for Admission {
    fn default() -> Self {
        Self { active: Semaphore::new(ACTIVE_MAX), waiting: AtomicUsize::new(0) }
    }
}

/// An aggregate that was understood.
pub struct Aggregate {
    store: Arc<Store>,
    query: Arc<Query>,
    at: Timestamp,
    parts: Vec<(RangeId, u64, KeyRange)>,
}

/// A piece of work that is done, or cannot be done.
struct Piece {
    range: RangeId,
    result: Result<Done, RangeError>,
}

/// Rows that were folded.
struct Done {
    covered: KeyRange,
    partial: Partial,
    rows: u64,
    bytes: u64,
    took: Duration,
}

impl Aggregate {
    /// Checks a request.
    pub fn new(store: Arc<Store>, request: pb::AggregateRequest) -> Result<Self, RangeError> {
        let query = request.query.ok_or_else(|| invalid("an aggregate without a query"))?;
        let query = Query::parse(&QueryText {
            functions: query.functions,
            value: query.value,
            filter: query.filter,
            group_by: query.group_by,
            groups_max: query.groups_max,
        });
        let query = Arc::new(query.map_err(|e| invalid(e.to_string()))?);
        if request.at == 0 {
            return Err(invalid("an aggregate without a timestamp"));
        }
        if request.parts.len() > PARTS_MAX {
            let n = request.parts.len();
            return Err(invalid(format!("an aggregate of {n} parts: the limit is {PARTS_MAX}")));
        }
        let part = |part: pb::AggregatePart| {
            Ok((RangeId(part.range_id), part.version, key_range(part.span)?))
        };
        let parts = request.parts.into_iter().map(part).collect::<Result<_, RangeError>>()?;
        Ok(Self { store, query, at: Timestamp(request.at), parts })
    }

    /// Answers until everything is answered or the client is gone.
    pub async fn run(self, admission: Arc<Admission>, answers: mpsc::Sender<Message>) {
        if admission.waiting.fetch_add(1, Ordering::AcqRel) >= WAITING_MAX {
            admission.waiting.fetch_sub(1, Ordering::AcqRel);
            let busy = RangeError::Busy { retry_after: Duration::from_millis(200) };
            let _ = answers.send(Err(super::range::status(busy))).await;
            return;
        }
        let permit = tokio::select! {
            permit = admission.active.acquire() => permit.ok(),
            () = say_alive(&answers, true) => None,
        };
        admission.waiting.fetch_sub(1, Ordering::AcqRel);
        // The client went away while it waited.
        let Some(_permit) = permit else { return };
        metrics::counter!("isotherm_aggregates_total").increment(1);
        let active = metrics::gauge!("isotherm_aggregates_active");
        active.increment(1.0);
        tokio::select! {
            () = self.answer(&answers) => {}
            () = say_alive(&answers, false) => {}
        }
        active.decrement(1.0);
    }

    async fn answer(self, answers: &mpsc::Sender<Message>) {
        let (pieces, mut done) = mpsc::channel(64);
        let this = Arc::new(self);
        let reading = {
            let this = this.clone();
            async move {
                let threads = this.store.scan_threads();
                let work = stream::iter(this.parts.clone()).map(|(range, version, span)| {
                    let (this, pieces) = (this.clone(), pieces.clone());
                    async move { this.read_part(range, version, span, &pieces).await }
                });
                work.buffer_unordered(threads).for_each(|()| std::future::ready(())).await;
            }
        };
        let sending = async {
            let mut waiting = Vec::new();
            while done.recv_many(&mut waiting, 64).await > 0 {
                // What is done at about the same time travels together.
                let until = Instant::now() + GATHER;
                while let Ok(more) = tokio::time::timeout_at(until.into(), done.recv()).await {
                    let Some(more) = more else { break };
                    waiting.push(more);
                }
                if !this.send(answers, std::mem::take(&mut waiting)).await {
                    return;
                }
            }
        };
        tokio::join!(reading, sending);
    }

    /// Reads a part of one range, in several pieces at a time if it is large.
    async fn read_part(
        self: &Arc<Self>,
        range: RangeId,
        version: u64,
        span: KeyRange,
        pieces: &mpsc::Sender<Piece>,
    ) {
        let spans = self.store.cut_span(span, PARALLEL_BYTES).await;
        let reads = spans.into_iter().map(|span| self.read_piece(range, version, span, pieces));
        futures::future::join_all(reads).await;
    }

    /// Reads a span slice by slice.
    async fn read_piece(
        self: &Arc<Self>,
        range: RangeId,
        version: u64,
        span: KeyRange,
        pieces: &mpsc::Sender<Piece>,
    ) {
        let mut left = Some(span);
        let mut sum: Option<Done> = None;
        let mut since = Instant::now();
        while let Some(span) = left.take() {
            let slice = match self.read_slice(range, version, &span).await {
                Ok((slice, rest)) => {
                    left = rest;
                    self.extend(&mut sum, slice)
                }
                Err(error) => Err(error),
            };
            let is_due = left.is_none() || since.elapsed() >= SEND_EVERY;
            // What was read before an error stands.
            if (is_due || slice.is_err())
                && let Some(done) = sum.take()
            {
                since = Instant::now();
                if pieces.send(Piece { range, result: Ok(done) }).await.is_err() {
                    return;
                }
            }
            if let Err(error) = slice {
                let _ = pieces.send(Piece { range, result: Err(error) }).await;
                return;
            }
        }
    }

    /// Adds a slice to those before it.
    fn extend(&self, sum: &mut Option<Done>, slice: Done) -> Result<(), RangeError> {
        let Some(sum) = sum else {
            *sum = Some(slice);
            return Ok(());
        };
        let covered = KeyRange::new(sum.covered.start().clone(), slice.covered.end().clone());
        sum.covered = covered.map_err(|e| RangeError::Internal(e.to_string()))?;
        sum.rows += slice.rows;
        sum.bytes += slice.bytes;
        sum.took += slice.took;
        sum.partial.merge(slice.partial, &self.query).map_err(|e| invalid(e.to_string()))
    }

    /// Reads the beginning of `span`; returns what it comes to and what is left of it.
    async fn read_slice(
        self: &Arc<Self>,
        range: RangeId,
        version: u64,
        span: &KeyRange,
    ) -> Result<(Done, Option<KeyRange>), RangeError> {
        let query = self.query.clone();
        let asked = span.clone();
        let read = move |snapshot: &isotherm_storage::DataSnapshot, owned: KeyRange, at| {
            if owned != asked {
                // Only a part of it is here: the client is to route again.
                return Ok(Ok(None));
            }
            let started = Instant::now();
            let mut fold = Fold::new(&query);
            let (mut rows, mut bytes) = (0_u64, 0_u64);
            let mut failed = None;
            let is_large = snapshot.approximate_size(&owned) > LARGE_BYTES;
            let stopped = snapshot.visit(&owned, at, is_large, |key, value| {
                rows += 1;
                bytes += (key.len() + value.len()) as u64;
                if let Err(error) = fold.add(key, value) {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
                if rows.is_multiple_of(ROWS_PER_LOOK) && started.elapsed() > SLICE {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
            if let Some(error) = failed {
                return Ok(Err(error));
            }
            let (covered, rest) = match stopped {
                None => (owned, None),
                Some(last) => split_after(&owned, &last),
            };
            let partial = fold.finish();
            Ok(Ok(Some((Done { covered, partial, rows, bytes, took: started.elapsed() }, rest))))
        };
        let read = self.store.read_span(range, version, span, self.at, SLICE_TIMEOUT, read).await?;
        match read {
            Ok(Some((done, rest))) => {
                metrics::counter!("isotherm_scanned_rows_total").increment(done.rows);
                metrics::counter!("isotherm_scanned_bytes_total").increment(done.bytes);
                self.store.note_scan(range, done.rows, done.bytes, span.start());
                Ok((done, rest))
            }
            Ok(None) => Err(RangeError::EpochMismatch { current: Vec::new() }),
            Err(error @ AggregateError::Partial(_)) => Err(RangeError::Internal(error.to_string())),
            Err(error) => Err(invalid(error.to_string())),
        }
    }

    /// Sends what is done as one answer; whether the client is there.
    async fn send(&self, answers: &mpsc::Sender<Message>, pieces: Vec<Piece>) -> bool {
        let mut message = pb::AggregateResponse::default();
        let mut merged = Partial::new();
        let mut refused = HashMap::new();
        let mut work: HashMap<RangeId, pb::AggregateWork> = HashMap::new();
        for Piece { range, result } in pieces {
            let done = match result {
                Ok(done) => done,
                Err(error) => {
                    refused.insert(range, error);
                    continue;
                }
            };
            if let Err(error) = merged.merge(done.partial, &self.query) {
                let _ = answers.send(Err(super::range::status(invalid(error.to_string())))).await;
                return false;
            }
            message.covered.push((&done.covered).into());
            let work = work.entry(range).or_default();
            work.range_id = range.get();
            work.rows += done.rows;
            work.bytes += done.bytes;
            work.micros += u64::try_from(done.took.as_micros()).unwrap_or(u64::MAX);
        }
        let refusal = |(range, error): (RangeId, RangeError)| pb::AggregateRefusal {
            range_id: range.get(),
            error: Some(wire_error(error).into()),
        };
        message.refusals = refused.into_iter().map(refusal).collect();
        message.work = work.into_values().collect();
        let mut parts = merged.split(MESSAGE_BYTES);
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            let part = match part.encode() {
                Ok(partial) => pb::AggregateResponse {
                    partial: partial.into(),
                    has_more: true,
                    ..Default::default()
                },
                Err(error) => {
                    let error = RangeError::Internal(error.to_string());
                    let _ = answers.send(Err(super::range::status(error))).await;
                    return false;
                }
            };
            if answers.send(Ok(part)).await.is_err() {
                return false;
            }
        }
        match last.encode() {
            Ok(partial) => {
                message.partial = partial.into();
                answers.send(Ok(message)).await.is_ok()
            }
            Err(error) => {
                let error = RangeError::Internal(error.to_string());
                let _ = answers.send(Err(super::range::status(error))).await;
                false
            }
        }
    }
}

/// Says now and then that somebody is at it, until the client goes away.
async fn say_alive(answers: &mpsc::Sender<Message>, is_waiting: bool) {
    loop {
        tokio::select! {
            () = answers.closed() => return,
            () = tokio::time::sleep(SEND_EVERY) => {
                // If it does not fit there is something better to read.
                let alive = pb::AggregateResponse { is_waiting, ..Default::default() };
                let _ = answers.try_send(Ok(alive));
            }
        }
    }
}

/// The part of `span` up to and with `last`, and the rest, if there is any.
fn split_after(span: &KeyRange, last: &Key) -> (KeyRange, Option<KeyRange>) {
    let next = KeyRange::point(last).end().clone();
    match span.split_at(std::slice::from_ref(&next)) {
        Some(mut parts) => {
            let rest = parts.pop();
            (parts.pop().unwrap_or_else(|| span.clone()), rest)
        }
        // It was the last key that the span can hold.
        None => (span.clone(), None),
    }
}
