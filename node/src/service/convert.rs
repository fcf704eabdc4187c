//! Messages to what the store takes, and back. What comes from the wire is checked here: the
//! client checks too, but a node does not rely on it.

use isotherm_proto::WireError;
use isotherm_proto::internal::error::Code;
use isotherm_proto::internal::{self as pb, op_result, write_op};
use isotherm_raftstore::{
    OpResult, Page, PageRead, PointRead, RangeError, WriteOp, WriteOutcome, WriteRequest,
};
use isotherm_storage::Row;
use isotherm_types::{Key, KeyRange, Timestamp, limits};
use std::time::Duration;

/// How soon it pays to ask again while the oracle is down.
const NO_TIMESTAMPS_PAUSE: Duration = Duration::from_millis(100);

pub(super) fn invalid(why: impl Into<String>) -> RangeError {
    RangeError::Invalid(why.into())
}

pub(super) fn check_key(key: &Key) -> Result<(), RangeError> {
    match key.len() {
        0 => Err(invalid("a key is empty: the shortest has 1 byte")),
        n if n > limits::KEY_BYTES_MAX => {
            let max = limits::KEY_BYTES_MAX;
            Err(invalid(format!("a key has {n} bytes: the limit is {max}")))
        }
        _ => Ok(()),
    }
}

fn check_value(value: &[u8]) -> Result<(), RangeError> {
    let (n, max) = (value.len(), limits::VALUE_BYTES_MAX);
    if n > max {
        return Err(invalid(format!("a value has {n} bytes: the limit is {max}")));
    }
    Ok(())
}

pub(super) fn write_request(batch: pb::WriteBatch) -> Result<WriteRequest, RangeError> {
    if batch.txn != 0 {
        return Err(invalid("transactions are not known to this version"));
    }
    if batch.ops.is_empty() || batch.ops.len() > limits::BATCH_OPS_MAX {
        let (n, max) = (batch.ops.len(), limits::BATCH_OPS_MAX);
        return Err(invalid(format!("a batch has {n} operations: 1 to {max} are allowed")));
    }
    let id = batch.write_id();
    let ops = batch.ops.into_iter().map(write_op).collect::<Result<Vec<_>, _>>()?;
    let request = WriteRequest { id, ops };
    let (bytes, max) = (request.size_bytes(), limits::REQUEST_BYTES_MAX);
    if bytes > max {
        return Err(invalid(format!("a batch has {bytes} bytes: the limit is {max}")));
    }
    Ok(request)
}

/// Writes that are remembered one by one.
pub(super) fn numbered_request(batch: pb::NumberedBatch) -> Result<WriteRequest, RangeError> {
    let pb::NumberedBatch { batch, numbers } = batch;
    let batch = batch.ok_or_else(|| invalid("a numbered batch without a batch"))?;
    let mut request = write_request(batch)?;
    let is_ascending = numbers.is_sorted_by(|a, b| a < b);
    let are_positions = numbers.last().is_none_or(|last| (*last as usize) < limits::BATCH_OPS_MAX);
    if numbers.len() != request.ops.len() || !is_ascending || !are_positions {
        let max = limits::BATCH_OPS_MAX;
        return Err(invalid(format!(
            "the numbers of a batch are not one per operation, ascending and below {max}"
        )));
    }
    let number = |(number, op)| WriteOp::Numbered { number, op: Box::new(op) };
    request.ops = numbers.into_iter().zip(request.ops).map(number).collect();
    Ok(request)
}

fn write_op(op: pb::WriteOp) -> Result<WriteOp, RangeError> {
    let key = op.key;
    check_key(&key)?;
    Ok(match op.kind {
        Some(write_op::Kind::Put(value)) => {
            check_value(&value)?;
            WriteOp::Put { key, value }
        }
        Some(write_op::Kind::Delete(pb::Unit {})) => WriteOp::Delete { key },
        Some(write_op::Kind::Cas(pb::Cas { expected, value })) => {
            check_value(&value)?;
            WriteOp::Cas { key, expected, value }
        }
        Some(write_op::Kind::Incr(by)) => WriteOp::Incr { key, by },
        Some(write_op::Kind::CasRemove(pb::CasRemove { expected })) => {
            WriteOp::CasRemove { key, expected }
        }
        Some(write_op::Kind::RemoveVersion(ts)) => {
            WriteOp::RemoveVersion { key, ts: Timestamp(ts) }
        }
        None => return Err(invalid("an operation is of a kind that this version does not know")),
    })
}

