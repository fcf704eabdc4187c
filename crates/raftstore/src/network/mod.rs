//! openraft's network over a [`PeerSender`](crate::sender::PeerSender), and its server side.
//!
//! | message | how |
//! |---|---|
//! | append entries | one stream per follower, pipelined (`append_stream.rs`, [`serve_stream`]) |
//! | heartbeat, vote, pre-vote, hand-over | a call each ([`serve_call`]) |
//! | snapshot | its own stream of chunks, made by a [`SnapshotSender`] |
//!
//! To ensure correctness:
//! * the answers of a replication stream come in the order of its requests, and the stream ends
//!   when the requests have ended and all answers are delivered: openraft's probes are streams of
//!   one request, and replication would hang otherwise;
//! * openraft does not time out a stuck stream: it ends here with an error when no answer came
//!   for a while;
//! * a frame that may be missing ends the stream: openraft starts a new one from what it knows to
//!   have matched.

mod append_stream;
mod campaign;
mod client;
mod factory;
mod method;
mod promises;
mod serve;
mod snapshot;
#[cfg(test)]
mod window_tests;

pub use campaign::{CampaignOrder, campaign};
pub use factory::Factory;
pub use method::Method;
pub use serve::{VoteGate, serve_call, serve_stream};
pub use snapshot::SnapshotSender;
