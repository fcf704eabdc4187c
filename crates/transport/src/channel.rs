//! gRPC channels with the settings that all of our connections share.

use crate::TransportError;
use crate::error::innermost;
use std::net::IpAddr;
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

/// Whether others could connect to `address`: a host that is not the wildcard, and a port. The error
/// says what is missing.
pub fn check_reachable(address: &str) -> Result<(), &'static str> {
    let Some((host, port)) = address.rsplit_once(':') else { return Err("it has no port") };
    match port.parse::<u16>() {
        Err(_) => return Err("its port is not a number up to 65535"),
        Ok(0) => return Err("port 0 is no port to connect to"),
        Ok(_) => {}
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if bare.is_empty() {
        return Err("it has no host");
    }
    match bare.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => Err("nobody can connect to the wildcard address"),
        _ => Ok(()),
    }
}

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
        let why = innermost(&e).unwrap_or_else(|| e.to_string());
        TransportError::Unreachable(format!("{address}: {why}"))
    })
}
