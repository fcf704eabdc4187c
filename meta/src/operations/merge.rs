//! Driving merges to their end (ADR 0011).
//!
//! Forward: the right range is frozen, all its replicas have that on disk, the left one absorbs it. The
//! map then says that it is done. Back: the left range's epoch is ended by a fence; if it had absorbed the
//! other by then the merge is done after all, else the right range is thawed. Each round begins from the
//! front: every step is safe to ask twice, and whoever leads next goes on the same way.

use super::ages::Ages;
use super::driver::now_ms;
use super::step::detailed;
use crate::machine::{Command, Merge, MergeCommand, OperationState, Undo};
use crate::member::Meta;
use isotherm_proto::WireError;
use isotherm_proto::internal as pb;
use isotherm_proto::internal::error::Code;
use isotherm_proto::internal::merge_service_client::MergeServiceClient;
use isotherm_task::guarded;
use isotherm_types::{NodeId, RangeDescriptor};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Response, Status};

const TICK: Duration = Duration::from_millis(50);
/// Before a round that met a refusal is begun again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a node may take for one step. A range stands still meanwhile: one whose replicas do not say
/// so that soon makes the merge turn back, and any other step is asked again.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A merge is undone after that long, unless its order says otherwise.
pub(crate) const LIMIT_MS: u64 = 10_000;

/// What is to be done about a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    /// Freeze, wait, absorb.
    Forward,
    /// Fence, thaw.
    Back,
    /// Turn round.
    Undo(Undo),
    /// Nothing more: it ended so.
    End(OperationState),
}

/// By what the map has: whether the right range is still in it.
fn next(merge: &Merge, has_right: bool, now_ms: u64) -> Next {
    match &merge.state {
        // Nothing but this merge takes it out of the map.
        _ if !has_right => Next::End(OperationState::Done),
        OperationState::Undoing(_) => Next::Back,
        _ if now_ms >= merge.deadline_ms => Next::Undo(Undo::TimedOut),
        _ => Next::Forward,
    }
}

/// How a merge ends that was undone.
fn undone(merge: &Merge) -> OperationState {
    match merge.state {
        OperationState::Undoing(Undo::Cancelled) => OperationState::Cancelled,
        OperationState::Undoing(Undo::TimedOut) => {
            OperationState::Failed("it was not done in time".to_owned())
        }
        _ => OperationState::Failed("one of the ranges has changed".to_owned()),
    }
}

/// What a round came to.
#[derive(Debug)]
enum Outcome {
    /// Whatever comes next the map says.
    Wait,
    /// Turn round.
    Undo(Undo),
    /// It ended so.
    End(OperationState),
}

/// Whether a refusal stays, however often one asks: the epoch has passed.
fn is_certain(error: &WireError) -> bool {
    matches!(error.code(), Code::EpochMismatch | Code::Condition)
}

