//! One client's stream of small operations.
//!
//! Each message in carries as many requests as were waiting, each message out as many answers as
//! are ready: a unary call costs several times the CPU of an operation. One task per stream holds
//! all of its operations; point reads of one range that came in one message share a confirmation
//! of leadership.
//!
//! Memory is bounded in bytes over all streams of the node (`service/request_memory.rs`): a message is held
//! until the last of its operations is done, an answer from when it is known until it goes to the
//! wire. A message for which there is no room is refused as `Busy`; a read whose answer does not fit,
//! too. A write whose answer does not fit was done all the same: it is `Indeterminate`, and its retry
//! is answered from what the range remembers.

use super::convert::{
    page_read, page_result, point_read, point_result, wire_error, write_request, write_result,
};
use super::request_memory::BUSY_PAUSE;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use isotherm_proto::internal::{
    RangeRequest, RangeRequests, RangeResponse, RangeResponses, range_request, range_response,
};
use isotherm_raftstore::{PointRead, RangeError, Store, WriteOp, WriteRequest};
use isotherm_transport::{ByteBudget, BytesHeld};
use isotherm_types::RangeId;
use prost::Message;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

/// Operations of one stream at a time; more are refused as busy.
const OPERATIONS_MAX: usize = 8192;
/// What an operation costs beside its part of the message, about.
const OPERATION_BYTES: usize = 512;
/// An answer of this size is part of what the operation costs.
const ANSWER_BYTES_FREE: usize = 512;
/// Bytes after which a message is full; one answer alone may have more.
const BYTES_MAX: usize = 1 << 20;
/// Answers in one message.
const ANSWERS_MAX: usize = 512;
/// Longest time that a request may ask for.
const TIMEOUT_MAX: Duration = Duration::from_secs(120);
/// A client that takes no answer for this long is gone.
const STALLED_MAX: Duration = Duration::from_secs(30);

/// Answers on their way to the wire, and the memory that they take.
pub struct Outgoing {
    /// What goes to the wire.
    pub message: Result<RangeResponses, Status>,
    /// Given back when it does.
    _held: Option<BytesHeld>,
}

/// What an operation came to.
struct Answered {
    responses: Vec<RangeResponse>,
    held: Option<BytesHeld>,
    /// Reads of the same request that are still to be done.
    rest: Option<Operation>,
}

type Operation = BoxFuture<'static, Answered>;

/// What is common to the operations of one message.
#[derive(Clone)]
struct Context {
    store: Arc<Store>,
    /// Of this stream.
    memory: ByteBudget,
    /// The message that they share.
    _message: Arc<BytesHeld>,
}

fn answer(id: u64, body: Result<range_response::Body, RangeError>) -> RangeResponse {
    let body = match body {
        Ok(body) => body,
        Err(error) => {
            if let RangeError::Internal(why) = &error {
                tracing::error!(error = why, "operation failed");
            }
            range_response::Body::Error(wire_error(error).into())
        }
    };
    RangeResponse { id, body: Some(body) }
}

fn busy() -> RangeError {
    RangeError::Busy { retry_after: BUSY_PAUSE }
}

fn time_of(ms: u32) -> Duration {
    if ms == 0 { TIMEOUT_MAX } else { Duration::from_millis(ms.into()).min(TIMEOUT_MAX) }
}

/// The point reads of one message, by range and version.
type Reads = HashMap<(RangeId, u64), (Vec<u64>, Vec<PointRead>, Duration)>;

/// The operations of one stream.
#[derive(Default)]
struct Running {
    operations: FuturesUnordered<Operation>,
    /// How many requests they answer.
    requests: usize,
}

impl Running {
    fn push(&mut self, operation: Operation, requests: usize) {
        self.operations.push(operation);
        self.requests += requests;
    }

    /// The next answers, whose number is known from here on.
    fn take(&mut self, answered: Answered) -> (Vec<RangeResponse>, Option<BytesHeld>) {
        let Answered { responses, held, rest } = answered;
        self.requests -= responses.len();
        self.operations.extend(rest);
        (responses, held)
    }
}

