//! What a load measured.

use super::load::Met;
use crate::args::{Bench, Global};
use crate::failure::{Failure, NOT_FOUND, UNEXPECTED};
use crate::output::{self, Format};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use isotherm_client::ClientError;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Latencies and errors.
pub struct Recorder {
    latencies: Histogram<u64>,
    errors: BTreeMap<String, u64>,
    /// By what the command ends with if nothing succeeds.
    codes: BTreeMap<u8, u64>,
    /// Reads that found nothing; they count as operations.
    misses: u64,
    /// Operations of an open loop that should have begun and never did.
    pub never_begun: u64,
}

impl Recorder {
    pub fn new() -> Self {
        // Microseconds, 1 to a minute, three digits.
        let latencies = Histogram::new_with_bounds(1, 60_000_000, 3);
        let latencies = latencies.expect("the bounds are in order");
        let (errors, codes) = (BTreeMap::new(), BTreeMap::new());
        Self { latencies, errors, codes, misses: 0, never_begun: 0 }
    }

    pub fn record(&mut self, latency: Duration, outcome: Result<Met, ClientError>) {
        match outcome {
            Ok(met) => {
                self.latencies.saturating_record(latency.as_micros() as u64);
                self.misses += u64::from(met == Met::Nothing);
            }
            Err(error) => {
                *self.errors.entry(format!("{:?}", error.kind)).or_default() += 1;
                *self.codes.entry(Failure::from(error).code).or_default() += 1;
            }
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.latencies.add(&other.latencies).expect("the same bounds");
        self.misses += other.misses;
        self.never_begun += other.never_begun;
        for (code, count) in &other.codes {
            *self.codes.entry(*code).or_default() += count;
        }
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
    }
}

/// Counts operations second by second, and says so on a terminal.
pub async fn progress(
    done: Arc<AtomicU64>,
    started: Instant,
    deadline: Instant,
    stop: CancellationToken,
) -> Vec<u64> {
    let mut timeline = Vec::new();
    let mut before = 0;
    let mut next = started + Duration::from_secs(1);
    while next <= deadline {
        if stop.run_until_cancelled(tokio::time::sleep_until(next.into())).await.is_none() {
            break;
        }
        let now = done.load(Ordering::Relaxed);
        timeline.push(now - before);
        if output::is_talkative() {
            output::say(&format!("{:>4} s {:>9} ops/s", timeline.len(), now - before));
        }
        before = now;
        next += Duration::from_secs(1);
    }
    timeline
}

/// Prints what was measured. A load of which nothing succeeded is a failure.
pub fn print(
    global: &Global,
    args: &Bench,
    total: &Recorder,
    elapsed: Duration,
    timeline: &[u64],
) -> Result<(), Failure> {
    let ops = total.latencies.len();
    let per_s = ops as f64 / elapsed.as_secs_f64();
    let at = |quantile| total.latencies.value_at_quantile(quantile);
    let name =
        args.workload.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned());
    if ops == 0 {
        let why = total.errors.iter().map(|(kind, count)| format!("{count} {kind}"));
        let why = why.collect::<Vec<_>>().join(", ");
        let most = total.codes.iter().max_by_key(|(_, count)| **count);
        let code = most.map_or(UNEXPECTED, |(code, _)| *code);
        return Err(Failure::new(code, format!("no operation succeeded; errors: {why}")));
    }
    if total.misses == ops {
        let why = "every read met a key that is not there: leave --no-load out, or name the prefix and \
                   number of the keys that are";
        return Err(Failure::new(NOT_FOUND, why));
    }
    match global.format() {
        Format::Json => output::json(&json!({
            "workload": name,
            "clients": args.clients,
            "rate": args.rate,
            "seconds": elapsed.as_secs_f64(),
            "ops": ops,
            "ops_per_s": per_s,
            "errors": total.errors.values().sum::<u64>(),
            "errors_by_kind": total.errors,
            "misses": total.misses,
            "never_begun": total.never_begun,
            "latency_us": {
                "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999),
                "max": total.latencies.max(),
            },
            "timeline": timeline,
        })),
        Format::Table => {
            output::line(&format!("{name}: {per_s:.0} ops/s with {} clients", args.clients))?;
            let ms = |q| at(q) as f64 / 1000.0;
            let max = total.latencies.max() as f64 / 1000.0;
            output::line(&format!(
                "latency ms: p50 {:.2}  p90 {:.2}  p99 {:.2}  p99.9 {:.2}  max {max:.2}",
                ms(0.5),
                ms(0.9),
                ms(0.99),
                ms(0.999)
            ))?;
            if total.misses > 0 {
                output::line(&format!(
                    "misses: {} reads met a key that is not there",
                    total.misses
                ))?;
            }
            if total.never_begun > 0 {
                output::line(&format!(
                    "never begun: {} operations; the cluster is slower than the rate",
                    total.never_begun
                ))?;
            }
            for (kind, count) in &total.errors {
                output::line(&format!("errors: {count} {kind}"))?;
            }
            Ok(())
        }
    }
}
