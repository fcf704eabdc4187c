//! Newtyped identifiers. No id is ever used again for something else, so an id that outlives
//! its owner names nothing rather than the wrong thing.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The bare number, for encoding.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl From<u64> for $name {
            fn from(id: u64) -> Self {
                Self(id)
            }
        }
    };
}

id!(
    /// One cluster. Chosen at random when the meta service is bootstrapped; every data directory
    /// remembers it, so that a disk of another cluster is refused.
    ClusterId,
    "c"
);
id!(
    /// One process that stores data (a node) or one member of the meta service. Node ids come
    /// from meta's allocator; an emptied data directory comes back under a new id.
    NodeId,
    "n"
);
id!(
    /// One range: a key span and its Raft group. [`RangeId::META`] is the meta service's group.
    RangeId,
    "r"
);
id!(
    /// One copy of a range. Comes from a counter in the range's descriptor, so it is never used
    /// again inside that range and a higher one is newer. It is openraft's node id.
    ReplicaId,
    ""
);
id!(
    /// One start of a node process, numbered by meta. Makes session ids unique across restarts.
    Incarnation,
    "i"
);

impl RangeId {
    /// The Raft group of the meta service. Data ranges start at 1.
    pub const META: RangeId = RangeId(0);
}
