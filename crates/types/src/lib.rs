//! The words of Isotherm as types: ids, epochs, key ranges, descriptors, timestamps, limits.
//!
//! Every other crate imports this one; it imports nothing of ours. No IO, no async runtime, no
//! wire format: what stands here is plain data with its invariants.

mod cluster_version;
mod descriptor;
mod epoch;
mod ids;
mod key_range;
pub mod limits;
mod range_map;
mod session;
pub mod sizes;
mod timestamp;
mod timing;

pub use cluster_version::ClusterVersion;
pub use descriptor::{RangeDescriptor, ReplicaDescriptor, ReplicaRole};
pub use epoch::RangeEpoch;
pub use ids::{ClusterId, Incarnation, NodeId, RangeId, ReplicaId};
pub use key_range::{Key, KeyRange, KeyRangeError};
pub use range_map::{RangeMap, RangeMapError};
pub use session::{REQUEST_SEQ, SessionId, WriteId, numbered_seq};
pub use timestamp::Timestamp;
pub use timing::RaftTiming;
