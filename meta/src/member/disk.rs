//! The free-space watermarks of a member.
//!
//! What meta writes is little, but without it nothing goes on, and a log that cannot be written ends the
//! process. So a member that has little room gives leadership away, and one that has next to none takes
//! no entries: the others go on without it, and it comes back when there is room.

use super::meta::Meta;
use isotherm_storage::free_space;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const INTERVAL: Duration = Duration::from_millis(500);
const RESERVE_MAX: u64 = 256 << 20;
/// The part of the reserve that nothing is taken below.
const LAST_PART: u64 = 4;

/// Below which marks the free space is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Marks {
    reserve: bool,
    last: bool,
}

impl Marks {
    /// How it is with `free` bytes after it was as `self` says. Half as much again before a mark counts
    /// as left behind, so that it does not flap.
    fn after(self, free: u64, reserve: u64) -> Self {
        let is_below = |mark: u64, was: bool| {
            let needed = if was { mark.saturating_add(mark / 2) } else { mark };
            mark > 0 && free < needed
        };
        Self {
            reserve: is_below(reserve, self.reserve),
            last: is_below(reserve / LAST_PART, self.last),
        }
    }
}

fn look(dir: &Path, reserve: Option<u64>, before: Marks) -> Option<(Marks, u64)> {
    let space = free_space(dir)
        .inspect_err(|error| tracing::warn!(%error, "the free space of the disk cannot be read"))
        .ok()?;
    metrics::gauge!("isotherm_disk_free_bytes").set(space.free_bytes as f64);
    let reserve = reserve.unwrap_or_else(|| RESERVE_MAX.min(space.total_bytes / 20));
    Some((before.after(space.free_bytes, reserve), space.free_bytes))
}

/// Watches the disk of `dir` until `stop`.
pub(super) async fn watch(
    meta: Arc<Meta>,
    dir: PathBuf,
    reserve: Option<u64>,
    stop: CancellationToken,
) {
    let mut marks = Marks::default();
    loop {
        if let Some((now, free_bytes)) = look(&dir, reserve, marks) {
            if now.reserve && !marks.reserve {
                tracing::error!(free_bytes, "the disk of this meta member is nearly full");
            } else if marks.reserve && !now.reserve {
                tracing::info!(free_bytes, "the disk of this meta member has room again");
            }
            if now.last && !marks.last {
                tracing::error!(
                    free_bytes,
                    "the disk of this meta member is full: it takes nothing"
                );
            }
            let is_worse = (now.reserve && !marks.reserve) || (now.last && !marks.last);
            marks = now;
            meta.is_disk_full.send_replace(marks.reserve);
            meta.group.set_room(!marks.last);
            // Whoever has more room does better, and whoever has none cannot lead.
            if is_worse || (marks.last && meta.group.leadership().borrow().is_leader) {
                meta.group.transfer_away().await;
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
    fn marks_are_left_behind_later_than_they_were_met() {
        let marks = |reserve, last| Marks { reserve, last };
        let mut now = Marks::default();
        for (free, then) in [
            (100, marks(false, false)),
            (99, marks(true, false)),
            (24, marks(true, true)),
            (36, marks(true, true)),
            (37, marks(true, false)),
            (149, marks(true, false)),
            (150, marks(false, false)),
        ] {
            now = now.after(free, 100);
            assert_eq!(now, then, "{free}");
        }
        assert_eq!(now.after(0, 0), Marks::default());
    }
}
