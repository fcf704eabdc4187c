//! What one write request may produce, whatever it looks like itself.
//!
//! A request is small (`isotherm_types::limits`), but what it meets need not be: a lost compare-and-set
//! answers with the whole current value, and a value that is replaced moves to the history, in the same
//! write batch. So both are bounded before anything is evaluated, from the sizes of the values that the
//! request touches. The outcome is a function of the range's state and of the request alone: every
//! replica refuses alike. In force from [`ClusterVersion::BOUNDED_WRITES`] on.
//!
//! [`ClusterVersion::BOUNDED_WRITES`]: isotherm_types::ClusterVersion::BOUNDED_WRITES

use crate::command::{OpResult, TooLarge, WriteOp, WriteOutcome};
use bytes::Bytes;
use isotherm_storage::{Overlay, StorageError};
use std::collections::HashMap;

/// Bytes of the current values that the lost conditions of one request can answer together. One
/// condition alone is always answered.
pub const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// Bytes of the values that one request replaces, and so moves to the history, together.
pub const REPLACED_BYTES_MAX: u64 = 32 << 20;
/// Keys that are read at a time while their values are added up.
const KEYS_AT_ONCE: usize = 16;
/// Values up to this size are remembered with a lost condition.
const REMEMBERED_VALUE_BYTES_MAX: usize = 32;
/// Bytes that are remembered of one operation: what kind it is, whether it was applied, and a small value.
pub const REMEMBERED_OP_BYTES: usize = 4 + REMEMBERED_VALUE_BYTES_MAX;
/// Operations that weigh as much as one remembered write.
const OPS_PER_WEIGHT: usize = 8;
/// Those that are remembered one by one: each takes as much memory as a write of one operation, but comes with
/// thousands of others.
const NUMBERED_PER_WEIGHT: usize = 4;

/// Whether the operations of one request stay within the bounds. Leaves the values that it touches in `overlay`; those of
/// a request that is refused are at most [`REPLACED_BYTES_MAX`] and those of [`KEYS_AT_ONCE`] keys.
pub fn check(
    request: &[WriteOp],
    overlay: &mut Overlay,
) -> Result<Result<(), TooLarge>, StorageError> {
    let [_, _, ..] = request[..] else { return Ok(Ok(())) };
    // Per key: the largest value that a condition on it can meet, written by this request or before.
    let mut largest: HashMap<&[u8], u64> = HashMap::with_capacity(request.len());
    let (mut replaced, mut answered) = (0, 0);
    for ops in request.chunks(KEYS_AT_ONCE) {
        overlay.prefetch(ops.iter().map(|op| &op.key()[..]))?;
        for op in ops {
            let key = &op.key()[..];
            let met = match largest.get(key) {
                Some(met) => *met,
                None => {
                    let current = overlay.value_bytes(key)?;
                    replaced += current;
                    current
                }
            };
            if op.may_answer_value() {
                answered += met;
            }
            largest.insert(key, met.max(written_bytes(op)));
            if answered > ANSWER_BYTES_MAX {
                return Ok(Err(TooLarge::Answer { limit: ANSWER_BYTES_MAX }));
            }
            if replaced > REPLACED_BYTES_MAX {
                return Ok(Err(TooLarge::Replaced { limit: REPLACED_BYTES_MAX }));
            }
        }
    }
    Ok(Ok(()))
}

/// Bytes of the value that an operation leaves, at most.
fn written_bytes(op: &WriteOp) -> u64 {
    match op.plain() {
        WriteOp::Put { value, .. } | WriteOp::Cas { value, .. } => value.len() as u64,
        WriteOp::Delete { .. }
        | WriteOp::CasRemove { .. }
        | WriteOp::RemoveVersion { .. }
        | WriteOp::Numbered { .. } => 0,
        // The decimal digits of an i64 and a sign.
        WriteOp::Incr { .. } => 20,
    }
}

/// What is remembered of a write that took effect: at most 64 bytes per operation. The value that a lost
/// condition answers is part of it only if it is small: otherwise a retry learns that it was lost, and no
/// more.
pub fn remembered(outcome: &WriteOutcome) -> WriteOutcome {
    let short = |result: &OpResult| match result {
        OpResult::Cas { applied: false, current: Some(current) }
            if current.len() > REMEMBERED_VALUE_BYTES_MAX =>
        {
            OpResult::CasLost
        }
        // A copy: the value shares the memory of what it was read with.
        OpResult::Cas { applied, current } => {
            let current = current.as_ref().map(|value| Bytes::copy_from_slice(value));
            OpResult::Cas { applied: *applied, current }
        }
        other => other.clone(),
    };
    let results = outcome.results.iter().map(short).collect();
    WriteOutcome { ts: outcome.ts, index: outcome.index, results }
}

/// The same of so many operations that are remembered one by one.
pub fn weight_numbered(ops: usize) -> u32 {
    u32::try_from(ops.div_ceil(NUMBERED_PER_WEIGHT)).unwrap_or(u32::MAX)
}

/// How much of what a range may remember a write of so many operations takes.
pub fn weight(ops: usize) -> u32 {
    u32::try_from(1 + ops / OPS_PER_WEIGHT).unwrap_or(u32::MAX)
}
