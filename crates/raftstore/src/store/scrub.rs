//! Reading everything now and then, so that what went bad on a disk is found while other replicas are good.
//!
//! A block that nobody reads says nothing. So every replica's rows are read from end to end, with the
//! checksums of their blocks, once in [`StoreTuning::scrub_interval`], at a rate that leaves the disk to
//! others. What cannot be read is removed and built again (`quarantine.rs`). When all were read last is
//! synced beside the logs, so that a node that is often started again gets there too.
//!
//! [`StoreTuning::scrub_interval`]: super::StoreTuning

use super::Store;
use crate::replica::Replica;
use isotherm_storage::{StorageError, codec};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Read at a time: between two of them others have their turn.
const SLICE_BYTES: u64 = 1 << 20;
/// The first time is not right after a start, when there is other work, and not on all nodes at once:
/// within this part of the interval.
const FIRST_PART: u32 = 24;
/// Between two looks whether it is due.
const LOOK_MAX: Duration = Duration::from_secs(60);
/// The record that says when everything was read last.
const RECORD: &str = "scrubbed-ms";

fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

impl Store {
    /// Runs until the store stops.
    pub(super) async fn run_scrub(self: Arc<Self>) {
        let interval = self.ctx.tuning.scrub_interval;
        if interval.is_zero() {
            return;
        }
        let stop = self.ctx.stop.clone();
        let first = (interval / FIRST_PART).mul_f64(fastrand::f64());
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        let mut due_ms = match self.scrubbed_ms() {
            Ok(Some(last)) => last.saturating_add(interval_ms).min(now_ms() + interval_ms),
            Ok(None) | Err(_) => 0,
        };
        due_ms = due_ms.max(now_ms() + u64::try_from(first.as_millis()).unwrap_or(0));
        loop {
            while now_ms() < due_ms {
                let left = Duration::from_millis(due_ms.saturating_sub(now_ms())).min(LOOK_MAX);
                if stop.run_until_cancelled(tokio::time::sleep(left)).await.is_none() {
                    return;
                }
            }
            let begun_ms = now_ms();
            if stop.run_until_cancelled(self.scrub_all()).await.is_none() {
                return;
            }
            due_ms = begun_ms.saturating_add(interval_ms).max(now_ms() + 1);
        }
    }

    fn scrubbed_ms(&self) -> Result<Option<u64>, StorageError> {
        let record = self.ctx.log.node_state(RECORD)?;
        record.map(|bytes| codec::decode(&bytes)).transpose()
    }

    /// Reads every replica once.
    async fn scrub_all(self: &Arc<Self>) {
        let (mut bytes, mut ranges, mut damaged) = (0, 0u64, 0u64);
        for replica in self.all() {
            // One that went meanwhile needs nothing.
            if replica.stop.is_cancelled() || replica.is_retired() {
                continue;
            }
            bytes += self.scrub(&replica).await;
            ranges += 1;
            damaged += u64::from(replica.is_damaged());
        }
        let done_ms = now_ms();
        metrics::gauge!("isotherm_scrub_completed_timestamp_seconds").set(done_ms as f64 / 1000.0);
        metrics::gauge!("isotherm_scrub_damaged_replicas").set(damaged as f64);
        tracing::info!(ranges, bytes, damaged, "all replicas were read and checked");
        let log = self.ctx.log.clone();
        let note = move || log.put_node_state(RECORD, codec::encode(&done_ms));
        if let Ok(Err(error)) = tokio::task::spawn_blocking(note).await {
            tracing::warn!(%error, "when all replicas were read is not noted");
        }
    }

    /// Reads one replica; how many bytes.
    pub(super) async fn scrub(&self, replica: &Arc<Replica>) -> u64 {
        let (mut position, mut sum) = (None, 0);
        loop {
            let (data, span) = (self.ctx.data.clone(), replica.descriptor().span.clone());
            let from = position.take();
            let read = move || data.verify(&span, from, SLICE_BYTES);
            let Ok(read) = tokio::task::spawn_blocking(read).await else { return sum };
            let (bytes, next) = match read {
                Ok(read) => read,
                Err(error) => {
                    replica.disk_failed(&error);
                    return sum;
                }
            };
            sum += bytes;
            metrics::counter!("isotherm_scrub_bytes_total").increment(bytes);
            if next.is_none() || replica.stop.is_cancelled() {
                return sum;
            }
            position = next;
            let rate = self.ctx.tuning.scrub_bytes_per_second.max(1);
            tokio::time::sleep(Duration::from_secs_f64(bytes as f64 / rate as f64)).await;
        }
    }
}
