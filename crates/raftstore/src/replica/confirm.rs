//! Confirmation of leadership for reads: one round serves every read that arrived before it began.

use super::{Instance, Replica};
use crate::store::RangeError;
use crate::type_config::CommittedLeaderId;
use isotherm_task::guarded;
use openraft::LinearizerOption;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Reads that wait for a confirmation.
#[derive(Default)]
pub struct Confirm {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: bool,
    waiting: Vec<oneshot::Sender<Confirmed>>,
}

/// The leadership that was confirmed; everything committed when the round began is applied here.
pub type Confirmed = Result<CommittedLeaderId, RangeError>;

impl Confirm {
    /// Whether somebody waits.
    pub fn is_running(&self) -> bool {
        self.state.lock().running
    }
}

impl Replica {
    /// Confirms, in a round that begins after this call, that this replica leads, and waits until
    /// what was committed then is applied here.
    pub(crate) async fn confirm_leadership(self: &Arc<Self>) -> Confirmed {
        let (answer, confirmed) = oneshot::channel();
        let start = {
            let mut state = self.confirm.state.lock();
            state.waiting.push(answer);
            !std::mem::replace(&mut state.running, true)
        };
        if start {
            let replica = self.clone();
            let run = async move { replica.run_confirmations().await };
            self.ctx.tasks.spawn(guarded("confirmations of a range", run));
        }
        confirmed.await.unwrap_or_else(|_| Err(RangeError::Unavailable("stopping".into())))
    }

    async fn run_confirmations(self: Arc<Self>) {
        loop {
            let waiting = {
                let mut state = self.confirm.state.lock();
                if state.waiting.is_empty() {
                    state.running = false;
                    return;
                }
                std::mem::take(&mut state.waiting)
            };
            let confirmed = self.confirm_once().await;
            for answer in waiting {
                // A reader that gave up does not mind.
                let _ = answer.send(confirmed.clone());
            }
        }
    }

    async fn confirm_once(self: &Arc<Self>) -> Confirmed {
        let Some(instance) = self.instance.load_full() else {
            return Err(RangeError::NotLeader { leader: None });
        };
        if self.is_transferring() {
            return Err(self.not_leader(&instance));
        }
        let Some(leadership) = instance.leadership() else {
            return Err(self.not_leader(&instance));
        };
        let slept = !self.hibernation.is_awake();
        self.touch();
        if self.ctx.faults.skip_read_confirmation() == 1 {
            return Ok(leadership);
        }
        if slept && self.ctx.faults.lease_while_asleep() == 1 {
            return Ok(leadership);
        }
        let age = if self.ctx.reads_by_quorum() || self.ctx.clocks_jumped() {
            Duration::ZERO
        } else {
            self.ctx.timing.lease()
        };
        let wait = Duration::from_millis(self.ctx.timing.election_max_ms);
        let option = LinearizerOption::new(Some(age), true).with_wait_timeout(wait);
        let linearizer = match instance.raft.get_read_linearizer(option).await {
            Ok(linearizer) => linearizer,
            Err(_) => return Err(self.not_leader(&instance)),
        };
        let read_index = linearizer.read_log_id().index();
        let mut applied = self.applied.subscribe();
        let applied = applied.wait_for(|index| *index >= read_index);
        match tokio::time::timeout(wait, applied).await {
            Ok(Ok(_)) => {}
            _ => return Err(RangeError::Unavailable("the range is slow to apply".into())),
        }
        // A hand-over may have begun meanwhile, or a new leadership of ours.
        if self.is_transferring() || instance.leadership() != Some(leadership) {
            return Err(self.not_leader(&instance));
        }
        self.hibernation.confirmed();
        Ok(leadership)
    }

    /// The refusal of a replica that does not lead, with what it knows of who does.
    pub(crate) fn not_leader(self: &Arc<Self>, instance: &Instance) -> RangeError {
        // Whoever asks goes there next; if that one leads no more, somebody has to notice.
        self.nudge_leader();
        let descriptor = self.descriptor();
        let leader = instance.leader().filter(|id| *id != self.id.get());
        let node = leader.and_then(|id| descriptor.replica(id.into())).map(|r| r.node);
        RangeError::NotLeader { leader: node }
    }
}
