//! Operations: ordered, listed, undone.

use super::admin::unexpected;
use crate::machine::{Command, Operation, OperationCommand, OperationState, Reply, Undo};
use crate::member::Meta;
use crate::operations::now_ms;
use isotherm_proto::WireError;
use isotherm_proto::internal as pb;
use isotherm_proto::internal::error::Code;
use isotherm_types::{NodeId, RangeId};

/// Unless the request says otherwise.
const LIMIT_MS: u64 = 10 * 60 * 1000;
/// Most in one answer, the newest.
const LISTED_MAX: usize = 200;

fn missing(id: u64) -> WireError {
    WireError::new(Code::NotFound, format!("there is no operation {id}"))
}

impl Meta {
    pub(super) async fn move_range(
        &self,
        request: pb::MoveRangeRequest,
    ) -> Result<pb::MoveRangeResponse, WireError> {
        self.leading()?;
        let command = OperationCommand::Move {
            range: RangeId(request.range_id),
            from: NodeId(request.from_node),
            to: NodeId(request.to_node),
            now_ms: now_ms(),
            limit_ms: if request.limit_ms == 0 { LIMIT_MS } else { request.limit_ms },
        };
        let operation = self.operate(command).await?;
        tracing::info!(
            operation = operation.id,
            range_id = request.range_id,
            from = request.from_node,
            to = request.to_node,
            "move ordered"
        );
        Ok(pb::MoveRangeResponse { error: None, operation: Some(operation) })
    }

    pub(super) fn list_operations(
        &self,
        request: pb::ListOperationsRequest,
    ) -> Result<pb::ListOperationsResponse, WireError> {
        self.leading()?;
        let operations = match request.id {
            0 => {
                let machine = self.group.machine().read();
                let newest = machine.operations().iter().rev().take(LISTED_MAX);
                newest.map(|operation| self.described(operation)).collect()
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
        let command = OperationCommand::Undo { id: request.id, why: Undo::Cancelled };
        let operation = self.operate(command).await?;
        Ok(pb::CancelOperationResponse { error: None, operation: Some(operation) })
    }

    async fn operate(&self, command: OperationCommand) -> Result<pb::Operation, WireError> {
        match self.propose(Command::Operation(command), None).await? {
            Reply::Operation { id } => self.operation(id),
            other => Err(unexpected(&other)),
        }
    }

    fn operation(&self, id: u64) -> Result<pb::Operation, WireError> {
        let machine = self.group.machine().read();
        machine.operations().get(id).map(|o| self.described(o)).ok_or_else(|| missing(id))
    }

    fn described(&self, operation: &Operation) -> pb::Operation {
        let (state, reason) = match &operation.state {
            OperationState::Running => ("running", String::new()),
            OperationState::Undoing(Undo::Cancelled) => ("cancelling", String::new()),
            OperationState::Undoing(Undo::TimedOut) => {
                ("cancelling", "it was not done in time".to_owned())
            }
            OperationState::Undoing(Undo::Pointless) => {
                ("cancelling", "the replica that was to move is gone".to_owned())
            }
            OperationState::Done => ("done", String::new()),
            OperationState::Failed(why) => ("failed", why.clone()),
            OperationState::Cancelled => ("cancelled", String::new()),
        };
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
        }
    }
}
