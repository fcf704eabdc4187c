//! One consensus instance of a member, and building it.

use super::applied::Machine;
use super::error::GroupOpenError;
use super::machine::GroupMachine;
use super::member::Group;
use super::snapshot::WholeSnapshots;
use crate::log_store::{LogStore, LogView};
use crate::network::Factory;
use crate::type_config::Raft;
use isotherm_storage::StateKind;
use isotherm_types::{RaftTiming, ReplicaId};
use openraft::type_config::async_runtime::watch::WatchReceiver;
use openraft::{Config, ConfigError, SnapshotPolicy};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// How long a snapshot may take to be sent and installed.
const SNAPSHOT_TIMEOUT_MS: u64 = 60_000;

/// A running openraft instance. Replaced as a whole when it failed.
pub(super) struct Instance<M: Machine> {
    pub(super) generation: u64,
    pub(super) raft: Raft<GroupMachine<M>>,
    pub(super) log: LogView,
    /// Until then it neither grants nor asks for votes.
    pub(super) vote_hold_until: Option<Instant>,
}

impl<M: Machine> Instance<M> {
    /// Whether a lease that an earlier instance promised may still last.
    pub(super) fn holds_votes(&self) -> bool {
        self.vote_hold_until.is_some_and(|until| Instant::now() < until)
    }
}

fn raft_config(timing: RaftTiming, snapshot_every: u64) -> Result<Config, ConfigError> {
    let config = Config {
        cluster_name: "isotherm-meta".into(),
        heartbeat_interval: timing.heartbeat_ms,
        election_timeout_min: timing.election_min_ms,
        election_timeout_max: timing.election_max_ms,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_every),
        // A member that missed no more than that catches up from the log.
        max_in_snapshot_log_to_keep: snapshot_every,
        max_payload_entries: 256,
        install_snapshot_timeout: SNAPSHOT_TIMEOUT_MS,
        enable_pre_vote: Some(true),
        // A restarted leader would resume with the state of its last snapshot.
        enable_leader_restore: Some(false),
        // It is sent again what it lost; its leader goes on.
        allow_log_reversion: Some(true),
        ..Config::default()
    };
    config.validate()
}

impl<M: Machine> Group<M> {
    /// Builds an instance over the applied state as it is and makes it the current one.
    pub(super) async fn build_instance(self: &Arc<Self>) -> Result<(), GroupOpenError> {
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.applied.set_owner(generation);
        let group = self.clone();
        let (log, voted) = tokio::task::spawn_blocking(move || group.open_log(generation))
            .await
            .map_err(std::io::Error::other)??;
        let view = log.view();
        let machine =
            GroupMachine { applied: self.applied.clone(), generation, flushed: view.flushed() };
        let replica = ReplicaId(self.member.get());
        let on_broken = Box::new(|member: ReplicaId| {
            tracing::error!(
                member = member.get(),
                "a member lost a part of its log that it had acknowledged: its disk dropped synced \
                 data, or is an older copy; have its disk checked"
            );
        });
        let network =
            Factory::new(self.sender.clone(), self.key.range, replica, WholeSnapshots, on_broken);
        let mut config = raft_config(self.timing, self.snapshot_every)?;
        // Switched on below, once it is known how long to wait.
        config.enable_elect = !voted && self.votes();
        let raft = Raft::new(self.member.get(), Arc::new(config), network, log, machine)
            .await
            .map_err(|fatal| GroupOpenError::Raft(fatal.to_string()))?;
        let alone = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.membership().voter_ids().eq([self.member.get()])
        };
        let vote_hold_until = self.start_elections(&raft, voted, alone).await;
        let instance = Instance { generation, raft, log: view, vote_hold_until };
        self.instance.store(Some(Arc::new(instance)));
        // It may have been given another part meanwhile.
        let part = *self.part.borrow();
        self.take(part);
        Ok(())
    }

    fn open_log(&self, generation: u64) -> Result<(LogStore, bool), GroupOpenError> {
        let voted = self.engine.state(self.key, StateKind::Vote)?.is_some();
        let (applied, _) = self.applied.state();
        let (engine, shared) = (self.engine.clone(), self.generation.clone());
        let log = LogStore::open(engine, self.key, shared, generation, applied)?;
        Ok((log, voted))
    }

    /// Lets the instance take part in elections: at once, or when the lease that an earlier one
    /// may have promised has surely run out.
    async fn start_elections(
        self: &Arc<Self>,
        raft: &Raft<GroupMachine<M>>,
        voted: bool,
        alone: bool,
    ) -> Option<Instant> {
        if alone && self.votes() {
            // A lease is promised to other candidates only, and there are none.
            raft.runtime_config().elect(true);
            if let Err(fatal) = raft.trigger().elect(false).await {
                tracing::warn!(error = %fatal, "a lone member cannot elect itself");
            }
            return None;
        }
        if !voted {
            return None;
        }
        let until = Instant::now() + self.timing.vote_hold();
        let (raft, group) = (raft.clone(), self.clone());
        self.tasks.spawn(isotherm_task::guarded("vote hold of meta", async move {
            let hold = tokio::time::sleep_until(until.into());
            let is_over = group.stop.run_until_cancelled(hold).await.is_some();
            if is_over && group.votes() {
                raft.runtime_config().elect(true);
            }
        }));
        Some(until)
    }
}
