//! A look at a log for those who do not write it.

use super::state::Shared;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::watch;

/// A look at one log, as its consensus instance has it.
#[derive(Clone)]
pub struct LogView {
    shared: Arc<Shared>,
}

impl LogView {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Index up to which the log is durable on this node. What was recovered at the start, and
    /// what was purged because a snapshot covers it, counts. It falls when entries that were
    /// never committed are truncated.
    pub fn flushed(&self) -> watch::Receiver<u64> {
        self.shared.flushed.subscribe()
    }

    /// Whether somebody found a part of it that cannot be read.
    pub fn is_damaged(&self) -> bool {
        self.shared.is_damaged.load(Ordering::Acquire)
    }

    /// Index of the first entry that is still there (or would be, if there is none).
    pub fn first_index(&self) -> u64 {
        self.shared.state.lock().first_index()
    }

    /// Up to which index entries can go so that at least about `keep_bytes` stay and none above
    /// `durable` goes. `None` if none can.
    pub fn purgeable(&self, durable: u64, keep_bytes: u64) -> Option<u64> {
        let state = self.shared.state.lock();
        let upto = state.sizes.index_before(keep_bytes)?.min(durable);
        (upto >= state.first_index() && upto > 0).then_some(upto)
    }

    /// Refuses everything that the instance still wants to do with the log. When this returns,
    /// nothing of it is submitted to the engine any more.
    pub fn close(&self) {
        self.shared.state.lock().closed = true;
    }
}
