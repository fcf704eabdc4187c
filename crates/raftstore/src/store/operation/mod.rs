//! Operations on one range, one file each.

mod change_members;
mod checksum;
pub(super) mod dismiss;
mod merge;
mod read;
mod split;
mod transfer_leader;
mod write;

pub(super) use transfer_leader::{matched, matched_index};

use std::time::{Duration, Instant};

/// Waits until `ready`, at most for `patience`; whether it was.
pub(super) async fn wait_until(patience: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !ready() {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    true
}
