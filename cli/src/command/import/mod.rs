//! Writing many rows from a file.
//!
//! Lines are read by one thread and written in batches, several at a time. A bad line is reported
//! with its number; the rest goes on, and the command fails at the end. Of several lines of one key
//! the last one wins (`lanes.rs`).

mod file_lines;
mod jsonl;
mod lanes;
pub(super) mod lines;
mod presplit;
mod separated;

pub use presplit::presplit;

use super::client;
use super::process::stop_signal;
use crate::args::{Global, Import};
use crate::failure::{Failure, INTERRUPTED, UNEXPECTED};
use crate::output::{self, Format};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use isotherm_client::Client;
use lanes::Lanes;
use lines::{Columns, Line, by_name, read};
use serde_json::json;
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Lines that wait to be written.
const LINES_WAITING: usize = 2000;
/// Without a further line for so long, what was read is written though no batch is full.
const PIPE_IDLE: Duration = Duration::from_millis(100);
/// Bad lines that are reported one by one.
const REPORTED_MAX: u64 = 20;

/// A progress bar on stderr; nothing if that is no terminal.
pub fn bar(total: Option<u64>, what: &'static str) -> ProgressBar {
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let template = match total {
        Some(_) => "{bar:30} {percent}% {msg} ({per_sec})",
        None => "{spinner} {human_pos} {msg} ({per_sec})",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}

pub async fn run(global: &Global, args: Import) -> Result<(), Failure> {
    let client = client(global)?;
    let columns = Arc::new(Columns {
        format: args.format.unwrap_or_else(|| by_name(&args.file)),
        key: args.key,
        value: args.value,
        prefix: global.encoding().parse(&args.prefix)?,
        encoding: global.encoding(),
    });
    let is_stdin = args.file.as_os_str() == "-";
    if let Some(pieces) = args.presplit.filter(|_| args.file.is_file()) {
        presplit(&client, presplit::sample(&args.file, &columns).await?, pieces).await?;
    }
    let input: Box<dyn Read + Send> = if is_stdin {
        Box::new(std::io::stdin())
    } else {
        let shown = args.file.display();
        let open = File::open(&args.file);
        Box::new(open.map_err(|e| Failure::usage(format!("cannot read {shown}: {e}")))?)
    };
    let (lines, mut queue) = mpsc::channel(LINES_WAITING);
    let reader = std::thread::spawn(move || read(input, &columns, &lines));
    let mut sample = Vec::new();
    // What can be read once only is judged by its beginning.
    if let Some(pieces) = args.presplit.filter(|_| !args.file.is_file()) {
        while sample.len() < presplit::SAMPLE_ROWS
            && let Some(line) = queue.recv().await
        {
            sample.push(line);
        }
        let keys = sample.iter().filter_map(|line| match line {
            Line::Row(_, key, _) => Some(key.clone()),
            Line::Bad(..) => None,
        });
        presplit(&client, keys.collect(), pieces).await?;
    }
    let Written { rows, bad, elapsed, interrupted } =
        write_all(&client, sample, &mut queue).await?;
    if let Some(line) = interrupted {
        // The thread that reads may wait for its input: it ends with the process.
        return Err(Failure::new(INTERRUPTED, format!("interrupted; {}", so_far(rows, line))));
    }
    let read = reader.join().map_err(|_| Failure::new(UNEXPECTED, "reading the file failed"))?;
    read.map_err(|e| Failure::new(UNEXPECTED, format!("reading the file failed: {e}")))?;
    let per_s = rows as f64 / elapsed.as_secs_f64().max(1e-6);
    match global.format() {
        Format::Json => output::json(&json!({
            "rows": rows, "bad_lines": bad, "seconds": elapsed.as_secs_f64(), "rows_per_s": per_s,
        }))?,
        Format::Table => {
            output::line(&format!(
                "{rows} rows in {:.1} s, {per_s:.0} rows/s",
                elapsed.as_secs_f64()
            ))?;
        }
    }
    if bad > 0 {
        return Err(Failure::new(UNEXPECTED, format!("{bad} bad lines were left out")));
    }
    Ok(())
}

/// What became of the lines.
struct Written {
    rows: u64,
    bad: u64,
    elapsed: Duration,
    /// Before the end of the input: the last line up to which everything is written.
    interrupted: Option<u64>,
}

/// How far it came before it ended early.
fn so_far(rows: u64, line: u64) -> String {
    format!(
        "{rows} rows were written, and all of the rows up to line {line}: repeat the same import, which \
         ends with the same rows as one that was not interrupted"
    )
}

async fn write_all(
    client: &Client,
    first: Vec<Line>,
    queue: &mut mpsc::Receiver<Line>,
) -> Result<Written, Failure> {
    let started = Instant::now();
    let bar = bar(None, "rows");
    let mut bad = 0;
    let mut lanes = Lanes::new(client.clone());
    let mut first = first.into_iter();
    let stop = stop_signal()?;
    let mut interrupted = false;
    let mut failed = None;
    loop {
        let line = match first.next() {
            Some(line) => Some(line),
            None => tokio::select! {
                line = queue.recv() => line,
                settled = lanes.settle_one(), if lanes.is_under_way() => {
                    if let Err(error) = settled {
                        failed = Some(error);
                        break;
                    }
                    bar.set_position(lanes.rows());
                    continue;
                }
                // The rows of a slow pipe are written although no batch is full.
                () = tokio::time::sleep(PIPE_IDLE), if lanes.is_waiting() => {
                    lanes.send_all();
                    continue;
                }
                () = stop.cancelled() => {
                    interrupted = true;
                    break;
                }
            },
        };
        match line {
            Some(Line::Row(number, key, value)) => {
                let taken = tokio::select! {
                    taken = lanes.push(number, key, value) => taken,
                    () = stop.cancelled() => {
                        interrupted = true;
                        break;
                    }
                };
                if let Err(error) = taken {
                    failed = Some(error);
                    break;
                }
            }
            Some(Line::Bad(number, why)) => {
                bad += 1;
                if bad <= REPORTED_MAX {
                    bar.suspend(|| output::say(&format!("line {number}: {why}")));
                }
            }
            None => break,
        }
    }
    let ended = lanes.finish(!interrupted && failed.is_none()).await;
    bar.finish_and_clear();
    let (rows, line) = (lanes.rows(), lanes.written_up_to());
    if let Some(error) = failed.or(ended.err()) {
        let mut failure = Failure::from(error);
        failure.message = format!("{}\n{}", failure.message, so_far(rows, line));
        return Err(failure);
    }
    let interrupted = interrupted.then_some(line);
    Ok(Written { rows, bad, elapsed: started.elapsed(), interrupted })
}
