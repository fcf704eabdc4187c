//! A bound in bytes on what is held in memory at a time.

use metrics::Gauge;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

/// Bytes that may be held at a time. Cheap to clone; all clones are one budget.
///
/// To ensure correctness:
/// * what fits when nothing else is held is always given, however large it is: a single request is
///   never refused for ever;
/// * a part ([`ByteBudget::share`]) takes from itself and from the whole, so that its users leave room
///   for the others;
/// * once it is full, those who wait are woken together when half of it is free, and nobody else
///   passes them until then.
#[derive(Clone)]
pub struct ByteBudget(Arc<Inner>);

struct Inner {
    bytes_max: usize,
    whole: Option<ByteBudget>,
    gauge: Option<Gauge>,
    state: Mutex<State>,
    waiters: AtomicU64,
}

#[derive(Default)]
struct State {
    used: usize,
    is_full: bool,
    waiting: HashMap<u64, Waker>,
}

impl fmt::Debug for ByteBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ByteBudget({} of {} bytes)", self.used(), self.0.bytes_max)
    }
}

impl ByteBudget {
    /// Nothing is held yet.
    pub fn new(bytes_max: usize) -> Self {
        Self::with(bytes_max, None, None)
    }

    /// The same; `gauge` shows the bytes in use.
    pub fn with_gauge(bytes_max: usize, gauge: Gauge) -> Self {
        Self::with(bytes_max, None, Some(gauge))
    }

    fn with(bytes_max: usize, whole: Option<ByteBudget>, gauge: Option<Gauge>) -> Self {
        let (state, waiters) = (Mutex::default(), AtomicU64::new(0));
        Self(Arc::new(Inner { bytes_max, whole, gauge, state, waiters }))
    }

    /// A part of it: `bytes_max` at a time at most, taken from the whole as well.
    pub fn share(&self, bytes_max: usize) -> Self {
        Self::with(bytes_max, Some(self.clone()), None)
    }

    /// Bytes that may be held at a time.
    pub fn bytes_max(&self) -> usize {
        self.0.bytes_max
    }

    /// Bytes that are held now.
    pub fn used(&self) -> usize {
        self.0.state.lock().used
    }

    /// Takes `bytes` if they fit now.
    pub fn try_take(&self, bytes: usize) -> Option<BytesHeld> {
        let taken = self.reserve(bytes, 0, false);
        taken.then(|| BytesHeld { budget: self.clone(), bytes })
    }

    /// Takes `bytes` whether or not they fit: for what cannot be refused any more. What comes later
    /// is refused for it.
    pub fn take(&self, bytes: usize) -> BytesHeld {
        self.reserve(bytes, 0, true);
        BytesHeld { budget: self.clone(), bytes }
    }

    /// Whether `bytes` were added for a user who holds `own` already.
    fn reserve(&self, bytes: usize, own: usize, anyway: bool) -> bool {
        {
            let mut state = self.0.state.lock();
            let is_alone = state.used == own;
            let fits = state.used.saturating_add(bytes) <= self.0.bytes_max;
            if !(is_alone || fits || anyway) {
                return false;
            }
            state.used += bytes;
        }
        let whole = self.0.whole.as_ref();
        if whole.is_some_and(|whole| !whole.reserve(bytes, own, anyway)) {
            self.give_back(bytes);
            return false;
        }
        if let Some(gauge) = &self.0.gauge {
            gauge.increment(bytes as f64);
        }
        true
    }

    fn release(&self, bytes: usize) {
        self.give_back(bytes);
        if let Some(whole) = &self.0.whole {
            whole.release(bytes);
        }
        if let Some(gauge) = &self.0.gauge {
            gauge.decrement(bytes as f64);
        }
    }

