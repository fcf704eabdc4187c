//! Threads for reads of many rows.
//!
//! Scans and aggregates run here, never on the async threads and never on the threads that flush
//! and apply: as many as there are cores, at a low priority towards everything else of the node,
//! so that a point operation meets an idle core or takes one from a scan. Work comes in slices of
//! some milliseconds, first come first served; long reads line up again after each slice and
//! share the threads fairly.

use super::{RangeError, SliceBudget};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::Duration;
use tokio::sync::oneshot;

/// Slices that may wait.
const WAITING_MAX: usize = 1024;
/// How nice the threads are: with the kernel's weights one of them gets a tenth of a core that a
/// thread of another kind wants as well.
const NICENESS: i32 = 10;

/// How long a slice may run.
const SLICE: Duration = Duration::from_millis(20);

type Slice = Box<dyn FnOnce() + Send>;

/// The threads; they end with it.
pub(crate) struct ScanPool {
    slices: Sender<Slice>,
    threads: usize,
}

impl ScanPool {
    /// One thread per core.
    pub fn start() -> Self {
        let threads = available_parallelism().map_or(1, NonZero::get);
        let (slices, waiting) = bounded::<Slice>(WAITING_MAX);
        for number in 0..threads {
            let waiting = waiting.clone();
            let named = std::thread::Builder::new().name(format!("scan-{number}"));
            if let Err(error) = named.spawn(move || work(&waiting)) {
                tracing::error!(error = %error, "a scan thread cannot be started");
            }
        }
        Self { slices, threads }
    }

    /// How many slices run at a time.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs a slice and waits for it. It is to end when its budget is spent: at the latest then it
    /// hears that nobody waits for it any more. What nobody waits for is not begun.
    pub async fn run<T: Send + 'static>(
        &self,
        slice: impl FnOnce(&mut SliceBudget<'_>) -> T + Send + 'static,
    ) -> Result<T, RangeError> {
        let (done, result) = oneshot::channel();
        let slice = Box::new(move || {
            if !done.is_closed() {
                let is_abandoned = || done.is_closed();
                let answer = slice(&mut SliceBudget::new(SLICE, &is_abandoned));
                let _ = done.send(answer);
            }
        });
        match self.slices.try_send(slice) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Err(RangeError::Busy { retry_after: Duration::from_millis(50) });
            }
            Err(TrySendError::Disconnected(_)) => {
                return Err(RangeError::Unavailable("the node is stopping".into()));
            }
        }
        result.await.map_err(|_| RangeError::Internal("a scan ended in a panic".into()))
    }
}

fn work(waiting: &Receiver<Slice>) {
    // Per thread on Linux. Without it scans only lose their low priority.
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::warn!(error = %error, "scan threads run at normal priority");
    }
    for slice in waiting {
        // A panic costs its own read; the thread goes on.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(slice));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[tokio::test]
    async fn a_panic_costs_its_own_slice_only() {
        let pool = ScanPool::start();
        for _ in 0..pool.threads() * 2 {
            assert!(pool.run(|_| panic!("on purpose")).await.is_err());
        }
        assert_eq!(pool.run(|_| 7).await.unwrap(), 7);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_slice_ends_soon_after_its_caller_is_gone() {
        let pool = ScanPool::start();
        let (ended, end) = bounded::<u64>(1);
        let endless = pool.run(move |budget| {
            // As long as somebody waits, what is spent is a matter of time; this one ignores it.
            let mut looks = 0_u64;
            while !budget.is_abandoned() {
                let _ = budget.spend(u64::MAX / 2);
                looks += 1;
            }
            let _ = ended.send(looks);
        });
        assert!(tokio::time::timeout(Duration::from_millis(50), endless).await.is_err());
        assert!(end.recv_timeout(Duration::from_secs(5)).unwrap() > 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_nobody_waits_for_is_not_begun_and_too_much_is_refused() {
        let pool = Arc::new(ScanPool::start());
        let (release, gate) = bounded::<()>(0);
        let mut busy = Vec::new();
        for _ in 0..pool.threads() {
            let (pool, gate) = (pool.clone(), gate.clone());
            busy.push(tokio::spawn(async move { pool.run(move |_| gate.recv().is_err()).await }));
        }
        while !pool.slices.is_empty() || busy.len() < pool.threads() {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let begun = Arc::new(AtomicBool::new(false));
        let flag = begun.clone();
        let abandoned = pool.run(move |_| flag.store(true, Ordering::SeqCst));
        assert!(tokio::time::timeout(Duration::from_millis(20), abandoned).await.is_err());
        let mut waiting = Vec::new();
        let refused = loop {
            let mut run = Box::pin(pool.run(|_| false));
            match futures::poll!(&mut run) {
                std::task::Poll::Ready(result) => break result.unwrap_err(),
                std::task::Poll::Pending => waiting.push(run),
            }
        };
        assert!(matches!(refused, RangeError::Busy { .. }) && waiting.len() >= WAITING_MAX - 1);
        drop(release);
        for run in busy {
            assert!(run.await.unwrap().unwrap());
        }
        assert!(!waiting.pop().unwrap().await.unwrap());
        assert!(!begun.load(Ordering::SeqCst));
    }
}
