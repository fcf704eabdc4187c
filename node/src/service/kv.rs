//! `isotherm.v1`: any node takes any key and routes it, for clients that do not.
//!
//! The gateway is the Rust client inside the node, with sessions of its own: what a thin client
//! sends once takes effect at most once, and an answer that was lost stays unknown.

use super::answers::{AnswerSender, Answers, StreamLimits, answers};
use super::groups::Groups;
use bytes::Bytes;
use isotherm_aggregate::QueryText;
use isotherm_client::{
    AggregateOptions, CasOutcome, Client, ClientError, Deleted, ErrorKind, Incremented, Scan,
    ScanOptions, Write, WriteResult,
};
use isotherm_proto::v1::kv_server::Kv;
use isotherm_proto::v1::{self as pb, write, write_result};
use isotherm_types::{KeyRange, Timestamp, limits};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

/// Messages that wait for a slow client, and their bytes; the scan waits then.
const MESSAGES_AHEAD: usize = 2;
const BYTES_AHEAD: usize = 2 << 20;
/// Memory for all streams together: for messages that wait to be read, and for groups of aggregates.
/// What does not fit waits for a moment and is refused.
const MEMORY_BYTES: usize = 256 << 20;

/// The public API.
#[derive(Clone)]
pub struct KvGateway {
    client: Client,
    /// One permit per byte.
    memory: Arc<Semaphore>,
    idle: Duration,
}

impl KvGateway {
    /// Over a client of this cluster. A stream that is not read for `idle` is ended.
    pub fn new(client: Client, idle: Duration) -> Self {
        Self { client, memory: Arc::new(Semaphore::new(MEMORY_BYTES)), idle }
    }

    fn stream_limits(&self) -> StreamLimits {
        StreamLimits {
            messages: MESSAGES_AHEAD,
            bytes: BYTES_AHEAD,
            idle: self.idle,
            memory: Some(self.memory.clone()),
        }
    }
}

pub(super) fn status(error: ClientError) -> Status {
    let code = match error.kind {
        ErrorKind::Unreachable | ErrorKind::Unavailable => tonic::Code::Unavailable,
        ErrorKind::NotFound => tonic::Code::NotFound,
        ErrorKind::Condition => tonic::Code::FailedPrecondition,
        ErrorKind::Indeterminate => tonic::Code::Unknown,
        ErrorKind::TooLarge | ErrorKind::Invalid => tonic::Code::InvalidArgument,
        ErrorKind::Busy | ErrorKind::DiskFull => tonic::Code::ResourceExhausted,
        ErrorKind::SnapshotTooOld | ErrorKind::TsTooNew => tonic::Code::OutOfRange,
        ErrorKind::Internal => tonic::Code::Internal,
    };
    // It can repeat what the client sent, and travels in headers.
    let mut message = error.message;
    limits::cut_text(&mut message);
    Status::new(code, message)
}

fn cas_response(outcome: CasOutcome) -> pb::CompareAndSetResponse {
    let CasOutcome { ts, applied, current, current_forgotten } = outcome;
    pb::CompareAndSetResponse { ts: ts.get(), applied, current, current_forgotten }
}

fn to_write(write: pb::Write) -> Result<Write, Status> {
    Ok(match write.kind {
        Some(write::Kind::Put(put)) => Write::put(put.key, put.value),
        Some(write::Kind::Delete(delete)) => Write::delete(delete.key),
        Some(write::Kind::CompareAndSet(cas)) => {
            Write::Cas { key: cas.key, expected: cas.expected, value: cas.value }
        }
        Some(write::Kind::Increment(incr)) => Write::incr(incr.key, incr.by),
        None => return Err(Status::invalid_argument("a write of an unknown kind")),
    })
}

fn to_result(result: WriteResult) -> pb::WriteResult {
    let kind = match result {
        WriteResult::Put { ts } => write_result::Kind::Put(pb::PutResponse { ts: ts.get() }),
        WriteResult::Deleted(Deleted { ts, existed }) => {
            write_result::Kind::Delete(pb::DeleteResponse { ts: ts.get(), existed })
        }
        WriteResult::Cas(outcome) => write_result::Kind::CompareAndSet(cas_response(outcome)),
        WriteResult::Incremented(Incremented { ts, value }) => {
            write_result::Kind::Increment(pb::IncrementResponse { ts: ts.get(), value })
        }
        WriteResult::Refused { reason } => write_result::Kind::Refused(reason),
    };
    pb::WriteResult { kind: Some(kind) }
}

pub(super) fn aggregate_options(request: pb::AggregateRequest) -> Result<AggregateOptions, Status> {
    let span = key_range(request.start, request.end)?;
    // Joined they are looked at by their length; a list of this many is too long whatever it says.
    if request.functions.len() > limits::KEY_BYTES_MAX {
        return Err(Status::invalid_argument("too many functions in one pass"));
    }
    let query = QueryText {
        functions: request.functions.join(","),
        value: request.value,
        filter: request.r#where,
        group_by: request.group_by,
        groups_max: request.groups_max,
    };
    Ok(AggregateOptions { span, query, at: request.at.map(Timestamp) })
}

pub(super) fn key_range(start: Bytes, end: Bytes) -> Result<KeyRange, Status> {
    let max = limits::BOUND_BYTES_MAX;
    if start.len().max(end.len()) > max {
        let why = format!("a bound of the span has more than {max} bytes");
        return Err(Status::invalid_argument(why));
    }
    KeyRange::new(start, end).map_err(|e| {
        let mut why = e.to_string();
        limits::cut_text(&mut why);
        Status::invalid_argument(why)
    })
}

