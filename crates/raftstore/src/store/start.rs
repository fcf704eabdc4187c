//! Starting a replica, and starting its consensus instance again when it failed.

use super::context::Birth;
use super::destroy::put_state;
use super::open::is_of_one_replica;
use super::quarantine::{DAMAGED, LACKS};
use super::{Store, StoreContext, StoreError, StoreEvent};
use crate::log_store::{self, LogStore, lacks};
use crate::network::Factory;
use crate::replica::{
    Core, Instance, Proposal, RangeMachine, Replica, Sequencer, SnapshotSource, finish_install,
};
use crate::type_config::Raft;
use isotherm_storage::{LogOp, StateKind};
use isotherm_task::guarded;
use isotherm_types::{RaftTiming, ReplicaId};
use openraft::type_config::async_runtime::watch::WatchReceiver;
use openraft::{Config, SnapshotPolicy};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// So many replicas that start at once do not all stand for election: see
/// [`Store::start_one_of`].
const MANY: usize = 256;

/// What waits for a replica's sequencer.
pub(super) type Queue = mpsc::Receiver<Proposal>;

/// openraft's settings for the data ranges.
fn raft_config(timing: RaftTiming) -> Result<Arc<Config>, openraft::ConfigError> {
    let config = Config {
        cluster_name: "isotherm".into(),
        heartbeat_interval: timing.heartbeat_ms,
        election_timeout_min: timing.election_min_ms,
        election_timeout_max: timing.election_max_ms,
        // Snapshots are asked for by the flush task: see `store/flush.rs`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX / 2,
        purge_batch_size: 1,
        max_payload_entries: 256,
        install_snapshot_timeout: 10 * 60 * 1000,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        // A follower that lacks what it acknowledged is sent it again, and removed as soon as that
        // can be (`dismiss_lost`): the leader goes on.
        allow_log_reversion: Some(true),
        ..Config::default()
    };
    config.validate().map(Arc::new)
}

impl Store {
    /// Starts the replica `id` over `core`: consensus, sequencer, supervision.
    pub(crate) async fn start_replica(
        self: &Arc<Self>,
        id: ReplicaId,
        core: Core,
    ) -> Result<Arc<Replica>, StoreError> {
        self.start_one_of(id, core, 1).await
    }

    /// Starts a replica that is one of `many` that start at this moment. The clocks of very many are
    /// left standing at first: they would all stand for election at once.
    pub(super) async fn start_one_of(
        self: &Arc<Self>,
        id: ReplicaId,
        core: Core,
        many: usize,
    ) -> Result<Arc<Replica>, StoreError> {
        let (replica, queue) = self.host(id, core);
        let started = self.start_hosted(&replica, queue, many).await;
        if started.is_err() {
            self.replicas.write().remove(&replica.range);
        }
        started.map(|()| replica)
    }

    /// Shows a replica on which nothing runs yet. Those that a store opens with are all shown before the
    /// first of them starts: to start is to apply, and what is applied can concern a neighbour.
    pub(super) fn host(&self, id: ReplicaId, core: Core) -> (Arc<Replica>, Queue) {
        let (replica, queue) = Replica::new(self.ctx.clone(), id, core);
        self.replicas.write().insert(replica.range, replica.clone());
        (replica, queue)
    }

    /// Shows a replica that cannot be read. Nothing runs on it; its node reports it until it is removed.
    pub(super) fn host_damaged(&self, id: ReplicaId, core: Core) -> Arc<Replica> {
        let (replica, _) = self.host(id, core);
        replica.ended.cancel();
        replica
    }

    /// Starts consensus, sequencer and supervision of a replica that is one of `many`.
    pub(super) async fn start_hosted(
        self: &Arc<Self>,
        replica: &Arc<Replica>,
        queue: Queue,
        many: usize,
    ) -> Result<(), StoreError> {
        // Whoever ends a replica waits until nobody supervises it.
        build_instance(replica, many < MANY).await.inspect_err(|_| replica.ended.cancel())?;
        let sequencer = Sequencer::new(replica.clone(), queue);
        self.ctx.tasks.spawn(guarded("proposals of a range", sequencer.run()));
        let supervised = replica.clone();
        self.ctx.tasks.spawn(guarded("supervision of a replica", async move {
            let _ended = supervised.ended.clone().drop_guard();
            supervise(supervised).await;
        }));
        Ok(())
    }

