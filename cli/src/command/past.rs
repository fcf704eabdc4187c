//! `--at`: a time in the past as people type it, and what they are told when nothing can be read there.

use crate::failure::Failure;
use crate::text::{At, When};
use isotherm_client::{Client, ClientError, ErrorKind};
use isotherm_types::Timestamp;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time that a command reads at.
pub struct Past {
    typed: Option<At>,
    at: Option<Timestamp>,
    /// A timestamp of about now, if the cluster was asked for one.
    now: Option<Timestamp>,
}

impl Past {
    /// Finds the timestamp that `typed` stands for.
    pub async fn find(client: &Client, typed: Option<At>) -> Result<Self, Failure> {
        let began = Instant::now();
        let mut now = None;
        let at = match typed.as_ref().map(|at| at.when) {
            None => None,
            Some(When::Exactly(ts)) => Some(ts),
            Some(When::Time(ms)) => Some(Timestamp::from_physical_ms(ms)),
            Some(When::Before(ms)) => Some(now.insert(client.timestamp().await?).minus_ms(ms)),
        };
        // `--timeout` is that of the whole command.
        client.spend(began.elapsed());
        Ok(Self { typed, at, now })
    }

    /// The timestamp; none: as of now.
    pub fn at(&self) -> Option<Timestamp> {
        self.at
    }

    /// What a read ends with. Where it was for a time that cannot be read, the bounds are told in the form
    /// in which people type them.
    pub async fn failure(&self, client: &Client, error: ClientError) -> Failure {
        let (Some(typed), Some(at)) = (&self.typed, self.at) else { return error.into() };
        let name = match typed.when {
            When::Exactly(_) => format!("timestamp {at}"),
            When::Before(_) | When::Time(_) => typed.typed.clone(),
        };
        let told = match error.kind {
            ErrorKind::TsTooNew => {
                let now = self.now(client).await;
                format!(
                    "{name} is in the future: now is {} (timestamp {now})",
                    time(now.physical_ms())
                )
            }
            ErrorKind::SnapshotTooOld => {
                let oldest = match error.safe_point {
                    Some(oldest) => Some(oldest),
                    None if at == Timestamp::ZERO => oldest(client).await,
                    None => return error.into(),
                };
                match oldest {
                    Some(oldest) => too_old(&name, oldest, self.now(client).await),
                    None => {
                        format!("{name} is before all history: leave --at out to read as of now")
                    }
                }
            }
            _ => return error.into(),
        };
        Failure { message: told, ..Failure::from(error) }
    }

    /// A timestamp of about now; by the clock of this machine if the cluster does not answer.
    async fn now(&self, client: &Client) -> Timestamp {
        let asked = match self.now {
            Some(now) => Ok(now),
            None => client.timestamp().await,
        };
        asked.unwrap_or_else(|_| {
            let here = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Timestamp::from_physical_ms(here.as_millis() as u64)
        })
    }
}

/// The oldest timestamp that can be read: the answer to one that cannot. `None`: all of them can, or no node
/// answers.
async fn oldest(client: &Client) -> Option<Timestamp> {
    match client.hold(Timestamp(1)).await {
        Ok(hold) => {
            hold.release().await;
            None
        }
        Err(error) => error.safe_point,
    }
}

fn too_old(name: &str, oldest: Timestamp, now: Timestamp) -> String {
    let ago = now.physical_ms().saturating_sub(oldest.physical_ms()) / 1000;
    let ago = humantime::format_duration(Duration::from_secs(ago));
    // A time that is told can be read: up to the next second.
    let since = time(oldest.physical_ms().saturating_add(999));
    format!(
        "{name} is too long ago: history goes back to {since} ({ago} ago, timestamp {oldest}). Keep more \
         with the setting history.retention"
    )
}

/// A time as it is typed, without fractions of its second.
fn time(ms: u64) -> String {
    let seconds = UNIX_EPOCH.checked_add(Duration::from_secs(ms / 1000));
    // The library knows four digits of a year.
    let known = seconds.filter(|_| ms / 1000 < 253_402_300_800);
    known.map_or_else(
        || format!("{ms} ms after 1970"),
        |t| humantime::format_rfc3339_seconds(t).to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_of_history_are_told_as_they_are_typed() {
        let now = Timestamp::from_physical_ms(1_700_001_500_500);
        let told = too_old("-30d", Timestamp::from_physical_ms(1_700_000_000_400), now);
        let words =
            "-30d is too long ago: history goes back to 2023-11-14T22:13:21Z (25m ago, timestamp";
        assert!(told.starts_with(words), "{told}");
        assert!(time(u64::MAX).ends_with("ms after 1970"));
    }
}
