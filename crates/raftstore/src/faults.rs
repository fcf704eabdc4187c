//! Switches that break a rule, or stop at the worst moment, on purpose: so that the test of the rule
//! can be seen to fail, and a crash can be had at any step.
//!
//! They exist in this crate's own tests, which set them store by store, and in builds with the cargo
//! feature `faults`, which read them from the environment at start. In every other build, and so in
//! every released one, each is a constant.

use std::io;
use std::time::{Duration, Instant};

/// How often somebody who stands still looks whether it may go on.
const LOOK: Duration = Duration::from_millis(2);

macro_rules! switches {
    ($($(#[$doc:meta])* $name:ident = $variable:literal;)*) => {
        /// The switches of one store; 0 is off.
        #[derive(Debug)]
        pub struct Faults {
            $(
                #[cfg(any(test, feature = "faults"))]
                pub $name: std::sync::atomic::AtomicU64,
            )*
        }

        impl Default for Faults {
            fn default() -> Self {
                Self {
                    $(
                        #[cfg(any(test, feature = "faults"))]
                        $name: initial($variable).into(),
                    )*
                }
            }
        }

        impl Faults {
            $(
                $(#[$doc])*
                #[cfg(any(test, feature = "faults"))]
                pub fn $name(&self) -> u64 {
                    self.$name.load(std::sync::atomic::Ordering::Relaxed)
                }

                $(#[$doc])*
                #[cfg(not(any(test, feature = "faults")))]
                pub const fn $name(&self) -> u64 {
                    0
                }
            )*
        }
    };
}

switches! {
    /// 1: reads are served without confirming leadership.
    skip_read_confirmation = "ISOTHERM_FAULT_SKIP_READ_CONFIRMATION";
    /// 1: a leader that sleeps answers the read that wakes it as if its lease lasted through its sleep.
    lease_while_asleep = "ISOTHERM_FAULT_LEASE_WHILE_ASLEEP";
    /// 1: whoever asks a sleeping follower wakes it, and its leader is not asked first.
    wake_followers_first = "ISOTHERM_FAULT_WAKE_FOLLOWERS_FIRST";
    /// 1: nobody stands for groups that sleep under a leader whose node is silent.
    no_succession = "ISOTHERM_FAULT_NO_SUCCESSION";
    /// 1: retries are evaluated again.
    no_dedup = "ISOTHERM_FAULT_NO_DEDUP";
    /// 1: writes from before the oldest remembered result are evaluated.
    no_session_floor = "ISOTHERM_FAULT_NO_SESSION_FLOOR";
    /// 1: what was given a timestamp under one leadership is proposed under another.
    any_leadership = "ISOTHERM_FAULT_ANY_LEADERSHIP";
    /// 1: an entry is proposed for the range's version at that moment, not for the one that its writes were
    /// checked against.
    any_version = "ISOTHERM_FAULT_ANY_VERSION";
    /// Milliseconds that the sequencer waits between getting a timestamp and proposing under it.
    hold_ts_ms = "ISOTHERM_FAULT_HOLD_TS_MS";
    /// Milliseconds that applying a split takes before its flush, as on a slow disk.
    stall_split_ms = "ISOTHERM_FAULT_STALL_SPLIT_MS";
    /// 1: the leader serves reads of a span that it has proposed to split off.
    no_split_gate = "ISOTHERM_FAULT_NO_SPLIT_GATE";
    /// 1: a range that stands still to be absorbed serves reads.
    read_while_frozen = "ISOTHERM_FAULT_READ_WHILE_FROZEN";
    /// 1: whoever asks whether a replica stands still is told yes at once.
    no_freeze_wait = "ISOTHERM_FAULT_NO_FREEZE_WAIT";
    /// 1: a fence ends no epoch.
    no_fence = "ISOTHERM_FAULT_NO_FENCE";
    /// Dies at this step of absorbing a range.
    kill_at_absorb_step = "ISOTHERM_FAULT_KILL_AT_ABSORB_STEP";
    /// 1: votes are granted at once after a restart.
    no_vote_hold = "ISOTHERM_FAULT_NO_VOTE_HOLD";
    /// 1: a replica is destroyed by any map that lacks it, however old.
    trust_any_map = "ISOTHERM_FAULT_TRUST_ANY_MAP";
    /// Milliseconds that a change of members waits while two sets vote.
    stall_joint_ms = "ISOTHERM_FAULT_STALL_JOINT_MS";
    /// The generation of a consensus instance whose worker stands still before it applies.
    stall_apply_of = "ISOTHERM_FAULT_STALL_APPLY_OF";
    /// 1: work of a consensus instance that was replaced is done all the same.
    no_generations = "ISOTHERM_FAULT_NO_GENERATIONS";
    /// 1: a snapshot that has no place here is answered as if it were installed.
    promise_snapshots = "ISOTHERM_FAULT_PROMISE_SNAPSHOTS";
    /// Dies at this step of a snapshot's install.
    kill_at_install_step = "ISOTHERM_FAULT_KILL_AT_INSTALL_STEP";
    /// Dies at this step of a replica's destruction.
    kill_at_destroy_step = "ISOTHERM_FAULT_KILL_AT_DESTROY_STEP";
    /// Dies at this step of applying a split.
    kill_at_split_step = "ISOTHERM_FAULT_KILL_AT_SPLIT_STEP";
    /// 1: openraft's storage suite runs over these stores. It applies entries that were never appended
    /// and do not follow each other, and wants its snapshots at the applied id.
    suite = "ISOTHERM_FAULT_NEVER_SET_SUITE";
}

/// In tests every store begins without faults: what the environment says is for whole processes.
#[cfg(any(test, feature = "faults"))]
fn initial(variable: &str) -> u64 {
    if cfg!(test) {
        return 0;
    }
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(0)
}

impl Faults {
    /// Waits as long as [`Faults::hold_ts_ms`] says.
    pub async fn holding_ts(&self) {
        stand_still(|| self.hold_ts_ms()).await;
    }

    /// Waits as long as [`Faults::stall_joint_ms`] says.
    pub async fn joint_entered(&self) {
        stand_still(|| self.stall_joint_ms()).await;
    }

    /// Waits for as long as [`Faults::stall_apply_of`] names `generation`.
    pub async fn applying(&self, generation: u64) {
        while self.stall_apply_of() != 0 && self.stall_apply_of() == generation {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits as long as [`Faults::stall_split_ms`] says. Blocking.
    pub fn before_split_flush(&self) {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(self.stall_split_ms()) {
            std::thread::sleep(LOOK);
        }
    }

    /// A step of a snapshot's install is about to be made.
    pub fn install_step(&self, step: u64) -> io::Result<()> {
        die_at(self.kill_at_install_step(), step)
    }

    /// A step of a replica's destruction was made.
    pub fn destroy_step(&self, step: u64) -> io::Result<()> {
        die_at(self.kill_at_destroy_step(), step)
    }

    /// A step of absorbing a range was made.
    pub fn absorb_step(&self, step: u64) -> io::Result<()> {
        die_at(self.kill_at_absorb_step(), step)
    }

    /// A step of applying a split is about to be made.
    pub fn split_step(&self, step: u64) -> io::Result<()> {
        die_at(self.kill_at_split_step(), step)
    }
}

async fn stand_still(ms: impl Fn() -> u64) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(ms()) {
        tokio::time::sleep(LOOK).await;
    }
}

/// Ends the process; in tests only whoever asked, who must go no further.
fn die_at(wanted: u64, step: u64) -> io::Result<()> {
    if wanted == 0 || wanted != step {
        return Ok(());
    }
    if cfg!(test) {
        return Err(io::Error::other("stopped by a test"));
    }
    std::process::abort()
}
