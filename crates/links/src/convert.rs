//! Headers, errors and both ends of a stream, as each side calls them.

use futures::{SinkExt, StreamExt, TryStreamExt};
use isotherm_raftstore::{FrameHeader, FrameSink, FrameSource, SendError};
use isotherm_transport::{Header, StreamReceiver, StreamSender, TransportError};
use isotherm_types::{NodeId, RangeId, ReplicaId};

pub(crate) fn send_error(error: TransportError) -> SendError {
    match error {
        TransportError::Refused(why) => SendError::Refused(why),
        TransportError::TimedOut => SendError::TimedOut,
        TransportError::Unreachable(_)
        | TransportError::Broken(_)
        | TransportError::Address { .. } => SendError::Unreachable(error.to_string()),
    }
}

/// The transport fills in the cluster and the nodes.
pub(crate) fn to_wire(header: FrameHeader) -> Header {
    Header {
        range_id: header.range.get(),
        from_replica: header.from_replica.get(),
        to_replica: header.to_replica.get(),
        method: header.method,
        ..Header::default()
    }
}

pub(crate) fn from_wire(header: &Header) -> (NodeId, FrameHeader) {
    let frame = FrameHeader {
        range: RangeId(header.range_id),
        from_replica: ReplicaId(header.from_replica),
        to_replica: ReplicaId(header.to_replica),
        method: header.method,
    };
    (NodeId(header.from_node), frame)
}

pub(crate) fn sink(sender: StreamSender) -> FrameSink {
    Box::pin(sender.sink_map_err(send_error))
}

pub(crate) fn source(receiver: StreamReceiver) -> FrameSource {
    receiver.map_err(send_error).boxed()
}
