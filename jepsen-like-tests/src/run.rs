//! One run: start a cluster, let clients work while faults strike, heal, read everything, judge.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use isotherm_testkit::{ClusterOptions, DiskError, LogAlarm, Member, ProcessCluster};

use crate::aftermath;
use crate::check::check_operations;
use crate::cluster_target::{ClusterTarget, Patience, Reading};
use crate::history::{Event, Meta, Recorder, save};
use crate::nemesis::{Fault, FaultOutcome, Nemesis, Struck};
use crate::operation::{Counts, Operation, Outcome, pair};
use crate::report::Report;
use crate::workload::{Running, Workload};

/// Limit of the first start, on a machine that other tests keep busy.
const START_MAX: Duration = Duration::from_secs(60);
/// A healed cluster must be ready, and every range writable, within this.
const RECOVERY_MAX: Duration = Duration::from_secs(30);
/// Limit of the final reads.
const FINAL_READS_MAX: Duration = Duration::from_secs(60);
/// The same for a cluster that is known not to work.
const FINAL_READS_BROKEN_MAX: Duration = Duration::from_secs(10);
/// A run with fewer acknowledged operations in a second proves nothing.
const OK_PER_SECOND_MIN: u64 = 10;
/// Replicas of a range, unless there are fewer nodes.
const REPLICAS: usize = 3;
/// The same for snapshots, where the workload is about them.
const SNAPSHOTS_PER_SECOND_MIN: u64 = 1;
/// Size of a disk that can lose power; it takes the room of what is written.
const DISK_MIB: u64 = 4096;
/// How many alarming log lines a reason lists.
const ALARMS_LISTED: usize = 3;

/// What to run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The workload.
    pub workload: Workload,
    /// The faults; none is fine.
    pub nemesis: Vec<Fault>,
    /// Length of the run under faults.
    pub seconds: u64,
    /// Decides the schedule of faults and what the clients do.
    pub seed: u64,
    /// Where to write the history.
    pub history: Option<PathBuf>,
    /// Data nodes.
    pub nodes: usize,
    /// Members of the meta service.
    pub meta_nodes: usize,
    /// Ranges at the start.
    pub ranges: usize,
    /// Clients of the workload.
    pub clients: usize,
    /// How scans and totals are read.
    pub reading: Reading,
    /// Clients rest now and then, and idle ranges sleep soon.
    pub lulls: bool,
    /// The binary; otherwise it is looked for.
    pub binary: Option<PathBuf>,
    /// Environment of the data nodes: switches of builds that can be told to break their word.
    pub node_env: BTreeMap<String, String>,
}

impl RunOptions {
    /// A run on the usual small cluster.
    pub fn new(workload: Workload, nemesis: &[Fault], seconds: u64, seed: u64) -> Self {
        Self {
            workload,
            nemesis: nemesis.to_vec(),
            seconds,
            seed,
            history: None,
            nodes: 3,
            meta_nodes: 1,
            ranges: workload.ranges(),
            clients: 8,
            reading: Reading::default(),
            lulls: false,
            binary: None,
            node_env: BTreeMap::new(),
        }
    }

    pub(crate) fn nemesis_names(&self) -> String {
        if self.nemesis.is_empty() {
            return "none".to_owned();
        }
        self.nemesis.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(",")
    }

    pub(crate) fn command_line(&self) -> String {
        let Self { seconds, seed, nodes, meta_nodes, ranges, clients, .. } = self;
        let reading = match self.reading {
            Reading::Snapshot => "",
            Reading::PerRangeNewest => " --reading per-range-newest",
        };
        let lulls = if self.lulls { " --lulls" } else { "" };
        format!(
            "jepsen --workload {} --nemesis {} --seconds {seconds} --seed {seed} --nodes {nodes} \
             --meta-nodes {meta_nodes} --ranges {ranges} --clients {clients}{reading}{lulls}",
            self.workload.name(),
            self.nemesis_names(),
        )
    }

    /// A replica can only move if some node has none of its range.
    fn nodes(&self) -> usize {
        if self.nemesis.contains(&Fault::Move) { self.nodes.max(REPLICAS + 1) } else { self.nodes }
    }

    fn cluster(&self) -> ClusterOptions {
        ClusterOptions {
            nodes: self.nodes(),
            meta_nodes: self.meta_nodes,
            ranges: self.ranges,
            replicas: self.nodes().min(REPLICAS),
            disk_mib: self.needs_disks().then_some(DISK_MIB),
            binary: self.binary.clone(),
            member_env: (0..self.nodes())
                .map(|n| (Member::Node(n), self.node_env.clone()))
                .collect(),
            ..ClusterOptions::default()
        }
    }

    fn needs_disks(&self) -> bool {
        self.nemesis.iter().any(|fault| fault.needs_disks())
    }
}

/// Runs and judges. An error means that the harness itself could not go on; whatever the store
/// does wrong is in the report. Needs tokio's multi-threaded runtime.
pub async fn run(options: &RunOptions) -> anyhow::Result<Report> {
    let mut report = Report::new(options);
    let mut cluster = match ProcessCluster::start(&options.cluster()) {
        Ok(cluster) => cluster,
        Err(error) => match error.downcast_ref::<DiskError>() {
            Some(DiskError::Unsupported { reason }) => {
                (report.skipped, report.reason) = (true, Some(format!("skipped: {reason}")));
                return Ok(report);
            }
            _ => return Err(error),
        },
    };
    cluster.wait_ready(START_MAX).await.context("start the cluster")?;
    let recorder = Arc::new(Recorder::default());
    let judged = work(options, &mut cluster, &recorder, &mut report).await?;
    let events = recorder.events();
    save_history(options, &events)?;
    let judged = match judged.and(judge(options, &events, &mut report)) {
        Ok(()) => check_logs(options, &cluster)?,
        invalid => invalid,
    };
    (report.valid, report.reason) = (judged.is_ok(), judged.err());
    Ok(report)
}

