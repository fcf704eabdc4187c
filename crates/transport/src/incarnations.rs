//! Which start of each process is the newest of which this one has heard.
//!
//! A process that was superseded, because its directory was started again elsewhere or because it is
//! a copy of a machine that comes back, must not be heard beside its successor: a vote of each would
//! be two votes of one member. Every link says which start of the sender it is; what a later start is
//! known of is refused from then on, in both directions.

use isotherm_types::{Incarnation, NodeId};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The starts of this process and of the others. Clones share what they know.
#[derive(Debug, Clone, Default)]
pub struct Incarnations(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    own: AtomicU64,
    newest: Mutex<HashMap<NodeId, Arc<AtomicU64>>>,
}

impl Incarnations {
    /// Of a process whose start has this number; 0: its starts are not numbered.
    pub fn new(own: Incarnation) -> Self {
        let known = Self::default();
        known.set_own(own);
        known
    }

    /// The start of this process.
    pub fn own(&self) -> Incarnation {
        Incarnation(self.0.own.load(Ordering::Acquire))
    }

    /// This process was given another number.
    pub fn set_own(&self, own: Incarnation) {
        self.0.own.store(own.get(), Ordering::Release);
    }

    /// Somebody said that `node` was started as `incarnation`; 0 says nothing.
    pub fn learn(&self, node: NodeId, incarnation: Incarnation) {
        if incarnation.get() != 0 {
            self.newest_of(node).fetch_max(incarnation.get(), Ordering::AcqRel);
        }
    }

    /// The newest start of `node` of which this process has heard; 0: none.
    pub fn newest(&self, node: NodeId) -> Incarnation {
        let newest = self.0.newest.lock();
        Incarnation(newest.get(&node).map_or(0, |newest| newest.load(Ordering::Acquire)))
    }

    fn newest_of(&self, node: NodeId) -> Arc<AtomicU64> {
        self.0.newest.lock().entry(node).or_default().clone()
    }

    /// Who says that it is `incarnation` of `node`. Refused if a later start is known.
    pub(crate) fn admit(&self, node: NodeId, incarnation: u64) -> Result<Admitted, String> {
        let newest = match incarnation {
            // It is of a version that does not say: heard as before.
            0 => None,
            _ => Some(self.newest_of(node)),
        };
        if let Some(newest) = &newest {
            newest.fetch_max(incarnation, Ordering::AcqRel);
        }
        let admitted = Admitted { node, incarnation, newest };
        admitted.check()?;
        Ok(admitted)
    }
}

/// A process that was heard as one of its starts.
#[derive(Debug)]
pub(crate) struct Admitted {
    node: NodeId,
    incarnation: u64,
    newest: Option<Arc<AtomicU64>>,
}

impl Admitted {
    /// An error once a later start of it is known.
    pub fn check(&self) -> Result<(), String> {
        let newest = self.newest.as_ref().map_or(0, |newest| newest.load(Ordering::Acquire));
        if newest <= self.incarnation {
            return Ok(());
        }
        let (node, own) = (self.node, Incarnation(self.incarnation));
        Err(format!(
            "{own} of {node} was superseded: {node} was started again as {}",
            Incarnation(newest)
        ))
    }

    /// It says in a frame which start it is: it may have been given a new number since the link
    /// began.
    pub fn takes(&mut self, incarnation: u64) -> Result<(), String> {
        if incarnation > self.incarnation
            && let Some(newest) = &self.newest
        {
            self.incarnation = incarnation;
            newest.fetch_max(incarnation, Ordering::AcqRel);
        }
        self.check()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const N: NodeId = NodeId(3);

    #[test]
    fn an_earlier_start_is_refused_once_a_later_one_is_known() {
        let known = Incarnations::default();
        let mut first = known.admit(N, 5).unwrap();
        assert!(first.check().is_ok() && first.takes(5).is_ok());
        assert!(known.admit(N, 7).is_ok());
        assert!(first.check().unwrap_err().contains("i7"));
        assert!(known.admit(N, 5).is_err() && known.admit(NodeId(4), 5).is_ok());
        assert!(first.takes(9).is_ok(), "it was given a new number");
        known.learn(N, Incarnation(8));
        assert_eq!(known.newest(N), Incarnation(9), "it never falls");
    }

    #[test]
    fn who_does_not_say_is_heard_as_before() {
        let known = Incarnations::default();
        known.learn(N, Incarnation(7));
        known.learn(N, Incarnation(0));
        assert!(known.admit(N, 0).unwrap().check().is_ok());
    }
}
