//! The commands, one file per group.

mod admin;
mod aggregate;
mod data;
mod delete_span;
mod export;
mod heat;
mod import;
mod local;
mod node;
mod operation;
mod past;
mod process;
mod scan;
mod upgrade;
mod wait;

pub use import::presplit as client_presplit;
pub use process::stop_signal;

use crate::args::{Args, Command, Global};
use crate::bench;
use crate::failure::{Failure, UNKNOWN, UNREACHABLE};
use crate::output;
use clap::CommandFactory;
use isotherm_client::{Client, ClientOptions};
use isotherm_telemetry::build_info;
use isotherm_types::KeyRange;
use std::sync::OnceLock;
use std::time::Duration;

/// How much longer than `--timeout` a command may take before it is ended: its own limits come first, and
/// know why.
const GRACE: Duration = Duration::from_millis(500);
/// An attempt at one node is given up after this part of the time, so that there is time for another.
const ATTEMPT_PART: u32 = 2;

/// The client of this command.
static CLIENT: OnceLock<Client> = OnceLock::new();

/// Runs a command to its end.
pub fn run(args: Args) -> Result<(), Failure> {
    let Args { global, command } = args;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(crate::failure::UNEXPECTED, e))?;
    let limit = limit(&command, &global);
    let ended = runtime.block_on(async move {
        let done = carry_out(&global, command);
        let Some((limit, code)) = limit else { return done.await };
        let late = || {
            let limit = humantime::format_duration(limit);
            Failure::new(code, format!("not done within {limit}"))
        };
        let done = tokio::time::timeout(limit + GRACE, done).await;
        done.unwrap_or_else(|_| Err(late()))
    });
    ended.map_err(with_cause)
}

/// The time that a command may take whose answer is one, and what it ends with if it takes longer. `None`:
/// it has steps of its own, each with a limit.
fn limit(command: &Command, global: &Global) -> Option<(Duration, u8)> {
    use crate::args::{NodeAdmin, RangeCommand};
    let code = match command {
        Command::Get { .. } | Command::Status | Command::Hot { once: true, .. } => UNREACHABLE,
        Command::Put { .. } | Command::Cas { .. } | Command::Incr { .. } => UNKNOWN,
        Command::Delete(delete) => delete.key.as_ref().map(|_| UNKNOWN)?,
        Command::Range { command } => match command {
            RangeCommand::Move { wait: true, .. } | RangeCommand::Merge { wait: true, .. } => {
                return None;
            }
            RangeCommand::List { .. } | RangeCommand::Show(_) | RangeCommand::Explain(_) => {
                UNREACHABLE
            }
            _ => UNKNOWN,
        },
        Command::Node(node) => match node.command.as_ref()? {
            NodeAdmin::Drain { wait: true, .. } | NodeAdmin::Decommission { wait: true, .. } => {
                return None;
            }
            NodeAdmin::List | NodeAdmin::Show { .. } => UNREACHABLE,
            _ => UNKNOWN,
        },
        Command::Operation { .. } | Command::Upgrade { .. } | Command::Config { .. } => UNKNOWN,
        _ => return None,
    };
    Some((global.timeout(), code))
}

/// Adds to a failure for want of an answer what does not answer.
fn with_cause(failure: Failure) -> Failure {
    if !matches!(failure.code, UNREACHABLE | UNKNOWN) {
        return failure;
    }
    let troubles = CLIENT.get().map(Client::troubles).unwrap_or_default();
    let news = troubles.iter().filter(|trouble| !failure.message.contains(trouble.as_str()));
    let message = news.fold(failure.message.clone(), |all, trouble| format!("{all}\n{trouble}"));
    Failure { message, ..failure }
}

async fn carry_out(global: &Global, command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(up) => local::up(global, up).await,
        Command::Down(down) => local::down(global, down).await,
        Command::Meta(meta) => process::meta(global, meta).await,
        Command::Node(node) => match node.command {
            Some(command) => node::run(global, command).await,
            None => process::node(global, node.run).await,
        },
        Command::Put { key, value, file } => {
            data::put(global, &key, value.as_deref(), file.as_deref()).await
        }
        Command::Get { key, at, out } => data::get(global, &key, at, out.as_deref()).await,
        Command::Delete(delete) => data::delete(global, delete).await,
        Command::Cas { key, expected_or_new, new, absent } => {
            data::cas(global, &key, &expected_or_new, new.as_deref(), absent).await
        }
        Command::Incr { key, by } => data::incr(global, &key, by).await,
        Command::Scan(scan) => scan::run(global, scan).await,
        Command::Aggregate(aggregate) => aggregate::run(global, aggregate).await,
        Command::Import(import) => import::run(global, import).await,
        Command::Export(export) => export::run(global, export).await,
        Command::Status => admin::status(global).await,
        Command::Range { command } => admin::range(global, command).await,
        Command::Operation { command } => operation::run(global, command).await,
        Command::Upgrade { command } => upgrade::run(global, command).await,
        Command::Hot { once, limit } => heat::hot(global, once, limit).await,
        Command::Config { command } => admin::config(global, command).await,
        Command::Bench(bench) => bench::run(global, bench).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "isotherm", &mut script);
            output::line(String::from_utf8_lossy(&script).trim_end())
        }
        Command::Version => {
            let info = build_info();
            match global.plain() {
                output::Format::Json => output::json(&serde_json::json!(info)),
                output::Format::Table => output::line(&format!("isotherm {}", info.version)),
            }
        }
    }
}

/// A client of the cluster that the flags name.
pub fn client(global: &Global) -> Result<Client, Failure> {
    let timeout = global.timeout();
    let attempt_timeout = ClientOptions::default().attempt_timeout.min(timeout / ATTEMPT_PART);
    let options = ClientOptions { meta: global.meta.clone(), timeout, attempt_timeout };
    let client = Client::connect(options)?;
    Ok(CLIENT.get_or_init(|| client).clone())
}

/// The span that the flags name; `None`: one without any key.
pub fn span(global: &Global, span: &crate::args::Span) -> Result<Option<KeyRange>, Failure> {
    let encoding = global.encoding();
    if let Some(prefix) = &span.prefix {
        return Ok(Some(KeyRange::prefix(&encoding.parse(prefix)?)));
    }
    let bound = |bound: &Option<String>| match bound {
        Some(bound) => encoding.parse(bound),
        None => Ok(bytes::Bytes::new()),
    };
    let (from, to) = (bound(&span.from)?, bound(&span.to)?);
    if !to.is_empty() && from == to {
        return Ok(None);
    }
    KeyRange::new(from, to).map(Some).map_err(Failure::usage)
}
