//! The applied state of one replica: how far its data has come, and what it must not forget.

use crate::type_config::{LogId, StoredMembership};
use isotherm_storage::{StorageError, codec};
use isotherm_types::{ClusterVersion, RangeEpoch, RangeId, Timestamp};
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
    /// By which rules entries are applied: an entry of the log raises it, children take their parent's.
    pub apply_version: ClusterVersion,
    /// What is remembered of writes that took effect.
    pub memory: SessionMemory,
    /// Set while it stands still, to be absorbed.
    pub frozen: Option<Frozen>,
    /// What it absorbed, the newest last: so that whoever ordered a merge learns what became of it,
    /// and a start clears away what a crash left of those. The next merge into a range is ordered only
    /// when the last one is known everywhere, so a few are enough.
    pub absorbed: VecDeque<RangeId>,
}

/// A range that stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// Who is to absorb it.
    pub into: RangeId,
    /// At which epoch of that one, and at no other.
    pub into_epoch: RangeEpoch,
    /// Timestamp of the freeze: nothing was written after it.
    pub ts: Timestamp,
}

/// How many of [`AppliedState::absorbed`] are kept.
const ABSORBED_MAX: usize = 8;

/// The layout before ranges were merged: a prefix of the one now, so the two cannot be mistaken for
/// each other.
#[derive(Deserialize)]
#[cfg_attr(test, derive(Serialize))]
pub struct BeforeMerges {
    log_id: Option<LogId>,
    membership: StoredMembership,
    last_ts: Timestamp,
    apply_version: ClusterVersion,
    memory: SessionMemory,
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

    /// Takes over what `right` remembers, whose newest result is at or below `upto`.
    pub fn absorb(&mut self, right: &Self, from: RangeId, upto: Timestamp) {
        self.floor = self.floor.max(right.floor);
        let floor = self.floor;
        let origins = right.origins.iter().cloned().chain([Origin { range: from, upto }]);
        for origin in origins.filter(|o| o.upto > floor) {
            match self.origins.iter_mut().find(|o| o.range == origin.range) {
                // Both descend from it; what only one of them consulted harms the other's clients
                // not: a result is found under the identity of its write only.
                Some(known) => known.upto = known.upto.max(origin.upto),
                None => self.origins.push(origin),
            }
        }
        for (slot, count) in &right.slots {
            match self.slots.binary_search_by_key(slot, |(slot, _)| *slot) {
                Ok(at) => self.slots[at].1 += count,
                Err(at) => self.slots.insert(at, (*slot, *count)),
            }
        }
        self.drop_below_floor();
    }

    fn drop_below_floor(&mut self) {
        let floor = self.floor;
        let floor_slot = floor.physical_ms() / Self::SLOT_MS;
        while self.slots.front().is_some_and(|(slot, _)| *slot < floor_slot) {
            self.slots.pop_front();
        }
        self.origins.retain(|o| o.upto > floor);
    }

    /// Notes `count` results at `ts` and forgets what is too old or too much; of the newest slots so many are
    /// kept however much that is. With 2 an attempt has four seconds at least, whatever others write.
    pub fn remember(
        &mut self,
        ts: Timestamp,
        count: u32,
        retention_ms: u64,
        count_max: u32,
        slots_min: usize,
    ) {
        let slot = ts.physical_ms() / Self::SLOT_MS;
        match self.slots.back_mut() {
            Some((last, n)) if *last == slot => *n += count,
            _ => self.slots.push_back((slot, count)),
        }
        self.floor = self.floor.max(ts.minus_ms(retention_ms));
        let mut total: u64 = self.slots.iter().map(|(_, n)| u64::from(*n)).sum();
        while total > u64::from(count_max) && self.slots.len() > slots_min {
            let (slot, n) = self.slots.pop_front().expect("more than one slot");
            total -= u64::from(n);
            self.floor = self.floor.max(Timestamp::from_physical_ms((slot + 1) * Self::SLOT_MS));
        }
        self.drop_below_floor();
    }
}

impl AppliedState {
    /// From disk.
    pub fn decode(bytes: &[u8]) -> Result<Self, StorageError> {
        Self::decode_any(bytes)?.checked()
    }

    /// The same for one that came inside another record.
    pub fn checked(mut self) -> Result<Self, StorageError> {
        self.check_supported()?;
        // Ranges of the first software say 1, whose rules are those of the first version; nothing ever
        // raised them, and what needs the first version must not be refused for them.
        self.apply_version = self.apply_version.max(ClusterVersion::FIRST);
        Ok(self)
    }

