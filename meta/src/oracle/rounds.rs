//! Rounds: what covers answers with a confirmation that began after their requests had arrived.

use super::handle::{Refusal, Request, Shared};
use super::issuer::Short;
use crate::machine::Reign;
use crate::metrics as names;
use isotherm_raftstore::GroupError;
use isotherm_task::guarded;
use isotherm_types::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// One that is on its way, and one that gathers behind it: a request waits one and a half round
/// trips on average, and rounds do not pile up.
const ROUNDS_MAX: usize = 2;
/// Most requests in one round.
const BATCH_MAX: usize = 1024;
/// How long a request may wait for a window.
const WINDOW_TIMEOUT: Duration = Duration::from_secs(2);

/// How long, and how often, a member that seems to lead is asked again.
const UNDECIDED_TIMEOUT: Duration = Duration::from_millis(500);
const UNDECIDED_PAUSE: Duration = Duration::from_millis(5);

/// The wall clock, in microseconds since the Unix epoch.
pub(super) fn wall_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Gathers what waits and starts rounds, until `stop`.
pub(super) async fn collect(
    shared: Arc<Shared>,
    mut requests: mpsc::Receiver<Request>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let rounds = Arc::new(Semaphore::new(ROUNDS_MAX));
    let collect = async {
        // Rounds issue in the order in which they began, whichever is confirmed first: so of two
        // requests of one stream the later has the higher timestamps.
        let (_, mut previous) = oneshot::channel();
        // The permit comes first: requests that arrive while none is free join the next round.
        while let Ok(permit) = rounds.clone().acquire_owned().await {
            let mut batch = Vec::new();
            if requests.recv_many(&mut batch, BATCH_MAX).await == 0 {
                return;
            }
            let (issued, next) = oneshot::channel::<()>();
            let turn = std::mem::replace(&mut previous, next);
            let shared = shared.clone();
            tasks.spawn(guarded("oracle round", async move {
                shared.round(batch, turn).await;
                drop((issued, permit));
            }));
        }
    };
    stop.run_until_cancelled(collect).await;
}

impl Shared {
    /// Serves `batch`, all of which arrived before this call, when its turn has come: when the
    /// other end of `turn` is dropped.
    async fn round(&self, batch: Vec<Request>, turn: oneshot::Receiver<()>) {
        let started = Instant::now();
        let confirmed = self.confirm().await;
        let pause = self.faults.pause_after_confirm();
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let _ = turn.await;
        let mut issued = 0;
        for request in batch {
            let answer = match &confirmed {
                Ok(term) => self.issue(*term, request.count).await,
                Err(refusal) => Err(refusal.clone()),
            };
            issued += if answer.is_ok() { u64::from(request.count) } else { 0 };
            // Whoever asked may be gone; timestamps that nobody takes are lost, which is fine.
            let _ = request.reply.send(answer);
        }
        metrics::counter!(names::ORACLE_ROUNDS).increment(1);
        metrics::counter!(names::TIMESTAMPS_ISSUED).increment(issued);
        metrics::histogram!(names::ORACLE_SECONDS).record(started.elapsed().as_secs_f64());
    }

    async fn confirm(&self) -> Result<u64, Refusal> {
        if self.faults.skip_confirm() {
            let leadership = *self.group.leadership().borrow();
            let refused = Refusal::NotLeader(leadership.leader);
            return if leadership.is_leader { Ok(leadership.term) } else { Err(refused) };
        }
        let deadline = Instant::now() + UNDECIDED_TIMEOUT;
        loop {
            let confirmed = self.group.confirm_leadership().await;
            // That nobody leads is said for moments in which this member still may: ask again, in
            // a new round.
            let is_undecided = confirmed == Err(GroupError::NotLeader { leader: None })
                && self.group.leadership().borrow().is_leader;
            if !is_undecided || Instant::now() >= deadline {
                return Ok(confirmed?);
            }
            tokio::time::sleep(UNDECIDED_PAUSE).await;
        }
    }

    /// Issues for this member as the leader of `term`, which was confirmed after the request had
    /// arrived.
    async fn issue(&self, term: u64, count: u32) -> Result<Timestamp, Refusal> {
        let reign = Reign { term, member: self.me };
        let deadline = Instant::now() + WINDOW_TIMEOUT;
        loop {
            let mut extended = self.extended.subscribe();
            let window = self.group.machine().read().window();
            let issued = self.issuer.lock().issue(window, reign, count, Instant::now(), wall_us());
            match issued {
                Ok(first) => return Ok(first),
                Err(Short::Deposed) => {
                    return Err(Refusal::NotLeader(self.group.leadership().borrow().leader));
                }
                Err(Short::Extend) => {}
            }
            self.short.notify_one();
            let left = deadline.saturating_duration_since(Instant::now());
            if tokio::time::timeout(left, extended.changed()).await.is_err() {
                return Err(Refusal::Unavailable("no window of timestamps could be had in time"));
            }
            let leadership = *self.group.leadership().borrow();
            if leadership.term > term || !leadership.is_leader {
                return Err(Refusal::NotLeader(leadership.leader));
            }
        }
    }
}
