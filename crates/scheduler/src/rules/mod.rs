//! The rules, one file each; `scheduler.rs` asks them in their order.

mod count;
mod disk;
mod evacuate;
mod leader_load;
mod merge;
mod placement;
mod repair;
mod replica_load;
mod split;

pub(crate) use count::count;
pub(crate) use disk::disk;
pub(crate) use evacuate::evacuate;
pub(crate) use leader_load::{leader_load, mean_use, why_not_handed_over};
pub(crate) use merge::{merge, why_not_merged};
pub(crate) use placement::placement;
pub(crate) use repair::repair;
pub(crate) use replica_load::replica_load;
pub(crate) use split::{split, why_not_split};
