//! What the leader hears from nodes. In memory only, and only while it leads: a new leader begins
//! with nothing and asks every node to report everything.

mod health;
mod pool;
mod presence;

pub use health::{RangeCounts, RangeHealth};
pub use pool::Pool;
pub use presence::{HEARTBEAT, Heartbeat, LeaderReport, NodeState, Registry};
