//! Switches that break a rule of the oracle on purpose, so that its test can be seen to fail.
//! Without the cargo feature `faults` none of them exists.

use std::time::Duration;

/// What is broken on purpose.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Pause between a round and the timestamps that it covers.
    pub pause_after_confirm: Duration,
    /// Issue without a round.
    pub skip_confirm: bool,
}

impl Faults {
    /// As the environment says.
    #[cfg(feature = "faults")]
    pub fn from_env() -> Self {
        let var = |name| std::env::var(name).ok();
        let pause_ms = var("ISOTHERM_FAULT_TSO_PAUSE_AFTER_CONFIRM_MS")
            .and_then(|ms| ms.parse().ok())
            .unwrap_or(0);
        let skip_confirm = var("ISOTHERM_FAULT_TSO_SKIP_CONFIRM").is_some_and(|v| v == "1");
        Self { pause_after_confirm: Duration::from_millis(pause_ms), skip_confirm }
    }

    /// Nothing.
    #[cfg(not(feature = "faults"))]
    pub fn from_env() -> Self {
        Self::default()
    }
}
