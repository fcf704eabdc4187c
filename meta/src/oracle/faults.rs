//! Switches that break a rule of the oracle on purpose, so that its test can be seen to fail.
//!
//! They exist in this crate's own tests, which set them member by member, and in builds with the cargo
//! feature `faults`, which read them from the environment at start. In every other build each is a
//! constant.

use std::time::Duration;

/// What is broken on purpose.
#[derive(Debug, Default)]
pub struct Faults {
    /// Milliseconds between a round and the timestamps that it covers.
    #[cfg(any(test, feature = "faults"))]
    pub pause_after_confirm_ms: std::sync::atomic::AtomicU64,
    /// 1: issues without a round.
    #[cfg(any(test, feature = "faults"))]
    pub skip_confirm: std::sync::atomic::AtomicU64,
}

#[cfg(any(test, feature = "faults"))]
impl Faults {
    /// As the environment says; in tests, nothing.
    pub fn from_env() -> Self {
        let number = |name| {
            let value = if cfg!(test) { None } else { std::env::var(name).ok() };
            value.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0).into()
        };
        Self {
            pause_after_confirm_ms: number("ISOTHERM_FAULT_TSO_PAUSE_AFTER_CONFIRM_MS"),
            skip_confirm: number("ISOTHERM_FAULT_TSO_SKIP_CONFIRM"),
        }
    }

    /// The pause between a round and the timestamps that it covers.
    pub fn pause_after_confirm(&self) -> Duration {
        let pause = &self.pause_after_confirm_ms;
        Duration::from_millis(pause.load(std::sync::atomic::Ordering::Relaxed))
    }

    /// Whether timestamps are issued without a round.
    pub fn skip_confirm(&self) -> bool {
        self.skip_confirm.load(std::sync::atomic::Ordering::Relaxed) == 1
    }
}

#[cfg(not(any(test, feature = "faults")))]
impl Faults {
    /// Nothing.
    pub fn from_env() -> Self {
        Self::default()
    }

    /// None.
    pub const fn pause_after_confirm(&self) -> Duration {
        Duration::ZERO
    }

    /// Never.
    pub const fn skip_confirm(&self) -> bool {
        false
    }
}
