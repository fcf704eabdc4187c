//! One client's stream of small operations.
//!
//! Each message in carries as many requests as were waiting, each message out as many answers as
//! are ready: a unary call costs several times the CPU of an operation. One task per stream holds
//! all of its operations; point reads of one range that came in one message share a confirmation
//! of leadership. Answers are made only as fast as they are read: reads of much are answered in
//! parts, each when the one before it was taken.
//!
//! Memory is bounded in bytes over all streams of the node (`service/request_memory.rs`): a message is held
//! until the last of its operations is done, an answer from when it is known until it goes to the
//! wire. A message for which there is no room is refused as `Busy`; a read whose answer does not fit,
//! too. A write whose answer does not fit was done all the same: it is `Indeterminate`, and its retry
//! is answered from what the range remembers.

use super::answers::AnswerSender;
use super::convert::{
    numbered_request, page_read, page_result, point_read, point_result, wire_error, write_request,
    write_result,
};
use super::range::other_cluster;
use super::request_memory::BUSY_PAUSE;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use isotherm_proto::WireError;
use isotherm_proto::internal::{
    RangeRequest, RangeRequests, RangeResponse, RangeResponses, range_request, range_response,
};
use isotherm_raftstore::{PointRead, RangeError, Store, WriteOp, WriteRequest};
use isotherm_transport::{ByteBudget, BytesHeld};
use isotherm_types::{ClusterId, RangeId, limits};
use prost::Message;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use tonic::Streaming;

/// Operations of one stream at a time; more are refused as busy.
const OPERATIONS_MAX: usize = 8192;
/// What an operation costs beside its part of the message, about.
const OPERATION_BYTES: usize = 512;
/// What each write of a numbered batch costs beside that, about.
const NUMBER_BYTES: usize = 128;
/// An answer of this size is part of what the operation costs.
const ANSWER_BYTES_FREE: usize = 512;
/// Bytes after which a message is full; one answer alone may have more.
const BYTES_MAX: usize = 1 << 20;
/// Answers in one message.
const ANSWERS_MAX: usize = 512;
/// Bytes of one answer at most, with room for what frames it in a message.
const ANSWER_BYTES_MAX: usize = limits::MESSAGE_BYTES_MAX - 2048;
/// Pages of scans that one stream reads at a time: each may be a page full of bytes.
const SCANS_MAX: usize = 32;
/// Longest time that a request may ask for.
const TIMEOUT_MAX: Duration = Duration::from_secs(120);

type Operation = BoxFuture<'static, Answered>;

/// Answers to some of what was asked.
struct Answered {
    responses: Vec<RangeResponse>,
    /// The memory that they take.
    held: Option<BytesHeld>,
    /// Answers the rest. Begun once these were taken.
    rest: Option<Operation>,
}

