//! Writing: one group of writes to one range, tried under one identity until it is answered.
//!
//! An attempt that was refused is certainly not applied and can be repeated anywhere. After an
//! attempt whose outcome is unknown only the same identity may be sent again; the range then
//! answers with the result of whichever attempt took effect. What stays unknown is reported as
//! such, never as failed.

use super::read::{not_applied, retry_routing, unexpected_answer};
use super::types::{CasOutcome, Deleted, Incremented, RequestId, Write, WriteResult};
use crate::client::{Client, Failed};
use crate::limits::{check_batch, check_key, check_value};
use crate::retry::{Attempts, Next};
use crate::session::{Identity, Ticket};
use crate::{ClientError, ErrorKind};
use bytes::Bytes;
use isotherm_proto::Retry;
use isotherm_proto::internal::error::Code;
use isotherm_proto::internal::{
    self as pb, NumberedBatch, WriteBatch, WriteBatchResult, op_result, range_request,
    range_response, write_op,
};
use isotherm_types::{Key, Timestamp};

/// What became of a group of writes.
pub(super) enum Sent {
    /// Applied; one result per write.
    Done(Vec<WriteResult>),
    /// Not applied by the last attempt: its keys are not all in one range (any more).
    Regroup {
        /// Whether an earlier attempt may have been applied. Only of writes that are known one by one.
        unknown: bool,
    },
}

/// Under which identity writes are sent.
#[derive(Clone, Copy)]
pub(super) enum Named<'a> {
    /// One of this client.
    ByClient,
    /// One write, as its caller calls it.
    Write(RequestId),
    /// Writes of a batch: each is known by itself.
    Batch {
        /// As its caller calls the batch.
        request: RequestId,
        /// Their positions in it.
        positions: &'a [usize],
        /// A timestamp from before the first attempt of any of them.
        birth: Timestamp,
    },
}

impl Named<'_> {
    fn request(self) -> Option<RequestId> {
        match self {
            Self::ByClient => None,
            Self::Write(request) | Self::Batch { request, .. } => Some(request),
        }
    }
}

impl Client {
    /// Sets `key` to `value`; returns when.
    pub async fn put(
        &self,
        key: impl Into<Key>,
        value: impl Into<Bytes>,
    ) -> Result<Timestamp, ClientError> {
        match self.write(Write::put(key, value)).await? {
            WriteResult::Put { ts } => Ok(ts),
            _ => Err(unexpected_answer()),
        }
    }

    /// Removes `key`.
    pub async fn delete(&self, key: impl Into<Key>) -> Result<Deleted, ClientError> {
        match self.write(Write::delete(key)).await? {
            WriteResult::Deleted(deleted) => Ok(deleted),
            _ => Err(unexpected_answer()),
        }
    }

