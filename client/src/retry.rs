//! Pauses between attempts, and the budget that bounds them.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// Bounds the repeated attempts of all operations together, so that a cluster in trouble is not
/// asked more often than a healthy one: each success earns a part of an attempt.
#[derive(Debug)]
pub(crate) struct Budget(AtomicI64);

impl Budget {
    const ATTEMPT: i64 = 10;
    const EARNED: i64 = 2;
    const MAX: i64 = 1000 * Self::ATTEMPT;

    pub fn new() -> Self {
        Self(AtomicI64::new(Self::MAX))
    }

    pub fn succeeded(&self) {
        if self.0.load(Ordering::Relaxed) < Self::MAX {
            self.0.fetch_add(Self::EARNED, Ordering::Relaxed);
        }
    }

    /// Takes an attempt out; without any left, attempts are made at the longest pause only.
    fn take(&self) -> bool {
        let left = self.0.fetch_sub(Self::ATTEMPT, Ordering::Relaxed) >= Self::ATTEMPT;
        if !left {
            self.0.fetch_add(Self::ATTEMPT, Ordering::Relaxed);
        }
        left
    }
}

/// The attempts of one operation.
pub(crate) struct Attempts<'a> {
    budget: &'a Budget,
    pub deadline: Instant,
    pause: Duration,
}

impl<'a> Attempts<'a> {
    pub fn new(budget: &'a Budget, timeout: Duration) -> Self {
        Self { budget, deadline: Instant::now() + timeout, pause: PAUSE_MIN }
    }

    /// Time that is left.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Pauses before the next attempt, at least for `at_least`; `false` if there is no time for
    /// one.
    pub async fn pause(&mut self, at_least: Duration) -> bool {
        let pause = if self.budget.take() { self.pause } else { PAUSE_MAX };
        let jittered = pause.mul_f64(0.5 + fastrand::f64());
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        let pause = jittered.max(at_least);
        if pause >= self.left() {
            return false;
        }
        tokio::time::sleep(pause).await;
        true
    }
}
