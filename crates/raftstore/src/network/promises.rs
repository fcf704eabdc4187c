//! What followers acknowledged, and who of them does not keep it.
//!
//! An acknowledgement says that an entry is on disk; commits and elections count on that for ever. A
//! follower that lacks what it acknowledged has lost a part of its log: its disk dropped synced
//! data, or somebody put an older copy in its place. It may have lost a vote as well. openraft would
//! send what is missing again, and believe it from then on.
//!
//! What was acknowledged is looked up when a request is *sent*: an answer that a slow link delivers
//! late may well contradict what has been acknowledged since.
//!
//! What a follower acknowledged counts for one leadership only: under another one it may have been replaced.
//! What is committed as well counts for good. Without that, a follower that comes back with an older disk and
//! campaigns at once, so that its leader is elected anew, would not be noticed.

use crate::type_config::{AppendEntriesRequest, LogId, StreamAppendResult, Vote};
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
    acknowledged: Mutex<BTreeMap<ReplicaId, Acknowledged>>,
    on_broken: OnBroken,
}

impl Promises {
    /// Nothing was acknowledged yet.
    pub fn new(on_broken: OnBroken) -> Self {
        Self { acknowledged: Mutex::default(), on_broken }
    }

    /// Whether `follower` has acknowledged `prev` to this leadership.
    pub(super) fn has(&self, follower: ReplicaId, vote: &Vote, prev: Option<LogId>) -> bool {
        let acknowledged = self.acknowledged.lock();
        let known = acknowledged.get(&follower).filter(|known| known.under == *vote);
        known.is_some_and(|known| prev.is_some_and(|prev| prev.index <= known.last.index))
    }

    /// What is to be known of a request when it is answered. It is about to be sent to `follower`.
    pub(super) fn asked(&self, follower: ReplicaId, request: &AppendEntriesRequest) -> Asked {
        let AppendEntriesRequest { vote, prev_log_id: prev, leader_commit, .. } = *request;
        let acknowledged = self.acknowledged.lock();
        let is_kept = |kept: u64| prev.is_some_and(|prev| prev.index <= kept);
        let known = acknowledged.get(&follower);
        let is_promised = known.is_some_and(|known| {
            (known.under == vote && is_kept(known.last.index)) || known.kept.is_some_and(is_kept)
        });
        Asked { vote, is_promised, committed: leader_commit.map(|id| id.index) }
    }

    /// Takes note of the answer to a request.
    pub(super) fn answered(&self, follower: ReplicaId, asked: &Asked, answer: &StreamAppendResult) {
        let Asked { vote, is_promised, committed } = *asked;
        let mut acknowledged = self.acknowledged.lock();
        match answer {
            Ok(Some(last)) => {
                let new = Acknowledged { under: vote, last: *last, kept: None };
                let known = acknowledged.entry(follower).or_insert(new);
                if known.under != vote || known.last.index < last.index {
                    (known.under, known.last) = (vote, *last);
                }
                let kept = committed.map(|committed| committed.min(last.index));
                known.kept = known.kept.max(kept);
                while acknowledged.len() > FOLLOWERS_MAX {
                    acknowledged.pop_first();
                }
            }
            Err(StreamAppendError::Conflict(_)) if is_promised => {
                acknowledged.remove(&follower);
                drop(acknowledged);
                (self.on_broken)(follower);
            }
            Ok(None) | Err(_) => {}
        }
    }
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(super) struct Asked {
    vote: Vote,
    /// Whether the follower had acknowledged what it builds on.
    is_promised: bool,
    /// Index up to which it says that entries are committed.
    committed: Option<u64>,
}

/// What a follower acknowledged.
#[derive(Debug, Clone, Copy)]
struct Acknowledged {
    /// To which leadership.
    under: Vote,
    /// The last entry.
    last: LogId,
    /// Index of the last entry that was committed as well, under whatever leadership.
    kept: Option<u64>,
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

    fn request(term: u64, prev: u64, committed: Option<u64>) -> AppendEntriesRequest {
        AppendEntriesRequest {
            vote: Vote::new_committed(term, 1),
            prev_log_id: Some(id(prev)),
            entries: Vec::new(),
            leader_commit: committed.map(id),
        }
    }

    fn conflict(index: u64) -> StreamAppendResult {
        Err(StreamAppendError::Conflict(id(index)))
    }

    #[test]
    fn who_lacks_what_it_acknowledged_has_broken_its_promise() {
        let (promises, broken) = promises();
        let asked = promises.asked(F, &request(1, 5, None));
        assert!(!asked.is_promised);
        promises.answered(F, &asked, &Ok(Some(id(9))));
        assert!(!promises.asked(F, &request(1, 10, None)).is_promised);
        let asked = promises.asked(F, &request(1, 9, None));
        assert!(asked.is_promised);
        promises.answered(F, &asked, &conflict(9));
        assert_eq!(broken.load(Ordering::Relaxed), 1);
        assert!(!promises.asked(F, &request(1, 1, None)).is_promised, "it begins anew");
    }

    #[test]
    fn a_late_answer_and_another_leadership_prove_nothing() {
        let (promises, broken) = promises();
        let late = promises.asked(F, &request(1, 9, None));
        promises.answered(F, &promises.asked(F, &request(1, 5, None)), &Ok(Some(id(9))));
        promises.answered(F, &late, &conflict(9));
        let other = promises.asked(F, &request(2, 9, None));
        promises.answered(F, &other, &conflict(9));
        assert_eq!(broken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_committed_counts_under_every_leadership() {
        let (promises, broken) = promises();
        promises.answered(F, &promises.asked(F, &request(1, 5, Some(7))), &Ok(Some(id(9))));
        // The next leadership has not heard of it yet; entries 8 and 9 may be replaced.
        let replaced = promises.asked(F, &request(2, 8, Some(7)));
        promises.answered(F, &replaced, &conflict(8));
        assert_eq!(broken.load(Ordering::Relaxed), 0);
        // An answer that says less takes nothing back.
        promises.answered(F, &promises.asked(F, &request(2, 1, Some(3))), &Ok(Some(id(3))));
        let lost = promises.asked(F, &request(3, 7, Some(7)));
        promises.answered(F, &lost, &conflict(7));
        assert_eq!(broken.load(Ordering::Relaxed), 1);
    }
}
