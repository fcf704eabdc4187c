//! The meta service of Isotherm: one Raft group that holds the partition map, the node registry,
//! the timestamp oracle, the id allocator and the cluster's settings.
//!
//! | module | what |
//! |---|---|
//! | `machine` | what the members agree on, and the commands that change it |
//! | `oracle` | timestamps: windows, their pace, and the round that covers every answer |
//! | `registry` | what the leader hears from nodes, in memory only |
//! | `bootstrap` | the first ranges of a cluster |
//! | `settings` | the settings that a cluster has |
//! | `operations` | moves: what the next step is, and having it carried out |
//! | `scheduling` | carrying out what `crates/scheduler` decides, and explaining it |
//! | `member` | one member: its shared state, what it does while it leads, how it runs |
//! | `service` | the RPCs |
//!
//! Every answer that decides something comes from the leader; the other members say who that is.

mod bootstrap;
mod config;
mod error;
mod machine;
mod member;
mod metrics;
mod operations;
mod oracle;
mod registry;
mod scheduling;
mod service;
mod settings;

pub use config::{BootstrapConfig, MetaConfig};
pub use error::MetaError;
pub use member::run;
