//! Keeping history for as long as a read takes.
//!
//! Meta lets history go some time after it was overwritten. A read that takes longer registers its
//! timestamp; the registration counts for a time (60 s) from when it was asked for, is renewed three
//! times within it, and ends with the [`Hold`]. One that could not be renewed in time is lost: the
//! read must end then. It would fail at the next page anyway: nodes themselves refuse to read what
//! may be gone, a hold only makes that not happen.

use super::read::not_applied;
use crate::client::{Client, Inner};
use crate::retry::Next;
use crate::{ClientError, ErrorKind};
use isotherm_proto::WireError;
use isotherm_proto::internal::error::Code;
use isotherm_proto::internal::{HoldSnapshotRequest, ReleaseSnapshotRequest};
use isotherm_transport::MetaClient;
use isotherm_types::Timestamp;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A registration of a long read. Renewed until it is dropped.
pub struct Hold {
    inner: Arc<Inner>,
    id: u64,
    at: Timestamp,
    good: Arc<Mutex<Good>>,
    renewal: JoinHandle<()>,
    is_registered: bool,
}

/// Until when it counts, and why not longer if that is known.
struct Good {
    until: Instant,
    lost: Option<ClientError>,
}

impl Client {
    /// Registers a read at `at`: history that it needs stays until the hold is dropped.
    /// [`ErrorKind::SnapshotTooOld`] if it may be gone already.
    pub async fn hold(&self, at: Timestamp) -> Result<Hold, ClientError> {
        self.hold_within(at, self.timeout()).await
    }

    async fn hold_within(&self, at: Timestamp, limit: Duration) -> Result<Hold, ClientError> {
        let inner = self.inner.clone();
        let (id, until, lifetime) = {
            let mut attempts = inner.attempts_until(Instant::now() + limit);
            loop {
                let asked = Instant::now();
                let error = match ask(&inner, 0, at, attempts.left()).await {
                    Ok((id, lifetime)) => break (id, asked + lifetime, lifetime),
                    Err(error) if is_final(&error) => return Err(error.into()),
                    Err(error) => ClientError::new(ErrorKind::Unavailable, error.0.message.clone()),
                };
                if !attempts.again(Next::PAUSE).await {
                    return Err(error);
                }
            }
        };
        let good = Arc::new(Mutex::new(Good { until, lost: None }));
        let renewal = tokio::spawn(renew(inner.clone(), id, at, lifetime, good.clone()));
        Ok(Hold { inner, id, at, good, renewal, is_registered: true })
    }
}

/// A registration that its caller renews.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// Its number.
    pub id: u64,
    /// For how long it counts from when it was asked for.
    pub lifetime: Duration,
}

impl Client {
    /// Registers a read at `at`, or renews the registration `id`: for callers that cannot keep a [`Hold`].
    pub async fn hold_once(&self, id: Option<u64>, at: Timestamp) -> Result<Holding, ClientError> {
        let mut attempts = self.inner.attempts();
        loop {
            let error = match ask(&self.inner, id.unwrap_or(0), at, attempts.left()).await {
                Ok((id, lifetime)) => return Ok(Holding { id, lifetime }),
                Err(error) if is_final(&error) => return Err(error.into()),
                Err(error) => not_applied(&error),
            };
            if !attempts.again(Next::PAUSE).await {
                return Err(error);
            }
        }
    }

    /// Ends the registration `id`. It would run out anyway.
    pub async fn release_hold(&self, id: u64) {
        release(self.inner.clone(), id).await;
    }
}

impl Hold {
    /// The timestamp that it is for.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Whether it still counts; [`ErrorKind::SnapshotTooOld`] if not.
    pub fn check(&self) -> Result<(), ClientError> {
        let good = self.good.lock();
        match &good.lost {
            Some(lost) => Err(lost.clone()),
            None if Instant::now() >= good.until => Err(late()),
            None => Ok(()),
        }
    }

    /// Ends it, and waits for a moment until meta knows: a process that ends right after dropping it
    /// would leave it to run out.
    pub async fn release(mut self) {
        self.is_registered = false;
        self.renewal.abort();
        release(self.inner.clone(), self.id).await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.renewal.abort();
        if self.is_registered
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(release(self.inner.clone(), self.id));
        }
    }
}

