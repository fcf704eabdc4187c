//! Writing many rows from a file.
//!
//! Lines are read by one thread and written in batches, several at a time. A bad line is reported
//! with its number; the rest goes on, and the command fails at the end.

pub(super) mod lines;
mod presplit;

pub use presplit::presplit;

use super::client;
use crate::args::{Global, Import};
use crate::failure::{Failure, UNEXPECTED};
use crate::output::{self, Format};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use isotherm_client::{Client, Write};
use lines::{Columns, Line, by_name, read};
use serde_json::json;
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const BATCH_ROWS: usize = 500;
const BATCH_BYTES: usize = 512 << 10;
const BATCHES_AT_ONCE: usize = 16;
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
    let (lines, mut queue) = mpsc::channel(4 * BATCH_ROWS);
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
            Line::Row(key, _) => Some(key.clone()),
            Line::Bad(..) => None,
        });
        presplit(&client, keys.collect(), pieces).await?;
    }
    let (rows, bad, elapsed) = write_all(&client, sample, &mut queue).await?;
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

async fn write_all(
    client: &Client,
    first: Vec<Line>,
    queue: &mut mpsc::Receiver<Line>,
) -> Result<(u64, u64, Duration), Failure> {
    let started = Instant::now();
    let bar = bar(None, "rows");
    let (mut rows, mut bad) = (0, 0);
    let mut running = FuturesUnordered::new();
    let mut first = first.into_iter();
    let mut open = true;
    while open {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_ROWS && bytes < BATCH_BYTES {
            let line = match first.next() {
                Some(line) => Some(line),
                None => queue.recv().await,
            };
            match line {
                Some(Line::Row(key, value)) => {
                    bytes += key.len() + value.len();
                    batch.push(Write::Put { key, value });
                }
                Some(Line::Bad(number, why)) => {
                    bad += 1;
                    if bad <= REPORTED_MAX {
                        bar.suspend(|| eprintln!("line {number}: {why}"));
                    }
                }
                None => {
                    open = false;
                    break;
                }
            }
        }
        if !batch.is_empty() {
            let client = client.clone();
            running.push(async move {
                let count = batch.len() as u64;
                client.write_all(batch).await.map(|_| count)
            });
        }
        while running.len() >= BATCHES_AT_ONCE || (!open && !running.is_empty()) {
            if let Some(written) = running.next().await {
                rows += written?;
                bar.set_position(rows);
            }
        }
    }
    bar.finish_and_clear();
    Ok((rows, bad, started.elapsed()))
}
