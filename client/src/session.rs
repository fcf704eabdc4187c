//! Identities of writes: a session, numbers in it, and what is no longer outstanding.

use crate::operation::RequestId;
use isotherm_types::{REQUEST_SEQ, SessionId, Timestamp, WriteId};
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

/// Who a write is.
pub(crate) enum Identity {
    /// One of a session of this client.
    Ticket(Ticket),
    /// The one that its caller gave it.
    Request(RequestId),
}

impl Identity {
    /// The identity for an attempt.
    pub fn id(&self, birth: Timestamp) -> WriteId {
        match self {
            Self::Ticket(ticket) => ticket.id(birth),
            Self::Request(request) => {
                let (issuer, number) = request.id.split_at(8);
                let number_of =
                    |half: &[u8]| u64::from_be_bytes(half.try_into().unwrap_or_default());
                let session = SessionId { issuer: number_of(issuer), number: number_of(number) };
                let birth = request.since.unwrap_or(birth);
                WriteId { session, seq: REQUEST_SEQ, floor: 0, birth }
            }
        }
    }

    /// Whether a newer birth is as true, if no attempt took effect.
    pub fn can_be_born_again(&self) -> bool {
        !matches!(self, Self::Request(RequestId { since: Some(_), .. }))
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
    fn a_request_is_the_same_write_through_every_client() {
        let request = RequestId { id: *b"0123456789abcdef", since: None };
        let (one, other) = (Identity::Request(request), Identity::Request(request));
        assert_eq!(one.id(Timestamp(5)), other.id(Timestamp(5)));
        assert_eq!(one.id(Timestamp(9)).birth, Timestamp(9));
        let dated = Identity::Request(RequestId { since: Some(Timestamp(3)), ..request });
        assert_eq!(dated.id(Timestamp(9)), WriteId { birth: Timestamp(3), ..one.id(Timestamp(9)) });
        let next = Identity::Request(RequestId { id: *b"0123456789abcdeg", ..request });
        assert_ne!(next.id(Timestamp(5)).session, one.id(Timestamp(5)).session);
    }

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