/// Serves one stream until the client closes it.
pub async fn serve(
    store: Arc<Store>,
    memory: ByteBudget,
    mut inbound: Streaming<RangeRequests>,
    outbound: mpsc::Sender<Outgoing>,
) {
    let mut running = Running::default();
    let mut is_open = true;
    while is_open || !running.operations.is_empty() {
        tokio::select! {
            message = inbound.message(), if is_open => match message {
                Ok(Some(message)) => {
                    let refused = start(&store, &memory, message, &mut running);
                    if refused.is_empty() {
                        continue;
                    }
                    let held = memory.take(bytes_of(&refused));
                    if !send(&outbound, refused, Some(held)).await {
                        return;
                    }
                }
                // The client is gone: nobody waits for what is still running.
                Ok(None) => is_open = false,
                Err(_) => return,
            },
            Some(first) = running.operations.next(), if !running.operations.is_empty() => {
                let (mut responses, mut held) = running.take(first);
                let mut bytes = bytes_of(&responses);
                while responses.len() < ANSWERS_MAX
                    && bytes < BYTES_MAX
                    && let Some(Some(more)) = running.operations.next().now_or_never()
                {
                    let (more, more_held) = running.take(more);
                    bytes += bytes_of(&more);
                    responses.extend(more);
                    match (&mut held, more_held) {
                        (Some(held), Some(more)) => held.absorb(more),
                        (held, more) => *held = held.take().or(more),
                    }
                }
                if !send(&outbound, responses, held).await {
                    return;
                }
            }
        }
    }
}

fn bytes_of(responses: &[RangeResponse]) -> usize {
    responses.iter().map(Message::encoded_len).sum()
}

/// Sends answers, in several messages if one would be too large; whether the client is there.
async fn send(
    outbound: &mpsc::Sender<Outgoing>,
    answers: Vec<RangeResponse>,
    mut held: Option<BytesHeld>,
) -> bool {
    let mut cut = Vec::new();
    let (mut responses, mut bytes) = (Vec::with_capacity(answers.len()), 0);
    for answer in answers {
        let size = answer.encoded_len();
        if bytes + size > BYTES_MAX && !responses.is_empty() {
            cut.push(std::mem::take(&mut responses));
            bytes = 0;
        }
        bytes += size;
        responses.push(answer);
    }
    for responses in cut {
        let part = held.as_mut().map(|held| held.split(bytes_of(&responses)));
        if !send_one(outbound, responses, part).await {
            return false;
        }
    }
    send_one(outbound, responses, held).await
}

async fn send_one(
    outbound: &mpsc::Sender<Outgoing>,
    responses: Vec<RangeResponse>,
    held: Option<BytesHeld>,
) -> bool {
    let message = Outgoing { message: Ok(RangeResponses { responses }), _held: held };
    match timeout(STALLED_MAX, outbound.send(message)).await {
        Ok(sent) => sent.is_ok(),
        Err(_) => {
            metrics::counter!("isotherm_streams_stalled_total").increment(1);
            tracing::debug!("a client does not take its answers: its stream ends");
            false
        }
    }
}

/// Starts what a message asks for; returns the answers to what is refused at once.
fn start(
    store: &Arc<Store>,
    memory: &ByteBudget,
    message: RangeRequests,
    running: &mut Running,
) -> Vec<RangeResponse> {
    let bytes = message.encoded_len() + message.requests.len() * OPERATION_BYTES;
    let Some(held) = memory.try_take(bytes) else {
        metrics::counter!("isotherm_requests_refused_total", "reason" => "memory")
            .increment(message.requests.len() as u64);
        let refused = message.requests.into_iter().map(|request| answer(request.id, Err(busy())));
        return refused.collect();
    };
    let (store, memory) = (store.clone(), memory.clone());
    let context = Context { store, memory, _message: Arc::new(held) };
    let mut refused = Vec::new();
    let mut reads: Reads = HashMap::new();
    let mut gathered = 0;
    for request in message.requests {
        let id = request.id;
        if running.requests + gathered >= OPERATIONS_MAX {
            refused.push(answer(id, Err(busy())));
            continue;
        }
        match operation(&context, request, &mut reads) {
            Ok(Some(operation)) => running.push(operation, 1),
            Ok(None) => gathered += 1,
            Err(error) => refused.push(answer(id, Err(error))),
        }
    }
    for ((range, version), (ids, reads, timeout)) in reads {
        let count = ids.len();
        let until = Instant::now() + timeout;
        running.push(read_many(context.clone(), range, version, ids, reads, until), count);
    }
    refused
}

impl Context {
    /// One answer, with the memory that it takes; `refused` instead if there is none.
    fn account(
        &self,
        id: u64,
        body: Result<range_response::Body, RangeError>,
        refused: RangeError,
    ) -> Answered {
        self.account_all(vec![answer(id, body)], &refused)
    }

