//! Every openraft type of this crate, under one name each.
//!
//! One configuration serves both kinds of groups, ranges and the meta service's own: commands are
//! opaque bytes to consensus, replies are told apart by [`Reply`]. openraft's "node id" is our
//! replica id, its "node" ([`Host`]) is the physical node that the replica lives on.

use crate::command::RangeReply;
use bytes::Bytes;
use isotherm_types::NodeId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The payload of a log entry. Opaque to consensus; decoded only in apply.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command(pub Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({} bytes)", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What applying an entry answers to whoever proposed it on this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Nothing: a blank entry or a membership change.
    None,
    /// A [`Machine`](crate::Machine)'s answer.
    Machine(Vec<u8>),
    /// A range's answer.
    Range(Box<RangeReply>),
}

/// The physical node that a replica lives on.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Host(pub u64);

impl Host {
    /// As everything but openraft calls it.
    pub const fn node(self) -> NodeId {
        NodeId(self.0)
    }
}

impl From<NodeId> for Host {
    fn from(node: NodeId) -> Self {
        Self(node.get())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.node().fmt(f)
    }
}

openraft::declare_raft_types!(
    /// How this crate configures openraft. Leader ids are (term, replica id), so that two leaders
    /// of one term are told apart.
    pub TypeConfig:
        D = Command,
        R = Reply,
        NodeId = u64,
        Node = Host,
        LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>,
);

use openraft::alias;

/// openraft's handle of one instance, with the state machine `S`.
pub type Raft<S> = openraft::Raft<TypeConfig, S>;
/// (term, replica id).
pub type LeaderId = alias::LeaderIdOf<TypeConfig>;
/// A leadership that a quorum granted; with our leader ids the same as [`LeaderId`].
pub type CommittedLeaderId = alias::CommittedLeaderIdOf<TypeConfig>;
/// (leadership, index).
pub type LogId = alias::LogIdOf<TypeConfig>;
/// A vote, granted or asked for.
pub type Vote = alias::VoteOf<TypeConfig>;
/// A log entry.
pub type Entry = alias::EntryOf<TypeConfig>;
/// What a log entry holds.
pub type EntryPayload = openraft::EntryPayload<Command, u64, Host>;
/// Voters and learners.
pub type Membership = openraft::Membership<u64, Host>;
/// A membership and the log id that it came with.
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
/// Metadata of a snapshot.
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
/// Metadata and data of a snapshot.
pub type Snapshot<D> = alias::SnapshotOf<TypeConfig, D>;
/// Answers the proposer of an entry that was applied.
pub type ApplyResponder = openraft::storage::ApplyResponder<TypeConfig>;
/// Reports to a proposer how its entry fares.
pub type ProgressResponder<T> = openraft::impls::ProgressResponder<TypeConfig, T>;
/// What becomes of a proposal: applied with a reply, or why not.
pub type WriteResult = openraft::raft::ClientWriteResult<TypeConfig>;
/// Why a proposal was not applied by this leader.
pub type ClientWriteError = openraft::errors::ClientWriteError<TypeConfig>;
/// The log is durable up to what it names.
pub type IoFlushed = openraft::storage::IOFlushed<TypeConfig>;
/// Both ends of the log.
pub type LogState = openraft::storage::LogState<TypeConfig>;

/// A request to append entries, or a heartbeat.
pub type AppendEntriesRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
/// The answer to it.
pub type AppendEntriesResponse = openraft::raft::AppendEntriesResponse<TypeConfig>;
/// The answer to one request of a replication stream.
pub type StreamAppendResult = openraft::raft::StreamAppendResult<TypeConfig>;
/// A request for a vote or a pre-vote.
pub type VoteRequest = openraft::raft::VoteRequest<TypeConfig>;
/// The answer to it.
pub type VoteResponse = openraft::raft::VoteResponse<TypeConfig>;
/// The answer to a whole snapshot.
pub type SnapshotResponse = openraft::raft::SnapshotResponse<TypeConfig>;
/// A hand-over of leadership.
pub type TransferLeaderRequest = openraft::raft::TransferLeaderRequest<TypeConfig>;
/// The answer to it.
pub type TransferLeaderResponse = openraft::raft::TransferLeaderResponse<TypeConfig>;
/// Why an RPC failed.
pub type RpcError = openraft::errors::RPCError<TypeConfig>;
/// Why sending a snapshot failed.
pub type StreamingError = openraft::errors::StreamingError<TypeConfig>;
