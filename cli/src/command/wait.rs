//! `--wait`: for as long as `--timeout` allows, or without a limit where none was given.
//!
//! Progress and what holds it up go to stderr: a spinner on a terminal, else a line now and then.

use crate::args::Global;
use crate::failure::{Failure, UNKNOWN};
use crate::output;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// Between two lines where no terminal is.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// One wait, from the beginning of its command on.
pub struct Wait {
    limit: Option<(Duration, Instant)>,
    bar: ProgressBar,
    said: Option<(String, Instant)>,
    now: String,
}

impl Wait {
    /// Begins now.
    pub fn new(global: &Global) -> Self {
        let bar =
            if output::is_talkative() { ProgressBar::no_length() } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{spinner} {msg}  {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        let limit = global.timeout.map(|limit| (limit, Instant::now() + limit));
        Self { limit, bar, said: None, now: String::new() }
    }

    /// Does a step of it, unless the time is over before.
    pub async fn step<T, E: Into<Failure>>(
        &mut self,
        step: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        let Some((limit, deadline)) = self.limit else { return step.await.map_err(Into::into) };
        match tokio::time::timeout_at(deadline.into(), step).await {
            Ok(done) => done.map_err(Into::into),
            Err(_) => {
                self.bar.finish_and_clear();
                let limit = humantime::format_duration(limit);
                let now = if self.now.is_empty() { "nothing was answered" } else { &self.now };
                let why = format!("not done within {limit}: {now}. What was ordered goes on");
                Err(Failure::new(UNKNOWN, why))
            }
        }
    }

    /// Pauses before the next look.
    pub async fn pause(&mut self, pause: Duration) -> Result<(), Failure> {
        let slept = async {
            tokio::time::sleep(pause).await;
            Ok::<_, Failure>(())
        };
        self.step(slept).await
    }

    /// Says how far it is, and what holds it up.
    pub fn say(&mut self, now: String) {
        self.bar.set_message(now.clone());
        self.bar.tick();
        let is_due =
            self.said.as_ref().is_none_or(|(said, at)| *said != now && at.elapsed() >= LINE_EVERY);
        if is_due && self.bar.is_hidden() {
            output::say(&now);
            self.said = Some((now.clone(), Instant::now()));
        }
        self.now = now;
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
