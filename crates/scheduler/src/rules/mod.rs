//! The rules, one per file, in the order in which they are asked.
//!
//! A rule looks at ranges that are free ([`crate::pass::Pass::is_free`]), so an earlier rule goes
//! before a later one for the same range. Each says what it does, what it must not do, and why.

pub(crate) mod count;
pub(crate) mod disk;
pub(crate) mod evacuate;
pub(crate) mod leader_load;
pub(crate) mod merge;
pub(crate) mod placement;
pub(crate) mod repair;
pub(crate) mod replica_load;
pub(crate) mod room;
pub(crate) mod split;
pub(crate) mod split_keys;
