//! What other members send.

use super::applied::Machine;
use super::instance::Instance;
use super::member::{Group, Part};
use super::snapshot::collect;
use crate::disk_probe::PROBE;
use crate::network::{Method, VoteGate, campaign, serve_call, serve_stream};
use crate::sender::{FrameHeader, FrameReceiver, FrameSink, FrameSource, SendError};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use isotherm_storage::codec;
use isotherm_types::NodeId;
use std::sync::Arc;

/// Stand for election now, by order of a leader ([`campaign`]): the fallback of a hand-over. Beside openraft's own methods.
pub(super) const CAMPAIGN: u32 = 101;

impl<M: Machine> Group<M> {
    fn addressee(&self, header: &FrameHeader) -> Result<Arc<Instance<M>>, String> {
        if header.range != self.key.range || header.to_replica != self.key.replica {
            let (range, replica) = (header.range, header.to_replica);
            return Err(format!("replica {replica} of {range} is not here"));
        }
        if *self.part.borrow() == Part::None {
            return Err("this member waits for all others".into());
        }
        self.instance.load_full().ok_or_else(|| "this member is starting or stopping".into())
    }
}

impl<M: Machine> FrameReceiver for Group<M> {
    fn call(
        self: Arc<Self>,
        _from: NodeId,
        header: FrameHeader,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move {
            let instance = self.addressee(&header)?;
            if header.method == PROBE {
                return match self.probe.answers().await {
                    true => Ok(Bytes::new()),
                    false => Err("the disk does not answer".into()),
                };
            }
            let gate = VoteGate { hold_until: instance.vote_hold_until, abstains: !self.votes() };
            if header.method == CAMPAIGN {
                gate.check()?;
                campaign(&instance.raft, header.from_replica, &payload).await?;
                return Ok(Bytes::new());
            }
            let method = Method::try_from(header.method)?;
            serve_call(&instance.raft, method, payload, gate, self.has_room()).await
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
            if let Ok(instance) = self.addressee(&header) {
                let group = self.clone();
                let has_room = move || group.has_room();
                serve_stream(&instance.raft, source, sink, has_room, || {}).await;
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
            let instance = self.addressee(&header)?;
            if !self.has_room() {
                return Err("the disk of this member is full".into());
            }
            let (vote, snapshot) = collect(chunks).await?;
            let installed = instance.raft.install_full_snapshot(vote, snapshot).await;
            let response = installed.map_err(|e| e.to_string())?;
            Ok(codec::encode(&response).into())
        })
    }
}
