//! Writes on their way: which batches have requested a timestamp and are not yet done.
//!
//! Reads consult it (the sequencer fills it): a newest read of a key waits for a write of that key
//! whose timestamp was already requested, and a snapshot read at `T` waits for every batch that
//! was on its way when it arrived, until that batch's timestamp is known to be above `T` or the
//! batch is done.

use isotherm_types::Timestamp;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
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
    /// Keys that batches on their way write, by their hashes.
    writes_of_key: HashMap<u64, Writes>,
}

/// Writes of one key that are on their way.
#[derive(Debug, Default)]
struct Writes {
    count: usize,
    /// The batch of the last one. Earlier ones may outlast it: it may fail before them.
    last: u64,
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

impl Pending {
    /// A batch that writes `keys` is about to request its timestamp.
    pub fn begin<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> BatchNumber {
        let keys: Vec<u64> = keys.map(|k| self.hasher.hash_one(k)).collect();
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        for key in &keys {
            let writes = state.writes_of_key.entry(*key).or_default();
            writes.count += 1;
            writes.last = number;
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
                if let Entry::Occupied(mut writes) = state.writes_of_key.entry(key) {
                    writes.get_mut().count -= 1;
                    if writes.get().count == 0 {
                        writes.remove();
                    }
                }
            }
        }
        while state.batches.front().is_some_and(|b| b.done) {
            state.batches.pop_front();
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Waits for the writes of `key`, if any, whose timestamps were requested before this call; and for
    /// whatever is before the last of them, of which there is little.
    pub async fn settle_key(&self, key: &[u8]) {
        let hash = self.hasher.hash_one(key);
        let last = self.state.lock().writes_of_key.get(&hash).map(|writes| writes.last);
        if let Some(last) = last {
            let is_done = |b: &Batch| b.number > last || b.done;
            self.wait(|state| state.batches.iter().all(is_done)).await;
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
    fn a_read_of_a_key_waits_for_every_earlier_write_of_it() {
        let pending = Pending::default();
        let write = || pending.begin([b"a".as_slice(), b"a"].into_iter());
        let (first, second) = (write(), write());
        let mut reads = pending.settle_key(b"a").boxed();
        assert!((&mut reads).now_or_never().is_none());
        // The later one fails, before it was proposed.
        pending.finish(second);
        assert!((&mut reads).now_or_never().is_none(), "the earlier one is on its way");
        assert!(pending.settle_key(b"a").now_or_never().is_none(), "for who comes now, too");
        let later = write();
        pending.finish(first);
        assert!(reads.now_or_never().is_some(), "what came later is not waited for");
        assert!(pending.settle_key(b"a").now_or_never().is_none());
        pending.finish(later);
        assert!(pending.settle_key(b"a").now_or_never().is_some());
        assert!(pending.state.lock().writes_of_key.is_empty());
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