    fn account_all(&self, responses: Vec<RangeResponse>, refused: &RangeError) -> Answered {
        let (bytes, free) = (bytes_of(&responses), responses.len() * ANSWER_BYTES_FREE);
        if bytes <= free {
            return Answered { responses, held: None, rest: None };
        }
        let held = self.memory.try_take(bytes);
        if held.is_some() {
            return Answered { responses, held, rest: None };
        }
        metrics::counter!("isotherm_answers_refused_total").increment(responses.len() as u64);
        let refuse = |r: RangeResponse| answer(r.id, Err(refused.clone()));
        let responses = responses.into_iter().map(refuse).collect();
        Answered { responses, held: None, rest: None }
    }
}

/// Newest point reads of one range. Large values come in several parts, each when the one before is
/// on its way.
fn read_many(
    context: Context,
    range: RangeId,
    version: u64,
    mut ids: Vec<u64>,
    mut reads: Vec<PointRead>,
    until: Instant,
) -> Operation {
    async move {
        let left = until.saturating_duration_since(Instant::now());
        match context.store.read_many(range, version, &reads, left).await {
            Ok(rows) => {
                let (ids_left, reads_left) =
                    (ids.split_off(rows.len()), reads.split_off(rows.len()));
                let read = |row| Ok(range_response::Body::Read(point_result(row)));
                let answers = ids.into_iter().zip(rows).map(|(id, row)| answer(id, read(row)));
                let mut answered = context.account_all(answers.collect(), &busy());
                if !ids_left.is_empty() {
                    let rest = read_many(context, range, version, ids_left, reads_left, until);
                    answered.rest = Some(rest);
                }
                answered
            }
            Err(error) => {
                let answers = ids.into_iter().map(|id| answer(id, Err(error.clone())));
                context.account_all(answers.collect(), &error)
            }
        }
    }
    .boxed()
}

/// Lets an operation go on while the stream waits for its client, so that its answer, which may be
/// large, is accounted for as soon as it is known.
fn spawned(id: u64, operation: Operation) -> Operation {
    let task = AbortOnDropHandle::new(tokio::spawn(operation));
    async move {
        task.await.unwrap_or_else(|_| Answered {
            responses: vec![answer(id, Err(RangeError::Indeterminate))],
            held: None,
            rest: None,
        })
    }
    .boxed()
}

/// Whether its answer may hold values.
fn may_answer_values(write: &WriteRequest) -> bool {
    write.ops.iter().any(|op| matches!(op, WriteOp::Cas { .. }))
}

/// What one request asks for. Newest point reads are gathered in `reads` instead.
fn operation(
    context: &Context,
    request: RangeRequest,
    reads: &mut Reads,
) -> Result<Option<Operation>, RangeError> {
    let RangeRequest { id, range_id, version, timeout_ms, body } = request;
    let (range, timeout) = (RangeId(range_id), time_of(timeout_ms));
    let context = context.clone();
    match body {
        Some(range_request::Body::Read(read)) => {
            let read = point_read(read)?;
            if read.at.is_none() {
                let (ids, gathered, longest) =
                    reads.entry((range, version)).or_insert_with(|| (vec![], vec![], timeout));
                ids.push(id);
                gathered.push(read);
                *longest = timeout.max(*longest);
                return Ok(None);
            }
            // At a past timestamp: alone, because its errors are its own.
            Ok(Some(
                async move {
                    let row = context.store.read(range, version, read, timeout).await;
                    let body = row.map(|row| range_response::Body::Read(point_result(row)));
                    context.account(id, body, busy())
                }
                .boxed(),
            ))
        }
        Some(range_request::Body::Write(batch)) => {
            let write = write_request(batch)?;
            let may_be_large = may_answer_values(&write);
            let operation = async move {
                let outcome = context.store.write(range, version, write, timeout).await;
                let body = outcome.map(|o| range_response::Body::Write(write_result(o)));
                context.account(id, body, RangeError::Indeterminate)
            }
            .boxed();
            Ok(Some(if may_be_large { spawned(id, operation) } else { operation }))
        }
        Some(range_request::Body::Scan(read)) => {
            let read = page_read(read)?;
            let operation = async move {
                let page = context.store.scan(range, version, read, timeout).await;
                let body = page.map(|p| range_response::Body::Scan(page_result(p)));
                context.account(id, body, busy())
            };
            Ok(Some(spawned(id, operation.boxed())))
        }
        None => Err(RangeError::Invalid("a request that this version does not know".into())),
    }
}
