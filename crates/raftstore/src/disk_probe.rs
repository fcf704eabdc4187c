//! Whether the disks of others answer, while that of this process does not.
//!
//! A process whose disk hangs is no better than one that is gone, but it goes on sending heartbeats, and so
//! nobody takes its place. Who waits for a sync too long asks the others to write something small and
//! sync it. Where that is done soon, leadership is in better hands. Where nobody's disk answers they
//! all share the trouble, a shared disk that stalls for some seconds for one, and it is best to wait.

use isotherm_storage::LogEngine;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Asks a process to write and sync something small. Beside openraft's own methods, of any group.
pub(crate) const PROBE: u32 = 141;
/// A disk that takes longer is no better.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two looks whether the disk answers.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between two attempts to give something away while it does not.
pub(crate) const RETRY_EVERY: Duration = Duration::from_millis(500);

/// A record that nobody reads.
const RECORD: &str = "probe";

/// Tries the disk under a log.
pub(crate) struct DiskProbe {
    log: Arc<dyn LogEngine>,
    /// One at a time: each that hangs holds a thread.
    turn: Arc<Semaphore>,
}

impl DiskProbe {
    pub(crate) fn new(log: Arc<dyn LogEngine>) -> Self {
        Self { log, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Whether something is written and synced in time.
    pub(crate) async fn answers(&self) -> bool {
        let try_it = async {
            let turn = self.turn.clone().acquire_owned().await.ok()?;
            let log = self.log.clone();
            let write = move || {
                // Given back when it is done, however long that takes.
                let _turn = turn;
                log.put_node_state(RECORD, Vec::new()).is_ok()
            };
            tokio::task::spawn_blocking(write).await.ok()
        };
        // The caller waits for as long, and the way there takes a moment.
        let patience = PROBE_TIMEOUT.mul_f64(0.8);
        matches!(tokio::time::timeout(patience, try_it).await, Ok(Some(true)))
    }
}

/// Whether a process whose disk hangs is to end: only if most of those whom it asked can do without
/// it.
pub(crate) fn is_alone(asked: usize, whose_disk_answers: usize) -> bool {
    whose_disk_answers * 2 > asked
}

/// Ends the process. A restart finds a disk that answers, or hangs without leading anything.
pub(crate) fn end_process(waited: Duration) {
    tracing::error!(
        seconds = waited.as_secs(),
        "the disk does not answer, and those of others do: the process ends"
    );
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_that_all_share_ends_nobody() {
        assert!(!is_alone(0, 0) && !is_alone(2, 0) && !is_alone(2, 1) && !is_alone(4, 2));
        assert!(is_alone(1, 1) && is_alone(2, 2) && is_alone(3, 2));
    }
}
