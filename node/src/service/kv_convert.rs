//! Messages of the public API to what the client takes, and back.

use super::refusal::{invalid, reason};
use bytes::Bytes;
use isotherm_aggregate::{Query, QueryText};
use isotherm_client::{
    AggregateOptions, CasOutcome, ClientError, Deleted, ErrorKind, Incremented, RequestId,
    ScanOptions, Write, WriteResult,
};
use isotherm_proto::v1::{self as pb, batch_write, write_outcome};
use isotherm_types::{Key, KeyRange, Timestamp, limits};
use tonic::Status;

/// What a write is called by its caller.
pub(super) fn request_id(id: &[u8], since: Option<u64>) -> Result<Option<RequestId>, Status> {
    let since = since.map(Timestamp);
    match (id.len(), since) {
        (0, None) => Ok(None),
        (0, Some(_)) => Err(invalid("request_since is given without a request_id")),
        (16, _) => {
            let id = id.try_into().map_err(|_| invalid("request_id"))?;
            Ok(Some(RequestId { id, since }))
        }
        (n, _) => Err(invalid(format!(
            "request_id has {n} bytes: leave it out, or draw 16 bytes at random for each write"
        ))),
    }
}

/// Whether so many keys may be read at once.
pub(super) fn check_many(keys: usize) -> Result<(), Status> {
    let max = limits::GET_MANY_KEYS_MAX;
    if (1..=max).contains(&keys) {
        return Ok(());
    }
    Err(invalid(format!("{keys} keys: 1 to {max} are allowed")))
}

/// A delete: of whatever value there is, or of the one that a certain write set.
pub(super) fn delete(key: Key, written_at: Option<u64>) -> Write {
    match written_at {
        None => Write::delete(key),
        Some(ts) => Write::RemoveVersion { key, ts: Timestamp(ts) },
    }
}

/// A compare-and-set, whose new value may be none.
pub(super) fn compare_and_set(key: Key, expected: Option<Bytes>, value: Option<Bytes>) -> Write {
    match value {
        Some(value) => Write::Cas { key, expected, value },
        None => Write::CasRemove { key, expected },
    }
}

pub(super) fn batch_write(write: pb::BatchWrite) -> Result<Write, Status> {
    Ok(match write.kind {
        Some(batch_write::Kind::Put(put)) => Write::put(put.key, put.value),
        Some(batch_write::Kind::Remove(removed)) => delete(removed.key, removed.written_at),
        Some(batch_write::Kind::CompareAndSet(cas)) => {
            compare_and_set(cas.key, cas.expected, cas.value)
        }
        Some(batch_write::Kind::Increment(incr)) => Write::incr(incr.key, incr.amount),
        None => return Err(invalid("a write of the batch is of no kind that this version knows")),
    })
}

/// What kind of write a result belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Put,
    Delete,
    Cas,
    Incr,
}

impl Kind {
    pub fn of(write: &Write) -> Self {
        match write {
            Write::Put { .. } => Self::Put,
            Write::Delete { .. } | Write::RemoveVersion { .. } => Self::Delete,
            Write::Cas { .. } | Write::CasRemove { .. } => Self::Cas,
            Write::Incr { .. } => Self::Incr,
        }
    }

    /// Its outcome; an error if that is of a write of another kind, which an earlier batch of that name had there.
    pub fn checked(
        self,
        outcome: Result<WriteResult, ClientError>,
    ) -> Result<WriteResult, ClientError> {
        let kind = match &outcome {
            Err(_) => self,
            Ok(WriteResult::Put { .. }) => Self::Put,
            Ok(WriteResult::Deleted(_)) => Self::Delete,
            Ok(WriteResult::Cas(_)) => Self::Cas,
            Ok(WriteResult::Incremented(_) | WriteResult::Refused { .. }) => Self::Incr,
        };
        if kind == self {
            outcome
        } else {
            Err(ClientError::new(ErrorKind::Invalid, OTHER_REQUEST))
        }
    }
}

/// The answer to a write is that of the first attempt under its `request_id`.
pub(super) const OTHER_REQUEST: &str =
    "this request_id was used for a write of another kind: draw 16 bytes for each write";

pub(super) fn cas_response(outcome: CasOutcome) -> pb::CompareAndSetResponse {
    let CasOutcome { ts, applied, current, current_forgotten } = outcome;
    pb::CompareAndSetResponse { ts: ts.get(), applied, current, current_forgotten }
}

/// What became of the writes of a batch. The answer stays below what clients take by default: values that lost
/// conditions met, and texts, are left out beyond that.
pub(super) fn write_outcomes(
    results: Vec<Result<WriteResult, ClientError>>,
) -> Vec<pb::WriteOutcome> {
    let mut bytes = 0;
    let mut fits = |more: usize| {
        let fits = bytes + more <= limits::OUTCOMES_BYTES_MAX;
        bytes += if fits { more } else { 0 };
        fits
    };
    let mut outcomes: Vec<_> = results.into_iter().map(write_outcome).collect();
    for outcome in &mut outcomes {
        match &mut outcome.kind {
            Some(write_outcome::Kind::CompareAndSet(cas))
                if !fits(cas.current.as_ref().map_or(0, Bytes::len)) =>
            {
                (cas.current, cas.current_forgotten) = (None, true);
            }
            Some(write_outcome::Kind::Failure(failure)) if !fits(failure.message.len()) => {
                failure.message.clear();
            }
            _ => {}
        }
    }
    outcomes
}

