//! How fast the physical part of timestamps advances.

use std::time::{Duration, Instant};

/// How far a whole cluster that was down may jump at its start, to catch up with the wall clock.
const COLD_STEP_MAX: Duration = Duration::from_secs(30 * 86_400);
/// From this difference to the wall clock on an operator must know.
const SKEW_MAX: Duration = Duration::from_secs(10);
/// How far ahead windows are allocated, and so how far ahead of time a window may end.
pub const WINDOW: Duration = Duration::from_secs(3);

/// The physical time of the oracle, in microseconds since the Unix epoch.
///
/// It advances by elapsed monotonic time. The wall clock only corrects its rate: it runs at most
/// twice as fast to catch up, and at least half as fast to be caught up with. It never jumps with
/// the wall clock; a difference that stays large is a problem that `status` shows.
///
/// The one jump is at a cold start, when no member of the group ran: elapsed time is then known
/// from the wall clock alone.
#[derive(Debug)]
pub struct Pace {
    physical_us: u64,
    at: Instant,
    wall_us: u64,
    /// Whether this process has seen no leader yet, not even itself.
    cold: bool,
    /// The end of the newest window that was seen, to notice new ones.
    seen_high_ms: u64,
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

impl Pace {
    /// At the start of the process.
    pub fn new(now: Instant) -> Self {
        Self { physical_us: 0, at: now, wall_us: 0, cold: true, seen_high_ms: 0 }
    }

    /// Another member leads, whose newest window ends at `high_ms`.
    pub fn follow(&mut self, high_ms: u64, now: Instant) {
        self.cold = false;
        if high_ms > self.seen_high_ms {
            self.seen_high_ms = high_ms;
            // When it was allocated it ended three seconds ahead.
            self.physical_us = (high_ms * 1000).saturating_sub(micros(WINDOW));
            self.at = now;
        }
    }

    /// This member begins to lead, and the newest window ends at `high_ms`.
    pub fn take_over(&mut self, high_ms: u64, now: Instant, wall_us: u64) {
        let high_us = high_ms * 1000;
        if self.cold {
            self.cold = false;
            let step = if high_ms == 0 { u64::MAX } else { micros(COLD_STEP_MAX) };
            self.physical_us = wall_us.clamp(high_us, high_us.saturating_add(step));
            self.at = now;
        }
        self.advance(now, wall_us);
        // Timestamps go on behind the window whether it was used up or not.
        self.physical_us = self.physical_us.max(high_us);
    }

    /// The physical time now, in milliseconds.
    pub fn advance(&mut self, now: Instant, wall_us: u64) -> u64 {
        let elapsed = micros(now.saturating_duration_since(self.at));
        self.at = self.at.max(now);
        self.wall_us = wall_us;
        let expected = self.physical_us.saturating_add(elapsed);
        self.physical_us = if wall_us >= expected {
            expected + elapsed.min(wall_us - expected)
        } else {
            expected - (elapsed / 2).min(expected - wall_us)
        };
        self.physical_us / 1000
    }

    /// How far it is from the wall clock, if that is so far that an operator must know.
    /// Negative: behind the wall clock.
    pub fn skew_secs(&self) -> Option<i64> {
        let apart = self.physical_us.abs_diff(self.wall_us);
        if self.wall_us == 0 || apart <= micros(SKEW_MAX) {
            return None;
        }
        let secs = i64::try_from(apart / 1_000_000).unwrap_or(i64::MAX);
        Some(if self.physical_us < self.wall_us { -secs } else { secs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON_MS: u64 = 1_800_000_000_000;

    fn us(ms: u64) -> u64 {
        ms * 1000
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_start_takes_the_wall_clock() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.take_over(0, now, us(NOON_MS));
        assert_eq!(pace.advance(now + ms(500), us(NOON_MS + 500)), NOON_MS + 500);
        assert_eq!(pace.skew_secs(), None);
    }

    #[test]
    fn a_jump_of_the_wall_clock_is_shown_and_not_followed() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.take_over(0, now, us(NOON_MS));
        let day = 86_400_000;
        let ahead = pace.advance(now + ms(1000), us(NOON_MS + day));
        assert!((NOON_MS + 1000..=NOON_MS + 2000).contains(&ahead));
        assert_eq!(pace.skew_secs(), Some(-86_398));
        let behind = pace.advance(now + ms(2000), us(NOON_MS - day));
        assert!((ahead + 500..=ahead + 1000).contains(&behind));
        assert!(pace.skew_secs().is_some_and(|secs| secs > 86_000));
    }

    #[test]
    fn a_small_difference_vanishes() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.take_over(NOON_MS + 3000, now, us(NOON_MS));
        let mut last = 0;
        for step in 1..=100 {
            let physical = pace.advance(now + ms(step * 100), us(NOON_MS + step * 100));
            assert!(physical > last);
            last = physical;
        }
        assert_eq!(last, NOON_MS + 10_000);
    }

    #[test]
    fn a_cluster_that_was_down_over_night_catches_up_at_once() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let night = 10 * 3_600_000;
        pace.take_over(NOON_MS, now, us(NOON_MS + night));
        assert_eq!(pace.advance(now, us(NOON_MS + night)), NOON_MS + night);
    }

    #[test]
    fn a_cold_start_with_a_clock_that_is_years_off_jumps_no_further_than_bounded() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let years = 20 * 365 * 86_400_000;
        pace.take_over(NOON_MS, now, us(NOON_MS + years));
        let physical = pace.advance(now, us(NOON_MS + years));
        assert_eq!(physical, NOON_MS + 30 * 86_400_000);
        assert!(pace.skew_secs().is_some());
    }

    #[test]
    fn a_follower_with_a_wrong_clock_takes_over_without_a_jump() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.follow(NOON_MS + 3000, now);
        let day = 86_400_000;
        pace.take_over(NOON_MS + 3000, now + ms(1000), us(NOON_MS + day));
        let physical = pace.advance(now + ms(1000), us(NOON_MS + day));
        assert!(physical <= NOON_MS + 3000, "{physical}");
    }
}