    /// To this part alone.
    fn give_back(&self, bytes: usize) {
        let waiting = {
            let mut state = self.0.state.lock();
            state.used -= bytes;
            if !state.is_full || state.used > self.0.bytes_max / 2 {
                return;
            }
            state.is_full = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_values().for_each(Waker::wake);
    }

    /// Somebody who may have to wait for room.
    pub fn waiter(&self) -> Waiter {
        let id = self.0.waiters.fetch_add(1, Ordering::Relaxed);
        Waiter { budget: self.clone(), id }
    }
}

/// Bytes of a budget; dropping it gives them back.
#[derive(Debug)]
pub struct BytesHeld {
    budget: ByteBudget,
    bytes: usize,
}

impl BytesHeld {
    /// How many.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Holds `more` bytes too, if they fit now; says whether it does.
    #[must_use]
    pub fn try_grow(&mut self, more: usize) -> bool {
        let grown = self.budget.reserve(more, self.bytes, false);
        self.bytes += if grown { more } else { 0 };
        grown
    }

    /// Holds `more` bytes too, whether or not they fit.
    pub fn grow(&mut self, more: usize) {
        self.budget.reserve(more, self.bytes, true);
        self.bytes += more;
    }

    /// Takes over what `other` holds of the same budget.
    pub fn absorb(&mut self, mut other: BytesHeld) {
        assert!(
            Arc::ptr_eq(&self.budget.0, &other.budget.0),
            "bytes of two budgets are two things"
        );
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// A part of it that is given back alone.
    pub fn split(&mut self, bytes: usize) -> BytesHeld {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        BytesHeld { budget: self.budget.clone(), bytes }
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let released = self.bytes.saturating_sub(bytes);
        self.bytes -= released;
        self.budget.release(released);
    }
}

impl Drop for BytesHeld {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

/// Waits for room in a budget; several tasks wait through one each.
#[derive(Debug)]
pub struct Waiter {
    budget: ByteBudget,
    id: u64,
}

impl Waiter {
    /// Ready while there is any room. What is then taken may be more than there is room for: by one
    /// item of each user at most.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let bytes_max = self.budget.0.bytes_max;
        let mut state = self.budget.0.state.lock();
        state.is_full |= state.used >= bytes_max;
        if !state.is_full || state.used == 0 {
            return Poll::Ready(());
        }
        state.waiting.insert(self.id, cx.waker().clone());
        Poll::Pending
    }

    /// Waits until there is any room.
    pub async fn room(&self) {
        poll_fn(|cx| self.poll_room(cx)).await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.budget.0.state.lock().waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::FutureExt;

    #[test]
    fn what_does_not_fit_is_refused_and_what_is_alone_fits() {
        let budget = ByteBudget::new(100);
        let large = budget.try_take(1000).unwrap();
        assert!(budget.try_take(1).is_none());
        drop(large);
        let mut held = budget.try_take(60).unwrap();
        assert!(budget.try_take(41).is_none());
        assert!(held.try_grow(41), "it is alone");
        assert_eq!(held.bytes(), 101);
        assert!(budget.try_take(1).is_none());
        held.shrink_to(10);
        let other = budget.try_take(90).unwrap();
        assert!(!held.try_grow(1));
        held.grow(5);
        assert_eq!(budget.used(), 105);
        drop((held, other));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_share_leaves_room_for_others() {
        let whole = ByteBudget::new(100);
        let share = whole.share(50);
        let held = share.try_take(40).unwrap();
        assert!(share.try_take(20).is_none(), "the share is full");
        let other = whole.try_take(55).unwrap();
        assert!(share.try_take(10).is_none(), "the whole is full");
        assert_eq!((share.used(), whole.used()), (40, 95));
        drop(held);
        assert!(share.try_take(60).is_none(), "others hold some of the whole");
        drop(other);
        assert!(share.try_take(60).is_some(), "alone");
        assert_eq!((share.used(), whole.used()), (0, 0));
    }

    #[test]
    fn who_waits_is_woken_when_half_is_free_and_is_not_passed() {
        let budget = ByteBudget::new(100);
        let (waiter, late) = (budget.waiter(), budget.waiter());
        assert!(waiter.room().now_or_never().is_some());
        let mut held = budget.take(120);
        let mut room = Box::pin(waiter.room());
        assert!(room.as_mut().now_or_never().is_none());
        held.shrink_to(60);
        assert!(late.room().now_or_never().is_none(), "the first one waits still");
        held.shrink_to(50);
        assert!(room.as_mut().now_or_never().is_some() && late.room().now_or_never().is_some());
        drop(room);
        drop((waiter, late));
        assert!(budget.0.state.lock().waiting.is_empty());
    }
}
