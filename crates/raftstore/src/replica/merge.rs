//! How entries merge two neighbours (ADR 0011).
//!
//! The right range is frozen by an entry of its own log, for one epoch of the left one. When every one of
//! its replicas has applied that durably, an entry of the left range's log absorbs it: rows stay where they
//! are, and on every node the right replica's state is exactly that of the freeze, whenever that node
//! comes to apply the entry. A fence ends the epoch that the freeze was for; after it a thaw is safe.

use super::applied::Frozen;
use super::core::{Core, refused};
use crate::command::{Absorb, Fence, Freeze, RangeReply, Thaw};
use isotherm_storage::{DataBatch, LocalKey, StorageError};
use isotherm_types::{KeyRange, RangeDescriptor, RangeEpoch, Timestamp};
use std::sync::Arc;

impl Core {
    fn set_version(&mut self, version: u64, batch: &mut DataBatch) {
        let epoch = RangeEpoch { version, ..self.descriptor.epoch };
        self.descriptor = Arc::new(RangeDescriptor { epoch, ..(*self.descriptor).clone() });
        self.persist_descriptor_into(batch);
    }

    fn next_version(&mut self, batch: &mut DataBatch) {
        self.set_version(self.descriptor.epoch.version + 1, batch);
    }

    fn merge_reply(&self, absorbed: bool) -> RangeReply {
        RangeReply::Merge { descriptor: (*self.descriptor).clone(), absorbed }
    }

    pub(super) fn apply_freeze(
        &mut self,
        freeze: Freeze,
        ts: Timestamp,
        batch: &mut DataBatch,
    ) -> RangeReply {
        if freeze.epoch != self.descriptor.epoch {
            return refused("the range's epoch has changed");
        }
        if !self.descriptor.is_settled() {
            return refused("the members of the range are changing");
        }
        if self.applied.frozen.is_some() {
            return refused("the range is about to be merged already");
        }
        let Freeze { into, into_epoch, .. } = freeze;
        self.applied.frozen = Some(Frozen { into, into_epoch, ts });
        self.next_version(batch);
        self.merge_reply(false)
    }

    /// Unfreezes, or ends the epoch that a freeze on its way is for.
    pub(super) fn apply_thaw(&mut self, thaw: Thaw, batch: &mut DataBatch) -> RangeReply {
        let frozen = self.applied.frozen.map(|frozen| (frozen.into, frozen.into_epoch));
        if frozen == Some((thaw.into, thaw.into_epoch)) {
            self.applied.frozen = None;
            self.next_version(batch);
        } else if frozen.is_none() && self.descriptor.epoch == thaw.epoch {
            self.next_version(batch);
        }
        self.merge_reply(false)
    }

    /// Ends the epoch that the right neighbour was frozen for. Harms nobody: clients are told the new
    /// version.
    pub(super) fn apply_fence(&mut self, fence: Fence, batch: &mut DataBatch) -> RangeReply {
        if self.descriptor.epoch == fence.epoch {
            self.next_version(batch);
        }
        self.merge_reply(self.applied.absorbed.contains(&fence.right))
    }

    /// Takes `right`, the state of the replica beside this one, in. Whether it does depends on this range
    /// alone; that the right one stands still here was seen to before the entry was proposed.
    pub(super) fn apply_absorb(
        &mut self,
        absorb: Absorb,
        ts: Timestamp,
        right: Option<&mut Core>,
        batch: &mut DataBatch,
    ) -> Result<(RangeReply, Option<RangeDescriptor>), StorageError> {
        let refuse = |why| Ok((refused(why), None));
        let Absorb { epoch, right: named, frozen_ts } = absorb;
        if epoch != self.descriptor.epoch {
            return refuse("the range's epoch has changed");
        }
        if self.applied.frozen.is_some() {
            return refuse("the range is about to be merged itself");
        }
        let is_next = self.descriptor.span.end() == named.span.start();
        if !is_next || named.span.start().is_empty() || ts <= frozen_ts {
            return refuse("it is not the right neighbour, frozen before");
        }
        let is_frozen = |right: &&mut Core| {
            let frozen = right.applied.frozen;
            right.descriptor.id == named.id
                && frozen
                    == Some(Frozen { into: self.descriptor.id, into_epoch: epoch, ts: frozen_ts })
        };
        let Some(right) = right.filter(is_frozen) else {
            let why = format!("{} does not stand still beside {}", named.id, self.descriptor.id);
            return Err(StorageError::from(std::io::Error::other(why)));
        };
        self.applied.memory.absorb(&right.applied.memory, named.id, frozen_ts);
        self.sessions.absorb(std::mem::take(&mut right.sessions));
        self.applied.note_absorbed(named.id);
        let span = KeyRange::new(self.descriptor.span.start().clone(), named.span.end().clone())
            .expect("a neighbour's end lies behind its start");
        self.descriptor = Arc::new(RangeDescriptor { span, ..(*self.descriptor).clone() });
        let version = self.descriptor.epoch.version.max(named.epoch.version) + 1;
        self.set_version(version, batch);
        batch.delete_local(&LocalKey::Descriptor(named.id));
        batch.delete_local(&LocalKey::Applied(named.id));
        Ok((self.merge_reply(true), Some(named)))
    }
}