pub(super) fn write_result(outcome: WriteOutcome) -> pb::WriteBatchResult {
    let result = |result| {
        let (result, ts) = match result {
            OpResult::Earlier { ts, result } => (*result, Some(ts.get())),
            result => (result, None),
        };
        let kind = match result {
            // Inside of another: it is one level deep.
            OpResult::Earlier { .. } => return pb::OpResult::default(),
            OpResult::Put => op_result::Kind::Put(pb::Unit {}),
            OpResult::Deleted { existed } => op_result::Kind::Existed(existed),
            OpResult::Cas { applied, current } => {
                let current_forgotten = false;
                op_result::Kind::Cas(pb::CasResult { applied, current, current_forgotten })
            }
            OpResult::CasLost => op_result::Kind::Cas(pb::CasResult {
                applied: false,
                current: None,
                current_forgotten: true,
            }),
            OpResult::Incr { value } => op_result::Kind::Value(value),
            OpResult::Refused { reason } => op_result::Kind::Refused(reason.to_string()),
        };
        pb::OpResult { kind: Some(kind), ts }
    };
    pb::WriteBatchResult {
        ts: outcome.ts.get(),
        index: outcome.index,
        results: outcome.results.into_iter().map(result).collect(),
    }
}

pub(super) fn point_read(read: pb::ReadPoint) -> Result<PointRead, RangeError> {
    if read.txn != 0 {
        return Err(invalid("transactions are not known to this version"));
    }
    check_key(&read.key)?;
    Ok(PointRead { key: read.key, at: read.at.map(Timestamp) })
}

pub(super) fn point_result(row: Option<Row>) -> pb::PointResult {
    match row {
        Some(row) => {
            pb::PointResult { found: true, value: row.value, ts: row.ts.get(), index: row.index }
        }
        None => pb::PointResult::default(),
    }
}

pub(super) fn key_range(span: Option<pb::KeyRange>) -> Result<KeyRange, RangeError> {
    let span = span.ok_or_else(|| invalid("a read names no span"))?;
    // Cuts of a span can be a little longer than keys.
    let max = limits::BOUND_BYTES_MAX;
    if span.start.len().max(span.end.len()) > max {
        return Err(invalid(format!("a bound of a span has more than {max} bytes")));
    }
    span.try_into().map_err(|e: isotherm_proto::ConvertError| invalid(e.to_string()))
}

pub(super) fn page_read(read: pb::ReadPage) -> Result<PageRead, RangeError> {
    if read.txn != 0 {
        return Err(invalid("transactions are not known to this version"));
    }
    Ok(PageRead {
        span: key_range(read.span)?,
        at: (read.at != 0).then_some(Timestamp(read.at)),
        max_keys: read.max_keys,
        max_bytes: read.max_bytes,
        reverse: read.reverse,
        keys_only: read.keys_only,
    })
}

pub(super) fn page_result(page: Page) -> pb::PageResult {
    let row = |(key, row): (Key, Row)| pb::Row { key, value: row.value, ts: row.ts.get() };
    pb::PageResult {
        at: page.at.get(),
        covered: Some((&page.covered).into()),
        rows: page.rows.into_iter().map(row).collect(),
    }
}

/// The error as it travels.
pub(super) fn wire_error(error: RangeError) -> WireError {
    let code = match &error {
        RangeError::NotLeader { .. } => Code::NotLeader,
        RangeError::EpochMismatch { .. } => Code::EpochMismatch,
        RangeError::RangeNotFound(_) => Code::RangeNotFound,
        RangeError::Busy { .. } | RangeError::NoTimestamps => Code::Busy,
        RangeError::DiskFull => Code::DiskFull,
        RangeError::Invalid(_) => Code::Invalid,
        RangeError::TooLarge(_) => Code::TooLarge,
        RangeError::Indeterminate => Code::Indeterminate,
        RangeError::Stale => Code::Stale,
        RangeError::Expired => Code::Expired,
        RangeError::SnapshotTooOld { .. } => Code::SnapshotTooOld,
        RangeError::TsTooNew => Code::TsTooNew,
        RangeError::Unavailable(_) => Code::Unavailable,
        RangeError::Condition(_) => Code::Condition,
        RangeError::Internal(_) => Code::Internal,
    };
    let mut wire = WireError::new(code, error.to_string());
    match error {
        RangeError::NotLeader { leader } => wire.0.leader_node = leader.map_or(0, |n| n.get()),
        RangeError::EpochMismatch { current } => {
            wire.0.descriptors = current.iter().map(Into::into).collect();
        }
        RangeError::Busy { retry_after } => wire.0.retry_after_ms = millis(retry_after),
        RangeError::NoTimestamps => wire.0.retry_after_ms = millis(NO_TIMESTAMPS_PAUSE),
        RangeError::SnapshotTooOld { safe_point } => wire.0.safe_point = safe_point.get(),
        _ => {}
    }
    wire
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
