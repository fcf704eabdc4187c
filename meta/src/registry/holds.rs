//! Long reads that hold history back.
//!
//! A registration is not replicated: it lives for [`LIFETIME`] unless it is renewed, and a new
//! leader raises the safe point only after it has led for that long. By then every reader that is
//! still there has renewed with it, under the same id; whoever has not has given up.

use isotherm_types::Timestamp;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a registration counts after it was last renewed.
pub const LIFETIME: Duration = Duration::from_secs(60);
/// Registrations at a time.
const HOLDS_MAX: usize = 10_000;

/// Why a registration is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldRefusal {
    /// Versions of that time may be gone.
    TooOld {
        /// The oldest timestamp that can be read.
        safe_point: Timestamp,
    },
    /// There are too many.
    Full,
}

#[derive(Debug)]
struct Held {
    at: Timestamp,
    until: Instant,
}

/// The registrations of one leadership.
///
/// Invariant: `proposed` never exceeds the timestamp of a registration that was taken and has not
/// run out.
#[derive(Debug)]
pub struct Holds {
    lifetime: Duration,
    /// Registrations with an earlier leader may still count until then.
    quiet_until: Instant,
    /// The highest safe point that this leader may have proposed.
    proposed: Timestamp,
    by_id: HashMap<u64, Held>,
}

impl Holds {
    /// At the start of a leadership.
    pub fn new(now: Instant, lifetime: Duration) -> Self {
        Self {
            lifetime,
            quiet_until: now + lifetime,
            proposed: Timestamp::ZERO,
            by_id: HashMap::new(),
        }
    }

    /// How long a registration counts.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Registers a read at `at`, or renews its registration `id`, which an earlier leader may have
    /// given; 0: a new one. Returns its id.
    pub fn hold(
        &mut self,
        id: u64,
        at: Timestamp,
        safe_point: Timestamp,
        now: Instant,
    ) -> Result<u64, HoldRefusal> {
        let safe_point = safe_point.max(self.proposed);
        if at < safe_point {
            return Err(HoldRefusal::TooOld { safe_point });
        }
        self.forget_expired(now);
        if self.by_id.len() >= HOLDS_MAX && !self.by_id.contains_key(&id) {
            return Err(HoldRefusal::Full);
        }
        let id = if id == 0 { fastrand::u64(1..) } else { id };
        let until = now + self.lifetime;
        self.by_id.insert(id, Held { at, until });
        Ok(id)
    }

    /// Ends a registration.
    pub fn release(&mut self, id: u64) {
        self.by_id.remove(&id);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether the safe point may be raised at all yet.
    pub fn may_raise(&self, now: Instant) -> bool {
        now >= self.quiet_until
    }

    /// How far the safe point may be raised if reads after `wanted` are promised: to there, or to the
    /// oldest registered read. Registrations below it are refused from now on.
    pub fn raise_to(&mut self, wanted: Timestamp, now: Instant) -> Option<Timestamp> {
        if !self.may_raise(now) {
            return None;
        }
        self.forget_expired(now);
        let oldest = self.by_id.values().map(|held| held.at).min();
        self.proposed = self.proposed.max(oldest.map_or(wanted, |oldest| oldest.min(wanted)));
        Some(self.proposed)
    }

    fn forget_expired(&mut self, now: Instant) {
        self.by_id.retain(|_, held| held.until > now);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(ts: u64) -> Timestamp {
        Timestamp(ts)
    }

    fn settled(now: Instant) -> Holds {
        Holds::new(now - LIFETIME, LIFETIME)
    }

    #[test]
    fn a_new_leader_waits_for_those_who_registered_with_the_last_one() {
        let start = Instant::now();
        let mut holds = Holds::new(start, LIFETIME);
        assert_eq!(holds.raise_to(at(100), start + 59 * SECOND), None);
        // It was given by another leader.
        assert_eq!(holds.hold(77, at(50), at(40), start + 30 * SECOND), Ok(77));
        assert_eq!(holds.raise_to(at(100), start + 60 * SECOND), Some(at(50)));
        assert_eq!(holds.raise_to(at(120), start + 90 * SECOND), Some(at(120)), "it ran out");
    }

    #[test]
    fn the_oldest_read_holds_until_it_is_released_or_runs_out() {
        let now = Instant::now();
        let mut holds = settled(now);
        let old = holds.hold(0, at(10), at(5), now).unwrap();
        let young = holds.hold(0, at(20), at(5), now).unwrap();
        assert_ne!(old, young);
        assert_eq!(holds.raise_to(at(15), now), Some(at(10)));
        holds.release(old);
        assert_eq!(holds.raise_to(at(30), now), Some(at(20)));
        assert_eq!(holds.hold(young, at(20), at(20), now + 50 * SECOND), Ok(young));
        assert_eq!(holds.raise_to(at(30), now + 100 * SECOND), Some(at(20)), "renewed");
        assert_eq!(holds.raise_to(at(30), now + 110 * SECOND), Some(at(30)));
    }

    #[test]
    fn below_what_was_proposed_nothing_is_promised() {
        let now = Instant::now();
        let mut holds = settled(now);
        assert_eq!(holds.raise_to(at(30), now), Some(at(30)));
        // The machine has not applied it yet.
        let refused = holds.hold(0, at(29), at(10), now);
        assert_eq!(refused, Err(HoldRefusal::TooOld { safe_point: at(30) }));
        assert!(holds.hold(0, at(30), at(10), now).is_ok());
        assert_eq!(holds.raise_to(at(20), now), Some(at(30)), "it never falls");
        let refused = holds.hold(9, at(39), at(40), now);
        assert_eq!(refused, Err(HoldRefusal::TooOld { safe_point: at(40) }), "a lost one");
    }

    #[test]
    fn there_is_room_for_so_many() {
        let now = Instant::now();
        let mut holds = settled(now);
        for id in 1..=HOLDS_MAX as u64 {
            assert_eq!(holds.hold(id, at(10), at(5), now), Ok(id));
        }
        assert_eq!(holds.hold(0, at(10), at(5), now), Err(HoldRefusal::Full));
        assert_eq!(holds.hold(1, at(10), at(5), now), Ok(1), "a renewal needs none");
        assert!(holds.hold(0, at(10), at(5), now + LIFETIME).is_ok(), "those ran out");
    }
}
