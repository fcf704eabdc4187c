//! The kinds of faults, and the record of one that struck.

use serde::Serialize;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// SIGKILL to one node, and started again.
    Kill,
    /// SIGKILL to every process at once, meta too.
    KillAll,
    /// SIGSTOP to one node for longer than a lease.
    Pause,
    /// SIGKILL to one member of the meta service.
    MetaKill,
    /// The disks of one, some or all processes lose what was not synced, and the processes die.
    PowerLoss,
    /// The same, always for all processes at once.
    PowerLossAll,
    /// A range is split at a random key.
    Split,
    /// A range absorbs its right neighbour; now and then the order is taken back at once.
    Merge,
    /// The leadership of a range is handed to another replica.
    Transfer,
    /// A replica of a range is moved to a node without one, half the time that of the leader.
    Move,
    /// A node loses its leaderships for a while, or is made to lose its replicas and kept after all.
    Drain,
}

impl Fault {
    /// Whether the fault needs disks that can lose power.
    pub fn needs_disks(self) -> bool {
        matches!(self, Fault::PowerLoss | Fault::PowerLossAll)
    }

    /// Whether processes stop answering by it.
    pub fn stops_processes(self) -> bool {
        !matches!(self, Fault::Split | Fault::Merge | Fault::Transfer | Fault::Move | Fault::Drain)
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::KillAll => "kill-all",
            Fault::Pause => "pause",
            Fault::MetaKill => "meta-kill",
            Fault::PowerLoss => "power-loss",
            Fault::PowerLossAll => "power-loss-all",
            Fault::Split => "split",
            Fault::Merge => "merge",
            Fault::Transfer => "transfer",
            Fault::Move => "move",
            Fault::Drain => "drain",
        }
    }
}

/// How a fault ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultOutcome {
    /// It struck.
    Installed,
    /// It did not strike, and why.
    Skipped(String),
    /// Nobody knows.
    Indeterminate(String),
}

/// One fault that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FaultRecord {
    /// When, in milliseconds since the nemesis began.
    pub at_ms: u64,
    /// What.
    pub fault: Fault,
    /// Whom it was for.
    pub target: String,
    /// How it ended.
    pub outcome: FaultOutcome,
}
