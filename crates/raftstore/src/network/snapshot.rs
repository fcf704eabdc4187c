//! Sending a snapshot: what the owner of a state machine provides.

use crate::type_config::{SnapshotMeta, Vote};
use bytes::Bytes;
use futures::stream::BoxStream;
use std::io;

/// Turns a snapshot into the chunks that travel.
///
/// The receiver gets the chunks as they are and must find the vote and the metadata in them. It
/// answers with the codec's form of openraft's response
/// ([`SnapshotResponse`](crate::type_config::SnapshotResponse)) after it installed the snapshot.
pub trait SnapshotSender: Send + Sync + 'static {
    /// What openraft passes from the state machine to the network.
    type SnapshotData: Send + 'static;

    /// The chunks, made as they are taken. A stream that cannot be finished ends early; the
    /// receiver has to notice.
    fn chunks(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        data: Self::SnapshotData,
    ) -> io::Result<BoxStream<'static, Bytes>>;
}
