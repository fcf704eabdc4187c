//! Operations: ordered, listed, undone.

use super::admin::unexpected;
use crate::machine::{
    Command, Merge, MergeCommand, Operation, OperationCommand, OperationState, Reply, Undo,
};
use crate::member::Meta;
use crate::operations::{MERGE_LIMIT_MS, now_ms};
use isotherm_proto::WireError;
use isotherm_proto::internal as pb;
use isotherm_proto::internal::error::Code;
use isotherm_types::limits::{self, OPERATIONS_LISTED_MAX};
use isotherm_types::{NodeId, RangeId};

/// Unless the request says otherwise.
const LIMIT_MS: u64 = 10 * 60 * 1000;
/// Most in one answer, the newest.
const LISTED_MAX: usize = OPERATIONS_LISTED_MAX;

fn missing(id: u64) -> WireError {
    WireError::new(Code::NotFound, format!("there is no operation {id}"))
}

/// As many as one answer has, the newest first.
pub(super) fn newest(mut all: Vec<pb::Operation>) -> Vec<pb::Operation> {
    all.sort_by_key(|operation| std::cmp::Reverse(operation.id));
    all.truncate(LISTED_MAX);
    all
}

impl Meta {
    pub(super) async fn move_range(
        &self,
        request: pb::MoveRangeRequest,
    ) -> Result<pb::MoveRangeResponse, WireError> {
        self.leading()?;
        let range = RangeId(request.range_id);
        let missing = {
            let machine = self.group.machine().read();
            let nodes = [request.from_node, request.to_node].map(NodeId);
            match machine.ranges().get(range) {
                None => Some(format!("there is no range {range}")),
                Some(_) => {
                    let unknown = nodes.iter().find(|node| !machine.nodes().contains_key(node));
                    unknown.map(|node| format!("there is no node {node}"))
                }
            }
        };
        if let Some(why) = missing {
            return Err(WireError::new(Code::NotFound, why));
        }
        let command = OperationCommand::Move {
            range,
            from: NodeId(request.from_node),
            to: NodeId(request.to_node),
            now_ms: now_ms(),
            limit_ms: if request.limit_ms == 0 { LIMIT_MS } else { request.limit_ms },
        };
        let operation = self.operate(Command::Operation(command)).await?;
        tracing::info!(
            operation = operation.id,
            range_id = request.range_id,
            from = request.from_node,
            to = request.to_node,
            "move ordered"
        );
        Ok(pb::MoveRangeResponse { error: None, operation: Some(operation) })
    }

    pub(super) async fn merge_ranges(
        &self,
        request: pb::MergeRangesRequest,
    ) -> Result<pb::MergeRangesResponse, WireError> {
        self.leading()?;
        let left = RangeId(request.range_id);
        let right = {
            let machine = self.group.machine().read();
            let missing = || WireError::new(Code::NotFound, format!("there is no range {left}"));
            let descriptor = machine.ranges().get(left).ok_or_else(missing)?;
            let end = descriptor.span.end();
            let right = Some(end).filter(|end| !end.is_empty());
            let right = right.and_then(|end| machine.ranges().locate(end)).map(|d| d.id);
            right.ok_or_else(|| {
                let why = format!("{left} is the last range: it has no right neighbour");
                WireError::new(Code::Condition, why)
            })?
        };
        let limit_ms = if request.limit_ms == 0 { MERGE_LIMIT_MS } else { request.limit_ms };
        let command = MergeCommand::Begin { left, right, now_ms: now_ms(), limit_ms };
        let operation = self.operate(Command::Merge(command)).await?;
        tracing::info!(operation = operation.id, %left, %right, "merge ordered");
        Ok(pb::MergeRangesResponse { error: None, operation: Some(operation) })
    }