/// Drives merges as the leader of `term`, until dropped.
pub(crate) async fn drive(meta: Arc<Meta>, term: u64) {
    let mut running: JoinSet<(u64, bool)> = JoinSet::new();
    // When a merge is looked at again; while a round of it runs, never.
    let mut asleep: HashMap<u64, Option<Instant>> = HashMap::new();
    let mut ages = Ages::default();
    loop {
        asleep.retain(|_, until| until.is_none_or(|until| until > Instant::now()));
        let due: Vec<(Merge, u64)> = {
            let machine = meta.group.machine().read();
            let running = || machine.merges().running();
            ages.keep_only(running().map(|m| m.id));
            let aged = running().map(|m| (m, ages.clock(m.id, m.started_ms, Instant::now())));
            aged.filter(|(m, _)| !asleep.contains_key(&m.id))
                .map(|(m, at)| (m.clone(), at))
                .collect()
        };
        for (merge, clock) in due {
            asleep.insert(merge.id, None);
            let meta = meta.clone();
            let round =
                async move { (merge.id, meta.merge_round(term, &merge, clock).await.is_ok()) };
            running.spawn(guarded("round of a merge", round));
        }
        tokio::select! {
            Some(ended) = running.join_next(), if !running.is_empty() => {
                if let Ok((id, went_well)) = ended {
                    let pause = if went_well { TICK } else { PAUSE };
                    asleep.insert(id, Some(Instant::now() + pause));
                }
            }
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

impl Meta {
    /// One round of a merge at `clock`, on the clock that its deadline is on.
    async fn merge_round(&self, term: u64, merge: &Merge, clock: u64) -> Result<(), WireError> {
        let (left, right) = {
            let machine = self.group.machine().read();
            let get = |range| machine.ranges().get(range).cloned();
            (get(merge.left), get(merge.right))
        };
        let has_right = right.is_some();
        let result = match (next(merge, has_right, clock), left, right) {
            (Next::End(state), ..) => Ok(Outcome::End(state)),
            (Next::Undo(why), ..) => Ok(Outcome::Undo(why)),
            (Next::Forward, Some(left), Some(right)) => {
                self.check_term(term).await?;
                self.forward(merge, &left, &right).await
            }
            (Next::Back, Some(left), Some(right)) => {
                self.check_term(term).await?;
                self.back(merge, &left, &right).await
            }
            // Only its own right neighbour's merge could take the left one out of the map.
            (Next::Forward | Next::Back, ..) => Ok(Outcome::Wait),
        };
        let id = merge.id;
        let command = match result {
            Ok(Outcome::Wait) => return Ok(()),
            Ok(Outcome::Undo(why)) => MergeCommand::Undo { id, why },
            Ok(Outcome::End(state)) => MergeCommand::End { id, state, now_ms: now_ms() },
            Err(error) => {
                tracing::debug!(operation = id, %error, "merge: step not done yet");
                return Err(error);
            }
        };
        tracing::info!(operation = id, left = %merge.left, right = %merge.right, ?command, "merge turns");
        if let MergeCommand::End { .. } = command {
            self.notes.forget(id);
        }
        // Not agreed: the next round comes to the same.
        let _ = self.propose(Command::Merge(command), Some(term)).await;
        Ok(())
    }

    /// One that was deposed and does not know it orders nothing more.
    async fn check_term(&self, term: u64) -> Result<(), WireError> {
        if self.confirmed_leading().await? == term {
            return Ok(());
        }
        Err(crate::member::not_leader(None))
    }

    async fn forward(
        &self,
        merge: &Merge,
        left: &RangeDescriptor,
        right: &RangeDescriptor,
    ) -> Result<Outcome, WireError> {
        let id = merge.id;
        let turn = |step: &str, error: WireError| {
            self.notes.set(id, format!("{step}: {}", error.0.message));
            if is_certain(&error) { Ok(Outcome::Undo(Undo::Pointless)) } else { Err(error) }
        };
        let step = format!("freeze {}", merge.right);
        self.notes.set(id, step.clone());
        let frozen = match self.freeze(merge, right).await {
            Ok(frozen) => frozen,
            Err(error) => return turn(&step, error),
        };
        let step = format!("wait until all replicas of {} stand still", merge.right);
        self.notes.set(id, step.clone());
        if let Err(error) = self.await_frozen(&frozen).await {
            // Another time: nobody is to wait for a node that is away.
            tracing::info!(operation = id, right = %merge.right, %error, "a replica does not stand still");
            return Ok(Outcome::Undo(Undo::TimedOut));
        }
        let step = format!("absorb {} into {}", merge.right, merge.left);
        self.notes.set(id, step.clone());
        match self.absorb(merge, left).await {
            Ok(()) => {
                tracing::info!(operation = id, left = %merge.left, right = %merge.right, "ranges merged");
                Ok(Outcome::Wait)
            }
            Err(error) => turn(&step, error),
        }
    }

    async fn back(
        &self,
        merge: &Merge,
        left: &RangeDescriptor,
        right: &RangeDescriptor,
    ) -> Result<Outcome, WireError> {
        self.notes.set(merge.id, format!("fence {}", merge.left));
        let request = pb::FenceRequest {
            range_id: merge.left.get(),
            epoch: Some(merge.left_epoch.into()),
            right: merge.right.get(),
        };
        let fenced = self.ask_leader(left, TIMEOUT, |node| async move {
            answered(self.merges(node)?.fence(request).await)
        });
        let fenced = fenced.await?;
        self.learn(fenced.descriptor.into_iter().collect());
        if fenced.absorbed {
            // Done after all; the map will say so.
            return Ok(Outcome::Wait);
        }
        self.notes.set(merge.id, format!("thaw {}", merge.right));
        let request = pb::ThawRequest {
            range_id: merge.right.get(),
            epoch: Some(merge.right_epoch.into()),
            into: merge.left.get(),
            into_epoch: Some(merge.left_epoch.into()),
        };
        let thawed = self.ask_leader(right, TIMEOUT, |node| async move {
            answered(self.merges(node)?.thaw(request).await)
        });
        self.learn(thawed.await?.descriptor.into_iter().collect());
        Ok(Outcome::End(undone(merge)))
    }

    async fn freeze(
        &self,
        merge: &Merge,
        right: &RangeDescriptor,
    ) -> Result<RangeDescriptor, WireError> {
        let request = pb::FreezeRequest {
            range_id: merge.right.get(),
            epoch: Some(merge.right_epoch.into()),
            into: merge.left.get(),
            into_epoch: Some(merge.left_epoch.into()),
        };
        let frozen = self.ask_leader(right, TIMEOUT, |node| async move {
            answered(self.merges(node)?.freeze(request).await)
        });
        let frozen = frozen.await?.descriptor.map(RangeDescriptor::try_from);
        match frozen {
            Some(Ok(frozen)) => Ok(frozen),
            _ => Err(WireError::new(Code::Internal, "a freeze without a descriptor")),
        }
    }

    /// Waits for every node that hosts a replica. One that has yet to show it, as right after a split, is asked
    /// again as long as any step may take.
    async fn await_frozen(&self, frozen: &RangeDescriptor) -> Result<(), WireError> {
        let request =
            pb::AwaitFrozenRequest { range_id: frozen.id.get(), version: frozen.epoch.version };
        let asked = frozen.replicas.iter().map(|replica| async move {
            let asked = async {
                loop {
                    match answered(self.merges(replica.node)?.await_frozen(request).await) {
                        Err(error) if error.code() == Code::RangeNotFound => {
                            tokio::time::sleep(TICK).await;
                        }
                        answer => return answer,
                    }
                }
            };
            let late = |_| {
                let why = format!("node {} did not answer in time", replica.node);
                Err(WireError::new(Code::Unavailable, why))
            };
            tokio::time::timeout(TIMEOUT, asked).await.unwrap_or_else(late)
        });
        futures::future::try_join_all(asked).await.map(|_| ())
    }

    async fn absorb(&self, merge: &Merge, left: &RangeDescriptor) -> Result<(), WireError> {
        let request = pb::AbsorbRequest {
            range_id: merge.left.get(),
            epoch: Some(merge.left_epoch.into()),
            right: merge.right.get(),
        };
        let absorbed = self.ask_leader(left, TIMEOUT, |node| async move {
            answered(self.merges(node)?.absorb(request).await)
        });
        self.learn(absorbed.await?.descriptor.into_iter().collect());
        Ok(())
    }

    fn merges(&self, node: NodeId) -> Result<MergeServiceClient<Channel>, WireError> {
        Ok(MergeServiceClient::new(self.channel(node)?))
    }
}

fn answered(
    asked: Result<Response<pb::MergeStepResponse>, Status>,
) -> Result<pb::MergeStepResponse, WireError> {
    let answer = asked.map_err(|status| detailed(&status))?.into_inner();
    match answer.error {
        Some(error) => Err(error.into()),
        None => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::testing::{Net, TestMember, eventually};
    use isotherm_types::{RangeEpoch, RangeId};

    fn merge(state: OperationState) -> Merge {
        Merge {
            id: 1,
            left: RangeId(1),
            right: RangeId(2),
            left_epoch: RangeEpoch::FIRST,
            right_epoch: RangeEpoch::FIRST,
            state,
            started_ms: 0,
            deadline_ms: 1000,
            ended_ms: 0,
        }
    }

    #[test]
    fn a_merge_goes_on_until_the_map_says_that_it_is_done_or_it_turns_back() {
        let running = merge(OperationState::Running);
        assert_eq!(next(&running, true, 999), Next::Forward);
        assert_eq!(next(&running, true, 1000), Next::Undo(Undo::TimedOut));
        for why in [Undo::Cancelled, Undo::TimedOut, Undo::Pointless] {
            let undoing = merge(OperationState::Undoing(why));
            for now in [0, 5000] {
                assert_eq!(next(&undoing, true, now), Next::Back, "for ever");
                assert_eq!(next(&undoing, false, now), Next::End(OperationState::Done));
            }
        }
        assert_eq!(next(&running, false, 5000), Next::End(OperationState::Done), "however late");
        assert_eq!(
            undone(&merge(OperationState::Undoing(Undo::Cancelled))),
            OperationState::Cancelled
        );
        assert!(matches!(
            undone(&merge(OperationState::Undoing(Undo::Pointless))),
            OperationState::Failed(_)
        ));
    }

    /// All replicas are on a node that takes connections and never answers.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_that_hangs_holds_up_a_step_for_its_limit_at_most() {
        let hung = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = hung.local_addr().expect("bound").to_string();
        let (net, dir) = (Arc::new(Net::default()), tempfile::tempdir().expect("a directory"));
        let founding = crate::machine::Founding { nodes: 1, ranges: 2, replicas: 1 };
        let member = TestMember::open(&net, 1, 1, dir.path(), founding).await;
        eventually("it leads", || member.leads()).await;
        let meta = member.meta.clone();
        let details = crate::machine::NodeDetails { address, ..Default::default() };
        let register = Command::RegisterNode { node: None, details };
        meta.propose(register, None).await.expect("registered");
        let spans = isotherm_types::KeyRange::all().split_at(&["k".into()]).expect("inside");
        let ranges = spans.into_iter().map(|span| (span, vec![NodeId(1)])).collect();
        meta.propose(Command::Bootstrap { ranges }, None).await.expect("bootstrapped");
        let term = meta.leading().expect("it leads");
        for state in [OperationState::Running, OperationState::Undoing(Undo::TimedOut)] {
            let started = Instant::now();
            meta.merge_round(term, &merge(state), 0).await.expect_err("nobody answers");
            assert!(
                started.elapsed() < TIMEOUT + Duration::from_secs(1),
                "{:?}",
                started.elapsed()
            );
        }
        drop(meta);
        member.close().await;
    }

    #[test]
    fn only_a_passed_epoch_is_a_refusal_that_stays() {
        let error = |code| WireError::new(code, "");
        assert!(is_certain(&error(Code::EpochMismatch)) && is_certain(&error(Code::Condition)));
        for code in [Code::NotLeader, Code::Unavailable, Code::Indeterminate, Code::Busy] {
            assert!(!is_certain(&error(code)));
        }
    }
}
