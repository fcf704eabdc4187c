//! Carrying out what the scheduler decides, while this member leads.
//!
//! | file | what |
//! |---|---|
//! | `view.rs` | what is known of the cluster, as the scheduler wants to see it |
//! | `run.rs` | the loop: look, decide, order; nodes that lost everything are gone |
//! | `order.rs` | carrying out one action |
//! | `journal.rs` | the newest decisions about each range, for people |
//!
//! The decisions themselves are `crates/scheduler`: pure, and tested without a cluster.

mod journal;
mod order;
mod run;
mod view;

pub(crate) use journal::{Journal, Noted};
pub(crate) use run::run;
