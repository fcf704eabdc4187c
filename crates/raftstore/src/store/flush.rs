//! Flushing the data and purging the logs behind it.
//!
//! One flush names every column family. After it, each range's *durable* id is read from disk
//! with the persisted read tier: that id, and nothing else, says what a crash keeps. Logs are
//! purged up to it at most; beyond what recovery needs, some are kept for slow followers.

use super::{DiskRoom, Store};
use crate::replica::{Replica, durable_state};
use isotherm_storage::DataBatch;
use isotherm_types::{RangeId, Timestamp};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Log kept per range while the disk has little room.
const KEPT_WITHOUT_ROOM: u64 = 64 << 10;

/// How often the metrics say what the data engine has memory for.
const MEMORY_NOTED_EVERY: Duration = Duration::from_secs(5);

/// Up to where remembered results of a range may go.
type Floors = HashMap<RangeId, Timestamp>;

impl Store {
    /// Runs until the store stops.
    pub(super) async fn run_flushes(self: Arc<Self>) {
        let stop = self.ctx.stop.clone();
        let tuning = self.ctx.tuning.clone();
        let every = (tuning.flush_interval / 20)
            .clamp(Duration::from_millis(20), Duration::from_millis(500));
        let mut clean_since = Instant::now();
        let mut collected = Floors::new();
        let mut was_tight = false;
        let mut memory_noted: Option<Instant> = None;
        while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            if memory_noted.is_none_or(|at| at.elapsed() >= MEMORY_NOTED_EVERY) {
                memory_noted = Some(Instant::now());
                let data = self.ctx.data.clone();
                // Else there is no figure this time.
                let _ = tokio::task::spawn_blocking(move || data.note_memory()).await;
            }
            let is_tight = self.ctx.disk_room() != DiskRoom::Enough;
            if is_tight && !std::mem::replace(&mut was_tight, is_tight) {
                self.flush_and_purge(&mut collected).await;
                continue;
            }
            was_tight = is_tight;
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
            self.flush_and_purge(&mut collected).await;
        }
    }

    /// Flushes, notes what is durable, and purges what no one needs.
    async fn flush_and_purge(self: &Arc<Self>, collected: &mut Floors) {
        let data = self.ctx.data.clone();
        match tokio::task::spawn_blocking(move || data.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.stops_engine() => {
                self.ctx.note_damage(&error);
                return;
            }
            Ok(Err(error)) => {
                // RocksDB takes no writes after this. What was acknowledged is in the logs: a
                // restart, with room on the disk, replays it.
                tracing::error!(error = %error, "the data cannot be flushed: the process ends");
                std::process::abort();
            }
            Err(_) => return,
        }
        let replicas = self.all();
        let is_dirty = |r: &&Arc<Replica>| r.applied_index() > r.durable_index();
        let dirty: Vec<_> = replicas.iter().filter(is_dirty).cloned().collect();
        let note = move || dirty.iter().for_each(|r| note_durable(r));
        if tokio::task::spawn_blocking(note).await.is_err() {
            return;
        }
        let (store, all, mut floors) = (self.clone(), replicas.clone(), std::mem::take(collected));
        let collect = move || {
            store.collect_session_rows(&all, &mut floors);
            floors
        };
        // Else the process ends.
        if let Ok(floors) = tokio::task::spawn_blocking(collect).await {
            *collected = floors;
        }
        let is_tight = self.ctx.disk_room() != DiskRoom::Enough;
        let share = self.ctx.tuning.log_retain_node_bytes / (replicas.len().max(1) as u64);
        let keep = match is_tight {
            // Room is worth more than sparing a slow follower a snapshot.
            true => KEPT_WITHOUT_ROOM,
            false => self.ctx.tuning.log_retain_bytes.min(share.max(1 << 16)),
        };
        for replica in replicas {
            purge(&replica, keep).await;
        }
    }

    /// Drops rows of remembered results that no local range consults any more. Whoever descends
    /// from an origin holds them back until its own floor has passed.
    /// `collected` is how far that went before: a floor that did not move costs nothing. Blocking: it takes
    /// its turn at each replica.
    fn collect_session_rows(&self, replicas: &[Arc<Replica>], collected: &mut Floors) {
        let mut floors = Floors::new();
        for replica in replicas {
            // Without its floor nothing may go.
            let Some(core) = replica.core_in_turn() else {
                tracing::debug!(range_id = %replica.range, "old session rows are not dropped now: a replica is busy");
                return;
            };
            let memory = &core.applied.memory;
            let origins = memory.origins.iter().map(|o| o.range).chain([replica.range]);
            for origin in origins {
                let floor = floors.entry(origin).or_insert(Timestamp::MAX);
                *floor = (*floor).min(memory.floor);
            }
        }
        let moved = |origin, floor| floor > collected.get(origin).copied().unwrap_or_default();
        let due = floors.iter().filter(|(origin, floor)| moved(origin, **floor));
        let mut batch = DataBatch::new();
        due.for_each(|(origin, floor)| batch.delete_dedup_below(*origin, *floor));
        match self.ctx.data.write(batch) {
            Ok(()) => *collected = floors,
            Err(error) => tracing::error!(error = %error, "old session rows cannot be dropped"),
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