    /// Refuses a range at a version that this software does not know: its rules are not known here.
    fn check_supported(&self) -> Result<(), StorageError> {
        let (found, known) = (self.apply_version, ClusterVersion::CURRENT);
        if found <= known {
            return Ok(());
        }
        let why = format!(
            "a range is at cluster version {found}, this software knows up to {known}: upgrade it"
        );
        Err(StorageError::Io(std::io::Error::other(why)))
    }

    fn decode_any(bytes: &[u8]) -> Result<Self, StorageError> {
        match codec::decode::<Self, _>(bytes) {
            Ok(applied) => Ok(applied),
            Err(error) => match codec::decode::<BeforeMerges, _>(bytes) {
                Ok(BeforeMerges { log_id, membership, last_ts, apply_version, memory }) => {
                    let (frozen, absorbed) = (None, VecDeque::new());
                    Ok(Self {
                        log_id,
                        membership,
                        last_ts,
                        apply_version,
                        memory,
                        frozen,
                        absorbed,
                    })
                }
                Err(_) => Err(error),
            },
        }
    }

    /// Notes that `right` is part of this range now.
    pub fn note_absorbed(&mut self, right: RangeId) {
        self.absorbed.push_back(right);
        while self.absorbed.len() > ABSORBED_MAX {
            self.absorbed.pop_front();
        }
    }

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
    fn a_state_from_before_merges_is_read() {
        let mut memory = SessionMemory::default();
        memory.remember(Timestamp::from_physical_ms(100_000), 10, 60_000, 100, 1);
        let before = BeforeMerges {
            log_id: None,
            membership: StoredMembership::default(),
            last_ts: Timestamp(7),
            apply_version: ClusterVersion(1),
            memory: memory.clone(),
        };
        let read = AppliedState::decode(&codec::encode(&before)).expect("an older layout");
        assert_eq!((read.last_ts, &read.memory, read.frozen), (Timestamp(7), &memory, None));
        assert_eq!(read.apply_version, ClusterVersion::FIRST, "its rules are those of version 1");
        let newer = AppliedState {
            apply_version: ClusterVersion(ClusterVersion::CURRENT.0 + 1),
            ..read.clone()
        };
        let refused = AppliedState::decode(&codec::encode(&newer));
        assert!(refused.is_err_and(|e| e.to_string().contains("upgrade it")));
        let again = AppliedState::decode(&codec::encode(&read)).expect("the layout now");
        assert_eq!(again, read);
    }

    #[test]
    fn an_absorbed_memory_counts_from_the_higher_floor_on() {
        let at = |ms| Timestamp::from_physical_ms(ms);
        let (mut left, mut right) = (SessionMemory::default(), SessionMemory::default());
        left.remember(at(100_000), 10, 60_000, 1000, 1);
        right.remember(at(100_000), 5, 60_000, 1000, 1);
        right.remember(at(130_000), 7, 60_000, 1000, 1);
        right.origins.push(Origin { range: RangeId(9), upto: at(65_000) });
        right.origins.push(Origin { range: RangeId(8), upto: at(90_000) });
        left.origins.push(Origin { range: RangeId(8), upto: at(80_000) });
        left.absorb(&right, RangeId(2), at(131_000));
        assert_eq!(left.floor, at(70_000));
        let kept: Vec<_> = left.origins.iter().map(|o| (o.range.get(), o.upto)).collect();
        assert_eq!(kept, [(8, at(90_000)), (2, at(131_000))]);
        let total: u32 = left.slots.iter().map(|(_, n)| n).sum();
        assert_eq!(total, 22);
        assert!(left.slots.iter().is_sorted());
    }

    #[test]
    fn the_floor_follows_retention_and_number() {
        let at = |ms| Timestamp::from_physical_ms(ms);
        let mut memory = SessionMemory::default();
        memory.remember(at(100_000), 10, 60_000, 100, 1);
        assert_eq!(memory.floor, at(40_000));
        memory.remember(at(110_000), 95, 60_000, 100, 1);
        assert_eq!(memory.floor, at((100_000 / 4096 + 1) * 4096), "the older slot is forgotten");
        memory.remember(at(111_000), 200, 60_000, 100, 1);
        assert!(memory.floor < at(111_000), "the newest slot is always remembered");
        let floor = memory.floor;
        memory.remember(at(111_000 + 4096), 200, 60_000, 100, 2);
        assert_eq!(memory.floor, floor, "and the one before it");
    }
}
