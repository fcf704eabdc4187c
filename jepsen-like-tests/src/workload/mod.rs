//! Workloads: what the clients do while faults strike, and the final reads after it.

mod client;
mod comments;
mod counter;
mod keys;
mod register;
mod set;
mod sums;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::history::Recorder;
use crate::target::Target;
use client::WorkloadClient;

pub(crate) use comments::COMMENT_GROUP_BYTES;
pub(crate) use sums::{SUM_GROUP_BYTES, TALLY_UNIT};

/// Kind of workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// Reads, writes and compare-and-sets of single keys; checked for linearizability.
    Register,
    /// Unique inserts and scans of everything; nothing acknowledged is ever missing.
    Set,
    /// Increments; each counts exactly once.
    Counter,
    /// Numbered inserts over many ranges, and snapshots of all of them; none shows an insert without
    /// every one that was acknowledged before it began.
    Comments,
    /// Transfers inside ranges and increments across them, and totals at one moment.
    Sums,
}

impl Workload {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Register => "register",
            Workload::Set => "set",
            Workload::Counter => "counter",
            Workload::Comments => "comments",
            Workload::Sums => "sums",
        }
    }

    /// How many ranges a cluster starts with for it, unless the run says otherwise.
    pub fn ranges(self) -> usize {
        if self.is_of_snapshots() { 16 } else { 8 }
    }

    /// Whether it is about what one moment looks like across ranges.
    pub fn is_of_snapshots(self) -> bool {
        matches!(self, Workload::Comments | Workload::Sums)
    }
}

/// State of a workload that its clients share.
#[derive(Debug)]
enum Plan {
    Register(register::Register),
    Set(set::Set),
    Counter(counter::Counter),
    Comments(comments::Comments),
    Sums(sums::Sums),
}

impl Plan {
    fn new(workload: Workload) -> Self {
        match workload {
            Workload::Register => Plan::Register(register::Register::default()),
            Workload::Set => Plan::Set(set::Set::default()),
            Workload::Counter => Plan::Counter(counter::Counter),
            Workload::Comments => Plan::Comments(comments::Comments::default()),
            Workload::Sums => Plan::Sums(sums::Sums),
        }
    }

    /// One operation.
    async fn step<T: Target>(&self, client: &mut WorkloadClient<T>) {
        match self {
            Plan::Register(register) => register.step(client).await,
            Plan::Set(set) => set.step(client).await,
            Plan::Counter(counter) => counter.step(client).await,
            Plan::Comments(comments) => comments.step(client).await,
            Plan::Sums(sums) => sums.step(client).await,
        }
    }

    /// The final reads, each repeated until it succeeds or `deadline` is over.
    async fn finish<T: Target>(
        &self,
        client: &mut WorkloadClient<T>,
        deadline: Instant,
    ) -> Result<(), String> {
        match self {
            Plan::Register(register) => register.finish(client, deadline).await,
            Plan::Set(_) => client.scan_until(deadline).await,
            Plan::Counter(counter) => counter.finish(client, deadline).await,
            Plan::Comments(comments) => comments.finish(client, deadline).await,
            Plan::Sums(_) => client.sum_until(sums::SUM_GROUP_BYTES, deadline).await,
        }
    }
}

/// A workload under way.
#[derive(Debug)]
pub struct Running {
    plan: Arc<Plan>,
    recorder: Arc<Recorder>,
    processes: Arc<AtomicU64>,
    seed: u64,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// One spell of work and one of rest.
const PERIOD: Duration = Duration::from_millis(2000);
const WORK: Duration = Duration::from_millis(700);

/// Rests, if it is time.
async fn lull(begun: Instant, stop: &CancellationToken) {
    let since = begun.elapsed().as_millis() % PERIOD.as_millis();
    if since >= WORK.as_millis() {
        let rest = PERIOD - Duration::from_millis(since as u64);
        stop.run_until_cancelled(tokio::time::sleep(rest)).await;
    }
}

impl Running {
    /// Starts one client on each of `targets`. With `lulls` all of them rest now and then, for long
    /// enough that idle ranges sleep.
    pub fn start<T: Target>(
        workload: Workload,
        targets: Vec<T>,
        recorder: Arc<Recorder>,
        seed: u64,
        lulls: bool,
    ) -> Self {
        let begun = Instant::now();
        let mut running = Self {
            plan: Arc::new(Plan::new(workload)),
            recorder,
            processes: Arc::default(),
            seed,
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        };
        for (number, target) in targets.into_iter().enumerate() {
            let mut client = running.client(number, target);
            let (plan, stop) = (Arc::clone(&running.plan), running.stop.clone());
            running.tasks.spawn(async move {
                while !stop.is_cancelled() {
                    plan.step(&mut client).await;
                    client.think().await;
                    if lulls {
                        lull(begun, &stop).await;
                    }
                }
            });
        }
        running
    }

