//! What is to be done, and why.

use isotherm_types::{Key, NodeId, RangeId};
use std::fmt;

/// The rule that decided, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// A replica on a node that is gone is built again elsewhere.
    Repair,
    /// A draining node leads nothing, a decommissioned one has nothing.
    Evacuate,
    /// Replicas of a range spread over failure domains.
    Placement,
    /// A hot or large range is cut.
    Split,
    /// Cold neighbours become one.
    Merge,
    /// Leaders of hot ranges spread over nodes.
    LeaderLoad,
    /// Replicas of hot ranges spread over nodes.
    ReplicaLoad,
    /// Nodes have about as many replicas, and lead about as many ranges, as each other.
    Count,
    /// Disks fill evenly.
    Disk,
}

/// Something to carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Cut the range at these keys, ascending, each strictly inside of it.
    Split {
        /// Which.
        range: RangeId,
        /// Where.
        keys: Vec<Key>,
    },
    /// Make one range of two neighbours.
    Merge {
        /// The one that stays.
        left: RangeId,
        /// The one that is absorbed.
        right: RangeId,
    },
    /// Hand leadership over; moves no data.
    Transfer {
        /// Of which range.
        range: RangeId,
        /// To the voter on this node.
        to: NodeId,
    },
    /// Move a replica.
    Move {
        /// Of which range.
        range: RangeId,
        /// From this node, which may be gone.
        from: NodeId,
        /// To this one, which has none of it.
        to: NodeId,
    },
    /// Add a replica to a range that has too few.
    Add {
        /// To which range.
        range: RangeId,
        /// On which node.
        to: NodeId,
    },
    /// Give up a move in favour of something that is more urgent.
    CancelMove {
        /// Of which range.
        range: RangeId,
    },
}

impl Action {
    /// The range that it changes first.
    pub fn range(&self) -> RangeId {
        match self {
            Self::Split { range, .. }
            | Self::Transfer { range, .. }
            | Self::Move { range, .. }
            | Self::Add { range, .. }
            | Self::CancelMove { range } => *range,
            Self::Merge { left, .. } => *left,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Split { range, keys } => {
                let keys: Vec<_> = keys.iter().map(|key| key.escape_ascii().to_string()).collect();
                write!(f, "split {range} at {}", keys.join(", "))
            }
            Self::Merge { left, right } => write!(f, "merge {right} into {left}"),
            Self::Transfer { range, to } => write!(f, "hand {range} to {to}"),
            Self::Move { range, from, to } => write!(f, "move {range} from {from} to {to}"),
            Self::Add { range, to } => write!(f, "add a replica of {range} on {to}"),
            Self::CancelMove { range } => write!(f, "give up the move of {range}"),
        }
    }
}

/// One decision about one range: to do something, or, with `action` absent, why not.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// About which range.
    pub range: RangeId,
    /// Which rule decided.
    pub rule: Rule,
    /// What to do; none: nothing, for the reason.
    pub action: Option<Action>,
    /// A sentence for an operator, with the figures that decided.
    pub reason: String,
}
