//! The applied state of one replica: how far its data has come, and what it must not forget.

use crate::command::ApplyVersion;
use crate::type_config::{LogId, StoredMembership};
use isotherm_types::{RangeId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Persisted under `LocalKey::Applied`, in the same write batch as the data that it covers.
///
/// Invariants (asserted in [`AppliedState::advance`]):
/// * `log_id` never goes back, across restarts too: a crash goes back to what the last flush made
///   durable, and the log replays the rest;
/// * `last_ts` never goes back: an entry whose timestamp is not above it is a no-op.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppliedState {
    /// The last applied entry.
    pub log_id: Option<LogId>,
    /// The last applied membership.
    pub membership: StoredMembership,
    /// The highest timestamp applied.
    pub last_ts: Timestamp,
    /// The rules in force.
    pub apply_version: ApplyVersion,
    /// What is remembered of writes that took effect.
    pub memory: SessionMemory,
}

/// Which results of earlier writes the range still consults.
///
/// All of it is a function of the applied entries, so that every replica answers a retry alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionMemory {
    /// A write born below this is refused as expired; results at or below it are forgotten.
    pub floor: Timestamp,
    /// Ranges that this one was split from: their results up to a timestamp still count.
    pub origins: Vec<Origin>,
    /// Results remembered per slot of [`SessionMemory::SLOT_MS`], oldest first.
    slots: VecDeque<(u64, u32)>,
}

/// A range whose results a child still consults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The ancestor.
    pub range: RangeId,
    /// Its results up to this timestamp belong to the child too.
    pub upto: Timestamp,
}

impl SessionMemory {
    const SLOT_MS: u64 = 4096;

    /// Notes `count` results at `ts` and forgets what is too old or too much.
    pub fn remember(&mut self, ts: Timestamp, count: u32, retention_ms: u64, count_max: u32) {
        let slot = ts.physical_ms() / Self::SLOT_MS;
        match self.slots.back_mut() {
            Some((last, n)) if *last == slot => *n += count,
            _ => self.slots.push_back((slot, count)),
        }
        self.floor = self.floor.max(ts.minus_ms(retention_ms));
        let mut total: u64 = self.slots.iter().map(|(_, n)| u64::from(*n)).sum();
        while total > u64::from(count_max) && self.slots.len() > 1 {
            let (slot, n) = self.slots.pop_front().expect("more than one slot");
            total -= u64::from(n);
            self.floor = self.floor.max(Timestamp::from_physical_ms((slot + 1) * Self::SLOT_MS));
        }
        let floor_slot = self.floor.physical_ms() / Self::SLOT_MS;
        while self.slots.front().is_some_and(|(slot, _)| *slot < floor_slot) {
            self.slots.pop_front();
        }
        let floor = self.floor;
        self.origins.retain(|o| o.upto > floor);
    }
}

impl AppliedState {
    /// Moves on to `log_id`.
    pub fn advance(&mut self, log_id: LogId) {
        assert!(
            self.log_id
                .is_none_or(|at| log_id.index == at.index + 1 && log_id.leader_id >= at.leader_id),
            "applied {log_id} after {:?}",
            self.log_id
        );
        self.log_id = Some(log_id);
    }

    /// Index of the last applied entry; 0 if none.
    pub fn index(&self) -> u64 {
        self.log_id.map_or(0, |id| id.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_follows_retention_and_number() {
        let at = |ms| Timestamp::from_physical_ms(ms);
        let mut memory = SessionMemory::default();
        memory.remember(at(100_000), 10, 60_000, 100);
        assert_eq!(memory.floor, at(40_000));
        memory.remember(at(110_000), 95, 60_000, 100);
        assert_eq!(memory.floor, at((100_000 / 4096 + 1) * 4096), "the older slot is forgotten");
        memory.remember(at(111_000), 200, 60_000, 100);
        assert!(memory.floor < at(111_000), "the newest slot is always remembered");
    }
}
