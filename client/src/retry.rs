//! Pauses between attempts, and the budget that bounds them.

use crate::{ClientError, ErrorKind};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// Attempts without a pause before them, one after the other: who is sent in circles pauses too.
const REDIRECTS_MAX: u32 = 3;

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

/// When to make the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The refusal said where to go instead.
    AtOnce,
    /// Nothing is known to have changed: after a pause, at least this long.
    AfterPause(Duration),
}

impl Next {
    /// After the usual pause.
    pub const PAUSE: Next = Next::AfterPause(Duration::ZERO);

    /// The one that comes first.
    pub fn sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::AfterPause(a), Self::AfterPause(b)) => Self::AfterPause(a.min(b)),
            _ => Self::AtOnce,
        }
    }
}

/// The attempts of one operation.
pub(crate) struct Attempts<'a> {
    budget: &'a Budget,
    pub deadline: Instant,
    pause: Duration,
    redirects: u32,
}

impl<'a> Attempts<'a> {
    pub fn new(budget: &'a Budget, timeout: Duration) -> Self {
        Self::until(budget, Instant::now() + timeout)
    }

    /// Attempts that share their deadline with others.
    pub fn until(budget: &'a Budget, deadline: Instant) -> Self {
        Self { budget, deadline, pause: PAUSE_MIN, redirects: 0 }
    }

    /// Time that is left.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Does `work`, which changes nothing, unless the time runs out before it is done.
    pub async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let late = || {
            let message = "nothing could be asked within the time limit";
            Err(ClientError::new(ErrorKind::Unavailable, message))
        };
        tokio::time::timeout_at(self.deadline.into(), work).await.unwrap_or_else(|_| late())
    }

    /// Waits until the next attempt is due; `false` if there is no time for one.
    pub async fn again(&mut self, next: Next) -> bool {
        let Some(delay) = self.delay(next) else { return false };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        true
    }

    /// How long to wait before the next attempt; `None` if there is no time for one.
    pub fn delay(&mut self, next: Next) -> Option<Duration> {
        let at_least = match next {
            Next::AtOnce if self.redirects < REDIRECTS_MAX && self.budget.take() => {
                self.redirects += 1;
                return (!self.left().is_zero()).then_some(Duration::ZERO);
            }
            Next::AtOnce => Duration::ZERO,
            Next::AfterPause(at_least) => at_least,
        };
        self.redirects = 0;
        self.pause_length(at_least)
    }

    /// Pauses before the next attempt, at least for `at_least`; `false` if there is no time for
    /// one.
    pub async fn pause(&mut self, at_least: Duration) -> bool {
        let Some(pause) = self.pause_length(at_least) else { return false };
        tokio::time::sleep(pause).await;
        true
    }

    fn pause_length(&mut self, at_least: Duration) -> Option<Duration> {
        let pause = if self.budget.take() { self.pause } else { PAUSE_MAX };
        let jittered = pause.mul_f64(0.5 + fastrand::f64());
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        let pause = jittered.max(at_least);
        (pause < self.left()).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn redirects_are_followed_at_once_but_not_in_circles() {
        let budget = Budget::new();
        let mut attempts = Attempts::new(&budget, Duration::from_secs(3600));
        for _ in 0..REDIRECTS_MAX {
            assert_eq!(attempts.again(Next::AtOnce).now_or_never(), Some(true));
        }
        assert_eq!(attempts.again(Next::AtOnce).now_or_never(), None, "a pause");
        assert_eq!(attempts.again(Next::AtOnce).now_or_never(), Some(true), "after a pause");
    }

    #[tokio::test]
    async fn without_budget_there_is_always_a_pause() {
        let budget = Budget::new();
        while budget.take() {}
        let mut attempts = Attempts::new(&budget, Duration::from_secs(3600));
        assert_eq!(attempts.again(Next::AtOnce).now_or_never(), None);
        for _ in 0..5 {
            budget.succeeded();
        }
        assert!(budget.take() && !budget.take(), "five successes earn one attempt");
    }

    #[tokio::test]
    async fn no_attempt_is_made_that_could_not_be_answered_in_time() {
        let budget = Budget::new();
        let mut attempts = Attempts::new(&budget, Duration::from_millis(100));
        let busy = Next::AfterPause(Duration::from_secs(1));
        assert_eq!(attempts.again(busy).now_or_never(), Some(false));
    }
}
