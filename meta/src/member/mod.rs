//! One member of the meta service.
//!
//! | task | what | ends |
//! |---|---|---|
//! | admission | begins the service, or takes a member in that lost its directory | when it votes |
//! | leader | while this member leads: founds, bootstraps, takes reports, raises the safe point | the member's stop |
//! | disk | watches its room, and whether it answers | the member's stop |
//! | identity | writes the cluster's id into the data directory once it is known | when it did |
//! | the oracle's | see `oracle` | the member's stop |
//! | gRPC and HTTP servers | | after leadership was handed over |
//!
//! A member stops in this order: nothing new is begun, leadership is handed over, the servers end,
//! the group ends, the log is closed.

mod admission;
mod disk;
mod leader;
mod meta;
mod run;
mod safe_point;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub(crate) use admission::ask_members;
pub(crate) use meta::{Meta, not_leader};
pub use run::run;
