//! The free-space watermark: a node stops taking writes before its disk is full.

use isotherm_raftstore::Store;
use isotherm_storage::{DiskSpace, free_space};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const INTERVAL: Duration = Duration::from_millis(500);
const RESERVE_MAX: u64 = 1 << 30;
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);

/// The disk as the node last saw it.
#[derive(Debug, Default)]
pub struct Disk {
    total_bytes: AtomicU64,
    free_bytes: AtomicU64,
    is_full: AtomicBool,
}

impl Disk {
    /// Size and free space.
    pub fn space(&self) -> DiskSpace {
        DiskSpace {
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
            free_bytes: self.free_bytes.load(Ordering::Relaxed),
        }
    }

    /// Whether the node takes no writes for want of space.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Looks at the disk once; whether it went below the reserve or rose above it.
    fn look(&self, dir: &Path, reserve: Option<u64>) -> Option<bool> {
        let space = match free_space(dir) {
            Ok(space) => space,
            Err(error) => {
                tracing::warn!(error = %error, "the free space of the disk cannot be read");
                return None;
            }
        };
        self.total_bytes.store(space.total_bytes, Ordering::Relaxed);
        self.free_bytes.store(space.free_bytes, Ordering::Relaxed);
        metrics::gauge!("isotherm_disk_free_bytes").set(space.free_bytes as f64);
        let reserve = reserve.unwrap_or_else(|| RESERVE_MAX.min(space.total_bytes / 20));
        let was_full = self.is_full();
        // Half as much again before writes are taken again, so that it does not flap.
        let needed = if was_full { reserve + reserve / 2 } else { reserve };
        let is_full = reserve > 0 && space.free_bytes < needed;
        self.is_full.store(is_full, Ordering::Relaxed);
        (is_full != was_full).then_some(is_full)
    }
}

/// Watches the disk of `dir` until `stop`.
pub async fn watch(
    disk: Arc<Disk>,
    store: Arc<Store>,
    dir: PathBuf,
    reserve: Option<u64>,
    stop: CancellationToken,
) {
    loop {
        match disk.look(&dir, reserve) {
            Some(true) => {
                let free_bytes = disk.space().free_bytes;
                tracing::error!(
                    free_bytes,
                    "disk nearly full: taking no writes until space is freed"
                );
                store.set_read_only(true);
                store.transfer_all_away(HAND_OVER_TIMEOUT).await;
            }
            Some(false) => {
                tracing::info!("disk has room again: taking writes");
                store.set_read_only(false);
            }
            None => {}
        }
        if stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
            return;
        }
    }
}
