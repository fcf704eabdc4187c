//! The RPCs of the meta service.
//!
//! Errors travel inside answers with stable codes; a gRPC status means that the transport failed.
//! A member that does not lead answers everything but `Members` with `NOT_LEADER` and the leader's
//! id. Everything has a deadline.

mod admin;
mod answer;
mod grpc;
mod heartbeat;
mod heat;
mod holds;
mod identity;
mod operations;
mod ranges;
mod register;
#[cfg(test)]
mod size_tests;
mod status;
#[cfg(test)]
mod tests;
mod timestamps;
mod upgrade;

pub use grpc::Service;
