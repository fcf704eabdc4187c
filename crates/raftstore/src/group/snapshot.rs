//! A whole snapshot on its way: a head, then the state in chunks.

use crate::entry_codec::{decode_message, encode_message};
use crate::network::SnapshotSender;
use crate::sender::{FrameHeader, SendError};
use crate::sizes::STATE_BYTES_MAX;
use crate::type_config::{Snapshot, SnapshotMeta, Vote};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use isotherm_types::NodeId;
use serde::{Deserialize, Serialize};
use std::io;

const CHUNK_BYTES: usize = 256 << 10;

/// The first chunk.
#[derive(Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    pub(crate) state_bytes: u64,
}

/// Cuts snapshots into chunks.
pub(super) struct WholeSnapshots;

impl SnapshotSender for WholeSnapshots {
    type SnapshotData = Bytes;
    /// It is in memory already, and there is one group.
    type Room = ();

    fn admit(&self, _: NodeId, _: FrameHeader) -> BoxFuture<'static, Result<(), SendError>> {
        Box::pin(async { Ok(()) })
    }

    fn chunks(
        &self,
        (): (),
        vote: Vote,
        meta: SnapshotMeta,
        state: Bytes,
    ) -> io::Result<BoxStream<'static, Bytes>> {
        let head = encode_message(&Head { vote, meta, state_bytes: state.len() as u64 });
        let cut = |mut rest: Bytes| {
            (!rest.is_empty()).then(|| (rest.split_to(rest.len().min(CHUNK_BYTES)), rest))
        };
        let body =
            stream::iter(std::iter::successors(cut(state), move |(_, rest)| cut(rest.clone())));
        let head = stream::once(std::future::ready(Bytes::from(head)));
        Ok(head.chain(body.map(|(chunk, _)| chunk)).boxed())
    }
}

/// Puts a snapshot together again.
pub(super) async fn collect(
    mut chunks: BoxStream<'static, Result<Bytes, SendError>>,
) -> Result<(Vote, Snapshot<Bytes>), String> {
    let head = chunks.next().await.ok_or("the snapshot is empty")?.map_err(|e| e.to_string())?;
    let head: Head = decode_message(&head).map_err(|e| e.to_string())?;
    if head.state_bytes > STATE_BYTES_MAX as u64 {
        return Err(format!("a snapshot of {} bytes is not plausible", head.state_bytes));
    }
    let mut state = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        state.extend_from_slice(&chunk.map_err(|e| e.to_string())?);
        if state.len() as u64 > head.state_bytes {
            return Err("the snapshot is longer than it says".into());
        }
    }
    if (state.len() as u64) < head.state_bytes {
        return Err("the snapshot ended early".into());
    }
    Ok((head.vote, Snapshot { meta: head.meta, snapshot: state.freeze() }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Says that it has so many bytes, of which none come.
    async fn said(state_bytes: usize) -> String {
        let (vote, meta) = (Vote::new(1, 1), SnapshotMeta::default());
        let head = encode_message(&Head { vote, meta, state_bytes: state_bytes as u64 });
        let chunks = stream::iter([Ok(Bytes::from(head))]).boxed();
        collect(chunks).await.map(drop).unwrap_err()
    }

    #[tokio::test]
    async fn a_state_of_one_byte_too_many_is_refused_before_it_comes() {
        assert!(said(STATE_BYTES_MAX).await.contains("ended early"), "it is waited for");
        assert!(said(STATE_BYTES_MAX + 1).await.contains("is not plausible"));
    }
}
