//! What followers acknowledged, and who of them does not keep it.
//!
//! An acknowledgement says that an entry is on disk; commits and elections count on that for ever. A
//! follower that lacks what it acknowledged has lost a part of its log: its disk dropped synced
//! data, or somebody put an older copy in its place. It may have lost a vote as well. openraft would
//! send what is missing again, and believe it from then on.
//!
//! What was acknowledged is looked up when a request is *sent*: an answer that a slow link delivers
//! late may well contradict what has been acknowledged since.

use crate::type_config::{LogId, StreamAppendResult, Vote};
use isotherm_types::ReplicaId;
use openraft::raft::StreamAppendError;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Followers that are kept in mind: far more than a group has. Beyond it those with the lowest ids go,
/// which were replaced long ago.
const FOLLOWERS_MAX: usize = 64;

/// Called with a follower that broke its promise.
pub type OnBroken = Box<dyn Fn(ReplicaId) + Send + Sync>;

/// What the followers of one consensus instance acknowledged to it, while it led.
pub struct Promises {
    /// The last acknowledged entry, and under which leadership.
    acknowledged: Mutex<BTreeMap<ReplicaId, (Vote, LogId)>>,
    on_broken: OnBroken,
}

impl Promises {
    /// Nothing was acknowledged yet.
    pub fn new(on_broken: OnBroken) -> Self {
        Self { acknowledged: Mutex::default(), on_broken }
    }

    /// Whether `follower` has acknowledged `prev`, on which a request builds that is about to be sent.
    pub(super) fn covers(&self, follower: ReplicaId, vote: &Vote, prev: Option<LogId>) -> bool {
        let acknowledged = self.acknowledged.lock();
        let known = acknowledged.get(&follower).filter(|(under, _)| under == vote);
        known.is_some_and(|(_, last)| prev.is_some_and(|prev| prev.index <= last.index))
    }

    /// Takes note of the answer to a request that built on what was `covered`, or not, when it was
    /// sent.
    pub(super) fn answered(
        &self,
        follower: ReplicaId,
        vote: &Vote,
        covered: bool,
        answer: &StreamAppendResult,
    ) {
        let mut acknowledged = self.acknowledged.lock();
        match answer {
            Ok(Some(last)) => {
                let known = acknowledged.entry(follower).or_insert((*vote, *last));
                if known.0 != *vote || known.1.index < last.index {
                    *known = (*vote, *last);
                }
                while acknowledged.len() > FOLLOWERS_MAX {
                    acknowledged.pop_first();
                }
            }
            Err(StreamAppendError::Conflict(_)) if covered => {
                acknowledged.remove(&follower);
                drop(acknowledged);
                (self.on_broken)(follower);
            }
            Ok(None) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::type_config::LeaderId;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    const F: ReplicaId = ReplicaId(2);

    fn id(index: u64) -> LogId {
        LogId::new(LeaderId { term: 1, node_id: 1 }, index)
    }

    fn promises() -> (Promises, Arc<AtomicU64>) {
        let broken = Arc::new(AtomicU64::new(0));
        let counted = broken.clone();
        let on_broken = Box::new(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        (Promises::new(on_broken), broken)
    }

    #[test]
    fn who_lacks_what_it_acknowledged_has_broken_its_promise() {
        let (promises, broken) = promises();
        let vote = Vote::new_committed(1, 1);
        assert!(!promises.covers(F, &vote, Some(id(5))));
        promises.answered(F, &vote, false, &Ok(Some(id(9))));
        let covered = promises.covers(F, &vote, Some(id(9)));
        assert!(covered && !promises.covers(F, &vote, Some(id(10))));
        promises.answered(F, &vote, covered, &Err(StreamAppendError::Conflict(id(9))));
        assert_eq!(broken.load(Ordering::Relaxed), 1);
        assert!(!promises.covers(F, &vote, Some(id(1))), "it begins anew");
    }

    #[test]
    fn a_late_answer_and_another_leadership_prove_nothing() {
        let (promises, broken) = promises();
        let vote = Vote::new_committed(1, 1);
        let covered_when_sent = promises.covers(F, &vote, Some(id(9)));
        promises.answered(F, &vote, false, &Ok(Some(id(9))));
        let late = Err(StreamAppendError::Conflict(id(9)));
        promises.answered(F, &vote, covered_when_sent, &late);
        assert!(!promises.covers(F, &Vote::new_committed(2, 1), Some(id(9))));
        assert_eq!(broken.load(Ordering::Relaxed), 0);
    }
}
