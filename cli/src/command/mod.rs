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
mod process;
mod scan;
mod upgrade;

pub use import::presplit as client_presplit;
pub use process::stop_signal;

use crate::args::{Args, Command, Global};
use crate::bench;
use crate::failure::Failure;
use crate::output;
use crate::text::At;
use clap::CommandFactory;
use isotherm_client::{Client, ClientOptions};
use isotherm_telemetry::build_info;
use isotherm_types::{KeyRange, Timestamp};

/// Runs a command to its end.
pub fn run(args: Args) -> Result<(), Failure> {
    let Args { global, command } = args;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(crate::failure::UNEXPECTED, e))?;
    runtime.block_on(async move {
        match command {
            Command::Up(up) => local::up(&global, up).await,
            Command::Down(down) => local::down(down).await,
            Command::Meta(meta) => process::meta(&global, meta).await,
            Command::Node(node) => match node.command {
                Some(command) => node::run(&global, command).await,
                None => process::node(&global, node.run).await,
            },
            Command::Put { key, value, file } => {
                data::put(&global, &key, value.as_deref(), file.as_deref()).await
            }
            Command::Get { key, at, out } => data::get(&global, &key, at, out.as_deref()).await,
            Command::Delete(delete) => data::delete(&global, delete).await,
            Command::Cas { key, expected_or_new, new, absent } => {
                data::cas(&global, &key, &expected_or_new, new.as_deref(), absent).await
            }
            Command::Incr { key, by } => data::incr(&global, &key, by).await,
            Command::Scan(scan) => scan::run(&global, scan).await,
            Command::Aggregate(aggregate) => aggregate::run(&global, aggregate).await,
            Command::Import(import) => import::run(&global, import).await,
            Command::Export(export) => export::run(&global, export).await,
            Command::Status => admin::status(&global).await,
            Command::Range { command } => admin::range(&global, command).await,
            Command::Operation { command } => operation::run(&global, command).await,
            Command::Upgrade { command } => upgrade::run(&global, command).await,
            Command::Hot { once, limit } => heat::hot(&global, once, limit).await,
            Command::Config { command } => admin::config(&global, command).await,
            Command::Bench(bench) => bench::run(&global, bench).await,
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
    })
}

/// A client of the cluster that the flags name.
pub fn client(global: &Global) -> Result<Client, Failure> {
    let options = ClientOptions {
        meta: global.meta.clone(),
        timeout: global.timeout,
        ..ClientOptions::default()
    };
    Ok(Client::connect(options)?)
}

/// The timestamp that `--at` names.
pub async fn resolve(client: &Client, at: Option<At>) -> Result<Option<Timestamp>, Failure> {
    Ok(match at {
        None => None,
        Some(At::Exactly(ts)) => Some(ts),
        Some(At::Before(ms)) => Some(client.timestamp().await?.minus_ms(ms)),
    })
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
