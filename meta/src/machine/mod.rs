//! What the members of the meta service agree on.
//!
//! The machine is pure: it has no clock and no randomness; times and random numbers come inside
//! commands. Every command enters as one Raft entry and answers its proposer with a [`Reply`].

mod apply;
mod command;
mod merges;
mod nodes;
mod operations;
pub mod sizes;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;

pub use command::{Command, Founding, NodeDetails, Reply};
pub use merges::{Merge, MergeCommand};
pub use nodes::NodeIntent;
pub use operations::{Operation, OperationCommand, OperationState, Undo};
pub use state::{MetaMachine, NodeRecord, Reign, SEED_NUMBER, Window};
