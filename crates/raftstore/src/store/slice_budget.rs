//! How much a piece of work on a scan thread may do.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// After how much, in bytes read, the clock is looked at: a fraction of a millisecond.
const LOOK_EVERY: u64 = 16 << 10;

/// What a slice may spend: some time, and none once nobody waits for it. Looking at the clock costs
/// more than a row, so what was spent is counted in bytes in between.
pub struct SliceBudget<'a> {
    until: Instant,
    unlooked: u64,
    is_over: bool,
    is_abandoned: &'a dyn Fn() -> bool,
}

impl<'a> SliceBudget<'a> {
    /// So much time from now, until `is_abandoned`.
    pub fn new(time: Duration, is_abandoned: &'a dyn Fn() -> bool) -> Self {
        Self { until: Instant::now() + time, unlooked: 0, is_over: false, is_abandoned }
    }

    /// Spends what reading so many bytes costs; breaks when the slice is to end.
    #[inline]
    pub fn spend(&mut self, bytes: u64) -> ControlFlow<()> {
        self.unlooked = self.unlooked.saturating_add(bytes);
        if self.unlooked >= LOOK_EVERY {
            self.unlooked = 0;
            self.is_over = self.is_over || Instant::now() >= self.until || self.is_abandoned();
        }
        if self.is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Whether nobody waits for the slice any more.
    pub fn is_abandoned(&self) -> bool {
        (self.is_abandoned)()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_looked_at_by_what_was_spent() {
        let nobody = || false;
        let mut budget = SliceBudget::new(Duration::ZERO, &nobody);
        assert!(budget.spend(LOOK_EVERY - 1).is_continue(), "too little for a look");
        assert!(budget.spend(1).is_break());
        assert!(budget.spend(0).is_break(), "it stays over");
        let mut long = SliceBudget::new(Duration::from_secs(3600), &nobody);
        assert!(long.spend(u64::MAX).is_continue());
        let gone = || true;
        let mut abandoned = SliceBudget::new(Duration::from_secs(3600), &gone);
        assert!(abandoned.spend(LOOK_EVERY).is_break());
    }
}