    pub(super) fn list_operations(
        &self,
        request: pb::ListOperationsRequest,
    ) -> Result<pb::ListOperationsResponse, WireError> {
        self.leading()?;
        let operations = match request.id {
            0 => {
                let machine = self.group.machine().read();
                let moves = machine.operations().iter().rev().take(LISTED_MAX);
                let merges = machine.merges().iter().rev().take(LISTED_MAX);
                let moves = moves.map(|operation| self.described(operation));
                newest(moves.chain(merges.map(|m| self.described_merge(m))).collect())
            }
            id => vec![self.operation(id)?],
        };
        Ok(pb::ListOperationsResponse { error: None, operations })
    }

    pub(super) async fn cancel_operation(
        &self,
        request: pb::CancelOperationRequest,
    ) -> Result<pb::CancelOperationResponse, WireError> {
        self.leading()?;
        self.operation(request.id)?;
        let (id, why) = (request.id, Undo::Cancelled);
        let is_merge = self.group.machine().read().merges().get(id).is_some();
        let command = if is_merge {
            Command::Merge(MergeCommand::Undo { id, why })
        } else {
            Command::Operation(OperationCommand::Undo { id, why })
        };
        let operation = self.operate(command).await?;
        Ok(pb::CancelOperationResponse { error: None, operation: Some(operation) })
    }

    async fn operate(&self, command: Command) -> Result<pb::Operation, WireError> {
        match self.propose(command, None).await? {
            Reply::Operation { id } => self.operation(id),
            other => Err(unexpected(&other)),
        }
    }

    fn operation(&self, id: u64) -> Result<pb::Operation, WireError> {
        let machine = self.group.machine().read();
        let merge = || machine.merges().get(id).map(|m| self.described_merge(m));
        let move_ = machine.operations().get(id).map(|o| self.described(o));
        move_.or_else(merge).ok_or_else(|| missing(id))
    }

    fn described_merge(&self, merge: &Merge) -> pb::Operation {
        let (state, reason) = state_of(&merge.state, "one of the ranges has changed");
        let has_ended = merge.state.has_ended();
        pb::Operation {
            id: merge.id,
            kind: "merge".to_owned(),
            range_id: merge.left.get(),
            right_range_id: merge.right.get(),
            state: state.to_owned(),
            reason,
            step: if has_ended { String::new() } else { self.notes.of(merge.id) },
            started_ms: merge.started_ms,
            ended_ms: merge.ended_ms,
            deadline_ms: merge.deadline_ms,
            ..pb::Operation::default()
        }
    }

    fn described(&self, operation: &Operation) -> pb::Operation {
        let (state, reason) = state_of(&operation.state, "the replica that was to move is gone");
        pb::Operation {
            id: operation.id,
            kind: if operation.from.get() == 0 { "add" } else { "move" }.to_owned(),
            range_id: operation.range.get(),
            from_node: operation.from.get(),
            to_node: operation.to.get(),
            state: state.to_owned(),
            reason,
            step: if operation.state.has_ended() {
                String::new()
            } else {
                self.notes.of(operation.id)
            },
            started_ms: operation.started_ms,
            ended_ms: operation.ended_ms,
            deadline_ms: operation.deadline_ms,
            from_replica: operation.removed.get(),
            to_replica: operation.added.get(),
            right_range_id: 0,
        }
    }
}

/// A state and its reason as words.
pub(super) fn state_of(state: &OperationState, pointless: &str) -> (&'static str, String) {
    let (state, mut reason) = words_of(state, pointless);
    limits::cut_text(&mut reason);
    (state, reason)
}

fn words_of(state: &OperationState, pointless: &str) -> (&'static str, String) {
    match state {
        OperationState::Running => ("running", String::new()),
        OperationState::Undoing(Undo::Cancelled) => ("cancelling", String::new()),
        OperationState::Undoing(Undo::TimedOut) => {
            ("cancelling", "it was not done in time".to_owned())
        }
        OperationState::Undoing(Undo::Pointless) => ("cancelling", pointless.to_owned()),
        OperationState::Done => ("done", String::new()),
        OperationState::Failed(why) => ("failed", why.clone()),
        OperationState::Cancelled => ("cancelled", String::new()),
    }
}
