//! Logs: one line per event, on stderr.

use serde::{Deserialize, Serialize};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For collectors.
    Json,
}

/// Starts logging. `filter` is a level or a list of `target=level`; one that cannot be read is an
/// error that says so. A process that logs already stays as it is.
pub fn init_logs(format: LogFormat, filter: &str) -> Result<(), String> {
    // openraft tells every vote, and every failed attempt at a node that is down, of every group;
    // whoever wants that asks for it. What matters of it is logged by its users. Its heartbeat tasks, and
    // its handles, call it an error when the group that they are of has just ended; why one ended is
    // logged by `openraft::core` and by who supervises it.
    let quiet = if filter.contains("openraft") {
        ""
    } else {
        "openraft=error,openraft::core::heartbeat=off,openraft::raft=off,"
    };
    let filter = EnvFilter::try_new(format!("{quiet}{filter}"))
        .map_err(|e| format!("{filter:?} is not a log filter ({e}); try info or isotherm=debug"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(())
}
