//! A gRPC server with the settings that all of our connections share.

use crate::channel::{
    CONNECTION_WINDOW_BYTES, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, STREAM_WINDOW_BYTES,
};
use futures::stream;
use isotherm_listen::Connections;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

/// How long calls that are being answered may take once the server is told to stop. Long-lived
/// streams never end by themselves, so this is short.
const GRACE: Duration = Duration::from_millis(500);
/// Streams of one connection at a time: more wait.
const STREAMS_MAX: u32 = 4096;
const BACKLOG: u32 = 1024;

/// Takes the port, so that a port in use is found before anything else happens.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A port whose former connections are in TIME_WAIT is free; one that is listened on is not.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves `routes` on at most `connections_max` connections at a time until `stop`; what is being answered then gets a moment to finish.
pub async fn serve(
    listener: TcpListener,
    routes: Routes,
    connections_max: usize,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    // It sets TCP_NODELAY itself: `Server::tcp_nodelay` is ignored for a given listener.
    let connections = Connections::new(listener, connections_max);
    let incoming = stream::unfold(connections, |mut connections| async move {
        let (connection, _) = connections.next().await;
        Some((Ok::<_, io::Error>(connection), connections))
    });
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_MAX)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    tokio::select! {
        served = server => served,
        () = grace_after(stop) => Ok(()),
    }
}

async fn grace_after(stop: CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(GRACE).await;
}
