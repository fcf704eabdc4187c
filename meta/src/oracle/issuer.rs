//! Which timestamps come next.

use super::pace::{Pace, WINDOW};
use crate::machine::{Command, Reign, Window};
use isotherm_types::Timestamp;
use std::time::Instant;

/// The fewest timestamps of a new window: 100 ms of them, for a leader whose clock is behind.
const WINDOW_COUNT_MIN: u64 = 100 << Timestamp::LOGICAL_BITS;

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Short {
    /// The window is used up, or the leadership has none yet: it must be extended.
    Extend,
    /// A later leadership has one: this one may issue nothing.
    Deposed,
}

/// Issues timestamps from windows.
///
/// Invariant: `next` is above everything that this process ever issued.
#[derive(Debug)]
pub struct Issuer {
    next: Timestamp,
    /// How time passes.
    pub pace: Pace,
}

impl Issuer {
    /// At the start of the process.
    pub fn new(now: Instant) -> Self {
        Self { next: Timestamp::ZERO, pace: Pace::new(now) }
    }

    /// The first of `count` consecutive timestamps for `reign`.
    pub fn issue(
        &mut self,
        window: Window,
        reign: Reign,
        count: u32,
        now: Instant,
        wall_us: u64,
    ) -> Result<Timestamp, Short> {
        if window.reign != reign {
            return Err(if window.reign < reign { Short::Extend } else { Short::Deposed });
        }
        let count = u64::from(count.max(1));
        let target = Timestamp::from_physical_ms(self.pace.advance(now, wall_us));
        // The pace may have come to the end of the window, if extending it takes long.
        let last_start = Timestamp(window.high.get().saturating_sub(count - 1));
        let first = self.next.max(window.low).max(target.min(last_start));
        let last = Timestamp(first.get().saturating_add(count - 1));
        if last > window.high {
            return Err(Short::Extend);
        }
        self.next = last.next();
        Ok(first)
    }

    /// The command that extends the window of `reign`, if it is due: half of it is used.
    pub fn extension(
        &mut self,
        window: Window,
        reign: Reign,
        now: Instant,
        wall_us: u64,
    ) -> Option<Command> {
        let physical_ms = self.pace.advance(now, wall_us);
        let end = |ahead_ms: u128| {
            let ahead_ms = u64::try_from(ahead_ms).unwrap_or(u64::MAX);
            let by_time = Timestamp::from_physical_ms(physical_ms.saturating_add(ahead_ms));
            // Or by use, if more than 262,144 are issued in a millisecond.
            let used = self.next.max(window.low).get();
            by_time.max(Timestamp(used.saturating_add(WINDOW_COUNT_MIN / 2)))
        };
        if window.reign == reign && window.high >= end(WINDOW.as_millis() / 2) {
            return None;
        }
        let member = reign.member;
        Some(Command::ExtendTimestamps {
            member,
            to: end(WINDOW.as_millis()),
            by: WINDOW_COUNT_MIN,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::MetaMachine;
    use isotherm_types::{ClusterId, NodeId, RaftTiming};
    use std::time::Duration;

    const NOON_MS: u64 = 1_800_000_000_000;

    fn reign(term: u64) -> Reign {
        Reign { term, member: NodeId(7) }
    }

    fn machine() -> MetaMachine {
        let mut machine = MetaMachine::default();
        let founding = crate::machine::Founding { nodes: 1, ranges: 1, replicas: 1 };
        let (cluster, timing) = (ClusterId(1), RaftTiming::FAST);
        machine.apply_command(1, Command::Found { cluster, timing, founding });
        machine
    }

    #[test]
    fn nothing_is_issued_without_a_window_of_the_own_term() {
        let now = Instant::now();
        let mut issuer = Issuer::new(now);
        let window = Window { reign: reign(3), low: Timestamp(10), high: Timestamp(20) };
        assert_eq!(issuer.issue(window, reign(2), 1, now, 0), Err(Short::Deposed));
        assert_eq!(issuer.issue(window, reign(4), 1, now, 0), Err(Short::Extend));
        assert_eq!(issuer.issue(window, reign(3), 5, now, 0), Ok(Timestamp(10)));
        assert_eq!(issuer.issue(window, reign(3), 6, now, 0), Ok(Timestamp(15)));
        assert_eq!(issuer.issue(window, reign(3), 1, now, 0), Err(Short::Extend));
    }

    #[test]
    fn another_leader_of_the_same_term_has_no_part_in_the_window() {
        let now = Instant::now();
        let mut issuer = Issuer::new(now);
        let window = Window { reign: reign(3), low: Timestamp(10), high: Timestamp(20) };
        let with = |member| Reign { term: 3, member: NodeId(member) };
        assert_eq!(issuer.issue(window, with(6), 1, now, 0), Err(Short::Deposed));
        assert_eq!(issuer.issue(window, with(8), 1, now, 0), Err(Short::Extend));
    }

    #[test]
    fn timestamps_follow_the_clock_and_stay_in_the_window() {
        let start = Instant::now();
        let (mut machine, mut issuer) = (machine(), Issuer::new(start));
        issuer.pace.take_over(0, start, NOON_MS * 1000);
        let mut last = Timestamp::ZERO;
        let mut extensions = 0;
        for step in 0..100_u64 {
            let now = start + Duration::from_millis(step * 100);
            let wall_us = (NOON_MS + step * 100) * 1000;
            if let Some(command) = issuer.extension(machine.window(), reign(1), now, wall_us) {
                machine.apply_command(1, command);
                extensions += 1;
            }
            let first = issuer.issue(machine.window(), reign(1), 1000, now, wall_us).unwrap();
            assert!(first > last && first.get() + 999 <= machine.window().high.get());
            assert_eq!(first.physical_ms(), NOON_MS + step * 100);
            last = Timestamp(first.get() + 999);
        }
        assert!((5..=8).contains(&extensions), "{extensions} in ten seconds");
    }

    #[test]
    fn a_leader_with_a_late_clock_goes_on_behind_the_last_window() {
        let now = Instant::now();
        let mut machine = machine();
        let high = Timestamp::from_physical_ms(NOON_MS);
        machine.apply_command(1, Command::ExtendTimestamps { member: NodeId(7), to: high, by: 1 });
        let mut issuer = Issuer::new(now);
        let wall_us = (NOON_MS - 60_000) * 1000;
        issuer.pace.take_over(NOON_MS, now, wall_us);
        let command = issuer.extension(machine.window(), reign(2), now, wall_us).unwrap();
        machine.apply_command(2, command);
        let first = issuer.issue(machine.window(), reign(2), 1, now, wall_us).unwrap();
        assert_eq!(first, high.next());
    }

    #[test]
    fn heavy_use_extends_the_window_before_time_does() {
        let now = Instant::now();
        let (mut machine, mut issuer) = (machine(), Issuer::new(now));
        issuer.pace.take_over(0, now, NOON_MS * 1000);
        let mut last = Timestamp::ZERO;
        for _ in 0..200_000 {
            match issuer.issue(machine.window(), reign(1), 10_000, now, NOON_MS * 1000) {
                Ok(first) => {
                    assert!(first > last);
                    last = Timestamp(first.get() + 9_999);
                }
                Err(short) => {
                    assert_eq!(short, Short::Extend);
                    let window = machine.window();
                    let command = issuer.extension(window, reign(1), now, NOON_MS * 1000).unwrap();
                    machine.apply_command(1, command);
                }
            }
        }
        assert!(last.physical_ms() > NOON_MS + 3000);
    }
}
