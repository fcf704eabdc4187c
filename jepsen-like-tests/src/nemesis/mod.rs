//! The nemesis: strikes the cluster with faults, one after the other, by a schedule that the seed
//! decides. It takes back each fault before the next.

mod fault;

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fastrand::Rng;
use isotherm_client::Client;
use isotherm_testkit::{Member, ProcessCluster, tail};
use isotherm_types::{KeyRange, NodeId};
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};

pub use fault::{Fault, FaultOutcome, FaultRecord};

/// Pause before a fault.
const CALM_MS: (u64, u64) = (500, 2000);
/// How long killed processes stay dead.
const DOWN_MS: (u64, u64) = (200, 2500);
/// How long a paused process stands still: longer than any election and lease.
const PAUSE_MS: (u64, u64) = (2000, 6000);
/// How long the cluster may take to be whole again before the next fault comes anyway.
const RECOVERY_MAX: Duration = Duration::from_secs(15);
/// A move that is not done by then counts as failed.
const MOVE_LIMIT: Duration = Duration::from_secs(60);
/// A merge that is not done by then is undone.
const MERGE_LIMIT: Duration = Duration::from_secs(10);
/// How long a node loses replicas: two at a time, each in several steps, so not all of them.
const DECOMMISSION_MAX: Duration = Duration::from_millis(400);
/// How long a node is drained.
const DRAIN_MS: (u64, u64) = (300, 1500);
/// Limit of a split or a leader transfer.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Strikes one cluster.
pub struct Nemesis<'a> {
    cluster: &'a mut ProcessCluster,
    client: Client,
    rng: Rng,
    started: Instant,
    records: Vec<FaultRecord>,
    crashes: Vec<String>,
}

/// What a nemesis did and saw.
#[derive(Debug, Default)]
pub struct Struck {
    /// The faults, in order.
    pub records: Vec<FaultRecord>,
    /// Processes that ended though nobody ended them, each with the end of its log.
    pub crashes: Vec<String>,
}

impl<'a> Nemesis<'a> {
    /// A nemesis for `cluster`; `client` is for splits and transfers.
    pub fn new(cluster: &'a mut ProcessCluster, client: Client, seed: u64) -> Self {
        let rng = Rng::with_seed(seed);
        let started = Instant::now();
        Self { cluster, client, rng, started, records: Vec::new(), crashes: Vec::new() }
    }

