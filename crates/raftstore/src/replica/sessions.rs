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
    /// The remembered result of `(session, seq)` that is newer than `floor`. One that is not can stand in another
    /// layer, or none: what lingers is not the same on all replicas.
    pub fn get(&self, session: SessionId, seq: u64, floor: Timestamp) -> Option<&WriteOutcome> {
        let key = (session, seq);
        let layers = self.frozen.iter().map(|layer| &**layer).chain([&self.own]);
        let known = layers.filter_map(|layer| layer.results.get(&key));
        known.filter(|outcome| outcome.ts > floor).max_by_key(|outcome| outcome.ts)
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
            // A later entry can hold the same (session, seq), if it came when this one did not count any more.
            let key = (session, seq);
            if self.own.results.get(&key).is_some_and(|outcome| outcome.ts <= floor) {
                self.own.results.remove(&key);
            }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::command::OpResult;

    const SESSION: SessionId = SessionId { issuer: 1, number: 2 };

    fn at(ts: u64) -> DedupRow {
        vec![(
            SESSION,
            7,
            WriteOutcome { ts: Timestamp(ts), index: 0, results: vec![OpResult::Put] },
        )]
    }

    fn found(sessions: &Sessions, floor: u64) -> Option<u64> {
        sessions.get(SESSION, 7, Timestamp(floor)).map(|outcome| outcome.ts.get())
    }

    #[test]
    fn a_newer_result_of_the_same_write_outlives_the_older_one() {
        let mut sessions = Sessions::default();
        sessions.insert(Timestamp(10), at(10));
        assert_eq!((found(&sessions, 9), found(&sessions, 10)), (Some(10), None));
        sessions.insert(Timestamp(30), at(30));
        sessions.forget(Timestamp(20));
        assert_eq!(found(&sessions, 20), Some(30));
        sessions.forget(Timestamp(30));
        assert_eq!((found(&sessions, 30), sessions.count()), (None, 0));
    }

    #[test]
    fn no_layer_hides_what_another_one_knows() {
        let mut parent = Sessions::default();
        parent.insert(Timestamp(10), at(10));
        let mut child = parent.fork();
        child.insert(Timestamp(30), at(30));
        assert_eq!(found(&child, 20), Some(30));
        let grandchild = child.fork();
        assert_eq!((found(&child, 20), found(&grandchild, 20)), (Some(30), Some(30)));
        parent.absorb(grandchild);
        assert_eq!(found(&parent, 20), Some(30));
    }
}
