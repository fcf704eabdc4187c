//! `isotherm.v1`: any node takes any key and routes it, for clients that do not.
//!
//! The gateway is the Rust client inside the node, with sessions of its own. What a thin client sends once
//! takes effect at most once, and an answer that was lost stays unknown; with a `request_id` it can ask
//! again, here or elsewhere, and the write takes effect once all the same.

use super::answers::{AnswerSender, Answers, StreamLimits, answers};
use super::groups::Groups;
use super::kv_convert::{
    Kind, OTHER_REQUEST, aggregate_options, batch_write, cas_response, check_many, compare_and_set,
    delete, request_id, scan_options, write_outcomes,
};
use super::refusal::{invalid, refused, status};
use futures::stream::{self, StreamExt};
use isotherm_client::{
    AggregateOptions, AggregateProgress, Client, ClientError, Deleted, Incremented, RequestId, Row,
    Scan, Write, WriteResult,
};
use isotherm_proto::v1::aggregate_response::Part;
use isotherm_proto::v1::kv_server::Kv;
use isotherm_proto::v1::{self as pb, Reason};
use isotherm_types::{Key, Timestamp};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Interval, MissedTickBehavior, timeout};
use tonic::{Request, Response, Status};

/// Messages that wait for a slow client, and their bytes; the scan waits then.
const MESSAGES_AHEAD: usize = 2;
const BYTES_AHEAD: usize = 2 << 20;
/// Memory for all streams together: for messages that wait to be read, and for groups of aggregates.
/// What does not fit waits for a moment and is refused.
const MEMORY_BYTES: usize = 256 << 20;
/// How often an aggregate says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// Values of several keys in one answer.
const MANY_BYTES: usize = 1 << 20;
/// Keys of one request that are read at the same time.
const MANY_AT_ONCE: usize = 4;
/// Memory of a request for several keys while it is carried out, and how long it waits for that.
const MANY_MEMORY: u32 = 1 << 20 << 2;
const MANY_TIMEOUT: Duration = Duration::from_secs(5);

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

    async fn write(&self, write: Write, request: Option<RequestId>) -> Result<WriteResult, Status> {
        self.client.write_as(write, request).await.map_err(status)
    }
}

fn other_request() -> Status {
    invalid(OTHER_REQUEST)
}

/// Sends the pages of a scan, until its end or until the client goes away.
async fn send_pages(mut scan: Scan, reverse: bool, pages: &AnswerSender<pb::ScanPage>) {
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
        let resume_key = scan.left().map(|left| {
            let key = if reverse { left.end() } else { left.start() };
            key.clone()
        });
        // Many rows that are not visible come as pages without rows: that is nothing to tell.
        if page.rows.is_empty() && !is_first && resume_key.is_some() {
            continue;
        }
        is_first = false;
        let row = |(key, row): (Key, Row)| pb::KeyValue { key, value: row.value, ts: row.ts.get() };
        let rows = page.rows.into_iter().map(row).collect();
        let page = pb::ScanPage { at: page.at.get(), rows, resume_key };
        let bytes = page.encoded_len();
        if !pages.send(page, bytes).await {
            return;
        }
    }
}

/// How far it is, as soon as that is due and something was read since.
async fn next_progress(
    tick: &mut Interval,
    latest: &mut watch::Receiver<AggregateProgress>,
) -> AggregateProgress {
    tick.tick().await;
    if latest.changed().await.is_err() {
        // It is done, and that is the news.
        std::future::pending::<()>().await;
    }
    *latest.borrow_and_update()
}

fn header_message(at: Timestamp) -> pb::AggregateResponse {
    let part = Part::Header(pb::AggregateHeader { at: at.get() });
    pb::AggregateResponse { part: Some(part) }
}

fn progress_message(progress: AggregateProgress) -> pb::AggregateResponse {
    let AggregateProgress { rows, ranges, ranges_all, .. } = progress;
    let part = Part::Progress(pb::AggregateProgress { rows, ranges, ranges_all });
    pb::AggregateResponse { part: Some(part) }
}