    /// Sets `key` to `value` if it is `expected` (`None`: absent).
    pub async fn cas(
        &self,
        key: impl Into<Key>,
        expected: Option<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<CasOutcome, ClientError> {
        let (key, value) = (key.into(), value.into());
        match self.write(Write::Cas { key, expected, value }).await? {
            WriteResult::Cas(outcome) => Ok(outcome),
            _ => Err(unexpected_answer()),
        }
    }

    /// Adds `by` to the decimal integer under `key`.
    pub async fn incr(&self, key: impl Into<Key>, by: i64) -> Result<Incremented, ClientError> {
        match self.write(Write::incr(key, by)).await? {
            WriteResult::Incremented(incremented) => Ok(incremented),
            WriteResult::Refused { reason } => Err(ClientError::new(ErrorKind::Condition, reason)),
            _ => Err(unexpected_answer()),
        }
    }

    async fn write(&self, write: Write) -> Result<WriteResult, ClientError> {
        self.write_as(write, None).await
    }

    /// Does one write; under the identity that its caller gives it, if any. Whatever became of other
    /// attempts under it, it takes effect once, and the answer is that of the attempt that did.
    pub async fn write_as(
        &self,
        write: Write,
        request: Option<RequestId>,
    ) -> Result<WriteResult, ClientError> {
        check(std::slice::from_ref(&write))?;
        let attempts = self.inner.attempts();
        if let Some(since) = request.and_then(|request| request.since) {
            self.check_since(since, &attempts).await?;
        }
        let named = request.map_or(Named::ByClient, Named::Write);
        match self.send_group(std::slice::from_ref(&write), named, false, attempts).await? {
            Sent::Done(mut results) => results.pop().ok_or_else(unexpected_answer),
            Sent::Regroup { .. } => Err(unexpected_answer()),
        }
    }

    /// One from the future would never be too old, and an attempt that comes late would be a new write.
    pub(super) async fn check_since(
        &self,
        since: Timestamp,
        attempts: &Attempts<'_>,
    ) -> Result<(), ClientError> {
        if since <= self.inner.newest_ts() {
            return Ok(());
        }
        if since <= attempts.within(self.inner.fetch_timestamp()).await? {
            return Ok(());
        }
        let message = "request_since was not issued yet: use a timestamp that an answer had";
        Err(ClientError::new(ErrorKind::TsTooNew, message))
    }

    /// An identity among the writes of this client.
    async fn begin(&self, attempts: &mut Attempts<'_>) -> Result<Ticket, ClientError> {
        loop {
            match attempts.within(self.inner.session()).await {
                Ok(session) => return Ok(session.begin()),
                Err(error) => {
                    let (error, next) = retry_routing(error)?;
                    if !attempts.again(next).await {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Sends writes that belong to one range, until they are answered or the time is over. `unknown` says
    /// whether an attempt of any of them may have been, or may still be, applied.
    pub(super) async fn send_group(
        &self,
        writes: &[Write],
        named: Named<'_>,
        mut unknown: bool,
        mut attempts: Attempts<'_>,
    ) -> Result<Sent, ClientError> {
        let inner = &self.inner;
        let identity = match named.request() {
            Some(request) => Identity::Request(request),
            None => Identity::Ticket(self.begin(&mut attempts).await?),
        };
        let mut birth = match named {
            Named::Batch { birth, .. } => birth,
            Named::ByClient | Named::Write(_) => inner.newest_ts(),
        };
        // Whether the range has forgotten writes as old as the birth.
        let mut is_expired = false;
        let ops: Vec<pb::WriteOp> = writes.iter().map(write_op).collect();
        let first = writes[0].key();
        loop {
            let prepared = async {
                if is_expired {
                    attempts.within(inner.fetch_timestamp()).await?;
                }
                inner.locate(&attempts, first).await
            };
            let route = match prepared.await {
                Ok(route) => route,
                Err(error) => {
                    let (error, next) = retry_routing(error).map_err(|e| settle(e, unknown))?;
                    if !attempts.again(next).await {
                        return Err(settle(error, unknown));
                    }
                    continue;
                }
            };
            if !writes.iter().all(|w| route.descriptor.span.contains(w.key())) {
                if unknown && !matches!(named, Named::Batch { .. }) {
                    let message = "the range was split while the outcome of a batch was unknown";
                    return Err(ClientError::new(ErrorKind::Indeterminate, message));
                }
                return Ok(Sent::Regroup { unknown });
            }
            if is_expired {
                // No attempt of it took effect: a newer birth is as true.
                (birth, is_expired) = (inner.newest_ts(), false);
            }
            let id = identity.id(birth);
            let batch = WriteBatch {
                session_issuer: id.session.issuer,
                session_number: id.session.number,
                seq: id.seq,
                floor: id.floor,
                birth: id.birth.get(),
                ops: ops.clone(),
                txn: 0,
            };
            let body = match named {
                Named::Batch { positions, .. } => {
                    let numbers = positions.iter().map(|at| *at as u32).collect();
                    let batch = Some(batch);
                    range_request::Body::NumberedWrite(NumberedBatch { batch, numbers })
                }
                Named::ByClient | Named::Write(_) => range_request::Body::Write(batch),
            };
            let (error, next) = match inner.attempt(&route, attempts.left(), body).await {
                Ok(range_response::Body::Write(done)) => {
                    inner.saw(Timestamp(done.ts));
                    // It was applied, whatever is odd about the answer.
                    return results(writes, done).map(Sent::Done).map_err(|e| settle(e, true));
                }
                Ok(_) => return Err(settle(unexpected_answer(), true)),
                Err(Failed::Unknown(why)) => {
                    unknown = true;
                    (ClientError::new(ErrorKind::Indeterminate, why), Next::PAUSE)
                }
                Err(Failed::Definite { error, next }) => match error.retry() {
                    Retry::Reroute | Retry::Later => (not_applied(&error), next),
                    Retry::NewBirth if !unknown && identity.can_be_born_again() => {
                        is_expired = true;
                        (not_applied(&error), Next::AtOnce)
                    }
                    Retry::NewBirth if !unknown => return Err(expired()),
                    _ => {
                        let unknown = unknown || says_nothing(error.code());
                        return Err(settle(error.into(), unknown));
                    }
                },
            };
            if !attempts.again(next).await {
                return Err(settle(error, unknown));
            }
        }
    }
}

/// The results of writes that are as old as this one says it is are forgotten.
fn expired() -> ClientError {
    let message = "the results of writes as old as request_since are not remembered any more: this attempt \
                   changed nothing, an earlier one may have been applied";
    ClientError::new(ErrorKind::Expired, message)
}

/// Whether an answer leaves open what became of the attempt: something broke on the way, or what is
/// said is not known to this version.
fn says_nothing(code: Code) -> bool {
    matches!(code, Code::Internal | Code::Unspecified)
}

/// The error to report: once an attempt's outcome is unknown, no refusal of another attempt makes
/// it known.
fn settle(error: ClientError, unknown: bool) -> ClientError {
    if unknown { ClientError { kind: ErrorKind::Indeterminate, ..error } } else { error }
}

pub(super) fn check(writes: &[Write]) -> Result<(), ClientError> {
    let mut bytes = 0;
    for write in writes {
        check_key(write.key())?;
        bytes += write.key().len();
        match write {
            Write::Put { value, .. } => {
                check_value(value)?;
                bytes += value.len();
            }
            Write::Cas { expected, value, .. } => {
                check_value(value)?;
                bytes += value.len() + expected.as_ref().map_or(0, Bytes::len);
            }
            Write::CasRemove { expected, .. } => {
                bytes += expected.as_ref().map_or(0, Bytes::len);
            }
            Write::Delete { .. } | Write::Incr { .. } | Write::RemoveVersion { .. } => {}
        }
    }
    check_batch(writes.len(), bytes)
}

fn write_op(write: &Write) -> pb::WriteOp {
    let kind = match write {
        Write::Put { value, .. } => write_op::Kind::Put(value.clone()),
        Write::Delete { .. } => write_op::Kind::Delete(pb::Unit {}),
        Write::Cas { expected, value, .. } => {
            write_op::Kind::Cas(pb::Cas { expected: expected.clone(), value: value.clone() })
        }
        Write::Incr { by, .. } => write_op::Kind::Incr(*by),
        Write::CasRemove { expected, .. } => {
            write_op::Kind::CasRemove(pb::CasRemove { expected: expected.clone() })
        }
        Write::RemoveVersion { ts, .. } => write_op::Kind::RemoveVersion(ts.get()),
    };
    pb::WriteOp { key: write.key().clone(), kind: Some(kind) }
}

fn results(writes: &[Write], done: WriteBatchResult) -> Result<Vec<WriteResult>, ClientError> {
    if done.results.len() != writes.len() {
        return Err(unexpected_answer());
    }
    let result = |result: pb::OpResult| {
        let ts = Timestamp(result.ts.unwrap_or(done.ts));
        Ok(match result.kind.ok_or_else(unexpected_answer)? {
            op_result::Kind::Put(pb::Unit {}) => WriteResult::Put { ts },
            op_result::Kind::Existed(existed) => WriteResult::Deleted(Deleted { ts, existed }),
            op_result::Kind::Cas(pb::CasResult { applied, current, current_forgotten }) => {
                WriteResult::Cas(CasOutcome { ts, applied, current, current_forgotten })
            }
            op_result::Kind::Value(value) => WriteResult::Incremented(Incremented { ts, value }),
            op_result::Kind::Refused(reason) => WriteResult::Refused { reason },
        })
    };
    done.results.into_iter().map(result).collect()
}