    /// Strikes with `faults` until `end`.
    pub async fn run(mut self, faults: &[Fault], end: Instant) -> anyhow::Result<Struck> {
        let mut order: Vec<Fault> = faults.to_vec();
        'run: while !order.is_empty() {
            self.rng.shuffle(&mut order);
            for fault in order.clone() {
                let calm = self.millis(CALM_MS);
                if Instant::now() + calm >= end {
                    break 'run;
                }
                sleep(calm).await;
                self.notice_crashes()?;
                self.strike(fault, end).await?;
            }
        }
        sleep(end.saturating_duration_since(Instant::now())).await;
        self.notice_crashes()?;
        Ok(Struck { records: self.records, crashes: self.crashes })
    }

    async fn strike(&mut self, fault: Fault, end: Instant) -> anyhow::Result<()> {
        let at_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (target, outcome) = match fault {
            Fault::Split => self.split().await,
            Fault::Merge => self.merge().await,
            Fault::Transfer => self.transfer().await,
            Fault::Move => self.start_move().await,
            Fault::Drain => self.drain().await,
            _ => (self.strike_processes(fault, end).await?, FaultOutcome::Installed),
        };
        self.records.push(FaultRecord { at_ms, fault, target, outcome });
        if fault.stops_processes() {
            let left = end.saturating_duration_since(Instant::now()).min(RECOVERY_MAX);
            // Not being ready in time is judged at the end of the run, not here.
            let _ = self.cluster.wait_ready(left).await;
        }
        Ok(())
    }

    /// Strikes processes and takes it back; says which.
    async fn strike_processes(&mut self, fault: Fault, end: Instant) -> anyhow::Result<String> {
        let members = self.victims(fault);
        let hold = if fault == Fault::Pause { PAUSE_MS } else { DOWN_MS };
        let hold = self.millis(hold).min(end.saturating_duration_since(Instant::now()));
        match fault {
            Fault::Pause => {
                for member in &members {
                    self.cluster.process_mut(*member).pause()?;
                }
            }
            Fault::PowerLoss | Fault::PowerLossAll => {
                block_in_place(|| self.cluster.power_loss(&members))?;
            }
            _ => block_in_place(|| self.cluster.kill(&members))?,
        }
        sleep(hold).await;
        for member in &members {
            if fault == Fault::Pause {
                self.cluster.process_mut(*member).resume()?;
            } else {
                self.cluster.start_member(*member)?;
            }
        }
        let names: Vec<String> = members.iter().map(Member::to_string).collect();
        Ok(format!("{} for {} ms", names.join(" "), hold.as_millis()))
    }

    fn victims(&mut self, fault: Fault) -> Vec<Member> {
        let one = |rng: &mut Rng, mut from: Vec<Member>| {
            rng.shuffle(&mut from);
            from.truncate(1);
            from
        };
        match fault {
            Fault::MetaKill => one(&mut self.rng, self.cluster.metas()),
            Fault::KillAll | Fault::PowerLossAll => self.cluster.members(),
            // One, some or all of them, meta too.
            Fault::PowerLoss => {
                let mut members = self.cluster.members();
                self.rng.shuffle(&mut members);
                members.truncate(self.rng.usize(1..=members.len()));
                members
            }
            _ => one(&mut self.rng, self.cluster.nodes()),
        }
    }

    async fn split(&mut self) -> (String, FaultOutcome) {
        let key: String = (0..2).map(|_| char::from(self.rng.u8(b'!'..=b'~'))).collect();
        let done = timeout(ADMIN_TIMEOUT, self.client.admin().split(key.clone())).await;
        let outcome = match done {
            Ok(Ok(_)) => FaultOutcome::Installed,
            Ok(Err(error)) if error.is_definite() => FaultOutcome::Skipped(error.to_string()),
            Ok(Err(error)) => FaultOutcome::Indeterminate(error.to_string()),
            Err(_) => FaultOutcome::Indeterminate("no answer in time".to_owned()),
        };
        (format!("at {key:?}"), outcome)
    }

    /// Orders a merge and leaves it alone: what strikes next meets it on its way.
    async fn merge(&mut self) -> (String, FaultOutcome) {
        match timeout(ADMIN_TIMEOUT, merge_one(&self.client, &mut self.rng)).await {
            Ok(Ok(target)) => (target, FaultOutcome::Installed),
            Ok(Err(error)) => (String::new(), FaultOutcome::Skipped(format!("{error:#}"))),
            Err(_) => (String::new(), FaultOutcome::Indeterminate("no answer in time".to_owned())),
        }
    }

    async fn transfer(&mut self) -> (String, FaultOutcome) {
        match timeout(ADMIN_TIMEOUT, transfer_one(&self.client, &mut self.rng)).await {
            Ok(Ok(target)) => (target, FaultOutcome::Installed),
            Ok(Err(error)) => (String::new(), FaultOutcome::Skipped(format!("{error:#}"))),
            Err(_) => (String::new(), FaultOutcome::Indeterminate("no answer in time".to_owned())),
        }
    }

    /// Drains a node (or begins to decommission it, if others have room) and takes it back.
    async fn drain(&mut self) -> (String, FaultOutcome) {
        let hold = self.millis(DRAIN_MS);
        let wanted = timeout(ADMIN_TIMEOUT, drain_one(&self.client, &mut self.rng)).await;
        let (node, intent) = match wanted {
            Err(_) => return (String::new(), FaultOutcome::Indeterminate("no answer".to_owned())),
            Ok(Err(error)) => return (String::new(), FaultOutcome::Skipped(error.to_string())),
            Ok(Ok(wanted)) => wanted,
        };
        // One that lost everything would be gone for good.
        let hold = if intent == "decommissioning" { hold.min(DECOMMISSION_MAX) } else { hold };
        sleep(hold).await;
        let target = format!("{node} {intent} for {} ms", hold.as_millis());
        let kept = timeout(ADMIN_TIMEOUT, self.client.admin().set_intent(node, "active")).await;
        match kept {
            Ok(Ok(())) => (target, FaultOutcome::Installed),
            // One that was emptied in that time is gone for good; or nobody answered: the end of
            // the run looks again.
            Ok(Err(error)) => (target, FaultOutcome::Indeterminate(error.to_string())),
            Err(_) => (target, FaultOutcome::Indeterminate("no answer".to_owned())),
        }
    }

    /// Orders a move and leaves it alone: what strikes next meets it on its way.
    async fn start_move(&mut self) -> (String, FaultOutcome) {
        match timeout(ADMIN_TIMEOUT, move_one(&self.client, &mut self.rng)).await {
            Ok(Ok(target)) => (target, FaultOutcome::Installed),
            Ok(Err(error)) => (String::new(), FaultOutcome::Skipped(format!("{error:#}"))),
            Err(_) => (String::new(), FaultOutcome::Indeterminate("no answer in time".to_owned())),
        }
    }

    /// Takes down, and starts again, what ended though no fault ended it.
    fn notice_crashes(&mut self) -> anyhow::Result<()> {
        for member in self.cluster.ended()? {
            let log = tail(self.cluster.process(member).log(), 15);
            self.crashes.push(format!("{member} ended by itself; its log ends:\n{log}"));
        }
        self.cluster.start_all().context("start what ended by itself")
    }

    fn millis(&mut self, (from, to): (u64, u64)) -> Duration {
        Duration::from_millis(self.rng.u64(from..=to))
    }
}

