//! Connections of a server, gRPC or HTTP: so many at a time, and no more than the process has files for.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Between two attempts while the process or the machine has no file, or no memory, for a connection.
/// The listener stays ready all that time: without a pause this would take a whole core.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A connection that counts until it is dropped.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    _counted: OwnedSemaphorePermit,
}

/// Where connections come from.
pub trait Accept: Send {
    /// The next one, and who opened it.
    fn accept(&mut self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send;
}

impl Accept for TcpListener {
    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        TcpListener::accept(self).await
    }
}

/// The connections of a listener, so many at a time. Those beyond are closed at once, so that their clients
/// try another process instead of waiting here.
#[derive(Debug)]
pub struct Connections<L = TcpListener> {
    listener: L,
    room: Arc<Semaphore>,
}

impl<L: Accept> Connections<L> {
    /// Those of `listener`, at most `connections_max` at a time.
    pub fn new(listener: L, connections_max: usize) -> Self {
        Self { listener, room: Arc::new(Semaphore::new(connections_max)) }
    }

    /// The next one, and who opened it. Dropped before that, it loses none.
    pub async fn next(&mut self) -> (Connection, SocketAddr) {
        let mut pause = PAUSE;
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => match self.room.clone().try_acquire_owned() {
                    Ok(counted) => {
                        // A connection that is gone already says so when it is read.
                        let _ = stream.set_nodelay(true);
                        return (Connection { stream, _counted: counted }, address);
                    }
                    Err(_) => metrics::counter!("isotherm_connections_refused_total").increment(1),
                },
                // Whoever knocked is gone again.
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if pause == PAUSE {
                        tracing::warn!(%error, "no connection can be accepted: trying on");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }
}

impl Connections {
    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Instant;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A process that has no files for connections for so many attempts.
    struct WithoutFiles(u32, TcpListener);

    impl Accept for WithoutFiles {
        async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
            if self.0 == 0 {
                return Accept::accept(&mut self.1).await;
            }
            self.0 -= 1;
            const EMFILE: i32 = 24;
            Err(io::Error::from_raw_os_error(EMFILE))
        }
    }

    /// Somebody waits to be accepted all the time: without pauses that would take a whole core.
    #[tokio::test]
    async fn while_there_are_no_files_for_connections_it_is_tried_now_and_then() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(b"x").await.unwrap();
        let begun = Instant::now();
        let mut connections = Connections::new(WithoutFiles(3, listener), 1);
        let (mut served, _) = connections.next().await;
        assert!(begun.elapsed() >= PAUSE * 7, "three attempts within {:?}", begun.elapsed());
        assert_eq!(served.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_are_closed_until_there_is_room() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections = Connections::new(listener, 1);
        let mut first = TcpStream::connect(address).await.unwrap();
        let (mut served, _) = connections.next().await;
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut third = TcpStream::connect(address).await.unwrap();
        let next = tokio::spawn(async move { connections.next().await.0 });
        // Closed by the other side, without a word.
        assert_eq!(second.read(&mut [0]).await.unwrap_or(0), 0);
        assert_eq!(third.read(&mut [0]).await.unwrap_or(0), 0);
        first.write_all(b"x").await.unwrap();
        assert_eq!(served.read_u8().await.unwrap(), b'x');
        drop(served);
        let mut fourth = TcpStream::connect(address).await.unwrap();
        fourth.write_all(b"y").await.unwrap();
        assert_eq!(next.await.unwrap().read_u8().await.unwrap(), b'y');
    }
}
