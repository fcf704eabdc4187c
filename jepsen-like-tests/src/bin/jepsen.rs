//! `jepsen`: runs a workload under faults on a cluster of real processes, or checks a history that
//! was saved. Prints one JSON line; exit code 1 if what it says is not `"valid":true`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use isotherm_jepsen::check::check;
use isotherm_jepsen::cluster_target::Reading;
use isotherm_jepsen::history::load;
use isotherm_jepsen::nemesis::Fault;
use isotherm_jepsen::operation::{Counts, pair};
use isotherm_jepsen::run::{RunOptions, run};
use isotherm_jepsen::workload::Workload;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

/// What a process ends with that was interrupted.
const EXIT_INTERRUPTED: u8 = 130;

/// Runs a workload under faults and judges what the store did.
#[derive(Debug, Parser)]
#[command(name = "jepsen", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    run: RunArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// What the clients do.
    #[arg(long, value_enum, default_value = "register")]
    workload: Workload,
    /// Faults, separated by commas: none, kill, kill-all, pause, meta-kill, power-loss,
    /// power-loss-all, split, merge, transfer, drain, move (on four nodes at least).
    #[arg(long, value_delimiter = ',', default_value = "none", value_parser = fault_or_none)]
    nemesis: Vec<FaultOrNone>,
    /// How long faults strike.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Decides the schedule of faults and what the clients do [default: random].
    #[arg(long)]
    seed: Option<u64>,
    /// Where to write the history.
    #[arg(long)]
    history: Option<PathBuf>,
    /// Data nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Members of the meta service: 1 or 3.
    #[arg(long, default_value_t = 1)]
    meta_nodes: usize,
    /// Ranges at the start [default: 16 for comments and sums, 8 for others].
    #[arg(long)]
    ranges: Option<usize>,
    /// Clients.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// At which moment scans and totals look at the ranges; what is not a snapshot must be found out.
    #[arg(long, value_enum, default_value = "snapshot")]
    reading: Reading,
    /// Clients rest now and then, and idle ranges sleep soon: they fall asleep and wake all the time.
    #[arg(long)]
    lulls: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks a saved history.
    Check {
        /// The history, JSON lines.
        #[arg(long)]
        history: PathBuf,
        /// What its clients did.
        #[arg(long, value_enum)]
        workload: Workload,
    },
}

/// `none` stands for no fault at all.
type FaultOrNone = Option<Fault>;

fn fault_or_none(text: &str) -> Result<FaultOrNone, String> {
    if text == "none" {
        return Ok(None);
    }
    Fault::from_str(text, false).map(Some).map_err(|_| {
        let names: Vec<&str> = Fault::value_variants().iter().map(|fault| fault.name()).collect();
        format!("not one of none, {}", names.join(", "))
    })
}

impl RunArgs {
    fn options(self) -> RunOptions {
        RunOptions {
            workload: self.workload,
            nemesis: self.nemesis.into_iter().flatten().collect(),
            seconds: self.seconds,
            seed: self.seed.unwrap_or_else(|| fastrand::u64(..1 << 32)),
            history: self.history,
            nodes: self.nodes,
            meta_nodes: self.meta_nodes,
            ranges: self.ranges.unwrap_or(self.workload.ranges()),
            clients: self.clients,
            reading: self.reading,
            lulls: self.lulls,
            ..RunOptions::new(self.workload, &[], self.seconds, 0)
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = match cli.command {
        Some(Command::Check { history, workload }) => check_history(&history, workload),
        None => run_until_interrupted(&cli.run.options()).await,
    };
    ended.unwrap_or_else(|error| {
        // Nothing is left to do if stderr is closed.
        let _ = writeln!(io::stderr(), "error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Interrupted, it drops the run, which ends every process and unmounts every disk.
async fn run_until_interrupted(options: &RunOptions) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate()).context("listen to SIGTERM")?;
    let report = tokio::select! {
        report = run(options) => report?,
        _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(EXIT_INTERRUPTED)),
        _ = terminate.recv() => return Ok(ExitCode::from(EXIT_INTERRUPTED)),
    };
    writeln!(io::stdout(), "{}", report.line())?;
    Ok(exit(report.valid))
}

/// Result of checking a saved history.
#[derive(Serialize)]
struct Checked<'a> {
    workload: Workload,
    ops: usize,
    ok: usize,
    fail: usize,
    info: usize,
    valid: bool,
    reason: Option<&'a str>,
}

fn check_history(path: &Path, workload: Workload) -> anyhow::Result<ExitCode> {
    let events = load(path)?;
    let Counts { ops, ok, fail, info } =
        pair(&events).map(|operations| Counts::of(&operations)).unwrap_or_default();
    let verdict = check(workload, &events);
    let (valid, reason) = (verdict.is_valid(), verdict.reason());
    let checked = Checked { workload, ops, ok, fail, info, valid, reason };
    writeln!(io::stdout(), "{}", serde_json::to_string(&checked)?)?;
    Ok(exit(valid))
}

fn exit(valid: bool) -> ExitCode {
    if valid { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
