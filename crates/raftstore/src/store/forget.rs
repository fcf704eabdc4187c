//! Forgetting the results of the last writes to a range that nobody writes to any more.
//!
//! Which results a range consults is a function of its entries (`replica/applied.rs`), so that all replicas
//! answer a retry alike: results grow old when something newer is written. A range that goes idle would
//! keep those of its last minute in memory and on disk for ever, and load them at every start. So its
//! leader, once, when they are older than what is remembered, writes an entry without operations: every
//! replica applies it like any other, and forgets.
//!
//! To ensure correctness: how long nobody wrote is measured by a clock of this node, and only says when
//! the entry is proposed. What is forgotten follows from the entry's timestamp.

use super::{RangeError, Store};
use crate::command::WriteRequest;
use crate::replica::Replica;
use futures::StreamExt;
use isotherm_types::{RangeId, SessionId, Timestamp, WriteId};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So few may stay: less than everything else that a replica keeps in memory.
const REMEMBERED_IDLE_MAX: usize = 16;
/// Ranges that forget at a time: each writes an entry, and wakes if it sleeps.
const AT_ONCE: usize = 8;
const TIMEOUT: Duration = Duration::from_secs(5);

/// The newest result of a range, and since when it has been the newest.
type Newest = HashMap<RangeId, (Timestamp, Instant)>;

impl Store {
    /// Runs until the store stops.
    pub(super) async fn run_forgetting(self: Arc<Self>) {
        let stop = self.ctx.stop.clone();
        let retention = self.ctx.tuning.session_retention;
        let every = (retention / 4).clamp(Duration::from_millis(100), Duration::from_secs(10));
        let mut newest = Newest::new();
        while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            let due = self.due_to_forget(&mut newest, retention);
            let forget = due.into_iter().map(|replica| self.clone().forget_results(replica));
            let all = futures::stream::iter(forget).buffer_unordered(AT_ONCE);
            stop.run_until_cancelled(all.for_each(|()| std::future::ready(()))).await;
        }
    }

    /// The replicas that lead here and remember much, of which nothing is new.
    fn due_to_forget(&self, newest: &mut Newest, retention: Duration) -> Vec<Arc<Replica>> {
        let (mut due, mut remembered) = (Vec::new(), 0);
        let replicas = self.all();
        newest.retain(|range, _| self.replica(*range).is_some());
        for replica in replicas {
            let (count, at) = {
                // Whoever applies something now is not idle.
                let Some(core) = replica.core.try_lock() else { continue };
                (core.sessions.count(), core.sessions.newest())
            };
            remembered += count;
            if count <= REMEMBERED_IDLE_MAX {
                newest.remove(&replica.range);
                continue;
            }
            let known = newest.entry(replica.range).or_insert((at, Instant::now()));
            if known.0 != at {
                *known = (at, Instant::now());
            }
            let leads = replica.instance.load().as_ref().is_some_and(|i| i.leadership().is_some());
            if known.1.elapsed() >= retention && leads && !replica.is_frozen() {
                due.push(replica);
            }
        }
        metrics::gauge!("isotherm_remembered_results").set(remembered as f64);
        due
    }

    /// Has a range forget the results that are older than what it remembers.
    async fn forget_results(self: Arc<Self>, replica: Arc<Replica>) {
        let forgotten = async {
            let birth = self.ctx.timestamp().await?;
            // No client has this session, and no write of it the same number.
            let session = SessionId { issuer: 0, number: 0 };
            let id = WriteId { session, seq: birth.get(), floor: 0, birth };
            let version = replica.descriptor().epoch.version;
            let nothing = WriteRequest { id, ops: Vec::new() };
            self.write(replica.range, version, nothing, TIMEOUT).await?;
            Ok::<(), RangeError>(())
        };
        if let Err(error) = forgotten.await {
            // It is tried again.
            tracing::debug!(range_id = %replica.range, error = %error, "an idle range has not forgotten old results yet");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::command::{WriteOp, WriteRequest};
    use crate::store::{RangeError, StoreTuning, TimestampSource};
    use crate::testing::Cluster;
    use isotherm_types::{RangeId, WriteId};
    use std::time::{Duration, Instant};

    const R: RangeId = RangeId(1);

    fn remembered(cluster: &Cluster, node: u64) -> usize {
        cluster.store(node).replica(R).unwrap().core.lock().sessions.count()
    }

    async fn until_forgotten(cluster: &Cluster, nodes: &[u64]) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let left: Vec<_> = nodes.iter().map(|node| remembered(cluster, *node)).collect();
            if left.iter().all(|left| *left <= super::REMEMBERED_IDLE_MAX) {
                return;
            }
            assert!(Instant::now() < deadline, "{left:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// After an import nobody writes any more, and the range sleeps.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_range_that_goes_idle_forgets_on_all_replicas() {
        let tuning = StoreTuning {
            session_retention: Duration::from_secs(1),
            hibernate_after: Duration::from_millis(300),
            ..StoreTuning::default()
        };
        let mut cluster = Cluster::start(3, tuning).await;
        cluster.seed(&[("", "")]).await;
        let incr = || vec![WriteOp::Incr { key: "n".into(), by: 1 }];
        let birth = cluster.oracle.timestamp().await.unwrap();
        let first = WriteId { birth, ..cluster.write_id() };
        cluster.write_as(first, incr()).await;
        for _ in 0..200 {
            cluster.write_as(WriteId { birth, ..cluster.write_id() }, incr()).await;
        }
        assert!(remembered(&cluster, cluster.leader(R).await) > 200);
        cluster.oracle.skip_ms(60_000);
        until_forgotten(&cluster, &[1, 2, 3]).await;
        // What was forgotten is refused, everywhere alike, and not evaluated again.
        let leader = cluster.leader(R).await;
        let again = WriteRequest { id: first, ops: incr() };
        let wait = Duration::from_secs(5);
        let answer = cluster.store(leader).write(R, 1, again, wait).await;
        assert_eq!(answer, Err(RangeError::Expired));
        assert_eq!(cluster.get("n").await.unwrap(), "201");
        cluster.assert_replicas_agree("n").await;
        // And nothing of it is loaded at the next start.
        cluster.crash_node(leader).await;
        cluster.start_node(leader).await;
        until_forgotten(&cluster, &[leader]).await;
        cluster.stop().await;
    }
}
