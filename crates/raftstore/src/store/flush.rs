//! Flushing the data and purging the logs behind it.
//!
//! One flush names every column family. After it, each range's *durable* id is read from disk
//! with the persisted read tier: that id, and nothing else, says what a crash keeps. Logs are
//! purged up to it at most; beyond what recovery needs, some are kept for slow followers.

use super::Store;
use crate::replica::{Replica, durable_state};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl Store {
    /// Runs until the store stops.
    pub(super) async fn run_flushes(self: Arc<Self>) {
        let stop = self.ctx.stop.clone();
        let tuning = self.ctx.tuning.clone();
        let every = (tuning.flush_interval / 20)
            .clamp(Duration::from_millis(20), Duration::from_millis(500));
        let mut clean_since = Instant::now();
        while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            let unflushed = self.ctx.data.unflushed_bytes();
            let dirty = self.all().iter().any(|r| r.applied_index() > r.durable_index());
            if !dirty {
                clean_since = Instant::now();
                continue;
            }
            if unflushed < tuning.flush_bytes && clean_since.elapsed() < tuning.flush_interval {
                continue;
            }
            clean_since = Instant::now();
            self.flush_and_purge().await;
        }
    }

    /// Flushes, notes what is durable, and purges what no one needs.
    pub async fn flush_and_purge(self: &Arc<Self>) {
        let started = Instant::now();
        let data = self.ctx.data.clone();
        match tokio::task::spawn_blocking(move || data.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                // RocksDB takes no writes after this. What was acknowledged is in the logs: a
                // restart, with room on the disk, replays it.
                tracing::error!(error = %error, "the data cannot be flushed: the process ends");
                std::process::abort();
            }
            Err(_) => return,
        }
        metrics::histogram!("isotherm_data_flush_seconds").record(started.elapsed().as_secs_f64());
        let replicas = self.all();
        let noted = replicas.clone();
        let note = move || noted.iter().for_each(|r| note_durable(r));
        if tokio::task::spawn_blocking(note).await.is_err() {
            return;
        }
        self.collect_session_rows(&replicas);
        let share = self.ctx.tuning.log_retain_node_bytes / (replicas.len().max(1) as u64);
        let keep = self.ctx.tuning.log_retain_bytes.min(share.max(1 << 16));
        for replica in replicas {
            purge(&replica, keep).await;
        }
    }

    /// Drops rows of remembered results that no local range consults any more. Whoever descends
    /// from an origin holds them back until its own floor has passed.
    fn collect_session_rows(&self, replicas: &[Arc<Replica>]) {
        use isotherm_types::{RangeId, Timestamp};
        let mut floors: std::collections::HashMap<RangeId, Timestamp> = Default::default();
        for replica in replicas {
            // Held for long only by a split or an install; without its floor nothing may go.
            let Some(core) = replica.core.try_lock() else { return };
            let memory = &core.applied.memory;
            let origins = memory.origins.iter().map(|o| o.range).chain([replica.range]);
            for origin in origins {
                let floor = floors.entry(origin).or_insert(Timestamp::MAX);
                *floor = (*floor).min(memory.floor);
            }
        }
        let mut batch = isotherm_storage::DataBatch::new();
        for (origin, floor) in floors {
            if floor > Timestamp::ZERO {
                batch.delete_dedup_below(origin, floor);
            }
        }
        if let Err(error) = self.ctx.data.write(batch) {
            tracing::error!(error = %error, "old session rows cannot be dropped");
        }
    }
}

fn note_durable(replica: &Replica) {
    match durable_state(&replica.ctx, replica.range) {
        Ok(state) => {
            let index = state.map_or(0, |s| s.index());
            replica.durable.store(index, Ordering::Release);
        }
        Err(error) => {
            tracing::error!(range_id = %replica.range, error = %error, "the durable state cannot be read");
        }
    }
}

/// Purges the log of one replica: up to the durable id, less what is kept for slow followers.
async fn purge(replica: &Replica, keep_bytes: u64) {
    let Some(instance) = replica.instance.load_full() else { return };
    let durable = replica.durable_index();
    let Some(upto) = instance.log.purgeable(durable, keep_bytes) else { return };
    // openraft purges no further than a snapshot's id: building one (metadata only) raises that
    // to the durable id.
    if instance.raft.trigger().snapshot().await.is_ok() {
        let _ = instance.raft.trigger().purge_log(upto).await;
    }
}
