//! What a member does while it leads.

use super::meta::Meta;
use crate::bootstrap;
use crate::machine::{Command, MetaMachine, Reply, SEED_NUMBER};
use crate::metrics as names;
use crate::operations;
use crate::registry::{Holds, NodeState, Pool, Registry};
use crate::scheduling;
use isotherm_proto::WireError;
use isotherm_types::{ClusterId, NodeId};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const TICK: Duration = Duration::from_millis(250);
/// How long a new cluster, whose nodes are there, waits for meta members that are just starting.
const FOUNDING_PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts of something that needs a quorum.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Runs until `stop`.
pub(super) async fn run(meta: Arc<Meta>, stop: CancellationToken) {
    let mut leadership = meta.group.leadership();
    loop {
        let now = *leadership.borrow_and_update();
        if now.is_leader {
            let ended = leadership.wait_for(|l| !l.is_leader || l.term != now.term);
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ended => {}
                () = meta.lead(now.term) => {}
            }
            meta.serving.send_replace(0);
            metrics::gauge!(names::IS_LEADER).set(0.0);
            tracing::info!(term = now.term, "meta leadership ended");
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}

impl Meta {
    /// Leads in `term`, until dropped.
    async fn lead(self: &Arc<Self>, term: u64) {
        *self.registry.lock() = Registry::new(Instant::now());
        *self.pool.lock() = Pool::default();
        let lifetime = self.holds.lock().lifetime();
        *self.holds.lock() = Holds::new(Instant::now(), lifetime);
        self.take_over(term).await;
        self.serving.send_replace(term);
        metrics::gauge!(names::IS_LEADER).set(1.0);
        tracing::info!(term, member = %self.me, "leading the meta service");
        let working = async {
            loop {
                if let Err(error) = self.step(term).await {
                    tracing::debug!(term, %error, "a step of the meta leader failed, trying again");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                tokio::select! {
                    () = self.news.notified() => {}
                    () = tokio::time::sleep(TICK) => {}
                }
            }
        };
        tokio::join!(
            working,
            operations::drive(self.clone(), term),
            operations::drive_merges(self.clone(), term),
            scheduling::run(self.clone(), term)
        );
    }

    /// Waits until everything of earlier terms is applied; founds the cluster if it is new.
    async fn take_over(&self, term: u64) {
        while self.group.confirm_leadership().await != Ok(term) {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        while self.group.machine().read().cluster().is_none() {
            let founding = self.configured;
            let timing = bootstrap::timing(founding.nodes, founding.ranges, founding.replicas);
            let cluster = ClusterId(fastrand::u64(1..));
            let found = Command::Found { cluster, timing, founding };
            match self.propose(found, Some(term)).await {
                Ok(_) => tracing::info!(%cluster, ?timing, "a new cluster was founded"),
                Err(error) => {
                    tracing::debug!(%error, "the cluster was not founded, trying again");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    async fn step(&self, term: u64) -> Result<(), WireError> {
        self.bootstrap_if_due(term).await?;
        self.finish_seeding(term).await?;
        self.take_reports(term).await?;
        self.raise_safe_point(term).await?;
        let (ranges, nodes) = {
            let machine = self.group.machine().read();
            (machine.ranges().len(), machine.nodes().len())
        };
        {
            let machine = self.group.machine().read();
            let mut registry = self.registry.lock();
            registry.forget_ranges(|range| machine.ranges().get(range).is_some());
            registry.forget_nodes(|node| machine.nodes().contains_key(&node));
        }
        metrics::gauge!(names::RANGES).set(ranges as f64);
        metrics::gauge!(names::NODES).set(nodes as f64);
        Ok(())
    }

    /// Makes the first ranges once enough nodes are there. Nodes that registered and then fell
    /// silent do not count.
    async fn bootstrap_if_due(&self, term: u64) -> Result<(), WireError> {
        let ranges = {
            let machine = self.group.machine().read();
            let Some(founding) = machine.founding() else { return Ok(()) };
            if machine.is_bootstrapped() {
                return Ok(());
            }
            let nodes = self.nodes_up(&machine);
            if nodes.len() < founding.nodes {
                return Ok(());
            }
            let labels = |id: &NodeId| machine.nodes()[id].details.labels.clone();
            let nodes: Vec<_> = nodes.into_iter().map(|id| (id, labels(&id))).collect();
            bootstrap::plan(founding, &nodes)
        };
        let survey = self.survey().await;
        let since = *self.nodes_complete.lock().get_or_insert_with(Instant::now);
        let blockers = survey.blockers();
        if blockers.is_empty() {
            if survey.supported_by_all() > survey.version {
                self.raise(term, &survey).await?;
            }
        } else if since.elapsed() < FOUNDING_PATIENCE {
            return Ok(());
        } else {
            tracing::warn!(
                cluster_version = survey.version.0,
                blockers = blockers.join("; "),
                "the cluster begins at an old version, because not every process says what it \
                 supports: `isotherm upgrade finalize` raises it later"
            );
        }
        let count = ranges.len();
        match self.propose(Command::Bootstrap { ranges }, Some(term)).await? {
            Reply::Refused(why) => tracing::warn!(why, "the bootstrap was refused"),
            _ => tracing::info!(ranges = count, "the cluster was bootstrapped"),
        }
        Ok(())
    }

    /// The nodes that send heartbeats, by id.
    pub(crate) fn nodes_up(&self, machine: &MetaMachine) -> Vec<NodeId> {
        let (registry, now) = (self.registry.lock(), Instant::now());
        let is_up = |node: &NodeId| registry.state(*node, now) == NodeState::Up;
        machine.nodes().keys().copied().filter(is_up).collect()
    }

    /// Forgets the orders to seed once every node carried out those that still concern it. One that died
    /// before loses its replicas to others after a while, and is not waited for any more.
    async fn finish_seeding(&self, term: u64) -> Result<(), WireError> {
        let is_done = {
            let machine = self.group.machine().read();
            let replicas = machine.seeds().iter().flat_map(|d| &d.replicas);
            let nodes: BTreeSet<_> = replicas.map(|r| r.node).collect();
            let mut holders = nodes.iter().filter(|node| machine.seeds_of(**node).next().is_some());
            let registry = self.registry.lock();
            let seeded = |node: &NodeId| {
                let heartbeat = registry.presence(*node).and_then(|p| p.heartbeat);
                heartbeat.is_some_and(|(_, h)| h.seeded >= SEED_NUMBER)
            };
            !nodes.is_empty() && holders.all(seeded)
        };
        if is_done {
            self.propose(Command::SeedingDone, Some(term)).await?;
            tracing::info!("every node has its first ranges");
        }
        Ok(())
    }

    /// Lets the map take what nodes reported, as far as it fits together.
    async fn take_reports(&self, term: u64) -> Result<(), WireError> {
        loop {
            let changes = {
                let machine = self.group.machine().read();
                let mut pool = self.pool.lock();
                pool.prune(machine.ranges());
                pool.changes(machine.ranges())
            };
            if changes.is_empty() {
                return Ok(());
            }
            let proposed = changes.len();
            let reply = self.propose(Command::TakeDescriptors { changes }, Some(term)).await?;
            tracing::debug!(proposed, ?reply, "descriptors were reported");
            if !matches!(reply, Reply::Taken { taken } if taken > 0) {
                return Ok(());
            }
        }
    }
}
