//! `/health`, `/ready` and `/metrics`.

use crate::{MetricsHandle, build_info};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::serve::Listener;
use isotherm_listen::{Connection, Connections};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Connections at a time: those who ask for health and metrics are few.
const CONNECTIONS_MAX: usize = 256;

/// What a process knows of its own health.
pub trait Health: Send + Sync + 'static {
    /// Whether the process works at all; if not, why.
    fn alive(&self) -> Result<(), String>;
    /// Whether it serves its users; if not, why.
    fn ready(&self) -> Result<(), String>;
}

struct Shared {
    health: Arc<dyn Health>,
    metrics: MetricsHandle,
}

fn answer(state: Result<(), String>) -> (StatusCode, String) {
    match state {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// What axum takes connections from.
struct Incoming(Connections);

impl Listener for Incoming {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        self.0.next().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Serves until `stop`.
pub async fn serve_http(
    listener: TcpListener,
    health: Arc<dyn Health>,
    metrics: MetricsHandle,
    stop: CancellationToken,
) -> io::Result<()> {
    let upkeep = metrics.clone();
    let until = stop.clone();
    tokio::spawn(isotherm_task::until("upkeep of metrics", stop.clone(), async move {
        while until.run_until_cancelled(tokio::time::sleep(UPKEEP_INTERVAL)).await.is_some() {
            upkeep.upkeep();
        }
    }));
    let info = build_info();
    metrics::gauge!("isotherm_build_info", "version" => info.version).set(1.0);
    let shared = Arc::new(Shared { health, metrics });
    let routes = Router::new()
        .route(
            "/health",
            get(|State(s): State<Arc<Shared>>| async move { answer(s.health.alive()) }),
        )
        .route(
            "/ready",
            get(|State(s): State<Arc<Shared>>| async move { answer(s.health.ready()) }),
        )
        .route("/metrics", get(|State(s): State<Arc<Shared>>| async move { s.metrics.render() }))
        .with_state(shared);
    let server = axum::serve(Incoming(Connections::new(listener, CONNECTIONS_MAX)), routes);
    match stop.run_until_cancelled(async move { server.await }).await {
        Some(served) => served,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    struct Half;

    impl Health for Half {
        fn alive(&self) -> Result<(), String> {
            Ok(())
        }
        fn ready(&self) -> Result<(), String> {
            Err("waiting for 2 of 3 nodes".to_owned())
        }
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn health_readiness_and_metrics_are_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = MetricsHandle::install();
        tokio::spawn(serve_http(listener, Arc::new(Half), metrics, CancellationToken::new()));
        assert!(get(address, "/health").await.starts_with("HTTP/1.1 200"));
        let ready = get(address, "/ready").await;
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("2 of 3"), "{ready}");
        let metrics = get(address, "/metrics").await;
        assert!(metrics.contains("process_resident_memory_bytes"), "{metrics}");
        assert!(get(address, "/nothing").await.starts_with("HTTP/1.1 404"));
    }

    /// As many as may be there at a time say nothing; one more is closed, and takes the place of one that goes.
    #[tokio::test]
    async fn connections_beyond_the_limit_are_closed_until_there_is_room() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = MetricsHandle::install();
        tokio::spawn(serve_http(listener, Arc::new(Half), metrics, CancellationToken::new()));
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let mut socket = TcpStream::connect(address).await.unwrap();
            // Answered, so that it certainly counts.
            socket.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut answer = [0; 15];
            socket.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200 OK");
            idle.push(socket);
        }
        let mut beyond = TcpStream::connect(address).await.unwrap();
        let closed = tokio::time::timeout(Duration::from_secs(10), beyond.read(&mut [0])).await;
        assert_eq!(closed.expect("it is closed at once").unwrap_or(0), 0);
        drop(idle.pop());
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        // A moment passes until the server sees that one is gone.
        while !try_get(address).await {
            assert!(std::time::Instant::now() < deadline, "there is room again");
        }
    }

    async fn try_get(address: SocketAddr) -> bool {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let sent = socket.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
        sent.is_ok() && socket.read_exact(&mut [0; 15]).await.is_ok()
    }
}
