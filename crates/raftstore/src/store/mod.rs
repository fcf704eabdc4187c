//! The replica host: one per node. Opens, starts, supervises and stops replicas, receives what
//! other nodes send them, and carries out operations on ranges (`operation/`).

mod claims;
mod collect;
mod context;
#[cfg(test)]
mod crash_tests;
mod create;
mod destroy;
#[cfg(test)]
mod disk_room_tests;
mod error;
mod flush;
mod forget;
#[cfg(test)]
mod hand_over_tests;
mod hibernate;
#[cfg(test)]
mod hibernation_tests;
#[cfg(test)]
mod history_tests;
mod liveness;
#[cfg(test)]
mod merge_tests;
#[cfg(test)]
mod move_tests;
#[cfg(test)]
mod numbered_tests;
mod open;
mod operation;
mod options;
mod pace;
mod quarantine;
#[cfg(test)]
mod quarantine_tests;
mod raise;
#[cfg(test)]
mod read_tests;
mod receive;
#[cfg(test)]
mod removal_tests;
mod retire;
mod rooms;
mod rouse;
#[cfg(test)]
mod rule_tests;
mod safe_point;
mod scan_pool;
mod scrub;
mod slice_budget;
#[cfg(test)]
mod snapshot_tests;
mod span_table;
mod stall;
#[cfg(test)]
mod stall_tests;
mod start;
mod stop;
mod tend;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod version_tests;

pub use context::{OracleError, StoreContext, StoreEvent, TimestampSource};
pub(crate) use create::CreationRecord;
pub(crate) use destroy::{Tombstone, clear_away, is_buried};
pub use error::{RangeError, StoreError};
pub(crate) use hibernate::{Refused, SLEEP_ORDERS_MAX, SleepOrders};
pub(crate) use liveness::Ping;
pub use options::{DiskRoom, StoreOptions, StoreTuning};
pub use quarantine::distrust_all;
use rooms::Rooms;
pub(crate) use rooms::{Room, ask_for_room};
pub(crate) use scan_pool::ScanPool;
pub use slice_budget::SliceBudget;
pub use span_table::{SpanOverlap, SpanTable};

use crate::replica::{Replica, ReplicaMark, ReplicaStatus};
pub(crate) use claims::Claim;
use claims::Claims;
use isotherm_types::limits::ERROR_DESCRIPTORS_MAX;
use isotherm_types::{NodeId, RangeId};
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{Semaphore, broadcast};

/// What there was to see at a look at all replicas.
#[derive(Debug, Clone)]
pub struct Look {
    /// How many there are.
    pub replicas: u64,
    /// How many of them lead.
    pub leaders: u64,
    /// Those that may have changed.
    pub seen: Vec<(Option<ReplicaMark>, ReplicaStatus)>,
}

/// All replicas of one node.
pub struct Store {
    pub(crate) ctx: Arc<StoreContext>,
    replicas: RwLock<HashMap<RangeId, Arc<Replica>>>,
    rooms: Rooms,
    claims: Claims,
    campaigns: Semaphore,
    /// Nodes whose sleeping groups are being woken, because they died.
    successions: Mutex<HashSet<NodeId>>,
}

impl Store {
    /// What changes: descriptors and leaderships.
    pub fn events(&self) -> broadcast::Receiver<StoreEvent> {
        self.ctx.events.subscribe()
    }

    /// The replica of `range` here.
    pub fn replica(&self, range: RangeId) -> Option<Arc<Replica>> {
        self.replicas.read().get(&range).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Replica>> {
        self.replicas.read().values().cloned().collect()
    }

    /// The replicas as they are now; of those that sleep only the ones whose mark is not known: the
    /// others are as they were.
    pub fn look(&self, is_known: impl Fn(RangeId, ReplicaMark) -> bool) -> Look {
        let mut look = Look { replicas: 0, leaders: 0, seen: Vec::new() };
        for replica in self.replicas.read().values() {
            look.replicas += 1;
            // Before the status: what changes in between is seen next time.
            let mark = replica.mark();
            if let Some(mark) = mark.filter(|mark| is_known(replica.range, *mark)) {
                look.leaders += u64::from(mark.is_leader());
                continue;
            }
            let status = replica.status();
            look.leaders += u64::from(status.is_leader);
            look.seen.push((mark, status));
        }
        look
    }

    /// All replicas, as they are now.
    pub fn replicas(&self) -> Vec<ReplicaStatus> {
        self.all().iter().map(|r| r.status()).collect()
    }

    /// The replicas of ranges with keys in `span`, as they are now.
    pub fn replicas_in(&self, span: &isotherm_types::KeyRange) -> Vec<ReplicaStatus> {
        let all = self.all();
        all.iter().filter(|r| r.descriptor().span.overlaps(span)).map(|r| r.status()).collect()
    }

    /// Bytes that a span takes, on disk and in memory that is not flushed yet, roughly.
    pub fn approximate_size(&self, span: &isotherm_types::KeyRange) -> u64 {
        self.ctx.data.approximate_size_with_memory(span)
    }

    /// Without enough room writes are refused as [`RangeError::DiskFull`], other than deletes; without
    /// any, deletes too, and entries of leaders elsewhere. Reads go on.
    pub fn set_disk_room(&self, room: DiskRoom) {
        self.ctx.disk_room.send_replace(room);
    }

    /// While set, every read is confirmed by a quorum round instead of a lease.
    pub fn set_read_quorum(&self, read_quorum: bool) {
        self.ctx.read_quorum.store(read_quorum, Ordering::Relaxed);
    }

    /// An answer "the range has changed" is worth more with what lies next to it now: the children
    /// of its splits are usually here too.
    fn with_neighbours(&self, error: RangeError) -> RangeError {
        let RangeError::EpochMismatch { mut current } = error else { return error };
        let replicas = self.all();
        while current.len() < ERROR_DESCRIPTORS_MAX
            && let Some(end) = current.last().map(|d| d.span.end().clone())
            && let Some(next) = replicas.iter().find(|r| *r.descriptor().span.start() == end)
            && !end.is_empty()
        {
            current.push((*next.descriptor()).clone());
        }
        RangeError::EpochMismatch { current }
    }

    /// The right to create or destroy the replica of `range` here, unless somebody has it.
    pub(crate) fn claim(&self, range: RangeId) -> Option<Claim> {
        self.claims.take(range)
    }

    fn find(&self, range: RangeId) -> Result<Arc<Replica>, RangeError> {
        self.replica(range).ok_or(RangeError::RangeNotFound(range))
    }
}