/// Sends the pages of a scan, until its end or until the client goes away.
async fn send_pages(mut scan: Scan, pages: &AnswerSender<pb::ScanPage>) {
    let mut is_first = true;
    loop {
        let page = tokio::select! {
            page = scan.next_page() => page,
            () = pages.closed() => return,
        };
        let page = match page {
            Ok(Some(page)) => page,
            Ok(None) => return,
            Err(error) => return pages.fail(status(error)).await,
        };
        // Many rows that are not visible come as pages without rows: that is nothing to tell.
        if page.rows.is_empty() && !is_first {
            continue;
        }
        is_first = false;
        let row = |(key, row): (_, isotherm_client::Row)| pb::KeyValue {
            key,
            value: row.value,
            ts: row.ts.get(),
        };
        let rows = page.rows.into_iter().map(row).collect();
        let page = pb::ScanPage { at: page.at.get(), rows };
        let bytes = page.encoded_len();
        if !pages.send(page, bytes).await {
            return;
        }
    }
}

#[tonic::async_trait]
impl Kv for KvGateway {
    type ScanStream = Answers<pb::ScanPage>;
    type AggregateStream = Answers<pb::AggregateResponse>;

    async fn get(&self, r: Request<pb::GetRequest>) -> Result<Response<pb::GetResponse>, Status> {
        let pb::GetRequest { key, at } = r.into_inner();
        let row = match at {
            None => self.client.get(key).await,
            Some(at) => self.client.get_at(key, Timestamp(at)).await,
        };
        Ok(Response::new(match row.map_err(status)? {
            Some(row) => pb::GetResponse { found: true, value: row.value, ts: row.ts.get() },
            None => pb::GetResponse::default(),
        }))
    }

    async fn put(&self, r: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let pb::PutRequest { key, value } = r.into_inner();
        let ts = self.client.put(key, value).await.map_err(status)?;
        Ok(Response::new(pb::PutResponse { ts: ts.get() }))
    }

    async fn delete(
        &self,
        r: Request<pb::DeleteRequest>,
    ) -> Result<Response<pb::DeleteResponse>, Status> {
        let Deleted { ts, existed } =
            self.client.delete(r.into_inner().key).await.map_err(status)?;
        Ok(Response::new(pb::DeleteResponse { ts: ts.get(), existed }))
    }

    async fn compare_and_set(
        &self,
        r: Request<pb::CompareAndSetRequest>,
    ) -> Result<Response<pb::CompareAndSetResponse>, Status> {
        let pb::CompareAndSetRequest { key, expected, value } = r.into_inner();
        let outcome = self.client.cas(key, expected, value).await.map_err(status)?;
        Ok(Response::new(cas_response(outcome)))
    }

    async fn increment(
        &self,
        r: Request<pb::IncrementRequest>,
    ) -> Result<Response<pb::IncrementResponse>, Status> {
        let pb::IncrementRequest { key, by } = r.into_inner();
        let Incremented { ts, value } = self.client.incr(key, by).await.map_err(status)?;
        Ok(Response::new(pb::IncrementResponse { ts: ts.get(), value }))
    }

    async fn batch(
        &self,
        r: Request<pb::BatchRequest>,
    ) -> Result<Response<pb::BatchResponse>, Status> {
        let writes = r.into_inner().writes.into_iter().map(to_write);
        let writes = writes.collect::<Result<Vec<_>, _>>()?;
        let results = self.client.batch(writes).await.map_err(status)?;
        let results = results.into_iter().map(to_result).collect();
        let response = pb::BatchResponse { results };
        let (bytes, max) = (response.encoded_len(), limits::MESSAGE_BYTES_MAX);
        if bytes > max {
            return Err(Status::unknown(format!(
                "the batch took effect, but its answer has {bytes} bytes and the limit is {max}: \
                 compare and set fewer keys in one batch"
            )));
        }
        Ok(Response::new(response))
    }

    async fn scan(
        &self,
        r: Request<pb::ScanRequest>,
    ) -> Result<Response<Self::ScanStream>, Status> {
        let pb::ScanRequest { start, end, limit, reverse, keys_only, at } = r.into_inner();
        let span = key_range(start, end)?;
        let options = ScanOptions {
            span,
            limit: (limit > 0).then_some(limit),
            reverse,
            keys_only,
            at: at.map(Timestamp),
        };
        let scan = self.client.scan(options);
        let (pages, taken) = answers(self.stream_limits());
        // What the scan holds (the history that it reads) goes with it.
        tokio::spawn(async move { send_pages(scan, &pages).await });
        Ok(Response::new(taken))
    }

    async fn aggregate(
        &self,
        r: Request<pb::AggregateRequest>,
    ) -> Result<Response<Self::AggregateStream>, Status> {
        let options = aggregate_options(r.into_inner())?;
        // Dropped with the call, and with it all that nodes do for it.
        let done = self.client.aggregate_within(options, self.memory.clone());
        let mut groups = Groups::new(done.await.map_err(status)?);
        // Its groups count already.
        let limits = StreamLimits { memory: None, ..self.stream_limits() };
        let (messages, taken) = answers(limits);
        tokio::spawn(async move {
            loop {
                let message = match groups.next_message().await {
                    Ok(Some((message, rest))) => {
                        groups = rest;
                        message
                    }
                    Ok(None) => return,
                    Err(error) => return messages.fail(error).await,
                };
                let bytes = message.encoded_len();
                if !messages.send(message, bytes).await {
                    return;
                }
            }
        });
        Ok(Response::new(taken))
    }

    async fn timestamp(
        &self,
        _: Request<pb::TimestampRequest>,
    ) -> Result<Response<pb::TimestampResponse>, Status> {
        let ts = self.client.timestamp().await.map_err(status)?;
        Ok(Response::new(pb::TimestampResponse { ts: ts.get() }))
    }
}
