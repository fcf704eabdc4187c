//! The task that watches a member's instance: publishes who leads, and builds a new instance when
//! one fails.

use super::applied::Machine;
use super::error::GroupOpenError;
use super::instance::Instance;
use super::member::{Group, Leadership};
use isotherm_storage::LogOp;
use isotherm_types::NodeId;
use openraft::type_config::async_runtime::watch::WatchReceiver;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// An instance that ran this long was not broken from the start.
const SOUND_AFTER: Duration = Duration::from_secs(60);
/// How long a failed instance may take to stop. What it still does afterwards is refused.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

impl<M: Machine> Group<M> {
    pub(super) async fn supervise(self: Arc<Self>) {
        let stop = self.stop.clone();
        let mut pause = PAUSE_MIN;
        while let Some(instance) = self.instance.load_full() {
            let started = Instant::now();
            let Some(reason) = stop.run_until_cancelled(self.watch(&instance)).await else {
                return;
            };
            self.publish(Leadership::default());
            metrics::counter!("isotherm_replica_rebuilds_total").increment(1);
            tracing::warn!(
                member = %self.member,
                generation = instance.generation,
                reason,
                "consensus instance failed, building a new one"
            );
            pause = match started.elapsed() > SOUND_AFTER {
                true => PAUSE_MIN,
                false => (pause * 2).min(PAUSE_MAX),
            };
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            if let Err(error) = self.rebuild(&instance).await {
                tracing::error!(error = %error, "the group's member cannot be rebuilt");
            }
        }
    }

    /// Publishes who leads until the instance fails; returns why.
    async fn watch(&self, instance: &Instance<M>) -> String {
        let mut metrics = instance.raft.metrics();
        loop {
            let (running, leadership) = {
                let metrics = metrics.borrow_and_update();
                let term = metrics.current_term;
                // It was given away, and this member hears of it when its disk answers.
                let is_given = self.yielded_term.load(Ordering::Acquire) == term;
                let is_leader = metrics.state.is_leader();
                let leader = metrics.current_leader.map(NodeId);
                let leadership = Leadership {
                    term,
                    leader: leader.filter(|_| !(is_leader && is_given)),
                    is_leader: is_leader && !is_given,
                };
                (metrics.running_state.clone(), leadership)
            };
            if let Err(fatal) = running {
                return fatal.to_string();
            }
            self.publish(leadership);
            if metrics.changed().await.is_err() {
                return "its core ended".to_owned();
            }
        }
    }

    fn publish(&self, leadership: Leadership) {
        self.leadership.send_if_modified(|published| {
            let changed = *published != leadership;
            *published = leadership;
            changed
        });
    }

    /// Replaces a failed instance. Its workers may still be running, so: refuse them from now on,
    /// wait for what they submitted, and only then read the state from disk.
    async fn rebuild(self: &Arc<Self>, failed: &Instance<M>) -> Result<(), GroupOpenError> {
        let refused = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.applied.set_owner(refused);
        failed.log.close();
        if tokio::time::timeout(STOP_TIMEOUT, failed.raft.shutdown()).await.is_err() {
            tracing::warn!(member = %self.member, "the failed instance does not stop");
        }
        self.barrier().await;
        self.load().await?;
        self.build_instance().await
    }

    /// Waits until everything submitted to the log engine so far is done.
    async fn barrier(&self) {
        let (sender, done) = oneshot::channel();
        self.engine.submit(LogOp::Barrier {
            done: Box::new(move |_| {
                // Nobody waits any more if the member was stopped meanwhile.
                let _ = sender.send(());
            }),
        });
        // An engine that stopped has nothing in flight either.
        let _ = done.await;
    }
}
