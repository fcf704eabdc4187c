//! How long operations have lasted, by the monotonic clock of who leads.
//!
//! The times that are agreed on are of the wall clocks of whoever proposed them. Clocks jump, and those of
//! two members differ; so a leader compares a deadline only with the time for which it has itself driven
//! the operation. What it took over has all of its time again.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

/// When a leadership first saw each operation that runs.
#[derive(Debug, Default)]
pub(super) struct Ages(HashMap<u64, Instant>);

impl Ages {
    /// `now` on the clock of an operation that began at `started_ms`: that, and as long as it has been
    /// seen. The first look is its beginning.
    pub(super) fn clock(&mut self, id: u64, started_ms: u64, now: Instant) -> u64 {
        let seen = *self.0.entry(id).or_insert(now);
        let age = now.saturating_duration_since(seen).as_millis();
        started_ms.saturating_add(u64::try_from(age).unwrap_or(u64::MAX))
    }

    /// Forgets all others.
    pub(super) fn keep_only(&mut self, running: impl Iterator<Item = u64>) {
        if !self.0.is_empty() {
            let running: HashSet<u64> = running.collect();
            self.0.retain(|id, _| running.contains(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_deadline_is_reached_by_waiting_and_not_by_a_clock_that_is_ahead_or_behind() {
        let (now, limit_ms) = (Instant::now(), 10_000);
        // As proposed by a member whose clock is right, an hour behind, or an hour ahead.
        let wall_ms = super::super::now_ms();
        for started_ms in [wall_ms, wall_ms - 3_600_000, wall_ms + 3_600_000] {
            let mut ages = Ages::default();
            let deadline_ms = started_ms + limit_ms;
            assert_eq!(ages.clock(7, started_ms, now), started_ms);
            let just_before = now + Duration::from_millis(limit_ms - 1);
            assert!(ages.clock(7, started_ms, just_before) < deadline_ms);
            assert!(ages.clock(7, started_ms, now + Duration::from_secs(10)) >= deadline_ms);
        }
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let mut ages = Ages::default();
        let now = Instant::now();
        for id in 0..100 {
            ages.clock(id, 0, now);
        }
        ages.keep_only([5, 7].into_iter());
        assert_eq!(ages.0.len(), 2);
    }
}
