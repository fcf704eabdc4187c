//! gRPC channels with the settings that all of our connections share.

use crate::TransportError;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Flow-control windows: larger than what is in flight on a fast link, so that only our own
/// bounded queues push back.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 4 << 20;
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// A machine that vanished without closing its connections is noticed after interval + timeout.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

fn endpoint(address: &str) -> Result<Endpoint, TransportError> {
    let bad = |why: String| TransportError::Address { address: address.to_owned(), why };
    if !address.contains(':') {
        return Err(bad("it has no port; write host:port".to_owned()));
    }
    let endpoint =
        Endpoint::from_shared(format!("http://{address}")).map_err(|e| bad(e.to_string()))?;
    Ok(endpoint
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

/// A channel to `address` (`host:port`). Connects when it is first used, and again when it broke.
pub fn channel(address: &str) -> Result<Channel, TransportError> {
    Ok(endpoint(address)?.connect_lazy())
}

/// A channel to `address` that is connected. An error means that nothing was sent.
pub async fn connect(address: &str) -> Result<Channel, TransportError> {
    let connected = endpoint(address)?.connect().await;
    connected.map_err(|e| {
        use std::error::Error;
        let why = e.source().map_or_else(|| e.to_string(), ToString::to_string);
        TransportError::Unreachable(format!("{address}: {why}"))
    })
}
