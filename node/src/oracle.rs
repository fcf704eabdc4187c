//! Timestamps from the meta leader.
//!
//! One task gathers what waits into one request and sends it; several are in flight. An operation
//! joins only a request that is not yet sent, and nothing is fetched ahead: its timestamp lies
//! inside the real time of the operation. A broken stream fails what is in flight, which is safe:
//! no write was proposed under a timestamp that never arrived.
//!
//! The oracle counts as down once it did not answer or could not be reached. Then everything is
//! refused at once, so that nothing waits behind an operation that cannot be done, until a request
//! of this task's own is answered.

use futures::future::BoxFuture;
use isotherm_proto::internal::error::Code;
use isotherm_proto::internal::{TimestampsRequest, TimestampsResponse};
use isotherm_raftstore::{OracleError, TimestampSource};
use isotherm_transport::MetaLink;
use isotherm_types::{ClusterId, Timestamp};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

/// Requests in flight.
const IN_FLIGHT_MAX: usize = 4;
/// Operations that share a request.
const SHARE_MAX: usize = 4096;
/// Operations that wait; more are refused.
const WAITING_MAX: usize = 16 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// The oracle is down when connecting takes longer.
const DOWN_AFTER: Duration = Duration::from_millis(500);
/// A request that stays unanswered for this long means a stuck stream.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

type Waiter = oneshot::Sender<Result<Timestamp, OracleError>>;

/// The oracle as the node's replicas see it.
#[derive(Clone)]
pub struct Oracle {
    waiting: mpsc::Sender<Waiter>,
    is_down: Arc<AtomicBool>,
}

impl Oracle {
    /// Starts its task, which asks for timestamps of `cluster` until `stop`. `is_up`: whether the meta
    /// service has answered a moment ago.
    pub fn start(
        meta: Arc<MetaLink>,
        cluster: ClusterId,
        is_up: bool,
        stop: CancellationToken,
    ) -> Self {
        let (waiting, queue) = mpsc::channel(WAITING_MAX);
        let is_down = Arc::new(AtomicBool::new(!is_up));
        let task = Task { meta, cluster, queue, is_down: is_down.clone() };
        let until = stop.clone();
        let run = async move { until.run_until_cancelled(task.run()).await };
        tokio::spawn(isotherm_task::until("timestamps", stop, run));
        Self { waiting, is_down }
    }
}

impl TimestampSource for Oracle {
    fn timestamp(&self) -> BoxFuture<'static, Result<Timestamp, OracleError>> {
        if self.is_down() {
            return Box::pin(async { Err(OracleError("it does not answer now".to_owned())) });
        }
        let (waiter, answer) = oneshot::channel();
        let sent = self.waiting.try_send(waiter);
        Box::pin(async move {
            sent.map_err(|_| OracleError("too many operations wait for timestamps".to_owned()))?;
            answer.await.unwrap_or_else(|_| Err(OracleError("stopping".to_owned())))
        })
    }

    fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Acquire)
    }
}

struct Task {
    meta: Arc<MetaLink>,
    cluster: ClusterId,
    queue: mpsc::Receiver<Waiter>,
    is_down: Arc<AtomicBool>,
}

struct Request {
    id: u64,
    sent: Instant,
    waiters: Vec<Waiter>,
}

