//! What a service manager (systemd) is told of the process: that it is ready, that it stops, that it
//! is alive. Only where one asked for it by `NOTIFY_SOCKET`.

use crate::Health;
use sd_notify::NotifyState;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A start may last for as long as the cluster is not there: the limit of the service manager is
/// moved on this often, to so much later.
const EXTEND_EVERY: Duration = Duration::from_secs(10);
const EXTENDED_US: u32 = 60_000_000;

/// Tells the service manager how the process is until `stop`, and then that it stops:
///
/// * `READY=1` as soon as `health` is ready for the first time; until then `STATUS=` with what it waits
///   for, and longer time limits for the start;
/// * `WATCHDOG=1` at less than half of the interval that the manager asks for (`WATCHDOG_USEC`), while
///   `health` is alive: a process whose runtime stands still is silent, and started again;
/// * `STOPPING=1` on `stop`.
pub async fn notify_service_manager(health: Arc<dyn Health>, stop: CancellationToken) {
    if std::env::var_os("NOTIFY_SOCKET").is_none_or(|path| path.is_empty()) {
        return stop.cancelled().await;
    }
    let mut watchdog_us = 0;
    let watched = sd_notify::watchdog_enabled(false, &mut watchdog_us);
    let watchdog = watched.then(|| Duration::from_micros(watchdog_us) / 3);
    let every = watchdog.map_or(LOOK_EVERY, |watchdog| LOOK_EVERY.min(watchdog / 2));
    let mut teller = Teller { health, watchdog, is_ready: false, said: String::new(), beat: None };
    let mut extended: Option<tokio::time::Instant> = None;
    loop {
        teller.look();
        if !teller.is_ready && extended.is_none_or(|at| at.elapsed() >= EXTEND_EVERY) {
            tell(&[NotifyState::ExtendTimeoutUsec(EXTENDED_US)]);
            extended = Some(tokio::time::Instant::now());
        }
        if stop.run_until_cancelled(tokio::time::sleep(every)).await.is_none() {
            return tell(&[NotifyState::Stopping]);
        }
    }
}

/// What was told.
struct Teller {
    health: Arc<dyn Health>,
    watchdog: Option<Duration>,
    is_ready: bool,
    said: String,
    beat: Option<tokio::time::Instant>,
}

impl Teller {
    /// Tells what is new.
    fn look(&mut self) {
        let ready = self.health.ready();
        if !self.is_ready && ready.is_ok() {
            self.is_ready = true;
            tell(&[NotifyState::Ready]);
        }
        let status = ready.err().unwrap_or_else(|| "serving".to_owned());
        if status != self.said {
            tell(&[NotifyState::Status(&status)]);
            self.said = status;
        }
        let is_due = |every| self.beat.is_none_or(|at| at.elapsed() >= every);
        if self.watchdog.is_some_and(is_due) && self.health.alive().is_ok() {
            tell(&[NotifyState::Watchdog]);
            self.beat = Some(tokio::time::Instant::now());
        }
    }
}

/// A manager that does not listen is no reason to end.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}
