//! Sending a snapshot: what the owner of a state machine provides.

use crate::sender::{FrameHeader, SendError};
use crate::type_config::{SnapshotMeta, Vote};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use isotherm_types::NodeId;
use std::io;

/// Turns a snapshot into the chunks that travel.
///
/// Nothing is produced before there is room for it on both sides ([`SnapshotSender::admit`]).
///
/// The receiver gets the chunks as they are and must find the vote and the metadata in them. It
/// answers with the codec's form of openraft's response
/// ([`SnapshotResponse`](crate::type_config::SnapshotResponse)) after it installed the snapshot.
pub trait SnapshotSender: Send + Sync + 'static {
    /// What openraft passes from the state machine to the network.
    type SnapshotData: Send + 'static;
    /// The room that a snapshot takes up on this side, given back when dropped.
    type Room: Send + 'static;

    /// Asks for room, here and at the replica on `to` that `header` names. An error is temporary: openraft
    /// comes again after a pause, with a newer snapshot.
    fn admit(
        &self,
        to: NodeId,
        header: FrameHeader,
    ) -> BoxFuture<'static, Result<Self::Room, SendError>>;

    /// The chunks, made as they are taken, in the `room` that was given. A stream that cannot be finished ends early; the
    /// receiver has to notice.
    fn chunks(
        &self,
        room: Self::Room,
        vote: Vote,
        meta: SnapshotMeta,
        data: Self::SnapshotData,
    ) -> io::Result<BoxStream<'static, Bytes>>;
}
