//! The free-space watermarks: a node stops taking writes before its disk is full.
//!
//! | free | what it takes |
//! |---|---|
//! | above the reserve | everything |
//! | below it | deletes, and what leaders elsewhere order; it gives its leaderships away |
//! | below a quarter of it | nothing: its replicas fall behind until there is room |

use isotherm_raftstore::{DiskRoom, Store};
use isotherm_storage::{DiskSpace, free_space};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const INTERVAL: Duration = Duration::from_millis(500);
const RESERVE_MAX: u64 = 1 << 30;
/// The part of the reserve that nothing is taken below.
const LAST_PART: u64 = 4;
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);

/// The disk as the node last saw it.
#[derive(Debug, Default)]
pub struct Disk {
    total_bytes: AtomicU64,
    free_bytes: AtomicU64,
    room: Mutex<DiskRoom>,
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
        *self.room.lock() != DiskRoom::Enough
    }

    /// Looks at the disk once; how much room it has, if that changed.
    fn look(&self, dir: &Path, reserve: Option<u64>) -> Option<DiskRoom> {
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
        let mut room = self.room.lock();
        let now = room_of(space.free_bytes, reserve, *room);
        let changed = now != *room;
        *room = now;
        changed.then_some(now)
    }
}

/// How much room `free` bytes are, after it was `before`. 0 is no reserve.
fn room_of(free: u64, reserve: u64, before: DiskRoom) -> DiskRoom {
    // Half as much again before more is taken again, so that it does not flap.
    let is_below = |mark: u64, from: DiskRoom| {
        let needed = if before >= from { mark.saturating_add(mark / 2) } else { mark };
        mark > 0 && free < needed
    };
    if is_below(reserve / LAST_PART, DiskRoom::None) {
        DiskRoom::None
    } else if is_below(reserve, DiskRoom::Little) {
        DiskRoom::Little
    } else {
        DiskRoom::Enough
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
        if let Some(room) = disk.look(&dir, reserve) {
            let free_bytes = disk.space().free_bytes;
            match room {
                DiskRoom::Enough => tracing::info!("disk has room again: taking writes"),
                DiskRoom::Little => tracing::error!(
                    free_bytes,
                    "disk nearly full: taking no writes but deletes until space is freed"
                ),
                DiskRoom::None => tracing::error!(
                    free_bytes,
                    "disk full but for a last reserve: taking nothing until space is freed"
                ),
            }
            store.set_disk_room(room);
            if room != DiskRoom::Enough {
                store.transfer_all_away(HAND_OVER_TIMEOUT).await;
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_comes_back_later_than_it_went() {
        let mut room = DiskRoom::Enough;
        let mut after = |free| {
            room = room_of(free, 100, room);
            room
        };
        assert_eq!(after(100), DiskRoom::Enough);
        assert_eq!(after(99), DiskRoom::Little);
        assert_eq!(after(149), DiskRoom::Little);
        assert_eq!(after(24), DiskRoom::None);
        assert_eq!(after(36), DiskRoom::None);
        assert_eq!(after(38), DiskRoom::Little);
        assert_eq!(after(150), DiskRoom::Enough);
        assert_eq!(after(24), DiskRoom::None);
        assert_eq!(after(500), DiskRoom::Enough);
        assert_eq!(room_of(0, 0, DiskRoom::Enough), DiskRoom::Enough);
    }
}
