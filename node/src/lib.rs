//! The data node: hosts one replica each of many ranges and serves the public API.
//!
//! | module | what |
//! |---|---|
//! | `run` | the life of the process, from its data directory to its last flush |
//! | `registration` | who the node is and which start this is, with the meta service or without |
//! | `oracle` | timestamps: requests gathered into batches, never fetched ahead |
//! | `heartbeat` | what the node reports and what it is told |
//! | `disk` | the free-space watermark |
//! | `service` | the RPCs: ranges for clients that route, `isotherm.v1` for everybody |

mod config;
mod damage;
mod disk;
mod error;
mod heartbeat;
mod loads;
mod oracle;
mod registration;
mod room;
mod run;
mod service;

pub use config::{NodeConfig, NodeTuning};
pub use error::NodeError;
pub use run::run;
