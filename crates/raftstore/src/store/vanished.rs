//! Followers that their node has no more.
//!
//! A node that was started over an older copy of its directory lacks the replicas that were made since. To
//! create them again under their ids would forget what they acknowledged and whom they voted for. So their
//! leader asks about a follower that has acknowledged entries and gets on no more (`HOSTS`); one that its node
//! does not host, time and again, is lost as if it had lost its log (`operation/dismiss.rs`): it is removed,
//! and the range gets another one under a new id.

use super::Store;
use crate::replica::Replica;
use crate::sender::FrameHeader;
use bytes::Bytes;
use isotherm_types::ReplicaId;
use openraft::type_config::async_runtime::watch::WatchReceiver;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Is this replica on your node? A node of an older version refuses to answer.
pub(super) const HOSTS: u32 = 109;

const HOSTED: u8 = 1;
const NOT_HOSTED: u8 = 0;
/// So many looks in a row find it not hosted.
const DENIALS: u32 = 2;

/// What a leader knows of a follower that is behind.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Standstill {
    /// The index up to which it follows.
    matched: u64,
    /// How often in a row its node said that it does not host it.
    denials: u32,
}

impl Store {
    /// Answers [`HOSTS`].
    pub(super) fn says_whether_it_hosts(&self, header: &FrameHeader) -> Bytes {
        let is_here = self.replica(header.range).is_some_and(|r| r.id == header.to_replica);
        Bytes::copy_from_slice(&[if is_here { HOSTED } else { NOT_HOSTED }])
    }

    /// Looks, as a leader, for followers that acknowledged entries and have vanished since.
    pub(super) async fn find_vanished(&self, replica: &Arc<Replica>) {
        // One that is absorbed goes from its nodes one after the other.
        if replica.is_frozen() {
            return;
        }
        for follower in standing_still(replica) {
            let descriptor = replica.descriptor();
            let Some(named) = descriptor.replica(follower) else { continue };
            let asked = self.ask(replica, (named.id, named.node), HOSTS, Bytes::new()).await;
            let is_denied = asked.is_ok_and(|answer| answer.as_ref() == [NOT_HOSTED]);
            let denials = {
                let mut known = replica.standstills.lock();
                let Some(standstill) = known.get_mut(&follower) else { continue };
                standstill.denials = if is_denied { standstill.denials + 1 } else { 0 };
                standstill.denials
            };
            if denials >= DENIALS {
                replica.standstills.lock().remove(&follower);
                replica.has_vanished(follower);
            }
        }
    }
}

/// The followers of this leader that are behind and stand where they stood at the last look.
fn standing_still(replica: &Replica) -> Vec<ReplicaId> {
    let behind: BTreeMap<ReplicaId, u64> = {
        let Some(instance) = replica.instance.load_full() else { return Vec::new() };
        let metrics = instance.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or(0);
        let matched = metrics.replication.iter().flatten();
        let matched = matched.filter_map(|(id, at)| Some((ReplicaId(*id), at.as_ref()?.index)));
        matched.filter(|(id, at)| *id != replica.id && *at < last).collect()
    };
    let mut known = replica.standstills.lock();
    known.retain(|id, before| behind.get(id) == Some(&before.matched));
    let still = known.keys().copied().collect();
    for (id, matched) in behind {
        known.entry(id).or_insert(Standstill { matched, denials: 0 });
    }
    still
}
