//! Commands and what they answer.

use super::merges::MergeCommand;
use super::nodes::NodeIntent;
use super::operations::OperationCommand;
use super::state::Window;
use isotherm_storage::codec;
use isotherm_types::{
    ClusterId, ClusterVersion, Incarnation, KeyRange, NodeId, RaftTiming, RangeDescriptor, RangeId,
    Timestamp,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the cluster begins, as its founder was configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// How many nodes must have joined before the first ranges are placed.
    pub nodes: usize,
    /// How many ranges there are first.
    pub ranges: usize,
    /// Replicas of each range, at most one per node.
    pub replicas: usize,
}

/// What a node says of itself when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeDetails {
    /// Where it serves gRPC.
    pub address: String,
    /// Where it serves HTTP.
    pub http_address: String,
    /// What the operator says of it.
    pub labels: BTreeMap<String, String>,
    /// Its software.
    pub version: String,
}

/// A change of the agreed state.
///
/// On disk and on the wire a variant is its number: new ones are added at the end. A command that a
/// member cannot read stops it; it is never skipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first of all: the cluster exists.
    Found {
        /// Drawn at random by the proposer; never 0.
        cluster: ClusterId,
        /// The clocks of the data ranges, for ever.
        timing: RaftTiming,
        /// How the first ranges are made.
        founding: Founding,
    },
    /// The first ranges; refused if there are any.
    Bootstrap {
        /// Spans, which tile the key space, with the nodes of their replicas.
        ranges: Vec<(KeyRange, Vec<NodeId>)>,
    },
    /// Every node took its first ranges: forget the orders.
    SeedingDone,
    /// A node started.
    RegisterNode {
        /// Which; none: a new one.
        node: Option<NodeId>,
        /// What it says of itself.
        details: NodeDetails,
    },
    /// News about ranges. Each change is taken or refused as a whole.
    TakeDescriptors {
        /// Descriptors that replace what the map holds over the same span.
        changes: Vec<Vec<RangeDescriptor>>,
    },
    /// Range ids.
    AllocateIds {
        /// How many.
        count: u32,
    },
    /// A further window of timestamps, from right behind the last.
    ExtendTimestamps {
        /// Who proposes it, as the leader of the entry's term and of no other.
        member: NodeId,
        /// Where it shall end, if that is further than `by`.
        to: Timestamp,
        /// How many it has at least.
        by: u64,
    },
    /// A setting, which the proposer checked.
    SetSetting {
        /// Its name.
        name: String,
        /// Its new value.
        value: String,
    },
    /// Something about an operation of several steps.
    Operation(OperationCommand),
    /// History up to here may go: refused if it was not issued yet, nothing if it is not higher.
    RaiseSafePoint {
        /// The oldest timestamp that can still be read.
        to: Timestamp,
    },
    /// What the operator wants of a node, or that a node which was to lose everything has nothing.
    SetIntent {
        /// Which.
        node: NodeId,
        /// What of it.
        intent: NodeIntent,
    },
    /// Something about a merge.
    Merge(MergeCommand),
    /// The cluster uses the rules and formats of this version from here on. Its proposer has seen that
    /// every process supports it; a member that does not stops.
    RaiseVersion {
        /// Nothing happens if it is not a newer one.
        to: ClusterVersion,
        /// How many starts of nodes the proposer knew of: refused if there was another one since, whose
        /// software may not support the version.
        starts: u64,
    },
}

impl Command {
    /// The oldest version that knows it. It is proposed to a cluster that uses that version at least,
    /// but for what raises the version itself: then every member has said that it supports it.
    pub fn since(&self) -> ClusterVersion {
        match self {
            Self::RaiseVersion { to, .. } => ClusterVersion::BOUNDED_WRITES.max(*to),
            Self::Found { .. }
            | Self::Bootstrap { .. }
            | Self::SeedingDone
            | Self::RegisterNode { .. }
            | Self::TakeDescriptors { .. }
            | Self::AllocateIds { .. }
            | Self::ExtendTimestamps { .. }
            | Self::SetSetting { .. }
            | Self::Operation(_)
            | Self::RaiseSafePoint { .. }
            | Self::SetIntent { .. }
            | Self::Merge(_) => ClusterVersion::FIRST,
        }
    }

    /// As bytes in the log.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }
}

/// What a command answers its proposer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It took effect, or had before.
    Done,
    /// It does not hold; nothing changed.
    Refused(String),
    /// A node's number and that of its start.
    Node {
        /// Which node.
        id: NodeId,
        /// Which start.
        incarnation: Incarnation,
    },
    /// Ids from here on.
    Ids {
        /// The first.
        first: RangeId,
    },
    /// What the leader may issue now.
    Window(Window),
    /// How many changes were taken.
    Taken {
        /// That many.
        taken: usize,
    },
    /// The operation that was begun or changed.
    Operation {
        /// Its number.
        id: u64,
    },
}
