//! Replicas that cannot be read: a block of their rows or of their log is not what was written there.
//!
//! Such a replica counts as lost. Its votes and its acknowledgements still stand, since those are other
//! bytes, and a range with few replicas may need them; but it never answers a client again.
//!
//! Life: somebody reads the block (a client, apply, a snapshot that is made, the scrub, the start of the
//! store) → the replica stands for no election any more, which it also remembers → if it leads, it hands
//! over; if not, it tells its leader (`CONFESS`, `operation/dismiss.rs`) → the members are changed to do
//! without it → its node destroys it when meta says so, dropping whole files unread → the range gets
//! another one, on the same node if there is no other.
//!
//! What damages the whole node, a compaction that fails for one, is not for a replica to mend: the
//! store says so ([`Store::damage`]) and its process ends.

use super::destroy::put_state;
use super::{RangeError, Store, StoreContext};
use crate::replica::Replica;
use isotherm_storage::{LogEngine, LogOp, ReplicaKey, StateKind, StorageError};
use isotherm_types::RangeId;
use std::sync::Arc;
use tokio::sync::watch;

/// What [`StateKind::Lost`] says of a replica that lacks what it acknowledged …
pub(super) const LACKS: u8 = 1;
/// … and of one that cannot be read.
pub(super) const DAMAGED: u8 = 2;

impl StoreContext {
    /// Whether the replica is noted as one that cannot be read, or lacks what it acknowledged.
    pub(super) fn is_noted_lost(&self, key: ReplicaKey) -> Result<bool, StorageError> {
        Ok(self.log.state(key, StateKind::Lost)?.is_some())
    }

    /// Nothing can be written here any more.
    pub(crate) fn note_damage(&self, why: &dyn std::fmt::Display) {
        self.damage.send_if_modified(|damage| {
            let is_new = damage.is_none();
            damage.get_or_insert_with(|| why.to_string());
            is_new
        });
    }
}

impl Replica {
    /// Takes note of an error of the disk that came of reading or writing this replica.
    pub(crate) fn disk_failed(self: &Arc<Self>, error: &StorageError) {
        if error.stops_engine() {
            self.ctx.note_damage(error);
        } else if error.is_damage() {
            self.found_damage(error);
        }
    }

    /// The refusal of a read that the disk did not answer. What this replica cannot read another one
    /// can.
    pub(crate) fn read_failed(self: &Arc<Self>, error: StorageError) -> RangeError {
        self.disk_failed(&error);
        let has_others = self.descriptor().voters().any(|voter| voter.id != self.id);
        match self.is_damaged() && has_others {
            true => RangeError::NotLeader { leader: None },
            false => RangeError::Internal(error.to_string()),
        }
    }

    /// A block of it cannot be read.
    pub(crate) fn found_damage(self: &Arc<Self>, why: &dyn std::fmt::Display) {
        if !self.set_damaged() {
            return;
        }
        metrics::counter!("isotherm_replicas_damaged_total").increment(1);
        tracing::error!(
            range_id = %self.range,
            replica_id = %self.id,
            error = %why,
            "this replica cannot be read: have the disk checked; it is removed and built again"
        );
        let Some(store) = self.ctx.host() else { return };
        let replica = self.clone();
        self.ctx.tasks.spawn(async move {
            if !replica.abstains() {
                let noted = put_state(&store.ctx, replica.key(), StateKind::Lost, vec![DAMAGED]);
                if let Err(error) = noted.await {
                    // It is found again when it is read again.
                    tracing::warn!(range_id = %replica.range, %error, "that is not noted");
                }
            }
            store.tend_lost(&replica);
        });
    }
}

impl Store {
    /// Why nothing can be written on this node any more, once that is so: a block that a compaction
    /// needs cannot be read, for one. The process is to end, and to stay out.
    pub fn damage(&self) -> watch::Receiver<Option<String>> {
        self.ctx.damage.subscribe()
    }

    /// The ranges whose replicas here cannot be read, until these are removed.
    pub fn damaged_ranges(&self) -> Vec<RangeId> {
        let mut damaged: Vec<_> =
            self.all().iter().filter(|r| r.is_damaged()).map(|r| r.range).collect();
        damaged.sort();
        damaged
    }
}

/// Notes of every replica that `log` knows that it lacks what it acknowledged, so that each is removed
/// and built again. For a log of which it is not known what it lost, before a store opens over it.
/// Blocking.
pub fn distrust_all(log: &dyn LogEngine) -> Result<usize, StorageError> {
    let keys = log.replicas()?;
    let (sender, done) = std::sync::mpsc::channel();
    for replica in &keys {
        let sender = sender.clone();
        log.submit(LogOp::PutState {
            replica: *replica,
            kind: StateKind::Lost,
            bytes: vec![LACKS],
            done: Box::new(move |result| {
                // Whoever asked has gone on with an error.
                let _ = sender.send(result);
            }),
        });
    }
    drop(sender);
    for result in done {
        result.map_err(|error| StorageError::Io(std::io::Error::other(error)))?;
    }
    Ok(keys.len())
}
