//! The Raft log of one replica, over the node's one log engine.
//!
//! The engine writes all groups' logs with one thread and one sync per drain; what is here is the
//! part of one consensus instance: openraft's traits ([`LogStore`], [`LogReader`]), the newest
//! entries in memory, and how far the log is durable ([`LogView::flushed`]).
//!
//! To ensure correctness:
//! * an entry is readable when `append` returns, and reported as flushed only after its sync;
//! * the engine handles what is submitted in order, so a vote, an append, a truncation and another
//!   append of one replica reach the disk in that order; submitting and changing the state in
//!   memory happen under one lock;
//! * entries are contiguous: an append that does not follow the last entry is refused;
//! * every operation of an instance that was replaced is refused: either its generation is old or
//!   it was closed ([`LogView::close`]), after which nothing of it is submitted any more.

mod open;
mod reader;
mod sizes;
mod state;
mod storage;
mod tail;
mod view;

pub use open::{is_damage, lacks};
pub use reader::LogReader;
pub use storage::LogStore;
pub use view::LogView;
