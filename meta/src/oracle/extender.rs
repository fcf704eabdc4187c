//! Keeps the window of the leader ahead, and follows the time of other leaders.

use super::handle::Shared;
use super::rounds::wall_us;
use crate::machine::Reign;
use isotherm_raftstore::Leadership;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const TICK: Duration = Duration::from_millis(100);

/// Runs until `stop`.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut leadership = shared.group.leadership();
    let mut led_term = None;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let now = *leadership.borrow_and_update();
        if now.is_leader {
            shared.lead(now.term, &mut led_term).await;
        } else {
            led_term = None;
            shared.follow(now);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
            () = shared.short.notified() => {}
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}

impl Shared {
    fn follow(&self, leadership: Leadership) {
        if leadership.leader.is_some_and(|leader| leader != self.me) {
            let high = self.group.machine().read().window().high;
            self.issuer.lock().pace.follow(high.physical_ms(), Instant::now());
        }
        // Whoever waits for a window of this member waits in vain.
        self.extended.send_modify(|count| *count += 1);
    }

    async fn lead(&self, term: u64, led_term: &mut Option<u64>) {
        if *led_term != Some(term) {
            // What earlier leaders allocated must be applied before it is built upon.
            if self.group.confirm_leadership().await != Ok(term) {
                return;
            }
        }
        let (founded, window) = {
            let machine = self.group.machine().read();
            (machine.cluster().is_some(), machine.window())
        };
        if !founded {
            return;
        }
        let command = {
            let mut issuer = self.issuer.lock();
            let (now, wall_us) = (Instant::now(), wall_us());
            if *led_term != Some(term) {
                issuer.pace.take_over(window.high.physical_ms(), now, wall_us);
                *led_term = Some(term);
            }
            issuer.extension(window, Reign { term, member: self.me }, now, wall_us)
        };
        let Some(command) = command else { return };
        match self.group.propose(command.encode().into(), Some(term)).await {
            Ok(_) => self.extended.send_modify(|count| *count += 1),
            Err(error) => tracing::warn!(term, %error, "the window was not extended"),
        }
    }
}
