//! Consensus over the transport: the raftstore's traits on one side, the transport's on the other.

mod receiver;
mod sender;

pub use receiver::Receiver;
pub use sender::Sender;

use futures::{SinkExt, StreamExt};
use isotherm_raftstore::{FrameSink, FrameSource, SendError};
use isotherm_transport::{StreamReceiver, StreamSender, TransportError};

fn send_error(error: TransportError) -> SendError {
    match error {
        TransportError::Refused(why) => SendError::Refused(why),
        TransportError::TimedOut => SendError::TimedOut,
        TransportError::Unreachable(_)
        | TransportError::Broken(_)
        | TransportError::Address { .. } => SendError::Unreachable(error.to_string()),
    }
}

/// Both directions of a stream, with the raftstore's errors.
fn frames(outbound: StreamSender, inbound: StreamReceiver) -> (FrameSink, FrameSource) {
    let sink = outbound.sink_map_err(send_error);
    let source = inbound.map(|frame| frame.map_err(send_error));
    (Box::pin(sink), Box::pin(source))
}