impl Task {
    async fn run(mut self) {
        loop {
            let connecting = connect(self.meta.clone());
            tokio::pin!(connecting);
            let connected = match tokio::time::timeout(DOWN_AFTER, &mut connecting).await {
                Ok(connected) => connected,
                Err(_) => {
                    self.go_down("no answer in time");
                    connecting.await
                }
            };
            match connected {
                Ok((requests, answers)) => {
                    let error = self.serve(requests, answers).await;
                    tracing::debug!(error, "timestamp stream ended");
                    self.meta.forget_leader();
                }
                Err(error) => {
                    self.go_down(&error);
                    self.meta.forget_leader();
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// Refuses what waits, and everything until a request is answered.
    fn go_down(&mut self, why: &str) {
        if !self.is_down.swap(true, Ordering::AcqRel) {
            tracing::warn!(why, "no timestamps from the meta service: writes are refused");
        }
        while let Ok(waiter) = self.queue.try_recv() {
            let _ = waiter.send(Err(OracleError(why.to_owned())));
        }
    }

    /// Serves over one stream until it breaks; why it did.
    async fn serve(
        &mut self,
        requests: mpsc::Sender<TimestampsRequest>,
        mut answers: Streaming<TimestampsResponse>,
    ) -> String {
        let mut in_flight: VecDeque<Request> = VecDeque::new();
        let mut next = 1;
        let cluster_id = self.cluster.get();
        if self.is_down.load(Ordering::Acquire) {
            // For nobody: nothing is let through before an answer has come.
            in_flight.push_back(Request { id: next, sent: Instant::now(), waiters: Vec::new() });
            let probe = TimestampsRequest { id: next, count: 1, cluster_id };
            if requests.send(probe).await.is_err() {
                return "closed by the meta service".to_owned();
            }
            next += 1;
        }
        let error = loop {
            let deadline = in_flight.front().map(|r| r.sent + ANSWER_TIMEOUT);
            let late = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            let mut waiters = Vec::new();
            tokio::select! {
                biased;
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        if let Err(error) = self.deliver(answer, &mut in_flight) {
                            break error;
                        }
                    }
                    Ok(None) => break "closed by the meta service".to_owned(),
                    Err(status) => break status.message().to_owned(),
                },
                n = self.queue.recv_many(&mut waiters, SHARE_MAX), if in_flight.len() < IN_FLIGHT_MAX => {
                    if n == 0 {
                        break "stopping".to_owned();
                    }
                    waiters.retain(|w| !w.is_closed());
                    if waiters.is_empty() {
                        continue;
                    }
                    let count = waiters.len() as u32;
                    metrics::counter!("isotherm_timestamp_requests_total").increment(1);
                    metrics::counter!("isotherm_timestamps_total").increment(u64::from(count));
                    in_flight.push_back(Request { id: next, sent: Instant::now(), waiters });
                    if requests.send(TimestampsRequest { id: next, count, cluster_id }).await.is_err() {
                        break "closed by the meta service".to_owned();
                    }
                    next += 1;
                }
                () = late => {
                    self.go_down("no answer in time");
                    break "no answer in time".to_owned();
                }
            }
        };
        for waiter in in_flight.into_iter().flat_map(|r| r.waiters) {
            let _ = waiter.send(Err(OracleError(error.clone())));
        }
        error
    }

    fn deliver(
        &mut self,
        answer: TimestampsResponse,
        in_flight: &mut VecDeque<Request>,
    ) -> Result<(), String> {
        let Some(request) = in_flight.pop_front().filter(|r| r.id == answer.id) else {
            return Err("answers are out of order".to_owned());
        };
        let seconds = request.sent.elapsed().as_secs_f64();
        metrics::histogram!("isotherm_timestamp_wait_seconds").record(seconds);
        if let Err(error) = self.meta.check(answer.error) {
            let text = error.to_string();
            if error.code() != Code::NotLeader {
                self.go_down(&text);
            }
            for waiter in request.waiters {
                let _ = waiter.send(Err(OracleError(text.clone())));
            }
            return Err(text);
        }
        if (answer.count as usize) < request.waiters.len() {
            return Err("fewer timestamps than were asked for".to_owned());
        }
        if self.is_down.swap(false, Ordering::AcqRel) {
            tracing::info!("timestamps come from the meta service again");
        }
        for (ts, waiter) in (answer.first..).zip(request.waiters) {
            // Whoever gave up leaves its timestamp unused: it is never given to another.
            let _ = waiter.send(Ok(Timestamp(ts)));
        }
        Ok(())
    }
}

/// A stream of timestamps from meta's leader.
async fn connect(
    meta: Arc<MetaLink>,
) -> Result<(mpsc::Sender<TimestampsRequest>, Streaming<TimestampsResponse>), String> {
    let mut leader = meta.leader().await.map_err(|e| e.to_string())?;
    let (requests, sent) = mpsc::channel(IN_FLIGHT_MAX);
    let opened = leader.timestamps(ReceiverStream::new(sent));
    let opened = tokio::time::timeout(CONNECT_TIMEOUT, opened).await;
    let opened = opened.map_err(|_| "no answer in time".to_owned())?;
    Ok((requests, opened.map_err(|s| s.message().to_owned())?.into_inner()))
}
