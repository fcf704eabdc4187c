//! Whether the disk answers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When the write that the writer waits for began.
#[derive(Debug)]
pub(super) struct Progress {
    opened: Instant,
    /// In milliseconds since `opened`, and one more; 0: it waits for none.
    began: AtomicU64,
}

impl Progress {
    pub fn new() -> Self {
        Self { opened: Instant::now(), began: AtomicU64::new(0) }
    }

    /// A write and its sync begin. They are over when the value is dropped.
    pub fn begin(&self) -> Write<'_> {
        self.began.store(self.now_ms() + 1, Ordering::Release);
        Write(self)
    }

    /// How long the write takes that is being made now; zero if none is.
    pub fn waiting(&self) -> Duration {
        match self.began.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            began => Duration::from_millis((self.now_ms() + 1).saturating_sub(began)),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }
}

/// A write that is being made.
pub(super) struct Write<'a>(&'a Progress);

impl Drop for Write<'_> {
    fn drop(&mut self) {
        self.0.began.store(0, Ordering::Release);
    }
}
