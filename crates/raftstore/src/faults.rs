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
    }
}

pub use switches::Faults;
