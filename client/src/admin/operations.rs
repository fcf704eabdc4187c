//! Operations of several steps, which the meta service drives: moves of replicas, merges.

use super::{Admin, META_TIMEOUT};
use crate::{ClientError, ErrorKind};
use isotherm_proto::internal::error::Code;
use isotherm_proto::internal::{self as pb};
use isotherm_types::{NodeId, RangeId, ReplicaId};
use std::time::Duration;

/// Between two looks at an operation that is waited for.
const POLL: Duration = Duration::from_millis(100);

/// Where an operation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationStatus {
    /// It is being carried out, or undone.
    Running,
    /// It was carried out.
    Done,
    /// It was not, and left nothing behind.
    Failed,
}

/// A move of a replica from one node to another, or a merge of two ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its number.
    pub id: u64,
    /// `move`, `add`, `merge`.
    pub kind: String,
    /// Of which range; of a merge the one that absorbs the other.
    pub range: RangeId,
    /// Of a merge the range that goes.
    pub right: Option<RangeId>,
    /// From where, and which replica goes.
    pub from: (NodeId, ReplicaId),
    /// To where, and which replica comes.
    pub to: (NodeId, ReplicaId),
    /// `running`, `cancelling`, `done`, `failed`, `cancelled`.
    pub state: String,
    /// Why it failed or is undone.
    pub reason: String,
    /// The step at hand, and what its last try met.
    pub step: String,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// When it ended; 0: it has not.
    pub ended_ms: u64,
    /// When it is undone if it is not done by then.
    pub deadline_ms: u64,
}

impl Operation {
    /// What its state means.
    pub fn status(&self) -> OperationStatus {
        match self.state.as_str() {
            "done" => OperationStatus::Done,
            "failed" | "cancelled" => OperationStatus::Failed,
            _ => OperationStatus::Running,
        }
    }
}

fn operation(o: pb::Operation) -> Operation {
    Operation {
        id: o.id,
        kind: o.kind,
        range: RangeId(o.range_id),
        right: Some(RangeId(o.right_range_id)).filter(|right| right.get() != 0),
        from: (NodeId(o.from_node), ReplicaId(o.from_replica)),
        to: (NodeId(o.to_node), ReplicaId(o.to_replica)),
        state: o.state,
        reason: o.reason,
        step: o.step,
        started_ms: o.started_ms,
        ended_ms: o.ended_ms,
        deadline_ms: o.deadline_ms,
    }
}

fn missing() -> ClientError {
    ClientError::new(ErrorKind::Internal, "meta answers without the operation")
}

impl Admin<'_> {
    /// Orders a move of the replica of `range` on `from` to `to`; undone if it is not done within
    /// `limit`. Returns as soon as it is decided.
    pub async fn move_range(
        &self,
        range: RangeId,
        from: NodeId,
        to: NodeId,
        limit: Duration,
    ) -> Result<Operation, ClientError> {
        let request = pb::MoveRangeRequest {
            range_id: range.get(),
            from_node: from.get(),
            to_node: to.get(),
            limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        };
        let answer = ask_meta!(self, move_range, request)?;
        answer.operation.map(operation).ok_or_else(missing)
    }

    /// Orders a merge of `range` with its right neighbour; undone if it is not done within `limit`.
    /// Returns as soon as it is decided.
    pub async fn merge_ranges(
        &self,
        range: RangeId,
        limit: Duration,
    ) -> Result<Operation, ClientError> {
        let request = pb::MergeRangesRequest {
            range_id: range.get(),
            limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        };
        let answer = ask_meta!(self, merge_ranges, request)?;
        answer.operation.map(operation).ok_or_else(missing)
    }

    /// The newest operations, the newest first.
    pub async fn operations(&self) -> Result<Vec<Operation>, ClientError> {
        let answer = ask_meta!(self, list_operations, pb::ListOperationsRequest { id: 0 })?;
        Ok(answer.operations.into_iter().map(operation).collect())
    }

    /// One operation.
    pub async fn operation(&self, id: u64) -> Result<Operation, ClientError> {
        let answer = ask_meta!(self, list_operations, pb::ListOperationsRequest { id })?;
        answer.operations.into_iter().next().map(operation).ok_or_else(missing)
    }

    /// Has an operation undone. One that is past that ends as done.
    pub async fn cancel_operation(&self, id: u64) -> Result<Operation, ClientError> {
        let answer = ask_meta!(self, cancel_operation, pb::CancelOperationRequest { id })?;
        answer.operation.map(operation).ok_or_else(missing)
    }

    /// Waits until an operation has ended, however long that takes: it has a limit of its own.
    pub async fn wait_for_operation(&self, id: u64) -> Result<Operation, ClientError> {
        loop {
            let operation = self.operation(id).await?;
            if operation.status() != OperationStatus::Running {
                return Ok(operation);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
