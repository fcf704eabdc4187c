//! The RPCs of a node.
//!
//! * `range`, `range_stream`: what clients that route ask of the node that leads a range;
//! * `routes`: where the ranges are that this node hosts;
//! * `aggregate`, `aggregate_answer`: what the rows of ranges that this node leads come to;
//! * `replica`: changes of a range's members, which the meta service asks of its leader;
//! * `merge`: the steps of merges, likewise;
//! * `kv`, `kv_convert`, `groups`: `isotherm.v1`, in which any node takes any key and routes it;
//! * `refusal`: errors of `isotherm.v1` with their details;
//! * `answers`: streams that are bounded in bytes, and end when they are not read;
//! * `request_memory`: how much memory requests and answers take;
//! * `convert`: messages to what the store takes, and back.

mod aggregate;
mod aggregate_answer;
mod answers;
mod convert;
mod groups;
mod kv;
mod kv_convert;
mod merge;
mod range;
mod range_stream;
mod refusal;
mod replica;
mod request_memory;
mod routes;
#[cfg(test)]
mod size_tests;

pub use kv::KvGateway;
pub use merge::MergeRpc;
pub use range::{RangeRpc, Ready};
pub use replica::ReplicaRpc;
pub use request_memory::RequestMemory;
