//! One client's stream of small operations.
//!
//! Each message in carries as many requests as were waiting, each message out as many answers as
//! are ready: a unary call costs several times the CPU of an operation. One task per stream holds
//! all of its operations; point reads of one range that came in one message share a confirmation
//! of leadership.

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
use isotherm_types::{ClusterId, RangeId};
use prost::Message;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

/// Operations of one stream at a time; more are refused as busy.
const OPERATIONS_MAX: usize = 8192;
/// Bytes after which a message is full; one answer alone may have more.
const BYTES_MAX: usize = 1 << 20;
/// Answers in one message.
const ANSWERS_MAX: usize = 512;
/// Longest time that a request may ask for.
const TIMEOUT_MAX: Duration = Duration::from_secs(120);

type Operation = BoxFuture<'static, Vec<RangeResponse>>;

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

fn timeout(ms: u32) -> Duration {
    if ms == 0 { TIMEOUT_MAX } else { Duration::from_millis(ms.into()).min(TIMEOUT_MAX) }
}

/// The point reads of one message, by range and version.
type Reads = HashMap<(RangeId, u64), (Vec<u64>, Vec<PointRead>, Duration)>;

/// Serves one stream until the client closes it.
pub async fn serve(
    store: Arc<Store>,
    cluster: ClusterId,
    mut inbound: Streaming<RangeRequests>,
    outbound: mpsc::Sender<Result<RangeResponses, Status>>,
) {
    let mut running: FuturesUnordered<Operation> = FuturesUnordered::new();
    let mut is_open = true;
    while is_open || !running.is_empty() {
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
            Some(first) = running.next(), if !running.is_empty() => {
                let mut bytes = bytes_of(&first);
                let mut responses = first;
                while responses.len() < ANSWERS_MAX
                    && bytes < BYTES_MAX
                    && let Some(Some(more)) = running.next().now_or_never()
                {
                    bytes += bytes_of(&more);
                    responses.extend(more);
                }
                if !send(&outbound, responses).await {
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
    outbound: &mpsc::Sender<Result<RangeResponses, Status>>,
    answers: Vec<RangeResponse>,
) -> bool {
    let (mut responses, mut bytes) = (Vec::with_capacity(answers.len()), 0);
    for answer in answers {
        let size = answer.encoded_len();
        if bytes + size > BYTES_MAX && !responses.is_empty() {
            let full = RangeResponses { responses: std::mem::take(&mut responses) };
            if outbound.send(Ok(full)).await.is_err() {
                return false;
            }
            bytes = 0;
        }
        bytes += size;
        responses.push(answer);
    }
    outbound.send(Ok(RangeResponses { responses })).await.is_ok()
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
    message: RangeRequests,
    running: &mut FuturesUnordered<Operation>,
) -> Vec<RangeResponse> {
    let mut refused = Vec::new();
    let mut reads: Reads = HashMap::new();
    for request in message.requests {
        let id = request.id;
        if running.len() >= OPERATIONS_MAX {
            let busy = RangeError::Busy { retry_after: Duration::from_millis(100) };
            refused.push(answer(id, Err(busy)));
            continue;
        }
        match operation(store, request, &mut reads) {
            Ok(Some(operation)) => running.push(operation),
            Ok(None) => {}
            Err(error) => refused.push(answer(id, Err(error))),
        }
    }
    for ((range, version), (ids, reads, timeout)) in reads {
        let store = store.clone();
        running.push(
            async move {
                match store.read_many(range, version, reads, timeout).await {
                    Ok(rows) => {
                        let read = |row| Ok(range_response::Body::Read(point_result(row)));
                        ids.into_iter().zip(rows).map(|(id, row)| answer(id, read(row))).collect()
                    }
                    Err(error) => {
                        ids.into_iter().map(|id| answer(id, Err(error.clone()))).collect()
                    }
                }
            }
            .boxed(),
        );
    }
    refused
}

/// What one request asks for. Newest point reads are gathered in `reads` instead.
fn operation(
    store: &Arc<Store>,
    request: RangeRequest,
    reads: &mut Reads,
) -> Result<Option<Operation>, RangeError> {
    let RangeRequest { id, range_id, version, timeout_ms, body } = request;
    let (range, timeout) = (RangeId(range_id), timeout(timeout_ms));
    let store = store.clone();
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
                    let row = store.read(range, version, read, timeout).await;
                    vec![answer(id, row.map(|row| range_response::Body::Read(point_result(row))))]
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
                    vec![answer(id, body)]
                }
                .boxed(),
            ))
        }
        Some(range_request::Body::Scan(read)) => {
            let read = page_read(read)?;
            Ok(Some(
                async move {
                    let page = store.scan(range, version, read, timeout).await;
                    vec![answer(id, page.map(|p| range_response::Body::Scan(page_result(p))))]
                }
                .boxed(),
            ))
        }
        None => Err(RangeError::Invalid("a request that this version does not know".into())),
    }
}
