//! Creating a replica that a leader names and that is not here.
//!
//! Life: the leader adds a learner, or hears nothing from a follower → it sends its descriptor
//! → refused here while the span overlaps another range, while another replica of the range is
//! here, or if this one was removed for good → its span is reserved, a creation record is synced,
//! and an empty replica starts, which then gets a snapshot.

use super::destroy::{is_buried, put_state};
use super::{DiskRoom, Store, StoreEvent};
use crate::replica::Core;
use crate::sender::FrameHeader;
use isotherm_storage::{LocalKey, ReplicaKey, StateKind, codec};
use isotherm_types::{NodeId, RangeDescriptor};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Synced before a replica that a message asked for may vote or accept anything.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreationRecord {
    /// As its leader knew it; it names the replica.
    pub descriptor: RangeDescriptor,
}

impl Store {
    /// Creates the empty replica that `header` is for.
    pub(super) async fn create_replica(
        self: &Arc<Self>,
        from: NodeId,
        header: &FrameHeader,
        payload: &[u8],
    ) -> Result<(), String> {
        let (range, me) = (header.range, header.to_replica);
        let Some(_claim) = self.claims.take(range) else {
            return Err("the range is just being created or destroyed here".into());
        };
        if let Some(replica) = self.replica(range) {
            let here = replica.id;
            return if here == me {
                Ok(())
            } else {
                Err(format!("replica {here} of {range} is still here"))
            };
        }
        if self.ctx.disk_room() != DiskRoom::Enough {
            return Err("the disk of this node is nearly full".into());
        }
        let record: CreationRecord = codec::decode(payload).map_err(|e| e.to_string())?;
        let descriptor = Arc::new(record.descriptor.clone());
        let named = descriptor.replica_on(self.ctx.node).map(|r| r.id);
        if descriptor.id != range || named != Some(me) {
            return Err("the descriptor does not name this replica here".into());
        }
        let key = ReplicaKey { range, replica: me };
        if is_buried(&self.ctx, key).map_err(|e| e.to_string())? {
            return Err("this replica was removed for good".into());
        }
        self.ctx.spans.reserve(range, &descriptor.span).map_err(|e| e.to_string())?;
        let row = self.ctx.data.local(&LocalKey::Descriptor(range)).map_err(|e| e.to_string())?;
        if row.is_some() {
            // A child of a split that was applied a moment ago: it starts over its rows.
            return Err("the replica is just starting".into());
        }
        let synced = put_state(&self.ctx, key, StateKind::Creation, codec::encode(&record)).await;
        if let Err(error) = synced {
            self.ctx.spans.release(range);
            return Err(format!("the creation record was not synced: {error}"));
        }
        tracing::info!(
            range_id = %range,
            replica_id = %me,
            epoch = %descriptor.epoch,
            from_node = %from,
            "replica created for its leader"
        );
        let core = Core::empty((*descriptor).clone());
        self.start_replica(me, core).await.map_err(|e| e.to_string())?;
        let event = StoreEvent::DescriptorChanged { descriptor, split_children: Vec::new() };
        let _ = self.ctx.events.send(event);
        Ok(())
    }
}
