//! What other nodes send to replicas on this one.

use super::rouse::Stance;
use super::{DiskRoom, Store, tend};
use crate::network::{Method, VoteGate, serve_call, serve_stream};
use crate::replica::{Instance, Replica, stage_snapshot};
use crate::sender::{FrameHeader, FrameReceiver, FrameSink, FrameSource, SendError};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use isotherm_types::NodeId;
use std::sync::Arc;
use std::time::Instant;

impl Store {
    /// Whether entries of leaders elsewhere are taken.
    fn has_room(&self) -> bool {
        self.ctx.disk_room() != DiskRoom::None
    }

    /// The replica and instance that a frame is for. A frame for another replica id is from before
    /// or after this one's time.
    pub(super) fn addressee(
        &self,
        header: &FrameHeader,
    ) -> Result<(Arc<Replica>, Arc<Instance>), String> {
        let Some(replica) = self.replica(header.range) else {
            return Err(format!("{} has no replica on this node", header.range));
        };
        if replica.id != header.to_replica {
            return Err(format!("replica {} of {} is not here", header.to_replica, header.range));
        }
        if replica.descriptor().has_passed(header.from_replica) {
            // It never votes or leads again: whatever it missed, it disturbs nobody. (A leader is
            // never removed: it hands over before.)
            return Err(format!("replica {} was removed from its range", header.from_replica));
        }
        match replica.instance.load_full() {
            Some(instance) => Ok((replica, instance)),
            None => Err(format!("{} is starting", header.range)),
        }
    }
}

impl FrameReceiver for Store {
    fn call(
        self: Arc<Self>,
        from: NodeId,
        header: FrameHeader,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move {
            if let Some(answer) = tend::receive(&self, from, &header, &payload).await {
                return answer;
            }
            let method = Method::try_from(header.method)?;
            let (replica, instance) = self.addressee(&header)?;
            if method == Method::TransferLeader && !replica.may_lead() {
                return Err("this replica is lost: it leads no more".into());
            }
            if let Stance::Refuse(why) = self.consider(&replica, from, method) {
                return Err(why.into());
            }
            let gate =
                VoteGate { hold_until: instance.vote_hold_until, abstains: replica.abstains() };
            let answer = serve_call(&instance.raft, method, payload, gate, self.has_room()).await;
            replica.appended();
            answer
        })
    }

    fn stream(
        self: Arc<Self>,
        _from: NodeId,
        header: FrameHeader,
        source: FrameSource,
        sink: FrameSink,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if let Ok((replica, instance)) = self.addressee(&header) {
                let store = self.clone();
                let has_room = move || store.has_room();
                serve_stream(&instance.raft, source, sink, has_room, || replica.appended()).await;
            }
        })
    }

    fn snapshot(
        self: Arc<Self>,
        _from: NodeId,
        header: FrameHeader,
        chunks: BoxStream<'static, Result<Bytes, SendError>>,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move {
            let (replica, instance) = self.addressee(&header)?;
            if self.ctx.disk_room() != DiskRoom::Enough {
                return Err("the disk of this node is nearly full".into());
            }
            let room = self.rooms.take(header.range, Instant::now());
            let _room = room.ok_or("other snapshots are being received")?;
            let _receiving = replica.receiving.read().await;
            if replica.stop.is_cancelled() {
                return Err("the replica has ended".into());
            }
            let received = stage_snapshot::receive(&replica, &instance, chunks);
            let received = replica.stop.run_until_cancelled(received).await;
            received.unwrap_or_else(|| Err("the replica has ended".into()))
        })
    }
}
