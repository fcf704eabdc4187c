//! What the cluster should do next, as a pure function of what is known of it.
//!
//! No clock, no I/O, no thread: [`Scheduler::decide`] gets a [`ClusterView`] and answers with
//! [`Decision`]s, each with its reason, also when the decision is to do nothing. Whoever leads the
//! meta service makes views, carries the decisions out and keeps the newest of each range to explain it.

mod decision;
mod destination;
mod explain;
mod figures;
mod load;
mod memory;
mod pass;
mod past;
mod rules;
mod scheduler;
mod settings;
pub mod simulator;
mod stand;
mod view;

pub use decision::{Action, Decision, Rule};
pub use load::{KeySample, RangeLoad, Rates};
pub use scheduler::Scheduler;
pub use settings::Settings;
pub use view::{ClusterView, Intent, Liveness, NodeView, PendingMerge, PendingMove, RangeView};

#[cfg(test)]
mod tests;
