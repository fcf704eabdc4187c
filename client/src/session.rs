//! Identities of writes: a session, numbers in it, and what is no longer outstanding.

use isotherm_types::{SessionId, Timestamp, WriteId};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;

/// One exactly-once session with the cluster.
#[derive(Debug)]
pub(crate) struct Session {
    id: SessionId,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next: u64,
    outstanding: BTreeSet<u64>,
}

/// One write of a session, outstanding until it is dropped.
pub(crate) struct Ticket {
    session: Arc<Session>,
    seq: u64,
}

impl Session {
    pub fn new(id: SessionId) -> Self {
        Self { id, state: Mutex::new(State { next: 1, outstanding: BTreeSet::new() }) }
    }

    /// A number for one write, the same for all of its attempts.
    pub fn begin(self: &Arc<Self>) -> Ticket {
        let mut state = self.state.lock();
        let seq = state.next;
        state.next += 1;
        state.outstanding.insert(seq);
        Ticket { session: self.clone(), seq }
    }
}

impl Ticket {
    /// The identity for an attempt.
    pub fn id(&self, birth: Timestamp) -> WriteId {
        let state = self.session.state.lock();
        let floor = state.outstanding.first().copied().unwrap_or(state.next);
        WriteId { session: self.session.id, seq: self.seq, floor, birth }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.session.state.lock().outstanding.remove(&self.seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_lowest_write_that_is_outstanding() {
        let session = Arc::new(Session::new(SessionId::default()));
        let (first, second) = (session.begin(), session.begin());
        assert_eq!(second.id(Timestamp(5)).floor, 1);
        drop(first);
        let id = second.id(Timestamp(5));
        assert_eq!((id.seq, id.floor), (2, 2));
        drop(second);
        assert_eq!(session.begin().id(Timestamp(5)).floor, 3);
    }
}