/// A read as of now registers after this: half of the shortest time for which history is kept.
const UNREGISTERED_MAX: Duration = Duration::from_millis(500);
/// How long a step of a read waits for the registration, and then the next attempt.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(2);
const REGISTER_PAUSE: Duration = Duration::from_secs(5);

/// Registers a read that turns out to take long: one at a given timestamp at once, one as of now
/// after a moment.
pub(super) struct Keeper {
    client: Client,
    hold: Option<Hold>,
    register_at: Instant,
}

impl Keeper {
    /// For a read at a given timestamp, or as of now.
    pub fn new(client: Client, is_past: bool) -> Self {
        let now = Instant::now();
        Self { client, hold: None, register_at: if is_past { now } else { now + UNREGISTERED_MAX } }
    }

    /// Registers when it is due; ends a read whose registration was lost. Between the steps of a read
    /// at `at`.
    pub async fn keep(&mut self, at: Timestamp) -> Result<(), ClientError> {
        if let Some(hold) = &self.hold {
            return hold.check();
        }
        let now = Instant::now();
        if now < self.register_at {
            return Ok(());
        }
        let limit = REGISTER_TIMEOUT.min(self.client.timeout() / 4);
        match self.client.hold_within(at, limit).await {
            Ok(hold) => self.hold = Some(hold),
            // While nobody leads the meta service nobody lets history go either.
            Err(error) if matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Busy) => {
                self.register_at = now + REGISTER_PAUSE;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The read is over.
    pub async fn release(&mut self) {
        if let Some(hold) = self.hold.take() {
            hold.release().await;
        }
    }
}

/// Refuses a timestamp at which nothing can be read, in the same words everywhere. On the wire 0 stands
/// for "now".
pub(super) fn check_at(at: Option<Timestamp>) -> Result<(), ClientError> {
    if at != Some(Timestamp::ZERO) {
        return Ok(());
    }
    let message = "no history goes back to timestamp 0: leave the timestamp out to read as of now";
    Err(ClientError::new(ErrorKind::SnapshotTooOld, message))
}

fn late() -> ClientError {
    let message = "this read took long, and the meta service could not be told in time to keep what \
                   it needs: read again at a later timestamp";
    ClientError::new(ErrorKind::SnapshotTooOld, message)
}

fn is_final(error: &WireError) -> bool {
    matches!(error.code(), Code::SnapshotTooOld | Code::Invalid | Code::Internal)
}

/// Registers (`id` 0) or renews, once. Returns the id and how long it counts from before the call.
async fn ask(
    inner: &Inner,
    id: u64,
    at: Timestamp,
    limit: Duration,
) -> Result<(u64, Duration), WireError> {
    let request = HoldSnapshotRequest { id, at: at.get() };
    let call = |mut leader: MetaClient| async move { leader.hold_snapshot(request).await };
    let answer = inner.meta.ask(limit.min(ATTEMPT_TIMEOUT), call).await?;
    inner.meta.check(answer.error)?;
    Ok((answer.id, Duration::from_millis(answer.lifetime_ms)))
}

/// Renews until it is aborted or the registration is lost.
async fn renew(
    inner: Arc<Inner>,
    id: u64,
    at: Timestamp,
    mut lifetime: Duration,
    good: Arc<Mutex<Good>>,
) {
    loop {
        tokio::time::sleep(lifetime / 3).await;
        loop {
            let asked = Instant::now();
            match ask(&inner, id, at, ATTEMPT_TIMEOUT).await {
                Ok((_, counts)) => {
                    lifetime = counts;
                    good.lock().until = asked + lifetime;
                    break;
                }
                Err(error) if is_final(&error) => {
                    good.lock().lost = Some(error.into());
                    return;
                }
                // A later leader takes it under the same id, if it is still in time.
                Err(_) => tokio::time::sleep(RETRY_PAUSE.min(lifetime / 6)).await,
            }
        }
    }
}

async fn release(inner: Arc<Inner>, id: u64) {
    let told = async {
        if let Ok(mut leader) = inner.meta.leader().await {
            // One that is not told lets it run out.
            let _ = leader.release_snapshot(ReleaseSnapshotRequest { id }).await;
        }
    };
    let _ = tokio::time::timeout(RELEASE_TIMEOUT, told).await;
}
