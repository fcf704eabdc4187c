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
    let watchdog = watchdog_interval().map(|interval| interval / 3);
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

/// The interval within which the manager wants to hear of this process, as sd_watchdog_enabled(3) has it:
/// `WATCHDOG_PID` counts only if it is set (the crate wants it to be).
fn watchdog_interval() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().ok());
    let is_meant = number("WATCHDOG_PID").is_none_or(|pid| pid == Some(std::process::id().into()));
    let interval = number("WATCHDOG_USEC").flatten().filter(|us| *us > 0 && is_meant)?;
    Some(Duration::from_micros(interval))
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
