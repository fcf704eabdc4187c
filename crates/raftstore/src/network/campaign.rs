//! The order to stand for election: what a leader falls back on when its hand-over is late.
//!
//! A leader orders it after it has told openraft to hand over, and serves nothing under that leadership
//! from then on. The order may arrive at any time later, when somebody else leads and answers reads under
//! leases that this member promised. So it counts only while this member follows the leadership that
//! gave it, and even then the member stands by way of a pre-vote: openraft refuses that, in its own
//! loop, while a lease runs that this member or a quorum of the others promised.

use crate::type_config::{Raft, TypeConfig, Vote};
use bytes::Bytes;
use isotherm_storage::codec;
use isotherm_types::ReplicaId;
use openraft::storage::RaftStateMachine;
use serde::{Deserialize, Serialize};

/// The leadership that orders it is (term, sender). A process of an older version sends nothing at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignOrder {
    /// Its term.
    pub term: u64,
}

impl CampaignOrder {
    /// As it travels.
    pub fn encode(self) -> Bytes {
        codec::encode(&self).into()
    }
}

/// Carries out an order of the member `from`; or says why it does not count.
pub async fn campaign<S>(raft: &Raft<S>, from: ReplicaId, order: &[u8]) -> Result<(), String>
where
    S: RaftStateMachine<TypeConfig>,
{
    if !order.is_empty() {
        let order: CampaignOrder = codec::decode(order).map_err(|e| e.to_string())?;
        let ordered_by = Vote::new_committed(order.term, from.get());
        let follows = raft.with_raft_state(|state| *state.vote_ref()).await;
        let follows = follows.map_err(|e| e.to_string())?;
        if follows != ordered_by {
            return Err(format!("the order is of {ordered_by}, this member follows {follows}"));
        }
    }
    raft.trigger().elect(true).await.map_err(|e| e.to_string())
}
