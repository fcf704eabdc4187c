//! How much memory requests and their answers may take on this node, all together.
//!
//! | who | how much of it | for how long |
//! |---|---|---|
//! | a stream of a client that routes (`range_stream.rs`) | half | a message until it is done, an answer until it goes to the wire |
//! | unary calls (`isotherm.v1`, [`Admitted`]) | half, all together | from the first byte of the request until the answer is known |
//!
//! Unary calls of the public API are carried out by streams, here or on other nodes: they leave room for
//! those, so that they end.

use super::refusal::refused;
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::Frame;
use isotherm_proto::v1::Reason;
use isotherm_transport::{ByteBudget, BytesHeld};
use isotherm_types::limits;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

/// What a request is told to wait when there is no memory for it.
pub const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// What a unary call costs beside its message, about.
const CALL_BYTES: usize = 16 << 10;

/// Memory of requests and answers of a node.
#[derive(Debug, Clone)]
pub struct RequestMemory {
    whole: ByteBudget,
    unary: ByteBudget,
}

impl RequestMemory {
    /// Nothing is held yet.
    pub fn new(bytes_max: usize) -> Self {
        let whole = ByteBudget::with_gauge(bytes_max, metrics::gauge!("isotherm_request_bytes"));
        metrics::gauge!("isotherm_request_limit_bytes").set(bytes_max as f64);
        Self { unary: whole.share(bytes_max / 2), whole }
    }

    /// What one stream may take of it.
    pub fn stream(&self) -> ByteBudget {
        self.whole.share(self.whole.bytes_max() / 2)
    }

    /// A service whose unary calls take from it.
    pub fn admit<S>(&self, service: S) -> Admitted<S> {
        Admitted { service, memory: self.unary.clone() }
    }
}

fn no_memory() -> Status {
    metrics::counter!("isotherm_requests_refused_total", "reason" => "memory").increment(1);
    let why = "this node holds as many requests as it has memory for: try again";
    refused(Reason::Busy, why)
}

/// What tonic says of a message above the limit of a service (tonic, codec/decode.rs). Its code,
/// OUT_OF_RANGE, stands for timestamps in the public API.
fn is_too_large(answer: &http::Response<Body>) -> bool {
    Status::from_header_map(answer.headers()).is_some_and(|status| {
        status.code() == tonic::Code::OutOfRange
            && status.message().contains("message length too large")
    })
}

fn too_large() -> Status {
    let max = limits::MESSAGE_BYTES_MAX;
    refused(Reason::TooLarge, format!("the request has more than {max} bytes: send less at a time"))
}

/// A service whose requests are held in memory only as far as there is room: also those that have not
/// arrived completely.
#[derive(Debug, Clone)]
pub struct Admitted<S> {
    service: S,
    memory: ByteBudget,
}

impl<S: NamedService> NamedService for Admitted<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Admitted<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Some(held) = self.memory.try_take(CALL_BYTES) else {
            return Box::pin(async { Ok(no_memory().into_http()) });
        };
        let held = Arc::new(Mutex::new(held));
        let of_body = held.clone();
        let answer =
            self.service.call(request.map(|body| Body::new(Counted { body, held: of_body })));
        Box::pin(async move {
            let answer = answer.await?;
            drop(held);
            Ok(if is_too_large(&answer) { too_large().into_http() } else { answer })
        })
    }
}

/// The body of a request, whose bytes are held as they come.
struct Counted {
    body: Body,
    held: Arc<Mutex<BytesHeld>>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        if bytes > 0 && !self.held.lock().try_grow(bytes) {
            return Poll::Ready(Some(Err(no_memory())));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::FutureExt;
    use http_body::Body as _;
    use std::future::poll_fn;

    /// A body of so many pieces of a MiB, which then ends or does not.
    struct Pieces(usize, bool);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            match self.0.checked_sub(1) {
                Some(left) => {
                    self.0 = left;
                    Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0; 1 << 20])))))
                }
                None if self.1 => Poll::Ready(None),
                None => Poll::Pending,
            }
        }
    }

    /// Takes a request completely, and answers with its size, or with what broke it.
    #[derive(Clone)]
    struct Taker;

    impl Service<http::Request<Body>> for Taker {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Self::Future {
            Box::pin(async move {
                let mut body = request.into_body();
                loop {
                    match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                        Some(Ok(_)) => {}
                        Some(Err(status)) => return Ok(status.into_http()),
                        None => return Ok(http::Response::new(Body::empty())),
                    }
                }
            })
        }
    }

    fn request(pieces: usize, ends: bool) -> http::Request<Body> {
        http::Request::new(Body::new(Pieces(pieces, ends)))
    }

    fn code(answer: Option<Result<http::Response<Body>, Infallible>>) -> tonic::Code {
        let answer = answer.unwrap().unwrap();
        Status::from_header_map(answer.headers()).map_or(tonic::Code::Ok, |status| status.code())
    }

    #[test]
    fn requests_that_have_not_arrived_completely_are_bounded_in_bytes() {
        let memory = RequestMemory::new(20 << 20);
        let mut service = memory.admit(Taker);
        // Unary calls have half of it: one of four times 2 MiB that never ends is too many.
        let mut arriving: Vec<_> = (0..4).map(|_| service.call(request(2, false))).collect();
        assert!(arriving.iter_mut().all(|call| call.now_or_never().is_none()));
        let refused = service.call(request(2, true)).now_or_never();
        assert_eq!(code(refused), tonic::Code::ResourceExhausted);
        assert!(memory.stream().try_take(8 << 20).is_some(), "streams have the rest");
        drop(arriving.pop());
        assert_eq!(code(service.call(request(2, true)).now_or_never()), tonic::Code::Ok);
        drop(arriving);
        assert_eq!(memory.whole.used(), 0);
        assert_eq!(code(service.call(request(16, true)).now_or_never()), tonic::Code::Ok, "alone");
    }
}