/// Everything that happens on the cluster; the inner error is a fault of the store.
async fn work(
    options: &RunOptions,
    cluster: &mut ProcessCluster,
    recorder: &Arc<Recorder>,
    report: &mut Report,
) -> anyhow::Result<Result<(), String>> {
    let meta = cluster.meta_addresses();
    let mut targets = Vec::new();
    for number in 0..options.clients {
        let patience = if number % 2 == 0 { Patience::Short } else { Patience::Long };
        targets.push(ClusterTarget::connect(&meta, patience)?.reading(options.reading));
    }
    let last = ClusterTarget::connect(&meta, Patience::Final)?;
    if options.lulls {
        let admin = last.client().admin();
        admin.set_setting("range.hibernate_after", "50ms").await.context("set the lulls")?;
    }
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let mut running = Running::start(
        options.workload,
        targets,
        Arc::clone(recorder),
        options.seed,
        options.lulls,
    );
    let nemesis = Nemesis::new(cluster, last.client().clone(), options.seed);
    let struck = nemesis.run(&options.nemesis, end).await?;
    running.stop();
    cluster.heal()?;
    let healed = Instant::now();
    let ready = cluster.wait_ready(RECOVERY_MAX).await;
    report.ready_ms = u64::try_from(healed.elapsed().as_millis()).unwrap_or(u64::MAX);
    report.faults.clone_from(&struck.records);
    let joined = running.join().await;
    let mut judged = check_faults(options, &struck)
        .and(ready.map_err(|error| format!("not ready after healing: {error:#}")))
        .and(joined);
    // The final reads come whatever happened so far: the history is of use in any case.
    let patience = if judged.is_ok() { FINAL_READS_MAX } else { FINAL_READS_BROKEN_MAX };
    judged = judged.and(running.finish(last.clone(), patience).await);
    if judged.is_ok() {
        let deadline = Instant::now().max(healed) + RECOVERY_MAX;
        judged = aftermath::check(last.client(), deadline).await;
    }
    Ok(judged)
}

fn check_faults(options: &RunOptions, struck: &Struck) -> Result<(), String> {
    if let Some(crash) = struck.crashes.first() {
        return Err(crash.clone());
    }
    for fault in &options.nemesis {
        let installed = |o: &FaultOutcome| *o == FaultOutcome::Installed;
        if !struck.records.iter().any(|r| r.fault == *fault && installed(&r.outcome)) {
            return Err(format!("the fault {} never struck", fault.name()));
        }
    }
    Ok(())
}

fn judge(options: &RunOptions, events: &[Event], report: &mut Report) -> Result<(), String> {
    let operations = pair(events).map_err(|reason| format!("malformed history: {reason}"))?;
    report.count(Counts::of(&operations));
    for operation in operations.iter().filter(|o| o.outcome == Outcome::Ok) {
        *report.ok_by_function.entry(operation.f.name()).or_default() += 1;
    }
    report.longest_gap_ms = longest_gap_ms(&operations);
    let verdict = check_operations(options.workload, &operations);
    if let Some(reason) = verdict.reason() {
        return Err(reason.to_owned());
    }
    if (report.ok as u64) < OK_PER_SECOND_MIN * options.seconds {
        return Err(format!("only {} operations were acknowledged: too few", report.ok));
    }
    let snapshots = ["scan", "sum"].iter().filter_map(|f| report.ok_by_function.get(f)).sum();
    let least = SNAPSHOTS_PER_SECOND_MIN * options.seconds;
    if options.workload.is_of_snapshots() && least > snapshots {
        return Err(format!("only {snapshots} snapshots were taken: too few"));
    }
    Ok(())
}

/// Longest time in which no operation was acknowledged, from the first to the last that was.
fn longest_gap_ms(operations: &[Operation]) -> u64 {
    let ok = operations.iter().filter(|o| o.outcome == Outcome::Ok);
    let mut ends: Vec<u64> = ok.map(|o| o.completed).collect();
    ends.sort_unstable();
    let longest_ns = ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
    longest_ns / 1_000_000
}

/// No panic and no ERROR line. A disk that loses power is worth an ERROR to the process on it, so
/// then the logs say nothing.
fn check_logs(
    options: &RunOptions,
    cluster: &ProcessCluster,
) -> anyhow::Result<Result<(), String>> {
    if options.needs_disks() {
        return Ok(Ok(()));
    }
    let alarms = cluster.log_alarms()?;
    if alarms.is_empty() {
        return Ok(Ok(()));
    }
    let text = |(member, alarm): &(Member, LogAlarm)| format!("{member}: {}", alarm.line);
    let listed: Vec<String> = alarms.iter().take(ALARMS_LISTED).map(text).collect();
    Ok(Err(format!("{} alarming log lines: {}", alarms.len(), listed.join(" | "))))
}

fn save_history(options: &RunOptions, events: &[Event]) -> anyhow::Result<()> {
    let Some(path) = &options.history else { return Ok(()) };
    let meta = Meta {
        workload: options.workload.name().to_owned(),
        nemesis: options.nemesis_names(),
        seed: options.seed,
        seconds: options.seconds,
    };
    save(path, &meta, events)
}
