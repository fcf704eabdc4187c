//! The load generator.
//!
//! A closed loop keeps so many operations going; an open one (`--rate`) begins so many each second
//! and measures from when each should have begun, so that an answer that is late delays no
//! question that should have been asked meanwhile (no coordinated omission). Latencies go into HDR
//! histograms, one per task, merged at the end. The JSON at the end is what scripts read; the live
//! line is for people.

mod keys;
mod load;
mod result;

use crate::args::{Bench, Global, Workload};
use crate::command::{client, stop_signal};
use crate::failure::{Failure, INTERRUPTED};
use isotherm_client::Client;
use keys::Keys;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use result::Recorder;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

pub async fn run(global: &Global, args: Bench) -> Result<(), Failure> {
    let client = client(global)?;
    let stop = stop_signal()?;
    let keys = Arc::new(Keys::new(&args));
    if let Some(pieces) = args.presplit {
        load::presplit(&client, &keys, pieces).await?;
    }
    let needs_rows =
        !matches!(args.workload, Workload::Put | Workload::Incr | Workload::Cas | Workload::Append);
    if needs_rows && !args.no_load {
        load::fill(&client, &keys, args.workload, args.value_size, &stop).await?;
    }
    let done = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let deadline = started + Duration::from_secs(args.seconds);
    let progress = tokio::spawn(result::progress(done.clone(), started, deadline, stop.clone()));
    let args = Arc::new(args);
    let tasks: Vec<_> = (0..args.clients)
        .map(|number| {
            let task = Task {
                number,
                client: client.clone(),
                keys: keys.clone(),
                args: args.clone(),
                done: done.clone(),
                stop: stop.clone(),
            };
            tokio::spawn(task.run(started, deadline))
        })
        .collect();
    let mut total = Recorder::new();
    for task in tasks {
        if let Ok(recorder) = task.await {
            total.add(&recorder);
        }
    }
    let elapsed = started.elapsed();
    let timeline = progress.await.unwrap_or_default();
    result::print(global, &args, &total, elapsed, &timeline)?;
    if stop.is_cancelled() {
        let why = format!("interrupted after {:.1} of {} s", elapsed.as_secs_f64(), args.seconds);
        return Err(Failure::new(INTERRUPTED, why));
    }
    Ok(())
}

/// One of the clients.
struct Task {
    number: usize,
    client: Client,
    keys: Arc<Keys>,
    args: Arc<Bench>,
    done: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Task {
    async fn run(self, started: Instant, deadline: Instant) -> Recorder {
        let args = &self.args;
        let mut recorder = Recorder::new();
        let mut rng = SmallRng::seed_from_u64(args.seed ^ ((self.number as u64 + 1) << 32));
        // In an open loop each client begins every so often, one after the other.
        let step = args.rate.map(|rate| Duration::from_secs_f64(args.clients as f64 / rate));
        let offset = step.unwrap_or_default().mul_f64(self.number as f64 / args.clients as f64);
        let mut due = started + offset;
        loop {
            if step.is_some() {
                let until = tokio::time::sleep_until(due.min(deadline).into());
                self.stop.run_until_cancelled(until).await;
            }
            let now = Instant::now();
            if now >= deadline || self.stop.is_cancelled() {
                // Those that should have begun by now and never will: the cluster is too slow for the rate.
                let behind = now.min(deadline).saturating_duration_since(due).as_secs_f64();
                recorder.never_begun += step.map_or(0, |step| (behind / step.as_secs_f64()) as u64);
                return recorder;
            }
            let begun = if step.is_some() { due } else { now };
            let kind = load::pick(args.workload, args.read_percent, &mut rng);
            let key = match kind {
                load::Kind::Insert => self.keys.insert(),
                _ => self.keys.pick(&mut rng),
            };
            let value = if kind.needs_value() {
                load::value(args.value_size, &mut rng)
            } else {
                bytes::Bytes::new()
            };
            let (prefix, rows) = (args.prefix.as_str(), args.scan_rows);
            let outcome = load::operate(&self.client, kind, key, value, prefix, rows).await;
            recorder.record(begun.elapsed(), outcome);
            self.done.fetch_add(1, Ordering::Relaxed);
            due += step.unwrap_or_default();
        }
    }
}
