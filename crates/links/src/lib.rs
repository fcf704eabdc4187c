//! Consensus over the transport: the raftstore's traits on one side, the transport's on the other.
//!
//! The raftstore knows no transport and the transport knows no consensus; nodes and meta members
//! both join them, and do it here.

mod convert;
mod inbox;
mod outbox;

pub use inbox::Inbox;
pub use outbox::Outbox;
