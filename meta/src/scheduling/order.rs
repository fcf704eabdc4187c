//! Carrying out one action.

use crate::machine::{Command, MergeCommand, OperationCommand, Reply, Undo};
use crate::member::Meta;
use crate::operations::{MERGE_LIMIT_MS, Step, now_ms};
use isotherm_proto::WireError;
use isotherm_proto::internal::error::Code;
use isotherm_scheduler::Action;
use isotherm_types::{RangeDescriptor, RangeId};

/// A move that the scheduler ordered is undone after that long.
const MOVE_LIMIT_MS: u64 = 10 * 60 * 1000;

/// What is said of an action that has had its effect.
const DONE: &str = "done";

impl Meta {
    /// Orders what was decided, as the leader of `term`; what became of it. Moves and merges go on as
    /// operations; the rest is done when this returns.
    pub(super) async fn order(&self, term: u64, action: &Action) -> Result<String, WireError> {
        // One that was deposed and does not know it orders nothing more.
        if self.confirmed_leading().await? != term {
            return Err(crate::member::not_leader(None));
        }
        match action {
            Action::Split { range, keys } => {
                self.execute(&self.range(*range)?, &Step::Split { keys: keys.clone() }).await?;
                Ok(DONE.to_owned())
            }
            Action::Transfer { range, to } => {
                self.execute(&self.range(*range)?, &Step::TransferLeader { to: *to }).await?;
                Ok(DONE.to_owned())
            }
            Action::Merge { left, right } => {
                let (left, right, limit_ms) = (*left, *right, MERGE_LIMIT_MS);
                let command = MergeCommand::Begin { left, right, now_ms: now_ms(), limit_ms };
                self.begin(term, Command::Merge(command)).await
            }
            Action::Move { range, from, to } => {
                let (range, from, to, now_ms) = (*range, *from, *to, now_ms());
                let limit_ms = MOVE_LIMIT_MS;
                let command = OperationCommand::Move { range, from, to, now_ms, limit_ms };
                self.begin(term, Command::Operation(command)).await
            }
            Action::Add { range, to } => {
                let (range, to, now_ms) = (*range, *to, now_ms());
                let limit_ms = MOVE_LIMIT_MS;
                let command = OperationCommand::Add { range, to, now_ms, limit_ms };
                self.begin(term, Command::Operation(command)).await
            }
            Action::CancelMove { range } => {
                let running = {
                    let machine = self.group.machine().read();
                    let mut operations = machine.operations().iter();
                    operations.find(|o| o.range == *range && !o.state.has_ended()).map(|o| o.id)
                };
                let Some(id) = running else { return Ok("it had ended".to_owned()) };
                let command = OperationCommand::Undo { id, why: Undo::Cancelled };
                self.begin(term, Command::Operation(command)).await
            }
        }
    }

    fn range(&self, range: RangeId) -> Result<RangeDescriptor, WireError> {
        let machine = self.group.machine().read();
        let missing = || WireError::new(Code::NotFound, format!("there is no range {range}"));
        machine.ranges().get(range).cloned().ok_or_else(missing)
    }

    async fn begin(&self, term: u64, command: Command) -> Result<String, WireError> {
        match self.propose(command, Some(term)).await? {
            Reply::Operation { id } => Ok(format!("operation {id}")),
            Reply::Refused(why) => Err(WireError::new(Code::Condition, why)),
            other => Err(WireError::new(Code::Internal, format!("an unexpected reply: {other:?}"))),
        }
    }
}