    /// Tells the clients to begin nothing new.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until every client ended its last operation.
    pub async fn join(&mut self) -> Result<(), String> {
        self.stop();
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(|error| format!("a client of the workload failed: {error}"))?;
        }
        Ok(())
    }

    /// The final reads, by a client of its own. Call it after [`Running::join`].
    pub async fn finish<T: Target>(&self, target: T, timeout: Duration) -> Result<(), String> {
        let mut client = self.client(usize::MAX, target);
        self.plan.finish(&mut client, Instant::now() + timeout).await
    }

    fn client<T: Target>(&self, number: usize, target: T) -> WorkloadClient<T> {
        let rng = fastrand::Rng::with_seed(self.seed ^ (number as u64).wrapping_mul(0x9e37_79b9));
        let (recorder, processes) = (Arc::clone(&self.recorder), Arc::clone(&self.processes));
        WorkloadClient::new(number, target, recorder, processes, rng)
    }
}

#[cfg(test)]
mod tests {
    //! Workload, history and checker together, on a store that keeps its word or does not.
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::check::{Verdict, check};
    use crate::memory_target::{Defect, MemoryTarget};
    use clap::ValueEnum;

    async fn verdict(workload: Workload, defect: Defect) -> Verdict {
        let target = MemoryTarget::new(defect);
        let recorder = Arc::new(Recorder::default());
        let targets = vec![target.clone(); 6];
        let mut running = Running::start(workload, targets, Arc::clone(&recorder), 7, false);
        tokio::time::sleep(Duration::from_millis(800)).await;
        running.join().await.unwrap();
        running.finish(target, Duration::from_secs(1)).await.unwrap();
        check(workload, &recorder.events())
    }

    #[tokio::test]
    async fn a_store_that_keeps_its_word_passes() {
        for workload in Workload::value_variants() {
            let workload = *workload;
            assert_eq!(verdict(workload, Defect::None).await, Verdict::Valid, "{workload:?}");
        }
    }

    #[tokio::test]
    async fn every_defect_is_found() {
        let cases = [
            (Workload::Register, Defect::LosesWrites),
            (Workload::Register, Defect::ServesStaleReads),
            (Workload::Register, Defect::AppliesRefused),
            (Workload::Set, Defect::LosesWrites),
            (Workload::Set, Defect::AppliesRefused),
            (Workload::Set, Defect::DoublesRows),
            (Workload::Counter, Defect::LosesWrites),
            (Workload::Counter, Defect::ServesStaleReads),
            (Workload::Counter, Defect::DoublesIncrements),
            (Workload::Counter, Defect::AppliesRefused),
            (Workload::Comments, Defect::LosesWrites),
            (Workload::Comments, Defect::AppliesRefused),
            (Workload::Comments, Defect::DoublesRows),
            (Workload::Comments, Defect::ReadsPartsApart),
            (Workload::Sums, Defect::LosesWrites),
            (Workload::Sums, Defect::DoublesIncrements),
            (Workload::Sums, Defect::ReadsPartsApart),
            (Workload::Sums, Defect::TearsTransfers),
        ];
        for (workload, defect) in cases {
            let verdict = verdict(workload, defect).await;
            assert!(matches!(verdict, Verdict::Invalid(_)), "{workload:?} {defect:?}: {verdict:?}");
        }
    }
}
