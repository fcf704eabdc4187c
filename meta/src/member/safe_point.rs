//! Raising the safe point: the retention behind the oracle's time, held back by long reads.
//!
//! The machine keeps it and lets it only rise. It follows timestamps, not a clock: now is what the
//! oracle issues, so it passes no faster than real time and never ahead of what was issued.

use super::meta::Meta;
use crate::machine::{Command, Reply};
use crate::metrics as names;
use crate::settings;
use isotherm_proto::WireError;
use isotherm_types::Timestamp;
use std::time::{Duration, Instant};

/// Each rise is an entry of the group and a sync on every node.
const STEP_MIN: Duration = Duration::from_millis(250);
const STEP_MAX: Duration = Duration::from_secs(10);

impl Meta {
    /// Raises the safe point, if it is time to.
    pub(super) async fn raise_safe_point(&self, term: u64) -> Result<(), WireError> {
        let (retention, current) = {
            let machine = self.group.machine().read();
            (settings::retention(machine.settings()), machine.safe_point())
        };
        {
            let holds = self.holds.lock();
            metrics::gauge!(names::HOLDS).set(holds.len() as f64);
            if !holds.may_raise(Instant::now()) {
                return Ok(());
            }
        }
        let step = (retention / 20).clamp(STEP_MIN, STEP_MAX);
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        if self.is_too_early(step) {
            return Ok(());
        }
        let now = self.oracle.timestamps(1).await?;
        let wanted = now.minus_ms(millis(retention));
        let to = self.holds.lock().raise_to(wanted, Instant::now());
        let Some(to) = to.filter(|to| *to > current) else { return Ok(()) };
        match self.propose(Command::RaiseSafePoint { to }, Some(term)).await? {
            Reply::Refused(why) => tracing::warn!(why, %to, "the safe point was not raised"),
            _ => metrics::gauge!(names::SAFE_POINT_SECONDS).set(to.physical_ms() as f64 / 1000.0),
        }
        Ok(())
    }

    /// Whether the safe point was looked at less than `step` ago; if not, it is now.
    fn is_too_early(&self, step: Duration) -> bool {
        let (mut last, now) = (self.safe_point_seen_to.lock(), Instant::now());
        if last.is_some_and(|last| now < last + step) {
            return true;
        }
        *last = Some(now);
        false
    }

    /// The safe point as it is agreed on.
    pub(crate) fn safe_point(&self) -> Timestamp {
        self.group.machine().read().safe_point()
    }
}