    /// Starts this node's replicas of the children of a split that was applied here.
    pub(super) async fn start_children(self: &Arc<Self>, birth: Birth) {
        let was_leader = self.replica(birth.parent).is_some_and(|p| p.status().is_leader);
        for core in birth.cores {
            let descriptor = core.descriptor.clone();
            let range = descriptor.id;
            let Some(me) = descriptor.replica_on(self.ctx.node).map(|r| r.id) else {
                tracing::error!(range_id = %range, "a split names no replica of its child here");
                continue;
            };
            // Its leader may be asking for it at this moment, and is being refused.
            let _claim = loop {
                match self.claims.take(range) {
                    Some(claim) => break claim,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            };
            if self.replica(range).is_some() {
                continue;
            }
            if let Err(error) = self.start_replica(me, core).await {
                tracing::error!(range_id = %range, error = %error, "a child of a split does not start");
                continue;
            }
            if was_leader {
                let store = self.clone();
                self.ctx.tasks.spawn(async move { store.campaign_when_ready(range).await });
            }
        }
    }
}

/// Builds a consensus instance over the replica's current state and makes it the current one.
async fn build_instance(replica: &Arc<Replica>, ticks: bool) -> Result<(), StoreError> {
    let ctx = &replica.ctx;
    let generation = replica.generation.fetch_add(1, Ordering::AcqRel) + 1;
    {
        let mut core = replica.core.lock();
        if replica.is_retired() {
            return Ok(());
        }
        core.generation = generation;
    }
    let failed = |reason: String| StoreError::Raft { range: replica.range, reason };
    let damaged = |reason: String| StoreError::Damaged { range: replica.range, reason };
    match ctx.log.state(replica.key(), StateKind::Lost)?.as_deref() {
        None => {}
        Some([DAMAGED]) => {
            replica.set_damaged();
        }
        Some(_) => replica.set_abstaining(),
    }
    let voted = ctx.log.state(replica.key(), StateKind::Vote)?.is_some();
    let applied = replica.core.lock().applied.log_id;
    let unreadable = |e: std::io::Error| match log_store::is_damage(&e) {
        true => damaged(e.to_string()),
        false => failed(e.to_string()),
    };
    let has_lost = lacks(&*ctx.log, replica.key(), applied).map_err(unreadable)?;
    if has_lost && !replica.abstains() && ctx.faults.suite() == 0 {
        let applied = applied.map_or(0, |id| id.index);
        tracing::error!(
            range_id = %replica.range,
            replica_id = %replica.id,
            applied,
            "the log of this replica ends before what was applied from it: have the disk checked; it \
             is removed and built again"
        );
        let noted = put_state(ctx, replica.key(), StateKind::Lost, vec![LACKS]);
        noted.await.map_err(isotherm_storage::StorageError::from)?;
        replica.set_abstaining();
    }
    let log = LogStore::open(
        ctx.log.clone(),
        replica.key(),
        replica.generation.clone(),
        generation,
        applied,
    )
    .map_err(unreadable)?;
    let view = log.view();
    let machine = RangeMachine::new(replica.clone(), generation, view.flushed());
    let source = SnapshotSource::new(ctx.clone());
    let broken = Arc::downgrade(replica);
    let on_broken = Box::new(move |follower| {
        if let Some(replica) = broken.upgrade() {
            replica.lost_its_log(follower);
        }
    });
    let network = Factory::new(ctx.sender.clone(), replica.range, replica.id, source, on_broken);
    let config = raft_config(ctx.timing).map_err(|e| failed(e.to_string()))?;
    let hold = voted && ctx.faults.no_vote_hold() == 0;
    let mut config = (*config).clone();
    config.enable_elect = !hold && replica.may_lead();
    config.enable_tick = ticks;
    let raft = Raft::new(replica.id.get(), Arc::new(config), network, log, machine).await.map_err(
        |e| match replica.is_damaged() || view.is_damaged() {
            true => damaged(e.to_string()),
            false => failed(e.to_string()),
        },
    )?;
    let vote_hold_until = hold.then(|| Instant::now() + ctx.timing.vote_hold());
    if let Some(until) = vote_hold_until {
        let (raft, stop) = (raft.clone(), replica.stop.clone());
        let replica = replica.clone();
        ctx.tasks.spawn(async move {
            let hold = tokio::time::sleep_until(until.into());
            let is_over = stop.run_until_cancelled(hold).await.is_some();
            if is_over && replica.may_lead() {
                raft.runtime_config().elect(true);
            }
        });
    }
    let built = Instant::now();
    let instance = Instance { generation, raft, log: view, vote_hold_until, built };
    replica.instance.store(Some(Arc::new(instance)));
    replica.begin(ticks);
    Ok(())
}

/// Watches a replica's instance: reports changes of leadership, and builds a new instance when one
/// fails.
async fn supervise(replica: Arc<Replica>) {
    let mut pause = Duration::from_millis(100);
    while !replica.stop.is_cancelled() {
        let Some(instance) = replica.instance.load_full() else { return };
        let started = Instant::now();
        let failed = watch_instance(&replica, &instance);
        let Some(reason) = replica.stop.clone().run_until_cancelled(failed).await else { return };
        metrics::counter!("isotherm_replica_rebuilds_total").increment(1);
        if instance.log.is_damaged() {
            replica.found_damage(&reason);
        }
        tracing::warn!(
            range_id = %replica.range,
            replica_id = %replica.id,
            generation = instance.generation,
            reason,
            "consensus instance failed, building a new one"
        );
        pause = if started.elapsed() > Duration::from_secs(60) {
            Duration::from_millis(100)
        } else {
            (pause * 2).min(Duration::from_secs(10))
        };
        let pausing = tokio::time::sleep(pause);
        if replica.stop.run_until_cancelled(pausing).await.is_none() {
            return;
        }
        if let Err(error) = rebuild(&replica, &instance).await {
            tracing::error!(range_id = %replica.range, error = %error, "a replica cannot be rebuilt");
            if error.is_damage() {
                replica.found_damage(&error);
            }
        }
    }
}

async fn watch_instance(replica: &Replica, instance: &Instance) -> String {
    let mut metrics = instance.raft.metrics();
    let mut led = false;
    loop {
        let (state, leads) = {
            let metrics = metrics.borrow_watched();
            (metrics.running_state.clone(), metrics.state.is_leader())
        };
        if let Err(fatal) = state {
            return fatal.to_string();
        }
        if leads != led {
            led = leads;
            // Nobody listens in tests and while stopping.
            let _ = replica.ctx.events.send(StoreEvent::LeaderChanged { range: replica.range });
        }
        if metrics.changed().await.is_err() {
            return "its core ended".to_owned();
        }
    }
}

/// Rebuilds after a failure: raise the generation (the old workers are refused from then on), wait
/// for whatever holds the core and for the log queue, and only then read the state from disk.
async fn rebuild(replica: &Arc<Replica>, old: &Instance) -> Result<(), StoreError> {
    replica.generation.fetch_add(1, Ordering::AcqRel);
    replica.core.lock().generation = u64::MAX;
    let _ = tokio::time::timeout(Duration::from_secs(5), old.raft.shutdown()).await;
    barrier(&replica.ctx).await;
    let (ctx, key) = (replica.ctx.clone(), replica.key());
    let load = move || match finish_install(&ctx, key) {
        Ok(Some(core)) => Ok(Some(core)),
        Ok(None) => Core::load(&ctx.data, key.range).map_err(StoreError::from),
        // What it was to bring is not whole.
        Err(error) if is_of_one_replica(&error) => {
            Err(StoreError::Damaged { range: key.range, reason: error.to_string() })
        }
        Err(error) => Err(error.into()),
    };
    let loaded = tokio::task::spawn_blocking(load)
        .await
        .map_err(|e| StoreError::Corrupt(e.to_string()))??;
    replica.reload(loaded);
    if let Some(store) = replica.ctx.host() {
        store.finish_merges(replica).await?;
    }
    build_instance(replica, true).await
}

/// Waits until everything submitted to the log so far is done.
pub(super) async fn barrier(ctx: &StoreContext) {
    let (sender, done) = tokio::sync::oneshot::channel();
    ctx.log.submit(LogOp::Barrier {
        done: Box::new(move |result| {
            let _ = sender.send(result.is_ok());
        }),
    });
    let _ = done.await;
}
