//! What the leader hears from nodes and readers. In memory only, and only while it leads: a new leader
//! begins with nothing and asks every node to report everything.

mod health;
mod holds;
mod loads;
mod pool;
mod presence;

pub use health::{RangeCounts, RangeHealth};
pub use holds::{HoldRefusal, Holds, LIFETIME};
pub use loads::load_message;
pub use pool::Pool;
pub use presence::{DOWN_AFTER, HEARTBEAT, Heartbeat, Hosted, LeaderReport, NodeState, Registry};
