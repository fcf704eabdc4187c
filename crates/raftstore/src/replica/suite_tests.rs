//! openraft's own storage suite over the log store and the state machine of a range.
//!
//! The suite applies entries that were never appended, out of order, and expects snapshots at the
//! applied id. The stores refuse all of that in earnest, so they run in a declared suite mode
//! here: the gate on the local log is open, contiguity is not checked, and building a snapshot
//! flushes first. Everything else is what runs in production.
#![allow(clippy::unwrap_used)]

use super::{Core, RangeMachine, Replica};
use crate::log_store::LogStore;
use crate::store::{OracleError, StoreContext, StoreOptions, StoreTuning, TimestampSource};
use crate::testing::Net;
use crate::type_config::TypeConfig;
use futures::future::BoxFuture;
use isotherm_storage::{DataEngine, DataOptions, LogEngine, LogOptions, RocksLog};
use isotherm_types::{
    ClusterId, KeyRange, NodeId, RaftTiming, RangeDescriptor, RangeId, Timestamp,
};
use openraft::testing::log::{StoreBuilder, Suite};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;

struct NoOracle;

impl TimestampSource for NoOracle {
    fn timestamp(&self) -> BoxFuture<'static, Result<Timestamp, OracleError>> {
        Box::pin(async { Err(OracleError("not in this test".into())) })
    }
}

struct Builder;

type Guard = (tempfile::TempDir, Arc<RocksLog>);

impl StoreBuilder<TypeConfig, LogStore, RangeMachine, Guard> for Builder {
    async fn build(
        &self,
    ) -> Result<(Guard, LogStore, RangeMachine), openraft::StorageError<TypeConfig>> {
        let tmp = tempfile::tempdir().unwrap();
        let log = RocksLog::open(&tmp.path().join("raft"), LogOptions::default()).unwrap();
        let log = Arc::new(log);
        let small = DataOptions { block_cache_bytes: 1 << 20, ..DataOptions::default() };
        let data = DataEngine::open(&tmp.path().join("data"), &small).unwrap();
        let options = StoreOptions {
            node: NodeId(1),
            cluster: ClusterId(1),
            timing: RaftTiming::FAST,
            tuning: StoreTuning::default(),
        };
        let engine: Arc<dyn LogEngine> = log.clone();
        let sender = Arc::<Net>::default().sender(NodeId(1));
        let (births, _) = mpsc::unbounded_channel();
        let staging = tmp.path().join("snapshots");
        let ctx =
            StoreContext::new(options, data, engine, sender, Arc::new(NoOracle), staging, births);
        ctx.faults.suite.store(1, Ordering::Relaxed);
        let descriptor = RangeDescriptor::first(RangeId(1), KeyRange::all(), &[NodeId(1)]);
        let (replica, _) = Replica::new(ctx.clone(), 1.into(), Core::empty(descriptor));
        let generation = replica.generation.clone();
        let store = LogStore::open(ctx.log.clone(), replica.key(), generation, 0, None).unwrap();
        let machine = RangeMachine::new(replica, 0, store.view().flushed());
        Ok(((tmp, log), store, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_storage_suite_passes() {
    Suite::test_all(Builder).await.unwrap();
}
