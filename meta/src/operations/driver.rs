//! The loop that drives operations, while this member leads.

use super::ages::Ages;
use super::plan::{Next, Step, leftover, next};
use crate::machine::{Command, Operation, OperationCommand};
use crate::member::Meta;
use isotherm_proto::WireError;
use isotherm_task::guarded;
use isotherm_types::RangeDescriptor;
use isotherm_types::limits;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;

/// How often it looks for something to do.
const TICK: Duration = Duration::from_millis(100);
/// Before a step that was refused is asked again.
const PAUSE: Duration = Duration::from_millis(300);

/// What the last try of an operation's step met, for people.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<HashMap<u64, String>>);

impl Notes {
    /// Of one operation.
    pub(crate) fn of(&self, id: u64) -> String {
        self.0.lock().get(&id).cloned().unwrap_or_default()
    }

    pub(super) fn set(&self, id: u64, mut note: String) {
        limits::cut_text(&mut note);
        self.0.lock().insert(id, note);
    }

    pub(super) fn forget(&self, id: u64) {
        self.0.lock().remove(&id);
    }
}

/// The time that operations are listed with. What is due is decided by [`Ages`]: this clock may jump.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Drives operations as the leader of `term`, until dropped.
pub(crate) async fn drive(meta: Arc<Meta>, term: u64) {
    let mut running: JoinSet<(u64, Result<(), WireError>)> = JoinSet::new();
    // When an operation is looked at again; while a step of it runs, never.
    let mut asleep: HashMap<u64, Option<Instant>> = HashMap::new();
    let mut ages = Ages::default();
    loop {
        asleep.retain(|_, until| until.is_none_or(|until| until > Instant::now()));
        for (operation, d, next) in meta.due(&mut ages) {
            if asleep.contains_key(&operation.id) {
                continue;
            }
            let Some(step) = meta.decide(term, &operation, next).await else { continue };
            let Some(d) = d else { continue };
            asleep.insert(operation.id, None);
            let meta = meta.clone();
            running.spawn(guarded("step of an operation", async move {
                (operation.id, meta.carry_out(term, operation.id, &d, step).await)
            }));
        }
        tokio::select! {
            Some(ended) = running.join_next(), if !running.is_empty() => {
                if let Ok((id, result)) = ended {
                    let pause = if result.is_ok() { Duration::ZERO } else { PAUSE };
                    asleep.insert(id, Some(Instant::now() + pause));
                }
            }
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

impl Meta {
    /// What there is to do, by the map as it is.
    fn due(&self, ages: &mut Ages) -> Vec<(Operation, Option<RangeDescriptor>, Next)> {
        let machine = self.group.machine().read();
        let running = machine.operations().iter().filter(|o| !o.state.has_ended());
        ages.keep_only(running.map(|operation| operation.id));
        let now = Instant::now();
        let due = machine.operations().iter().filter_map(|operation| {
            let d = machine.ranges().get(operation.range);
            let next = if operation.state.has_ended() {
                Next::Do(leftover(operation, d)?)
            } else {
                next(operation, d, ages.clock(operation.id, operation.started_ms, now))
            };
            Some((operation.clone(), d.cloned(), next))
        });
        due.collect()
    }

    /// Agrees on what needs no node; the step, if one is to be carried out.
    async fn decide(&self, term: u64, operation: &Operation, next: Next) -> Option<Step> {
        let id = operation.id;
        let command = match next {
            Next::Do(step) => return Some(step),
            Next::Wait(what) => {
                self.notes.set(id, format!("waits for {what}"));
                return None;
            }
            Next::Undo(why) => OperationCommand::Undo { id, why },
            Next::End(state) => OperationCommand::End { id, state, now_ms: now_ms() },
        };
        tracing::info!(operation = id, range_id = %operation.range, ?command, "operation turns");
        if let OperationCommand::End { .. } = command {
            self.notes.forget(id);
        }
        // Not agreed: the next round plans it again.
        let _ = self.propose(Command::Operation(command), Some(term)).await;
        None
    }

    async fn carry_out(
        &self,
        term: u64,
        id: u64,
        d: &RangeDescriptor,
        step: Step,
    ) -> Result<(), WireError> {
        // One that was deposed and does not know it orders nothing more.
        if self.confirmed_leading().await? != term {
            return Err(crate::member::not_leader(None));
        }
        self.notes.set(id, step.to_string());
        let result = self.execute(d, &step).await;
        match &result {
            Ok(()) => {
                tracing::info!(operation = id, range_id = %d.id, epoch = %d.epoch, %step, "operation step done");
            }
            Err(error) => {
                tracing::debug!(operation = id, range_id = %d.id, epoch = %d.epoch, %step, %error, "operation step not done yet");
                self.notes.set(id, format!("{step}: {}", error.0.message));
            }
        }
        result
    }
}
