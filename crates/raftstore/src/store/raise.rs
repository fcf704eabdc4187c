//! Raising ranges to the version that the cluster uses.
//!
//! Meta tells every node the cluster version; the leader of a range that is behind it proposes an entry
//! (`Body::Raise`), so that all replicas change their rules at the same place of the log. Ranges start at
//! the first version of all, and children at that of their parent.

use super::Store;
use crate::replica::{Proposal, Replica};
use futures::StreamExt;
use isotherm_types::ClusterVersion;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;

/// Between two looks at all replicas.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Ranges that are raised at a time.
const AT_ONCE: usize = 16;
/// One that takes longer is tried again at the next look.
const TIMEOUT: Duration = Duration::from_secs(5);

impl Store {
    /// What the cluster uses, as meta said. It never falls, and one that this software does not know is
    /// refused: meta does not tell a process that it has not let in.
    pub fn set_cluster_version(&self, version: ClusterVersion) {
        if !version.is_supported() {
            tracing::error!(
                cluster_version = version.0,
                supports = ClusterVersion::CURRENT.0,
                "the cluster uses a version that this software does not know: upgrade this node"
            );
            return;
        }
        self.ctx.cluster_version.fetch_max(version.0, Ordering::AcqRel);
    }

    /// What the cluster uses, as far as this node was told.
    pub fn cluster_version(&self) -> ClusterVersion {
        ClusterVersion(self.ctx.cluster_version.load(Ordering::Acquire))
    }

    /// How many replicas here are at a version before that of the cluster.
    pub fn replicas_behind(&self) -> u64 {
        let to = self.cluster_version();
        if to == ClusterVersion::FIRST {
            return 0;
        }
        self.replicas.read().values().filter(|replica| replica.version() < to).count() as u64
    }

    pub(super) async fn run_raises(self: Arc<Self>) {
        let stop = self.ctx.stop.clone();
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            let to = self.cluster_version();
            if to == ClusterVersion::FIRST {
                continue;
            }
            let behind = self.all().into_iter().filter(|r| r.version() < to && leads(r));
            let raised = futures::stream::iter(behind.map(|replica| raise(replica, to)));
            let raised =
                raised.buffer_unordered(AT_ONCE).filter(|raised| std::future::ready(*raised));
            let Some(count) = stop.run_until_cancelled(raised.count()).await else { return };
            if count > 0 {
                tracing::info!(
                    ranges = count,
                    version = to.0,
                    "ranges were raised to the cluster version"
                );
            }
        }
    }
}

fn leads(replica: &Replica) -> bool {
    replica.hibernation.is_leading()
        || replica.instance.load().as_ref().is_some_and(|instance| instance.leadership().is_some())
}

/// Proposes it; whether the range is at `to` now.
async fn raise(replica: Arc<Replica>, to: ClusterVersion) -> bool {
    let (answer, done) = oneshot::channel();
    let proposed = async {
        replica.proposals.send(Proposal::Raise { to, answer }).await.ok()?;
        replica.note_queued();
        done.await.ok()
    };
    match tokio::time::timeout(TIMEOUT, proposed).await {
        Ok(Some(Ok(version))) => version >= to,
        Ok(Some(Err(error))) => {
            tracing::debug!(range_id = %replica.range, %error, "a range was not raised, trying again");
            false
        }
        Ok(None) | Err(_) => false,
    }
}
