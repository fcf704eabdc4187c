//! Tests in Jepsen's manner: clients work on a cluster of real processes while faults strike it,
//! every operation goes into a history, and a checker looks for what the store promised never to
//! show.
//!
//! ```text
//! workload ──ops──▶ target (client) ──▶ processes ◀──faults── nemesis
//!     └── invoke / ok / fail / info ──▶ history ──▶ checker ──▶ verdict
//! ```
//!
//! An operation ends `ok`, `fail` (certainly not applied) or `info` (unknown: every timeout, every
//! lost connection). All times come from one clock. A run ends healed: every fault is undone, the
//! cluster is ready again, and only then the final reads happen. A run that did too little, or
//! whose checker could not decide, does not pass.

pub mod aftermath;
pub mod check;
pub mod cluster_target;
pub mod history;
pub mod nemesis;
pub mod operation;
pub mod report;
pub mod run;
mod runs;
pub mod target;
pub mod workload;

#[cfg(test)]
mod memory_target;
