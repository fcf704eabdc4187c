//! Writes on their way: which batches have requested a timestamp and are not yet done.
//!
//! Reads consult it (the sequencer fills it): a newest read of a key waits for a write of that key
//! whose timestamp was already requested, and a snapshot read at `T` waits for every batch that
//! was on its way when it arrived, until that batch's timestamp is known to be above `T` or the
//! batch is done.

use isotherm_types::Timestamp;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use tokio::sync::Notify;

/// The batches of one replica that have requested a timestamp.
#[derive(Debug, Default)]
pub struct Pending {
    state: Mutex<State>,
    changed: Notify,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    batches: VecDeque<Batch>,
    last_of_key: HashMap<u64, u64>,
}

#[derive(Debug)]
struct Batch {
    number: u64,
    ts: Option<Timestamp>,
    keys: Vec<u64>,
    done: bool,
}

/// A position in the order of batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchNumber(u64);

impl State {
    fn is_done(&self, number: u64) -> bool {
        self.batches.iter().find(|b| b.number == number).is_none_or(|b| b.done)
    }
}

impl Pending {
    /// A batch that writes `keys` is about to request its timestamp.
    pub fn begin<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> BatchNumber {
        let keys: Vec<u64> = keys.map(|k| self.hasher.hash_one(k)).collect();
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        for key in &keys {
            state.last_of_key.insert(*key, number);
        }
        state.batches.push_back(Batch { number, ts: None, keys, done: false });
        BatchNumber(number)
    }

    /// Its timestamp is known.
    pub fn set_ts(&self, number: BatchNumber, ts: Timestamp) {
        let mut state = self.state.lock();
        if let Some(batch) = state.batches.iter_mut().find(|b| b.number == number.0) {
            batch.ts = Some(ts);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// It is applied here, or certainly never will be under this leadership.
    pub fn finish(&self, number: BatchNumber) {
        let mut state = self.state.lock();
        if let Some(batch) = state.batches.iter_mut().find(|b| b.number == number.0) {
            batch.done = true;
            let keys = std::mem::take(&mut batch.keys);
            for key in keys {
                if state.last_of_key.get(&key) == Some(&number.0) {
                    state.last_of_key.remove(&key);
                }
            }
        }
        while state.batches.front().is_some_and(|b| b.done) {
            state.batches.pop_front();
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Waits for the write of `key`, if any, whose timestamp was requested before this call.
    pub async fn settle_key(&self, key: &[u8]) {
        let hash = self.hasher.hash_one(key);
        let number = self.state.lock().last_of_key.get(&hash).copied();
        if let Some(number) = number {
            self.wait(|state| state.is_done(number)).await;
        }
    }

    /// Everything that has requested a timestamp so far.
    pub fn mark(&self) -> BatchNumber {
        BatchNumber(self.state.lock().next)
    }

    /// Waits until every batch before `mark` is done or known to be above `at`.
    pub async fn settle(&self, mark: BatchNumber, at: Timestamp) {
        let settled = |b: &Batch| b.number >= mark.0 || b.done || b.ts.is_some_and(|ts| ts > at);
        self.wait(|state| state.batches.iter().all(settled)).await;
    }

    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.state.lock().batches.is_empty()
    }

    async fn wait(&self, ready: impl Fn(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            if ready(&self.state.lock()) {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn a_read_of_a_key_waits_for_its_write_only() {
        let pending = Pending::default();
        let a = pending.begin([b"a".as_slice()].into_iter());
        assert!(pending.settle_key(b"b").now_or_never().is_some());
        assert!(pending.settle_key(b"a").now_or_never().is_none());
        pending.finish(a);
        assert!(pending.settle_key(b"a").now_or_never().is_some());
    }

    #[test]
    fn a_snapshot_waits_until_a_batch_is_done_or_known_to_be_later() {
        let pending = Pending::default();
        let first = pending.begin(std::iter::empty());
        let mark = pending.mark();
        let later = pending.begin(std::iter::empty());
        assert!(pending.settle(mark, Timestamp(10)).now_or_never().is_none());
        pending.set_ts(first, Timestamp(11));
        assert!(pending.settle(mark, Timestamp(10)).now_or_never().is_some());
        assert!(pending.settle(mark, Timestamp(11)).now_or_never().is_none());
        pending.finish(later);
        assert!(pending.settle(mark, Timestamp(11)).now_or_never().is_none());
        pending.finish(first);
        assert!(pending.settle(mark, Timestamp(11)).now_or_never().is_some());
        assert!(pending.is_empty());
    }
}
