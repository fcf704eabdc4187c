//! Switches that break a rule on purpose, so that its test can be seen to fail.
//!
//! Only with the cargo feature `faults`, which no released binary has; without it every function
//! here is empty. A switch is an environment variable, read once.

#[cfg(feature = "faults")]
mod switches {
    use isotherm_types::RangeId;
    use std::time::Duration;

    fn is_set(name: &str) -> bool {
        std::env::var(name).is_ok_and(|v| v == "1")
    }

    fn number(name: &str) -> Option<u64> {
        std::env::var(name).ok()?.parse().ok()
    }

    /// The switches of one store.
    #[derive(Debug)]
    pub struct Faults {
        skip_read_confirmation: bool,
        no_dedup: bool,
        hold_ts_ms: Option<u64>,
        stall_split_ms: Option<u64>,
        no_split_gate: bool,
        no_vote_hold: bool,
        kill_at_install_step: Option<u64>,
        kill_at_destroy_step: Option<u64>,
        trust_any_map: bool,
        stall_joint_ms: Option<u64>,
    }

    impl Default for Faults {
        fn default() -> Self {
            Self {
                skip_read_confirmation: is_set("ISOTHERM_FAULT_SKIP_READ_CONFIRMATION"),
                no_dedup: is_set("ISOTHERM_FAULT_NO_DEDUP"),
                hold_ts_ms: number("ISOTHERM_FAULT_HOLD_TS_MS"),
                stall_split_ms: number("ISOTHERM_FAULT_STALL_SPLIT_MS"),
                no_split_gate: is_set("ISOTHERM_FAULT_NO_SPLIT_GATE"),
                no_vote_hold: is_set("ISOTHERM_FAULT_NO_VOTE_HOLD"),
                kill_at_install_step: number("ISOTHERM_FAULT_KILL_AT_INSTALL_STEP"),
                kill_at_destroy_step: number("ISOTHERM_FAULT_KILL_AT_DESTROY_STEP"),
                trust_any_map: is_set("ISOTHERM_FAULT_TRUST_ANY_MAP"),
                stall_joint_ms: number("ISOTHERM_FAULT_STALL_JOINT_MS"),
            }
        }
    }

    impl Faults {
        /// Reads are served without confirming leadership.
        pub fn skip_read_confirmation(&self) -> bool {
            self.skip_read_confirmation
        }

        /// Retries are evaluated again.
        pub fn no_dedup(&self) -> bool {
            self.no_dedup
        }

        /// The leader serves reads of a span that it has proposed to split off.
        pub fn no_split_gate(&self) -> bool {
            self.no_split_gate
        }

        /// Votes are granted at once after a restart.
        pub fn no_vote_hold(&self) -> bool {
            self.no_vote_hold
        }

        /// The sequencer pauses between getting a timestamp and proposing under it.
        pub async fn holding_ts(&self, _range: RangeId) {
            if let Some(ms) = self.hold_ts_ms {
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
        }

        /// Applying a split stalls before its flush, as on a slow disk.
        pub fn before_split_flush(&self, _range: RangeId) {
            if let Some(ms) = self.stall_split_ms {
                std::thread::sleep(Duration::from_millis(ms));
            }
        }

        /// Never in a build with switches: the suite runs without them.
        pub const fn suite(&self) -> bool {
            false
        }

        /// A replica is destroyed by any map that lacks it, however old.
        pub fn trust_any_map(&self) -> bool {
            self.trust_any_map
        }

        /// A change of members stalls while two sets vote.
        pub async fn joint_entered(&self, _range: RangeId) {
            if let Some(ms) = self.stall_joint_ms {
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
        }

        /// The process dies at a step of a replica's destruction.
        pub fn destroy_step(&self, step: u64) -> std::io::Result<()> {
            if self.kill_at_destroy_step == Some(step) {
                std::process::abort();
            }
            Ok(())
        }

        /// The process dies at a step of a snapshot install.
        pub fn install_step(&self, step: u64) {
            if self.kill_at_install_step == Some(step) {
                std::process::abort();
            }
        }
    }
}

#[cfg(not(feature = "faults"))]
mod switches {
    use isotherm_types::RangeId;

    /// No switches in this build.
    #[derive(Debug, Default)]
    pub struct Faults {
        #[cfg(test)]
        pub suite: std::sync::atomic::AtomicBool,
        #[cfg(test)]
        pub trust_any_map: std::sync::atomic::AtomicBool,
        #[cfg(test)]
        pub fail_at_destroy_step: std::sync::atomic::AtomicU64,
        #[cfg(test)]
        pub stall_joint: std::sync::atomic::AtomicBool,
    }

    impl Faults {
        /// Off.
        pub const fn skip_read_confirmation(&self) -> bool {
            false
        }

        /// Off.
        pub const fn no_dedup(&self) -> bool {
            false
        }

        /// Off.
        pub const fn no_split_gate(&self) -> bool {
            false
        }

        /// Off.
        pub const fn no_vote_hold(&self) -> bool {
            false
        }

        /// Whether openraft's storage suite runs over these stores: it applies entries that were
        /// never appended and do not follow each other, and wants its snapshots at the applied id.
        #[cfg(not(test))]
        pub const fn suite(&self) -> bool {
            false
        }

        /// Set by the test that runs the suite.
        #[cfg(test)]
        pub fn suite(&self) -> bool {
            self.suite.load(std::sync::atomic::Ordering::Relaxed)
        }

        /// Nothing.
        pub async fn holding_ts(&self, _range: RangeId) {}

        /// Nothing.
        pub fn before_split_flush(&self, _range: RangeId) {}

        /// Nothing.
        pub fn install_step(&self, _step: u64) {}

        /// Off.
        #[cfg(not(test))]
        pub const fn trust_any_map(&self) -> bool {
            false
        }

        /// Set by the test that shows what the rule is for.
        #[cfg(test)]
        pub fn trust_any_map(&self) -> bool {
            self.trust_any_map.load(std::sync::atomic::Ordering::Relaxed)
        }

        /// Nothing.
        #[cfg(not(test))]
        pub async fn joint_entered(&self, _range: RangeId) {}

        /// Stands still while two sets vote, if a test says so.
        #[cfg(test)]
        pub async fn joint_entered(&self, _range: RangeId) {
            while self.stall_joint.load(std::sync::atomic::Ordering::Relaxed) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }

        /// Nothing.
        #[cfg(not(test))]
        pub fn destroy_step(&self, _step: u64) -> std::io::Result<()> {
            Ok(())
        }

        /// Goes no further than the step that a test names.
        #[cfg(test)]
        pub fn destroy_step(&self, step: u64) -> std::io::Result<()> {
            if self.fail_at_destroy_step.load(std::sync::atomic::Ordering::Relaxed) == step {
                return Err(std::io::Error::other("stopped by a test"));
            }
            Ok(())
        }
    }
}

pub use switches::Faults;
