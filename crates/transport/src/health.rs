//! `grpc.health.v1` as the process knows its own readiness, at the moment at which it is asked.

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Between two looks on behalf of those who watch.
const LOOK_EVERY: Duration = Duration::from_millis(500);

type Ready = dyn Fn() -> bool + Send + Sync;

/// The health service of a process that serves `services`: SERVING while `is_ready`, and NOT_SERVING
/// otherwise, for each of them and for the process as a whole (the empty name). Watches end with
/// `stop`.
pub fn health_service(
    services: &'static [&'static str],
    is_ready: impl Fn() -> bool + Send + Sync + 'static,
    stop: CancellationToken,
) -> HealthServer<impl Health> {
    HealthServer::new(Readiness { services, is_ready: std::sync::Arc::new(is_ready), stop })
}

struct Readiness {
    services: &'static [&'static str],
    is_ready: std::sync::Arc<Ready>,
    stop: CancellationToken,
}

impl Readiness {
    fn knows(&self, service: &str) -> bool {
        service.is_empty() || self.services.contains(&service)
    }
}

fn answer(is_ready: &Ready) -> HealthCheckResponse {
    let status = if is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Readiness {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !self.knows(&service) {
            return Err(Status::not_found(format!("{service:?} is not served here")));
        }
        Ok(Response::new(answer(&*self.is_ready)))
    }

    /// What is now, and every change of it.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        if !self.knows(&request.into_inner().service) {
            let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
            let stop = self.stop.clone().cancelled_owned();
            let said = stream::iter([Ok(unknown)]).chain(stream::pending()).take_until(stop);
            return Ok(Response::new(said.boxed()));
        }
        let is_ready = self.is_ready.clone();
        let changes = stream::unfold(None, move |last: Option<HealthCheckResponse>| {
            let is_ready = is_ready.clone();
            async move {
                loop {
                    let now = answer(&*is_ready);
                    if last.as_ref() != Some(&now) {
                        return Some((Ok(now), Some(now)));
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        });
        let stop = self.stop.clone().cancelled_owned();
        Ok(Response::new(changes.take_until(stop).boxed()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn readiness(is_ready: &Arc<AtomicBool>, stop: &CancellationToken) -> Readiness {
        let is_ready = is_ready.clone();
        let is_ready = Arc::new(move || is_ready.load(Ordering::Relaxed));
        Readiness { services: &["isotherm.v1.Kv"], is_ready, stop: stop.clone() }
    }

    fn about(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest { service: service.to_owned() })
    }

    #[tokio::test]
    async fn a_check_says_what_is_at_that_moment() {
        let ready = Arc::new(AtomicBool::new(false));
        let health = readiness(&ready, &CancellationToken::new());
        for is_ready in [false, true, false] {
            ready.store(is_ready, Ordering::Relaxed);
            for service in ["", "isotherm.v1.Kv"] {
                let said = health.check(about(service)).await.unwrap().into_inner().status();
                assert_eq!(said == ServingStatus::Serving, is_ready, "{service:?}: {said:?}");
            }
        }
        let unknown = health.check(about("isotherm.v2.Kv")).await.unwrap_err();
        assert_eq!(unknown.code(), tonic::Code::NotFound);
    }

    #[tokio::test]
    async fn a_watch_says_every_change_and_ends_with_the_process() {
        let (ready, stop) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let health = readiness(&ready, &stop);
        let mut said = health.watch(about("")).await.unwrap().into_inner();
        let next = async |said: &mut <Readiness as Health>::WatchStream| {
            said.next().await.map(|answer| answer.unwrap().status())
        };
        assert_eq!(next(&mut said).await, Some(ServingStatus::NotServing));
        ready.store(true, Ordering::Relaxed);
        assert_eq!(next(&mut said).await, Some(ServingStatus::Serving));
        let mut unknown = health.watch(about("nothing")).await.unwrap().into_inner();
        assert_eq!(next(&mut unknown).await, Some(ServingStatus::ServiceUnknown));
        stop.cancel();
        assert_eq!(next(&mut said).await, None);
        assert_eq!(next(&mut unknown).await, None);
    }
}