/// Hands some range to a replica that does not lead it.
async fn transfer_one(client: &Client, rng: &mut Rng) -> anyhow::Result<String> {
    let mut ranges = client.admin().ranges(&KeyRange::all()).await?;
    rng.shuffle(&mut ranges);
    let Some(range) = ranges.first() else { bail!("there is no range") };
    let mut nodes: Vec<_> = range.descriptor.replicas.iter().map(|r| r.node).collect();
    nodes.retain(|node| Some(*node) != range.leader);
    rng.shuffle(&mut nodes);
    let Some(to) = nodes.first() else { bail!("there is no other replica") };
    client.admin().transfer_leader(range.descriptor.id, *to).await?;
    Ok(format!("{} to {to}", range.descriptor.id))
}

/// Orders that some range absorbs its right neighbour; now and then takes the order back at once.
async fn merge_one(client: &Client, rng: &mut Rng) -> anyhow::Result<String> {
    let ranges = client.admin().ranges(&KeyRange::all()).await?;
    let mut pairs: Vec<_> = ranges.windows(2).map(|pair| pair[0].descriptor.id).collect();
    rng.shuffle(&mut pairs);
    let mut why = anyhow::anyhow!("there is only one range");
    for left in pairs {
        // Neighbours on different nodes, or that just move, are refused.
        match client.admin().merge_ranges(left, MERGE_LIMIT).await {
            Ok(ordered) => {
                let is_taken_back = rng.u8(..4) == 0;
                if is_taken_back {
                    sleep(Duration::from_millis(rng.u64(..40))).await;
                    // Perhaps it was done before.
                    let _ = client.admin().cancel_operation(ordered.id).await;
                }
                let how = if is_taken_back { ", taken back" } else { "" };
                return Ok(format!("of {left}, operation {}{how}", ordered.id));
            }
            Err(error) => why = error.into(),
        }
    }
    Err(why)
}

/// Which node is to lose what.
async fn drain_one(client: &Client, rng: &mut Rng) -> anyhow::Result<(NodeId, &'static str)> {
    let nodes = client.admin().nodes().await?;
    let serving: Vec<_> = nodes.iter().filter(|n| n.intent == "active").collect();
    if serving.len() != nodes.len() {
        bail!("a node is drained already");
    }
    let node = rng.choice(serving).context("there are no nodes")?.id;
    let intent = if nodes.len() > 3 && rng.bool() { "decommissioning" } else { "draining" };
    client.admin().set_intent(node, intent).await?;
    Ok((node, intent))
}

/// Orders that some replica goes to a node that has none of its range.
async fn move_one(client: &Client, rng: &mut Rng) -> anyhow::Result<String> {
    let mut ranges = client.admin().ranges(&KeyRange::all()).await?;
    let mut nodes = client.admin().nodes().await?;
    rng.shuffle(&mut ranges);
    rng.shuffle(&mut nodes);
    let Some(range) = ranges.first() else { bail!("there is no range") };
    let replicas = &range.descriptor.replicas;
    let to = nodes.iter().map(|node| node.id).find(|n| range.descriptor.replica_on(*n).is_none());
    let Some(to) = to else { bail!("every node has a replica of {}", range.descriptor.id) };
    let any = replicas.get(rng.usize(..replicas.len().max(1))).map(|r| r.node);
    let from = if rng.bool() { range.leader.or(any) } else { any };
    let Some(from) = from else { bail!("{} has no replica", range.descriptor.id) };
    let id = range.descriptor.id;
    let ordered = client.admin().move_range(id, from, to, MOVE_LIMIT).await?;
    Ok(format!("{id} from {from} to {to}, operation {}", ordered.id))
}
