//! `isotherm.v1`: any node takes any key and routes it, for clients that do not.
//!
//! The gateway is the Rust client inside the node, with sessions of its own: what a thin client
//! sends once takes effect at most once, and an answer that was lost stays unknown.

use isotherm_aggregate::{Figure, Function, GroupAnswer, QueryText};
use isotherm_client::{
    AggregateOptions, Aggregated, CasOutcome, Client, ClientError, Deleted, ErrorKind, Incremented,
    ScanOptions, Write, WriteResult,
};
use isotherm_proto::v1::kv_server::Kv;
use isotherm_proto::v1::{self as pb, write, write_result};
use isotherm_types::{KeyRange, Timestamp};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Pages that wait for a slow client; the scan waits then.
const PAGES_AHEAD: usize = 2;
/// Groups in one message: thin clients take 4 MiB by default, and a name has up to 4 KiB.
const GROUPS_PER_MESSAGE: usize = 500;

/// The public API.
#[derive(Clone)]
pub struct KvGateway {
    client: Client,
}

impl KvGateway {
    /// Over a client of this cluster.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

fn status(error: ClientError) -> Status {
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
    Status::new(code, error.message)
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

fn aggregate_options(request: pb::AggregateRequest) -> Result<AggregateOptions, Status> {
    let span = KeyRange::new(request.start, request.end)
        .map_err(|e| Status::invalid_argument(e.to_string()))?;
    let query = QueryText {
        functions: request.functions.join(","),
        value: request.value,
        filter: request.r#where,
        group_by: request.group_by,
        groups_max: request.groups_max,
    };
    Ok(AggregateOptions { span, query, at: request.at.map(Timestamp) })
}

fn aggregate_messages(done: Aggregated) -> impl Iterator<Item = pb::AggregateResponse> {
    let first = pb::AggregateResponse {
        at: done.at.get(),
        ranges: done.ranges(),
        rows: done.answer.rows,
        skipped: done.answer.skipped,
        groups: Vec::new(),
    };
    let groups: Vec<_> = done.answer.groups.into_iter().map(aggregate_group).collect();
    let pages = groups.chunks(GROUPS_PER_MESSAGE).map(<[_]>::to_vec).collect::<Vec<_>>();
    let mut totals = Some(first);
    // Totals come with the first groups, and alone if there are none.
    let pages = if pages.is_empty() { vec![Vec::new()] } else { pages };
    pages
        .into_iter()
        .map(move |groups| pb::AggregateResponse { groups, ..totals.take().unwrap_or_default() })
}

fn aggregate_group(group: GroupAnswer) -> pb::AggregateGroup {
    let figure = |(function, figure): (Function, Figure)| pb::AggregateFigure {
        function: function.to_string(),
        number: match figure {
            Figure::None => None,
            Figure::Number(digits) => Some(digits),
            Figure::Special(name) => Some(name.to_owned()),
        },
    };
    pb::AggregateGroup {
        name: group.name.map(Into::into),
        rows: group.rows,
        skipped: group.skipped,
        figures: group.figures.into_iter().map(figure).collect(),
    }
}

#[tonic::async_trait]
impl Kv for KvGateway {
    type ScanStream = ReceiverStream<Result<pb::ScanPage, Status>>;
    type AggregateStream = ReceiverStream<Result<pb::AggregateResponse, Status>>;

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
        Ok(Response::new(pb::BatchResponse { results }))
    }

    async fn scan(
        &self,
        r: Request<pb::ScanRequest>,
    ) -> Result<Response<Self::ScanStream>, Status> {
        let pb::ScanRequest { start, end, limit, reverse, keys_only, at } = r.into_inner();
        let span =
            KeyRange::new(start, end).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let options = ScanOptions {
            span,
            limit: (limit > 0).then_some(limit),
            reverse,
            keys_only,
            at: at.map(Timestamp),
        };
        let mut scan = self.client.scan(options);
        let (pages, taken) = mpsc::channel(PAGES_AHEAD);
        tokio::spawn(async move {
            loop {
                let page = match scan.next_page().await {
                    Ok(Some(page)) => Ok(pb::ScanPage {
                        at: page.at.get(),
                        rows: page
                            .rows
                            .into_iter()
                            .map(|(key, row)| pb::KeyValue {
                                key,
                                value: row.value,
                                ts: row.ts.get(),
                            })
                            .collect(),
                    }),
                    Ok(None) => return,
                    Err(error) => Err(status(error)),
                };
                let failed = page.is_err();
                // A client that went away ends its scan here.
                if pages.send(page).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(taken)))
    }

    async fn aggregate(
        &self,
        r: Request<pb::AggregateRequest>,
    ) -> Result<Response<Self::AggregateStream>, Status> {
        let options = aggregate_options(r.into_inner())?;
        // Dropped with the call, and with it all that nodes do for it.
        let done = self.client.aggregate(options).await.map_err(status)?;
        let (messages, taken) = mpsc::channel(PAGES_AHEAD);
        tokio::spawn(async move {
            for message in aggregate_messages(done) {
                if messages.send(Ok(message)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(taken)))
    }

    async fn timestamp(
        &self,
        _: Request<pb::TimestampRequest>,
    ) -> Result<Response<pb::TimestampResponse>, Status> {
        let ts = self.client.timestamp().await.map_err(status)?;
        Ok(Response::new(pb::TimestampResponse { ts: ts.get() }))
    }
}
