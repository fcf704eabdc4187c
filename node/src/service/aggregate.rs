//! Aggregates: parts of ranges that this node leads are folded here, and only what they come to
//! travels.
//!
//! Each part is read in slices of some milliseconds (`SliceBudget`), every slice with its own confirmation of
//! leadership and its own RocksDB snapshot: they all show the same timestamp, so that cutting is
//! free, no snapshot is pinned for long, and many aggregates share the scan threads fairly. What a
//! slice could not read (the range was split, or is led elsewhere now) is refused, and asked again
//! by the client where it is now.

use super::aggregate_answer::{Done, Outlet, Piece, blocking};
use super::answers::AnswerSender;
use super::convert::{invalid, key_range};
use futures::{StreamExt, stream};
use isotherm_aggregate::{AggregateError, Fold, Query, QueryText, Rules};
use isotherm_proto::internal as pb;
use isotherm_raftstore::{RangeError, ScannedRows, SliceBudget, Store};
use isotherm_types::{Key, KeyRange, RangeId, Timestamp};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};

/// Aggregates of one node that are read at a time; it bounds the memory of their groups.
const ACTIVE_MAX: usize = 16;
/// Aggregates that may wait for that; more are refused as busy.
const WAITING_MAX: usize = 256;
/// Parts of one request at most.
const PARTS_MAX: usize = 100_000;
/// A slice that takes longer than this (a quorum is missing) is given up.
const SLICE_TIMEOUT: Duration = Duration::from_secs(5);
/// What is done is sent at least this often, …
const SEND_EVERY: Duration = Duration::from_millis(500);
/// … and when its groups take this much memory.
const PIECE_BYTES: usize = 4 << 20;
/// Pieces that wait to be sent; reading waits then.
const PIECES_WAITING_MAX: usize = 4;
/// Partials of more groups than this are not merged on the async threads.
const GROUPS_INLINE_MAX: usize = 1_000;
/// A span of more bytes on disk is read by several threads.
const PARALLEL_BYTES: u64 = 8 << 20;
/// A span of more bytes on disk leaves the block cache alone.
const LARGE_BYTES: u64 = 64 << 20;

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
    /// Spans of it that are read at a time: each holds what it has not sent.
    reads: Semaphore,
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
        let query = query.map_err(|e| invalid(e.to_string()))?;
        let query = Arc::new(query.under(Rules::agreed(request.rules)));
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
        let reads = Semaphore::new(store.scan_threads().max(1));
        Ok(Self { store, query, at: Timestamp(request.at), parts, reads })
    }

    /// Answers until everything is answered or the client is gone.
    pub async fn run(
        self,
        admission: Arc<Admission>,
        answers: AnswerSender<pb::AggregateResponse>,
    ) {
        let outlet = Outlet::new(answers);
        if admission.waiting.fetch_add(1, Ordering::AcqRel) >= WAITING_MAX {
            admission.waiting.fetch_sub(1, Ordering::AcqRel);
            outlet.refuse(RangeError::Busy { retry_after: Duration::from_millis(200) }).await;
            return;
        }
        let permit = tokio::select! {
            permit = admission.active.acquire() => permit.ok(),
            () = outlet.say_alive(SEND_EVERY, true) => None,
        };
        admission.waiting.fetch_sub(1, Ordering::AcqRel);
        // The client went away while it waited.
        let Some(_permit) = permit else { return };
        metrics::counter!("isotherm_aggregates_total").increment(1);
        let active = metrics::gauge!("isotherm_aggregates_active");
        active.increment(1.0);
        tokio::select! {
            () = self.answer(&outlet) => {}
            () = outlet.say_alive(SEND_EVERY, false) => {}
        }
        active.decrement(1.0);
    }

    async fn answer(self, outlet: &Outlet) {
        let (pieces, done) = mpsc::channel(PIECES_WAITING_MAX);
        let this = Arc::new(self);
        let query = this.query.clone();
        let reading = async move {
            let threads = this.store.scan_threads();
            let work = stream::iter(this.parts.clone()).map(|(range, version, span)| {
                let (this, pieces) = (this.clone(), pieces.clone());
                async move { this.read_part(range, version, span, &pieces).await }
            });
            work.buffer_unordered(threads).for_each(|()| std::future::ready(())).await;
        };
        // Where sending ends early, reading finds nobody to hand its next piece to.
        tokio::join!(reading, outlet.send_all(&query, done));
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
        let Ok(_permit) = self.reads.acquire().await else { return };
        let mut left = Some(span);
        let mut sum: Option<Done> = None;
        let mut since = Instant::now();
        while let Some(span) = left.take() {
            let read = self.read_slice(range, version, &span).await;
            let extended = match read {
                Ok((slice, rest)) => {
                    left = rest;
                    self.extend(&mut sum, slice).await
                }
                Err(error) => Err(error),
            };
            let bytes = sum.as_ref().map_or(0, |sum| sum.partial.size_bytes());
            let is_due = left.is_none() || since.elapsed() >= SEND_EVERY || bytes >= PIECE_BYTES;
            // What was read before an error stands.
            if (is_due || extended.is_err())
                && let Some(done) = sum.take()
            {
                since = Instant::now();
                if pieces.send(Piece { range, result: Ok(done) }).await.is_err() {
                    return;
                }
            }
            if let Err(error) = extended {
                let _ = pieces.send(Piece { range, result: Err(error) }).await;
                return;
            }
            if pieces.is_closed() {
                return;
            }
        }
    }

    /// Adds a slice to those before it.
    async fn extend(&self, sum: &mut Option<Done>, slice: Done) -> Result<(), RangeError> {
        let Some(before) = sum.take() else {
            *sum = Some(slice);
            return Ok(());
        };
        let query = self.query.clone();
        let is_large = slice.partial.groups() > GROUPS_INLINE_MAX;
        let add = move || {
            let mut done = before;
            let covered = KeyRange::new(done.covered.start().clone(), slice.covered.end().clone());
            done.covered = covered.map_err(|e| RangeError::Internal(e.to_string()))?;
            done.rows += slice.rows;
            done.bytes += slice.bytes;
            done.took += slice.took;
            done.partial.merge(slice.partial, &query).map_err(|e| invalid(e.to_string()))?;
            Ok(done)
        };
        *sum = Some(if is_large { blocking(add).await? } else { add()? });
        Ok(())
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
        let read = move |snapshot: &isotherm_storage::DataSnapshot,
                         owned: KeyRange,
                         at,
                         budget: &mut SliceBudget<'_>| {
            if owned != asked {
                // Only a part of it is here: the client is to route again.
                return Ok(Ok(None));
            }
            let started = Instant::now();
            let mut fold = Fold::new(&query);
            let (mut rows, mut bytes, mut examined) = (0_u64, 0_u64, 0_u64);
            let mut seen = ScannedRows::default();
            let mut failed = None;
            let is_large = snapshot.approximate_size(&owned) > LARGE_BYTES;
            let stopped = snapshot.visit(&owned, at, is_large, |row| {
                examined += 1;
                if let Some(value) = row.value {
                    rows += 1;
                    bytes += (row.key.len() + value.len()) as u64;
                    seen.see(row.key);
                    if let Err(error) = fold.add(row.key, value) {
                        failed = Some(error);
                        return ControlFlow::Break(());
                    }
                }
                budget.spend(row.cost)
            })?;
            if let Some(error) = failed {
                return Ok(Err(error));
            }
            let (covered, rest) = match stopped {
                None => (owned, None),
                Some(last) => split_after(&owned, &last),
            };
            let partial = fold.finish();
            let done = Done { covered, partial, rows, bytes, took: started.elapsed() };
            Ok(Ok(Some((done, rest, examined, seen))))
        };
        let read = self.store.read_span(range, version, span, self.at, SLICE_TIMEOUT, read).await?;
        match read {
            Ok(Some((done, rest, examined, seen))) => {
                metrics::counter!("isotherm_scanned_rows_total").increment(done.rows);
                metrics::counter!("isotherm_scanned_bytes_total").increment(done.bytes);
                self.store.note_scan(range, examined, done.bytes, &seen);
                Ok((done, rest))
            }
            Ok(None) => Err(RangeError::EpochMismatch { current: Vec::new() }),
            Err(error @ AggregateError::Partial(_)) => Err(RangeError::Internal(error.to_string())),
            Err(error) => Err(invalid(error.to_string())),
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
