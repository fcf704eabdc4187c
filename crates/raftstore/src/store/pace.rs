//! How fast snapshots leave this node.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// A rate that all outgoing snapshots of a node share, so that moving replicas leaves the disk and
/// the network to the clients.
#[derive(Debug)]
pub struct Pace {
    /// 0: as fast as it goes.
    bytes_per_second: u64,
    /// When what was let pass so far is paid for.
    paid: Mutex<Instant>,
}

impl Pace {
    /// At most `bytes_per_second`; 0 is no limit.
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, paid: Mutex::new(Instant::now()) }
    }

    /// How long `bytes` have to wait from `now` on. Nothing is saved up while nothing is sent.
    fn wait(&self, bytes: usize, now: Instant) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut paid = self.paid.lock();
        let from = (*paid).max(now);
        *paid = from + cost;
        from.saturating_duration_since(now)
    }

    /// Lets `bytes` pass. Blocking.
    pub fn pass(&self, bytes: usize) {
        let wait = self.wait(bytes, Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_share_the_rate_and_save_nothing_up() {
        let pace = Pace::new(1000);
        let start = Instant::now() + Duration::from_secs(1);
        assert_eq!(pace.wait(500, start), Duration::ZERO);
        assert_eq!(pace.wait(500, start), Duration::from_millis(500));
        assert_eq!(pace.wait(1000, start), Duration::from_secs(1));
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.wait(1000, later), Duration::ZERO);
        assert_eq!(pace.wait(1, later), Duration::from_secs(1));
        assert_eq!(Pace::new(0).wait(usize::MAX, start), Duration::ZERO);
    }
}
