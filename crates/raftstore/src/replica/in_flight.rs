//! Entries of one sequencer that are on their way, and whether the next one may begin.
//!
//! An entry costs all replicas about the same, however many writes are in it, so a small one beside a
//! large one is a bad bargain: the next entry begins when none is on its way, or when at least as many
//! writes wait for it as are in those that are. Half of a range's closed-loop clients are then in one
//! entry and half in the other; begun at the first write that comes, entries would hold one and all
//! the others. No timer fills entries: whatever waits goes when one ends.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct State {
    entries: usize,
    writes: usize,
}

/// The entries on their way.
#[derive(Debug)]
pub struct InFlight {
    state: Mutex<State>,
    /// How many writes the sequencer sleeps for: who queues fewer need not wake it.
    wanted: AtomicUsize,
    changed: Notify,
}

impl Default for InFlight {
    fn default() -> Self {
        let (state, changed) = Default::default();
        Self { state, wanted: AtomicUsize::new(usize::MAX), changed }
    }
}

/// One entry on its way, until dropped.
#[derive(Debug)]
pub struct Flight {
    of: Arc<InFlight>,
    writes: usize,
}

impl InFlight {
    /// How many writes have to wait for another entry to begin, of which `entries_max` may be on
    /// their way and `full` writes always are enough; none: as many as like.
    fn enough(&self, full: usize, entries_max: usize) -> Option<usize> {
        let state = self.state.lock();
        match state.entries {
            0 => Some(0),
            entries if entries < entries_max => Some(state.writes.div_ceil(entries).min(full)),
            _ => None,
        }
    }

    /// Waits until an entry may begin, of `held` writes and those that `queued` counts. For one waiter.
    pub async fn may_begin(
        &self,
        held: usize,
        queued: impl Fn() -> usize,
        full: usize,
        entries_max: usize,
    ) {
        loop {
            let enough = self.enough(full, entries_max).unwrap_or(usize::MAX);
            let enough = enough.saturating_sub(held);
            if queued() >= enough {
                return;
            }
            self.wanted.store(enough, Ordering::Relaxed);
            // Who queues a write looks at `wanted` after it, this looks at the queue after that.
            fence(Ordering::SeqCst);
            if queued() < enough {
                self.changed.notified().await;
            }
            self.wanted.store(usize::MAX, Ordering::Relaxed);
        }
    }

    /// A write was queued, and so many are now.
    pub fn note_queued(&self, queued: usize) {
        fence(Ordering::SeqCst);
        if queued >= self.wanted.load(Ordering::Relaxed) {
            self.changed.notify_one();
        }
    }

    /// An entry of `writes` writes begins.
    pub fn begin(self: &Arc<Self>, writes: usize) -> Flight {
        let mut state = self.state.lock();
        state.entries += 1;
        state.writes += writes;
        Flight { of: self.clone(), writes }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut state = self.of.state.lock();
        state.entries -= 1;
        state.writes -= self.writes;
        drop(state);
        self.of.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    /// Whether an entry of so many writes may begin beside one other at most.
    async fn may(flights: &InFlight, waiting: usize) -> bool {
        let asked = flights.may_begin(1, || waiting - 1, 64, 2);
        timeout(Duration::from_millis(10), asked).await.is_ok()
    }

    #[tokio::test]
    async fn a_small_entry_waits_for_a_large_one_and_not_the_other_way_round() {
        let flights = Arc::new(InFlight::default());
        assert!(may(&flights, 1).await, "nothing is on its way: no reason to wait");
        let small = flights.begin(1);
        assert!(may(&flights, 1).await && may(&flights, 7).await);
        let large = flights.begin(7);
        assert!(!may(&flights, 64).await, "there are two already");
        drop(small);
        assert!(!may(&flights, 6).await && may(&flights, 7).await);
        drop(large);
        assert!(may(&flights, 1).await);
        let _larger_than_an_entry = flights.begin(90);
        assert!(!may(&flights, 63).await && may(&flights, 64).await, "more do not fit");
    }

    #[tokio::test]
    async fn with_more_than_two_an_entry_is_compared_to_the_average() {
        let flights = Arc::new(InFlight::default());
        let _others = [flights.begin(10), flights.begin(4)];
        assert_eq!(flights.enough(64, 3), Some(7));
        assert_eq!(flights.enough(64, 2), None);
    }

    /// The last write that is wanted wakes the sequencer, and so does the end of an entry.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_sleeper_is_woken_by_enough_writes_or_by_an_end() {
        let (flights, queued) = (Arc::new(InFlight::default()), Arc::new(AtomicUsize::new(0)));
        let sleep = || {
            let (flights, queued) = (flights.clone(), queued.clone());
            tokio::spawn(async move {
                flights.may_begin(0, || queued.load(Ordering::SeqCst), 64, 2).await;
            })
        };
        for round in 0..200 {
            queued.store(0, Ordering::SeqCst);
            let flight = flights.begin(3);
            let sleeper = sleep();
            if round % 2 == 0 {
                for _ in 0..3 {
                    flights.note_queued(queued.fetch_add(1, Ordering::SeqCst) + 1);
                }
                timeout(Duration::from_secs(10), sleeper).await.unwrap().unwrap();
            } else {
                drop(flight);
                timeout(Duration::from_secs(10), sleeper).await.unwrap().unwrap();
            }
        }
    }
}
