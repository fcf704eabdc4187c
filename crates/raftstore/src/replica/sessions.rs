//! Results of writes that took effect, so that a retry is answered and not evaluated again.
//!
//! On disk: one `local` row per entry under `(origin range, ts)`; here: the same in a hash table,
//! rebuilt at start. A split copies nothing: it freezes the parent's table into a layer that
//! parent and child share.

use crate::command::WriteOutcome;
use isotherm_types::{SessionId, Timestamp};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// What one entry made known: `(session, seq, outcome)` per write.
pub type DedupRow = Vec<(SessionId, u64, WriteOutcome)>;

/// The remembered results of one replica.
///
/// Invariant: holds every result with a timestamp above the applied memory's floor. Older ones may
/// linger, on one replica and not on another: they must not count (`core.rs`, `recall`).
#[derive(Debug, Default)]
pub struct Sessions {
    own: Layer,
    frozen: Vec<Arc<Layer>>,
}

#[derive(Debug, Default)]
struct Layer {
    results: HashMap<(SessionId, u64), WriteOutcome>,
    by_age: VecDeque<(Timestamp, SessionId, u64)>,
    newest: Timestamp,
}

impl Layer {
    /// Gives back the memory of a time when there was much more to remember.
    fn shrink(&mut self) {
        let enough = self.results.len() * 2 + 64;
        if self.results.capacity() > enough * 4 {
            self.results.shrink_to(enough);
            self.by_age.shrink_to(enough);
        }
    }
}

impl Sessions {
    /// The remembered result of `(session, seq)`.
    pub fn get(&self, session: SessionId, seq: u64) -> Option<&WriteOutcome> {
        let key = (session, seq);
        let frozen = || self.frozen.iter().find_map(|layer| layer.results.get(&key));
        self.own.results.get(&key).or_else(frozen)
    }

    /// Remembers what the entry at `ts` did.
    pub fn insert(&mut self, ts: Timestamp, row: DedupRow) {
        self.own.newest = self.own.newest.max(ts);
        for (session, seq, outcome) in row {
            self.own.by_age.push_back((ts, session, seq));
            self.own.results.insert((session, seq), outcome);
        }
    }

    /// Drops what is at or below `floor`.
    pub fn forget(&mut self, floor: Timestamp) {
        while let Some((ts, session, seq)) = self.own.by_age.front().copied() {
            if ts > floor {
                break;
            }
            self.own.by_age.pop_front();
            // A later entry cannot hold the same (session, seq): it would have been answered.
            self.own.results.remove(&(session, seq));
        }
        self.own.shrink();
        self.frozen.retain(|layer| layer.newest > floor);
    }

    /// How many results are remembered.
    pub fn count(&self) -> usize {
        let frozen: usize = self.frozen.iter().map(|layer| layer.results.len()).sum();
        self.own.results.len() + frozen
    }

    /// Timestamp of the newest one.
    pub fn newest(&self) -> Timestamp {
        let frozen = self.frozen.iter().map(|layer| layer.newest);
        frozen.fold(self.own.newest, Timestamp::max)
    }

    /// Takes over what the range knew that was absorbed.
    pub fn absorb(&mut self, mut right: Sessions) {
        let own = std::mem::take(&mut right.own);
        self.frozen.append(&mut right.frozen);
        if !own.results.is_empty() {
            self.frozen.push(Arc::new(own));
        }
    }

    /// A table for a child of a split, sharing everything known so far.
    pub fn fork(&mut self) -> Sessions {
        let own = std::mem::take(&mut self.own);
        if !own.results.is_empty() {
            self.frozen.push(Arc::new(own));
        }
        Sessions { own: Layer::default(), frozen: self.frozen.clone() }
    }
}
