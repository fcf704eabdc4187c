//! `isotherm`: runs, uses, administers and load-tests a cluster.
//!
//! | module | what |
//! |---|---|
//! | `args` | every flag, its environment variable and its default |
//! | `environment` | a variable for every flag |
//! | `config_file` | flags from a file |
//! | `command` | one file per command |
//! | `bench` | the load generator |
//! | `numbers` | numbers and durations with their bounds |
//! | `text` | keys and values as people type and read them |
//! | `output` | tables and JSON |
//! | `failure` | errors and their exit codes |

mod args;
mod bench;
mod command;
mod config_file;
mod environment;
mod failure;
mod numbers;
mod output;
mod text;

use clap::{CommandFactory, FromArgMatches};
use std::process::ExitCode;

/// Of RocksDB too: the system allocator keeps what many threads leave behind, hundreds of MiB within minutes.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                output::say(&format!("isotherm: {}", failure.message));
            }
            ExitCode::from(failure.code)
        }
    }
}

/// RocksDB is compiled for these (scripts/rocksdb.sh); without them it would end with SIGILL, somewhere.
#[cfg(target_arch = "x86_64")]
fn check_processor() -> Result<(), failure::Failure> {
    if std::arch::is_x86_feature_detected!("sse4.2")
        && std::arch::is_x86_feature_detected!("pclmulqdq")
    {
        return Ok(());
    }
    let why =
        "this processor lacks SSE4.2 or PCLMULQDQ, which every x86-64 processor since 2011 has";
    Err(failure::Failure::new(failure::UNEXPECTED, why))
}

#[cfg(not(target_arch = "x86_64"))]
fn check_processor() -> Result<(), failure::Failure> {
    Ok(())
}

fn run() -> Result<(), failure::Failure> {
    check_processor()?;
    let given: Vec<_> = std::env::args_os().collect();
    let command = environment::complete(args::Args::command());
    let completed = config_file::complete(command.clone(), given)?;
    let completed = environment::given(command.clone(), completed);
    let matches = match environment::named_in_help(command).try_get_matches_from(completed) {
        Ok(matches) => matches,
        // Help and version go to stdout and are no failure; clap knows.
        Err(error) => error.exit(),
    };
    let args = args::Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    command::run(args)
}