/// What became of one write of a batch.
fn write_outcome(result: Result<WriteResult, ClientError>) -> pb::WriteOutcome {
    let kind = match result {
        Ok(WriteResult::Put { ts }) => write_outcome::Kind::Put(pb::PutResponse { ts: ts.get() }),
        Ok(WriteResult::Deleted(Deleted { ts, existed })) => {
            write_outcome::Kind::Remove(pb::DeleteResponse { ts: ts.get(), existed })
        }
        Ok(WriteResult::Cas(outcome)) => write_outcome::Kind::CompareAndSet(cas_response(outcome)),
        Ok(WriteResult::Incremented(Incremented { ts, value })) => {
            write_outcome::Kind::Increment(pb::IncrementResponse { ts: ts.get(), value })
        }
        Ok(WriteResult::Refused { reason }) => {
            failure(pb::Reason::Condition, pb::Applied::No, reason)
        }
        Err(error) => {
            // An attempt that comes too late says nothing of the earlier ones.
            let is_known = error.is_definite() && error.kind != ErrorKind::Expired;
            let applied = if is_known { pb::Applied::No } else { pb::Applied::Unknown };
            failure(reason(error.kind), applied, error.message)
        }
    };
    pb::WriteOutcome { kind: Some(kind) }
}

fn failure(reason: pb::Reason, applied: pb::Applied, mut message: String) -> write_outcome::Kind {
    limits::cut_to(&mut message, limits::OUTCOME_BYTES_MAX);
    let (reason, applied) = (reason.into(), applied.into());
    write_outcome::Kind::Failure(pb::WriteFailure { reason, applied, message })
}

pub(super) fn scan_options(request: pb::ScanRequest) -> Result<ScanOptions, Status> {
    let pb::ScanRequest { start_key, end_key, rows_max, reverse, keys_only, at, page_bytes_max } =
        request;
    Ok(ScanOptions {
        span: key_range(start_key, end_key)?,
        limit: (rows_max > 0).then_some(rows_max),
        reverse,
        keys_only,
        at: at.map(Timestamp),
        page_bytes_max,
    })
}

pub(super) fn aggregate_options(request: pb::AggregateRequest) -> Result<AggregateOptions, Status> {
    let span = key_range(request.start_key, request.end_key)?;
    // Joined they are looked at by their length; a list of this many is too long whatever it says.
    if request.figures.len() > limits::KEY_BYTES_MAX {
        return Err(invalid("too many figures in one pass"));
    }
    let [group_by] = match request.group_by.len() {
        0 => [String::new()],
        1 => <[String; 1]>::try_from(request.group_by).unwrap_or_default(),
        n => return Err(invalid(format!("{n} groupings: this version takes one at most"))),
    };
    let query = QueryText {
        functions: request.figures.join(","),
        value: request.value,
        filter: request.filter,
        group_by,
        groups_max: request.groups_max,
    };
    // What is wrong with it is said at once, not by a stream that ends.
    Query::parse(&query).map_err(|e| invalid(e.to_string()))?;
    Ok(AggregateOptions { span, query, at: request.at.map(Timestamp) })
}

pub(super) fn key_range(start: Bytes, end: Bytes) -> Result<KeyRange, Status> {
    let max = limits::BOUND_BYTES_MAX;
    if start.len().max(end.len()) > max {
        return Err(invalid(format!("a bound of the span has more than {max} bytes")));
    }
    KeyRange::new(start, end).map_err(|e| invalid(e.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use prost::Message;

    #[test]
    fn what_lost_conditions_met_is_left_out_where_it_does_not_fit() {
        let lost = |bytes: usize| {
            Ok(WriteResult::Cas(CasOutcome {
                ts: Timestamp(u64::MAX),
                applied: false,
                current: Some(vec![7; bytes].into()),
                current_forgotten: false,
            }))
        };
        let outcomes = write_outcomes((0..6).map(|_| lost(1 << 20)).collect());
        let known = |outcome: &pb::WriteOutcome| match &outcome.kind {
            Some(write_outcome::Kind::CompareAndSet(cas)) => {
                assert_ne!(cas.current.is_some(), cas.current_forgotten);
                assert!(!cas.applied);
                cas.current.is_some()
            }
            other => panic!("{other:?}"),
        };
        let known: Vec<_> = outcomes.iter().map(known).collect();
        assert_eq!(known, [true, true, false, false, false, false]);
        let error = || Err(ClientError::new(ErrorKind::Unavailable, "x".repeat(1000)));
        let outcomes = write_outcomes((0..limits::BATCH_OPS_MAX).map(|_| error()).collect());
        let response = pb::BatchResponse { outcomes, complete: false };
        assert!(response.encoded_len() < 4 << 20, "{}", response.encoded_len());
    }
}