/// What is common to the operations of one message.
#[derive(Clone)]
struct Context {
    store: Arc<Store>,
    /// Of this stream.
    memory: ByteBudget,
    /// The message that they share.
    _message: Arc<BytesHeld>,
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

/// What is under way for one stream.
struct Running {
    operations: FuturesUnordered<Operation>,
    /// Requests that are not answered.
    unanswered: usize,
    scans: Arc<Semaphore>,
}

pub(super) fn answer(id: u64, body: Result<range_response::Body, RangeError>) -> RangeResponse {
    let body = match body {
        Ok(body) => body,
        Err(error) => {
            if let RangeError::Internal(why) = &error {
                tracing::error!(error = why, "operation failed");
            }
            range_response::Body::Error(wire_error(error).into())
        }
    };
    let response = RangeResponse { id, body: Some(body) };
    let bytes = response.encoded_len();
    if bytes > ANSWER_BYTES_MAX {
        // In a message it would end the stream, and everything that others do on it.
        let why = format!("the answer has {bytes} bytes: the limit is {ANSWER_BYTES_MAX}");
        return answer(id, Err(RangeError::Internal(why)));
    }
    response
}

fn busy() -> RangeError {
    RangeError::Busy { retry_after: BUSY_PAUSE }
}

fn time_of(ms: u32) -> Duration {
    if ms == 0 { TIMEOUT_MAX } else { Duration::from_millis(ms.into()).min(TIMEOUT_MAX) }
}

/// Point reads of one range that came in one message, with the ids of their requests.
struct PointReads {
    reads: VecDeque<(u64, PointRead)>,
    /// The longest time that one of them may take.
    timeout: Duration,
}

/// The point reads of one message, by range and version.
type Reads = HashMap<(RangeId, u64), PointReads>;

/// Serves one stream until the client closes it.
pub async fn serve(
    store: Arc<Store>,
    memory: ByteBudget,
    cluster: ClusterId,
    mut inbound: Streaming<RangeRequests>,
    outbound: AnswerSender<RangeResponses>,
) {
    let mut running = Running {
        operations: FuturesUnordered::new(),
        unanswered: 0,
        scans: Arc::new(Semaphore::new(SCANS_MAX)),
    };
    let mut is_open = true;
    while is_open || !running.operations.is_empty() {
        tokio::select! {
            message = inbound.message(), if is_open => match message {
                Ok(Some(message)) => {
                    let refused = match message.cluster_id {
                        asked if asked != 0 && asked != cluster.get() => {
                            refuse_all(message, &other_cluster(cluster, ClusterId(asked)))
                        }
                        _ => start(&store, &memory, message, &mut running),
                    };
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
                let mut bytes = bytes_of(&first.responses);
                let (mut responses, mut rest) = (first.responses, Vec::from_iter(first.rest));
                let mut held = first.held;
                while responses.len() < ANSWERS_MAX
                    && bytes < BYTES_MAX
                    && let Some(Some(more)) = running.operations.next().now_or_never()
                {
                    bytes += bytes_of(&more.responses);
                    responses.extend(more.responses);
                    rest.extend(more.rest);
                    match (&mut held, more.held) {
                        (Some(held), Some(more)) => held.absorb(more),
                        (held, more) => *held = held.take().or(more),
                    }
                }
                running.unanswered -= responses.len();
                if !send(&outbound, responses, held).await {
                    return;
                }
                running.operations.extend(rest);
            }
        }
    }
}

fn bytes_of(responses: &[RangeResponse]) -> usize {
    responses.iter().map(Message::encoded_len).sum()
}

/// Sends answers, in several messages if one would be too large; whether the client is there.
async fn send(
    outbound: &AnswerSender<RangeResponses>,
    answers: Vec<RangeResponse>,
    mut held: Option<BytesHeld>,
) -> bool {
    let (mut responses, mut bytes) = (Vec::with_capacity(answers.len()), 0);
    for answer in answers {
        let size = answer.encoded_len();
        if bytes + size > BYTES_MAX && !responses.is_empty() {
            let full = RangeResponses { responses: std::mem::take(&mut responses) };
            let part = held.as_mut().map(|held| held.split(bytes));
            if !outbound.send_held(full, bytes, part).await {
                return false;
            }
            bytes = 0;
        }
        bytes += size;
        responses.push(answer);
    }
    outbound.send_held(RangeResponses { responses }, bytes, held).await
}

/// Refuses everything that a message asks for.
fn refuse_all(message: RangeRequests, error: &WireError) -> Vec<RangeResponse> {
    let refuse = |request: RangeRequest| {
        let body = Some(range_response::Body::Error(error.clone().into()));
        RangeResponse { id: request.id, body }
    };
    message.requests.into_iter().map(refuse).collect()
}

/// Starts what a message asks for; returns the answers to what is refused at once.
fn start(
    store: &Arc<Store>,
    memory: &ByteBudget,
    message: RangeRequests,
    running: &mut Running,
) -> Vec<RangeResponse> {
    let numbered = message.requests.iter().map(|request| match &request.body {
        Some(range_request::Body::NumberedWrite(batch)) => batch.numbers.len(),
        _ => 0,
    });
    let bytes = message.encoded_len()
        + message.requests.len() * OPERATION_BYTES
        + numbered.sum::<usize>() * NUMBER_BYTES;
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
    for request in message.requests {
        let id = request.id;
        if running.unanswered >= OPERATIONS_MAX {
            refused.push(answer(id, Err(busy())));
            continue;
        }
        match operation(&context, request, &mut reads, &running.scans) {
            Ok(operation) => {
                running.unanswered += 1;
                running.operations.extend(operation);
            }
            Err(error) => refused.push(answer(id, Err(error))),
        }
    }
    for ((range, version), PointReads { reads, timeout }) in reads {
        let until = Instant::now() + timeout;
        running.operations.push(read_points(context.clone(), range, version, reads, until));
    }
    refused
}

/// Answers point reads of one range, as many at a time as the store answers together.
fn read_points(
    context: Context,
    range: RangeId,
    version: u64,
    mut left: VecDeque<(u64, PointRead)>,
    until: Instant,
) -> Operation {
    async move {
        let reads = left.iter().take(ANSWERS_MAX).map(|(_, read)| read.clone()).collect();
        let timeout = until.saturating_duration_since(Instant::now());
        let rows = match context.store.read_many(range, version, reads, timeout).await {
            Ok(rows) if !rows.is_empty() => rows,
            failed => {
                let none = |_| RangeError::Internal("a read of some keys read none".into());
                let error = failed.map_or_else(|error| error, none);
                let refused = |(id, _)| answer(id, Err(error.clone()));
                return context.account_all(left.drain(..).map(refused).collect(), &error);
            }
        };
        let answered = left.drain(..rows.len()).zip(rows);
        let read = |row| Ok(range_response::Body::Read(point_result(row)));
        let responses = answered.map(|((id, _), row)| answer(id, read(row))).collect();
        let is_done = left.is_empty();
        let accounted = context.account_all(responses, &busy());
        let rest = (!is_done).then(|| read_points(context, range, version, left, until));
        Answered { rest, ..accounted }
    }
    .boxed()
}

/// Lets an operation go on while the stream waits for its client, so that its answer, which may be
/// large, is accounted for as soon as it is known.
async fn spawned(id: u64, operation: impl Future<Output = Answered> + Send + 'static) -> Answered {
    let task = AbortOnDropHandle::new(tokio::spawn(operation));
    task.await.unwrap_or_else(|_| Answered {
        responses: vec![answer(id, Err(RangeError::Indeterminate))],
        held: None,
        rest: None,
    })
}

/// Writes, and answers what that did.
fn write_operation(
    context: Context,
    id: u64,
    (range, version): (RangeId, u64),
    write: WriteRequest,
    timeout: Duration,
) -> Operation {
    let may_be_large = write.ops.iter().any(WriteOp::may_answer_value);
    let operation = async move {
        let outcome = context.store.write(range, version, write, timeout).await;
        let body = outcome.map(|o| range_response::Body::Write(write_result(o)));
        context.account(id, body, RangeError::Indeterminate)
    };
    if may_be_large { spawned(id, operation).boxed() } else { operation.boxed() }
}

/// What one request asks for. Newest point reads are gathered in `reads` instead.
fn operation(
    context: &Context,
    request: RangeRequest,
    reads: &mut Reads,
    scans: &Arc<Semaphore>,
) -> Result<Option<Operation>, RangeError> {
    let RangeRequest { id, range_id, version, timeout_ms, body } = request;
    let (range, timeout) = (RangeId(range_id), time_of(timeout_ms));
    let context = context.clone();
    match body {
        Some(range_request::Body::Read(read)) => {
            let read = point_read(read)?;
            if read.at.is_none() {
                let new = || PointReads { reads: VecDeque::new(), timeout };
                let gathered = reads.entry((range, version)).or_insert_with(new);
                gathered.reads.push_back((id, read));
                gathered.timeout = timeout.max(gathered.timeout);
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
            Ok(Some(write_operation(context, id, (range, version), write, timeout)))
        }
        Some(range_request::Body::NumberedWrite(batch)) => {
            let write = numbered_request(batch)?;
            Ok(Some(write_operation(context, id, (range, version), write, timeout)))
        }
        Some(range_request::Body::Scan(read)) => {
            let (read, scans) = (page_read(read)?, scans.clone());
            Ok(Some(
                async move {
                    let until = Instant::now() + timeout;
                    // Until its page is taken: what is read ahead is bounded.
                    let _permit = scans.acquire_owned().await;
                    let timeout = until.saturating_duration_since(Instant::now());
                    let page = async move {
                        let page = context.store.scan(range, version, read, timeout).await;
                        let body = page.map(|p| range_response::Body::Scan(page_result(p)));
                        context.account(id, body, busy())
                    };
                    spawned(id, page).await
                }
                .boxed(),
            ))
        }
        None => Err(RangeError::Invalid("a request that this version does not know".into())),
    }
}
