//! One client's stream of small operations.
//!
//! Each message in carries as many requests as were waiting, each message out as many answers as
//! are ready: a unary call costs several times the CPU of an operation. One task per stream holds
//! all of its operations; point reads of one range that came in one message share a confirmation
//! of leadership. Answers are made only as fast as they are read: reads of much are answered in
//! parts, each when the one before it was taken.

use super::answers::AnswerSender;
use super::convert::{
    page_read, page_result, point_read, point_result, wire_error, write_request, write_result,
};
use super::range::other_cluster;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use isotherm_proto::WireError;
use isotherm_proto::internal::{
    RangeRequest, RangeRequests, RangeResponse, RangeResponses, range_request, range_response,
};
use isotherm_raftstore::{PointRead, RangeError, Store};
use isotherm_types::{ClusterId, RangeId, limits};
use prost::Message;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tonic::Streaming;

/// Operations of one stream at a time; more are refused as busy.
const OPERATIONS_MAX: usize = 8192;
/// Bytes after which a message is full; one answer alone may have more.
const BYTES_MAX: usize = 1 << 20;
/// Answers in one message.
const ANSWERS_MAX: usize = 512;
/// Bytes of one answer at most, with room for what frames it in a message.
const ANSWER_BYTES_MAX: usize = limits::MESSAGE_BYTES_MAX - 1024;
/// Pages of scans that one stream reads at a time: each may be a page full of bytes.
const SCANS_MAX: usize = 32;
/// Longest time that a request may ask for.
const TIMEOUT_MAX: Duration = Duration::from_secs(120);

type Operation = BoxFuture<'static, Answered>;

/// Answers to some of what was asked.
struct Answered {
    responses: Vec<RangeResponse>,
    /// Answers the rest. Begun once these were taken.
    rest: Option<Operation>,
}

impl Answered {
    fn one(id: u64, body: Result<range_response::Body, RangeError>) -> Self {
        Self { responses: vec![answer(id, body)], rest: None }
    }
}

/// What is under way for one stream.
struct Running {
    operations: FuturesUnordered<Operation>,
    /// Requests that are not answered.
    unanswered: usize,
    scans: Arc<Semaphore>,
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
    let response = RangeResponse { id, body: Some(body) };
    let bytes = response.encoded_len();
    if bytes > ANSWER_BYTES_MAX {
        // In a message it would end the stream, and everything that others do on it.
        let why = format!("the answer has {bytes} bytes: the limit is {ANSWER_BYTES_MAX}");
        return answer(id, Err(RangeError::Internal(why)));
    }
    response
}

fn timeout(ms: u32) -> Duration {
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
                        0 => start(&store, message, &mut running),
                        asked if asked == cluster.get() => start(&store, message, &mut running),
                        asked => refuse_all(message, &other_cluster(cluster, ClusterId(asked))),
                    };
                    if !refused.is_empty() && !send(&outbound, refused).await {
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
                while responses.len() < ANSWERS_MAX
                    && bytes < BYTES_MAX
                    && let Some(Some(more)) = running.operations.next().now_or_never()
                {
                    bytes += bytes_of(&more.responses);
                    responses.extend(more.responses);
                    rest.extend(more.rest);
                }
                running.unanswered -= responses.len();
                if !send(&outbound, responses).await {
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
async fn send(outbound: &AnswerSender<RangeResponses>, answers: Vec<RangeResponse>) -> bool {
    let (mut responses, mut bytes) = (Vec::with_capacity(answers.len()), 0);
    for answer in answers {
        let size = answer.encoded_len();
        if bytes + size > BYTES_MAX && !responses.is_empty() {
            let full = RangeResponses { responses: std::mem::take(&mut responses) };
            if !outbound.send(full, bytes).await {
                return false;
            }
            bytes = 0;
        }
        bytes += size;
        responses.push(answer);
    }
    outbound.send(RangeResponses { responses }, bytes).await
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
fn start(store: &Arc<Store>, message: RangeRequests, running: &mut Running) -> Vec<RangeResponse> {
    let mut refused = Vec::new();
    let mut reads: Reads = HashMap::new();
    for request in message.requests {
        let id = request.id;
        if running.unanswered >= OPERATIONS_MAX {
            let busy = RangeError::Busy { retry_after: Duration::from_millis(100) };
            refused.push(answer(id, Err(busy)));
            continue;
        }
        match operation(store, request, &mut reads, &running.scans) {
            Ok(operation) => {
                running.unanswered += 1;
                running.operations.extend(operation);
            }
            Err(error) => refused.push(answer(id, Err(error))),
        }
    }
    for ((range, version), PointReads { reads, timeout }) in reads {
        let until = Instant::now() + timeout;
        running.operations.push(read_points(store.clone(), range, version, reads, until));
    }
    refused
}

/// Answers point reads of one range, as many at a time as the store answers together.
fn read_points(
    store: Arc<Store>,
    range: RangeId,
    version: u64,
    mut left: VecDeque<(u64, PointRead)>,
    until: Instant,
) -> Operation {
    async move {
        let reads = left.iter().take(ANSWERS_MAX).map(|(_, read)| read.clone()).collect();
        let timeout = until.saturating_duration_since(Instant::now());
        let rows = match store.read_many(range, version, reads, timeout).await {
            Ok(rows) if !rows.is_empty() => rows,
            failed => {
                let none = |_| RangeError::Internal("a read of some keys read none".into());
                let error = failed.map_or_else(|error| error, none);
                let refused = |(id, _)| answer(id, Err(error.clone()));
                return Answered { responses: left.drain(..).map(refused).collect(), rest: None };
            }
        };
        let answered = left.drain(..rows.len()).zip(rows);
        let read = |row| Ok(range_response::Body::Read(point_result(row)));
        let responses = answered.map(|((id, _), row)| answer(id, read(row))).collect();
        let is_done = left.is_empty();
        let rest = (!is_done).then(|| read_points(store, range, version, left, until));
        Answered { responses, rest }
    }
    .boxed()
}

/// What one request asks for. Newest point reads are gathered in `reads` instead.
fn operation(
    store: &Arc<Store>,
    request: RangeRequest,
    reads: &mut Reads,
    scans: &Arc<Semaphore>,
) -> Result<Option<Operation>, RangeError> {
    let RangeRequest { id, range_id, version, timeout_ms, body } = request;
    let (range, timeout) = (RangeId(range_id), timeout(timeout_ms));
    let store = store.clone();
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
                    let row = store.read(range, version, read, timeout).await;
                    Answered::one(id, row.map(|row| range_response::Body::Read(point_result(row))))
                }
                .boxed(),
            ))
        }
        Some(range_request::Body::Write(batch)) => {
            let write = write_request(batch)?;
            Ok(Some(
                async move {
                    let outcome = store.write(range, version, write, timeout).await;
                    let body = outcome.map(|o| range_response::Body::Write(write_result(o)));
                    Answered::one(id, body)
                }
                .boxed(),
            ))
        }
        Some(range_request::Body::Scan(read)) => {
            let (read, scans) = (page_read(read)?, scans.clone());
            Ok(Some(
                async move {
                    let until = Instant::now() + timeout;
                    let _permit = scans.acquire_owned().await;
                    let timeout = until.saturating_duration_since(Instant::now());
                    let page = store.scan(range, version, read, timeout).await;
                    Answered::one(id, page.map(|p| range_response::Body::Scan(page_result(p))))
                }
                .boxed(),
            ))
        }
        None => Err(RangeError::Invalid("a request that this version does not know".into())),
    }
}