/// Sends the answer of an aggregate, until its end or until the client goes away: then all that nodes do
/// for it ends.
async fn send_aggregate(
    client: Client,
    options: AggregateOptions,
    memory: Arc<Semaphore>,
    messages: &AnswerSender<pb::AggregateResponse>,
) {
    let send = async |message: pb::AggregateResponse| {
        let bytes = message.encoded_len();
        messages.send(message, bytes).await
    };
    let (news, mut latest) = watch::channel(AggregateProgress::default());
    let done = client.aggregate_within(options, memory, |progress| {
        news.send_replace(progress);
    });
    tokio::pin!(done);
    let mut tick = tokio::time::interval(PROGRESS_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut has_header = false;
    let done = loop {
        let progress = tokio::select! {
            done = &mut done => break done,
            () = messages.closed() => return,
            progress = next_progress(&mut tick, &mut latest) => progress,
        };
        // To a client that does not read it is not worth waiting: the rows go on being read.
        if !messages.has_room() {
            continue;
        }
        if !std::mem::replace(&mut has_header, true) && !send(header_message(progress.at)).await {
            return;
        }
        if !send(progress_message(progress)).await {
            return;
        }
    };
    let done = match done {
        Ok(done) => done,
        Err(error) => return messages.fail(status(error)).await,
    };
    if !has_header && !send(header_message(done.at)).await {
        return;
    }
    let mut groups = Groups::new(done);
    loop {
        match groups.next_message().await {
            Ok((message, rest)) => {
                if !send(message).await {
                    return;
                }
                match rest {
                    Some(rest) => groups = rest,
                    None => return,
                }
            }
            Err(error) => return messages.fail(error).await,
        }
    }
}

/// The values of the first of `keys`, as many as fit into an answer.
async fn get_many(
    client: &Client,
    keys: Vec<Key>,
    at: Timestamp,
) -> Result<Vec<pb::GetResponse>, ClientError> {
    let read = |key: Key| async move { client.get_at(key, at).await };
    let mut read = stream::iter(keys).map(read).buffered(MANY_AT_ONCE);
    let (mut values, mut bytes) = (Vec::new(), 0);
    while let Some(row) = read.next().await {
        let value = get_response(row?);
        bytes += value.encoded_len() + 8;
        if bytes > MANY_BYTES && !values.is_empty() {
            break;
        }
        values.push(value);
    }
    Ok(values)
}

fn get_response(row: Option<Row>) -> pb::GetResponse {
    match row {
        Some(row) => pb::GetResponse { found: true, value: row.value, ts: row.ts.get() },
        None => pb::GetResponse::default(),
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
        Ok(Response::new(get_response(row.map_err(status)?)))
    }

    async fn get_many(
        &self,
        r: Request<pb::GetManyRequest>,
    ) -> Result<Response<pb::GetManyResponse>, Status> {
        let pb::GetManyRequest { keys, at } = r.into_inner();
        check_many(keys.len())?;
        let memory = timeout(MANY_TIMEOUT, self.memory.acquire_many(MANY_MEMORY)).await;
        let Ok(Ok(_memory)) = memory else {
            let why = "too much is read through this node at the same time: try again later";
            return Err(refused(Reason::Busy, why));
        };
        let at = match at {
            Some(at) => Timestamp(at),
            None => self.client.timestamp().await.map_err(status)?,
        };
        let values = get_many(&self.client, keys, at).await.map_err(status)?;
        Ok(Response::new(pb::GetManyResponse { at: at.get(), values }))
    }

    async fn put(&self, r: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let pb::PutRequest { key, value, request_id: id, request_since } = r.into_inner();
        let request = request_id(&id, request_since)?;
        match self.write(Write::put(key, value), request).await? {
            WriteResult::Put { ts } => Ok(Response::new(pb::PutResponse { ts: ts.get() })),
            _ => Err(other_request()),
        }
    }

    async fn delete(
        &self,
        r: Request<pb::DeleteRequest>,
    ) -> Result<Response<pb::DeleteResponse>, Status> {
        let pb::DeleteRequest { key, written_at, request_id: id, request_since } = r.into_inner();
        let request = request_id(&id, request_since)?;
        match self.write(delete(key, written_at), request).await? {
            WriteResult::Deleted(Deleted { ts, existed }) => {
                Ok(Response::new(pb::DeleteResponse { ts: ts.get(), existed }))
            }
            _ => Err(other_request()),
        }
    }

    async fn compare_and_set(
        &self,
        r: Request<pb::CompareAndSetRequest>,
    ) -> Result<Response<pb::CompareAndSetResponse>, Status> {
        let pb::CompareAndSetRequest { key, expected, value, request_id: id, request_since } =
            r.into_inner();
        let request = request_id(&id, request_since)?;
        match self.write(compare_and_set(key, expected, value), request).await? {
            WriteResult::Cas(outcome) => Ok(Response::new(cas_response(outcome))),
            _ => Err(other_request()),
        }
    }

    async fn increment(
        &self,
        r: Request<pb::IncrementRequest>,
    ) -> Result<Response<pb::IncrementResponse>, Status> {
        let pb::IncrementRequest { key, amount, request_id: id, request_since } = r.into_inner();
        let request = request_id(&id, request_since)?;
        match self.write(Write::incr(key, amount), request).await? {
            WriteResult::Incremented(Incremented { ts, value }) => {
                Ok(Response::new(pb::IncrementResponse { ts: ts.get(), value }))
            }
            WriteResult::Refused { reason } => Err(refused(Reason::Condition, reason)),
            _ => Err(other_request()),
        }
    }

    async fn batch(
        &self,
        r: Request<pb::BatchRequest>,
    ) -> Result<Response<pb::BatchResponse>, Status> {
        let pb::BatchRequest { writes, request_id: id, request_since } = r.into_inner();
        let request = request_id(&id, request_since)?;
        let writes = writes.into_iter().map(batch_write).collect::<Result<Vec<_>, _>>()?;
        let kinds: Vec<_> = writes.iter().map(Kind::of).collect();
        let outcomes = self.client.batch_outcomes(writes, request).await.map_err(status)?;
        let outcomes = kinds.into_iter().zip(outcomes);
        let outcomes: Vec<_> = outcomes.map(|(kind, outcome)| kind.checked(outcome)).collect();
        let complete = outcomes.iter().all(Result::is_ok);
        Ok(Response::new(pb::BatchResponse { outcomes: write_outcomes(outcomes), complete }))
    }

    async fn scan(
        &self,
        r: Request<pb::ScanRequest>,
    ) -> Result<Response<Self::ScanStream>, Status> {
        let options = scan_options(r.into_inner())?;
        let reverse = options.reverse;
        let scan = self.client.scan(options);
        let (pages, taken) = answers(self.stream_limits());
        // What the scan holds (the history that it reads) goes with it.
        tokio::spawn(async move { send_pages(scan, reverse, &pages).await });
        Ok(Response::new(taken))
    }

    async fn aggregate(
        &self,
        r: Request<pb::AggregateRequest>,
    ) -> Result<Response<Self::AggregateStream>, Status> {
        let options = aggregate_options(r.into_inner())?;
        let (client, memory) = (self.client.clone(), self.memory.clone());
        // Its groups count already.
        let limits = StreamLimits { memory: None, ..self.stream_limits() };
        let (messages, taken) = answers(limits);
        tokio::spawn(async move { send_aggregate(client, options, memory, &messages).await });
        Ok(Response::new(taken))
    }

    async fn timestamp(
        &self,
        _: Request<pb::TimestampRequest>,
    ) -> Result<Response<pb::TimestampResponse>, Status> {
        let ts = self.client.timestamp().await.map_err(status)?;
        Ok(Response::new(pb::TimestampResponse { ts: ts.get() }))
    }

    async fn hold(
        &self,
        r: Request<pb::HoldRequest>,
    ) -> Result<Response<pb::HoldResponse>, Status> {
        let pb::HoldRequest { hold_id, at } = r.into_inner();
        let at = match (hold_id, at) {
            (_, Some(at)) => Timestamp(at),
            (0, None) => self.client.timestamp().await.map_err(status)?,
            (_, None) => return Err(invalid("name the timestamp of the hold to renew it")),
        };
        let id = (hold_id > 0).then_some(hold_id);
        let held = self.client.hold_once(id, at).await.map_err(status)?;
        Ok(Response::new(pb::HoldResponse {
            hold_id: held.id,
            at: at.get(),
            lifetime_ms: u64::try_from(held.lifetime.as_millis()).unwrap_or(u64::MAX),
        }))
    }

    async fn release(
        &self,
        r: Request<pb::ReleaseRequest>,
    ) -> Result<Response<pb::ReleaseResponse>, Status> {
        self.client.release_hold(r.into_inner().hold_id).await;
        Ok(Response::new(pb::ReleaseResponse {}))
    }
}
