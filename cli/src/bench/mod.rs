//! The load generator: a closed loop of so many operations at a time.
//!
//! Latencies go into HDR histograms, one per task, merged at the end. The JSON at the end is what
//! scripts read; the live line is for people.

mod keys;
mod load;
mod result;

use crate::args::{Bench, Global, Workload};
use crate::command::client;
use crate::failure::Failure;
use keys::Keys;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use result::Recorder;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub async fn run(global: &Global, args: Bench) -> Result<(), Failure> {
    if args.clients == 0 || args.keys == 0 {
        return Err(Failure::usage("--clients and --keys must be at least 1"));
    }
    let client = client(global)?;
    let keys = Arc::new(Keys::new(&args));
    if let Some(pieces) = args.presplit {
        load::presplit(&client, &keys, pieces).await?;
    }
    let needs_rows = matches!(args.workload, Workload::Get | Workload::Mixed);
    if needs_rows && !args.no_load {
        load::fill(&client, &keys, args.value_size).await?;
    }
    let done = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let deadline = started + Duration::from_secs(args.seconds);
    let progress = tokio::spawn(result::progress(done.clone(), started, deadline));
    let tasks: Vec<_> = (0..args.clients)
        .map(|task| {
            let (client, keys, done) = (client.clone(), keys.clone(), done.clone());
            let workload = args.workload;
            let (size, read_percent) = (args.value_size, args.read_percent);
            let mut rng = SmallRng::seed_from_u64(args.seed ^ ((task as u64 + 1) << 32));
            tokio::spawn(async move {
                let mut recorder = Recorder::new();
                while Instant::now() < deadline {
                    let kind = load::pick(workload, read_percent, &mut rng);
                    let key = keys.pick(&mut rng);
                    let value = load::value(size, &mut rng);
                    let begun = Instant::now();
                    let outcome = load::operate(&client, kind, key, value).await;
                    recorder.record(begun.elapsed(), outcome);
                    done.fetch_add(1, Ordering::Relaxed);
                }
                recorder
            })
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
    result::print(global, &args, &total, elapsed, &timeline)
}
