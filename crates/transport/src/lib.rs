//! Connections between the processes of a cluster.
//!
//! * [`Peers`]: the calling side of the one long-lived link to each other process, on which calls
//!   and streams of all Raft groups are multiplexed (`isotherm.internal.v1.RaftService`);
//! * [`raft_server`], [`FrameHandler`]: the answering side;
//! * [`channel()`]: a gRPC channel with the settings that all of our connections share;
//! * [`MetaLink`]: the way to the meta service's leader, for nodes and clients;
//! * [`bind`], [`serve`]: a gRPC server with the same settings.
//!
//! * [`ByteBudget`], [`queue()`]: bounds in bytes on what is held, and on what waits;
//! * [`gather()`]: what waits in a queue as messages of bounded size;
//! * [`health_service`]: `grpc.health.v1` that follows readiness.
//!
//! Payloads are opaque here.

mod accept;
mod budget;
mod channel;
mod error;
mod faults;
mod gather;
mod health;
mod incarnations;
#[cfg(test)]
mod lane_tests;
mod link;
mod meta_link;
mod options;
mod peers;
mod queue;
mod server;
mod session;
#[cfg(test)]
mod tests;

pub use accept::{FrameHandler, raft_server};
pub use budget::{ByteBudget, BytesHeld, Waiter};
pub use channel::{channel, check_reachable, connect};
pub use error::{TransportError, status_text};
pub use gather::gather;
pub use health::health_service;
pub use incarnations::Incarnations;
pub use isotherm_proto::internal::Header;
pub use meta_link::{MetaClient, MetaLink};
pub use options::PeersOptions;
pub use peers::Peers;
pub use queue::{QueueClosed, QueueError, QueueReceiver, QueueSender, queue};
pub use server::{bind, serve};
pub use session::{StreamReceiver, StreamSender};
