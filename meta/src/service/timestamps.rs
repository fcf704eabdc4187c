//! Timestamps over a stream.

use super::grpc::Service;
use crate::oracle::{COUNT_MAX, Oracle, Refusal};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use isotherm_proto::WireError;
use isotherm_proto::internal as pb;
use isotherm_proto::internal::error::Code;
use std::time::Duration;
use tonic::{Status, Streaming};

/// Requests of one stream that may be on their way.
const IN_FLIGHT_MAX: usize = 256;
/// Longer than the oracle waits for a quorum or a window.
const TIMEOUT: Duration = Duration::from_secs(4);

impl Service {
    /// Answers in the order of the requests. Each is with the oracle from the moment at which it
    /// is read, so that several share a round.
    pub(super) fn serve_timestamps(
        &self,
        requests: Streaming<pb::TimestampsRequest>,
    ) -> BoxStream<'static, Result<pb::TimestampsResponse, Status>> {
        let (meta, stop) = (self.meta.clone(), self.stop.clone());
        let serve = move |request: Result<pb::TimestampsRequest, Status>| match request {
            Err(status) => futures::future::ready(Err(status)).boxed(),
            Ok(request) => {
                match meta.leading().and_then(|_| meta.check_cluster(request.cluster_id)) {
                    Ok(()) => begin(&meta.oracle, request),
                    Err(error) => refuse(request.id, error),
                }
            }
        };
        requests.map(serve).buffered(IN_FLIGHT_MAX).take_until(stop.cancelled_owned()).boxed()
    }
}

type Answer = BoxFuture<'static, Result<pb::TimestampsResponse, Status>>;

fn refuse(id: u64, error: WireError) -> Answer {
    let error = Some(error.into());
    futures::future::ready(Ok(pb::TimestampsResponse { id, error, first: 0, count: 0 })).boxed()
}

fn begin(oracle: &Oracle, request: pb::TimestampsRequest) -> Answer {
    let pb::TimestampsRequest { id, count, .. } = request;
    if !(1..=COUNT_MAX).contains(&count) {
        let why = format!("{count} timestamps cannot be given at once, only 1 to {COUNT_MAX}");
        return refuse(id, WireError::new(Code::Invalid, why));
    }
    let answer = oracle.request(count);
    async move {
        let late = Refusal::Unavailable("the oracle did not answer in time");
        let stopping = Refusal::Unavailable("this meta member is stopping");
        let issued = match tokio::time::timeout(TIMEOUT, answer).await {
            Ok(issued) => issued.unwrap_or(Err(stopping)),
            Err(_) => Err(late),
        };
        Ok(match issued {
            Ok(first) => pb::TimestampsResponse { id, error: None, first: first.get(), count },
            Err(refusal) => {
                let error = Some(WireError::from(refusal).into());
                pb::TimestampsResponse { id, error, first: 0, count: 0 }
            }
        })
    }
    .boxed()
}
