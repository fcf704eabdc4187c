//! Room for snapshots on both sides, so that none is produced in vain.
//!
//! A sender takes one of its own places first (`snapshots_at_once`: so many are exported at a time, each
//! of them one file of `snapshot_file_bytes` at a time) and then asks the receiver for one of its places
//! (`ROOM`). The receiver keeps what it promised for a moment; the snapshot that comes takes it. Only
//! then is anything read or written for it.

use super::{DiskRoom, Store, StoreContext};
use crate::sender::{FrameHeader, SendError};
use bytes::Bytes;
use isotherm_types::{NodeId, RangeId};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Is there room for a snapshot of this range?
pub(super) const ROOM: u32 = 107;

const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a promise is kept for a snapshot that does not come.
const PROMISE: Duration = Duration::from_secs(5);
/// What a node of a version that knows no `ROOM` answers. It takes what comes, or refuses that.
const UNKNOWN: &str = "is not known here";

/// A place of a snapshot, given back when dropped.
pub type Room = OwnedSemaphorePermit;

/// The places for snapshots that are received here.
#[derive(Debug)]
pub struct Rooms {
    free: Arc<Semaphore>,
    /// Places that were promised and not taken yet, and until when. Never more than there are.
    promised: Mutex<HashMap<RangeId, (Room, Instant)>>,
}

impl Rooms {
    /// So many places.
    pub fn new(places: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(places)), promised: Mutex::default() }
    }

    fn place(
        &self,
        promised: &mut HashMap<RangeId, (Room, Instant)>,
        now: Instant,
    ) -> Option<Room> {
        promised.retain(|_, (_, until)| now < *until);
        self.free.clone().try_acquire_owned().ok()
    }

    /// Keeps a place for a snapshot of `range`, for a moment from `now` on; whether there is one.
    fn promise(&self, range: RangeId, now: Instant) -> bool {
        let mut promised = self.promised.lock();
        let room = match promised.remove(&range) {
            Some((room, _)) => Some(room),
            None => self.place(&mut promised, now),
        };
        let Some(room) = room else { return false };
        promised.insert(range, (room, now + PROMISE));
        true
    }

    /// The place for a snapshot of `range` that has come; one of a sender that did not ask takes what is
    /// free.
    pub fn take(&self, range: RangeId, now: Instant) -> Option<Room> {
        let mut promised = self.promised.lock();
        match promised.remove(&range) {
            Some((room, _)) => Some(room),
            None => self.place(&mut promised, now),
        }
    }
}

impl Store {
    /// Somebody asks for room here.
    pub(super) fn promise_room(&self, header: &FrameHeader) -> Result<Bytes, String> {
        self.addressee(header)?;
        if self.ctx.disk_room() != DiskRoom::Enough {
            return Err("the disk of this node is nearly full".into());
        }
        if self.rooms.promise(header.range, Instant::now()) {
            Ok(Bytes::new())
        } else {
            Err("other snapshots are being received".into())
        }
    }
}

/// Room for a snapshot that leaves here for the replica that `header` names.
pub(crate) async fn ask_for_room(
    ctx: &StoreContext,
    to: NodeId,
    header: FrameHeader,
) -> Result<Room, SendError> {
    let room = ctx.snapshots_out.clone().try_acquire_owned();
    let room = room.map_err(|_| SendError::Refused("other snapshots are being sent".into()))?;
    let header = FrameHeader { method: ROOM, ..header };
    match ctx.sender.call(to, header, Bytes::new(), CALL_TIMEOUT).await {
        Ok(_) => Ok(room),
        Err(SendError::Refused(why)) if why.contains(UNKNOWN) => Ok(room),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_kept_for_a_moment_and_takes_a_place() {
        let (rooms, now) = (Rooms::new(2), Instant::now());
        assert!(rooms.promise(RangeId(1), now) && rooms.promise(RangeId(1), now));
        assert!(rooms.promise(RangeId(2), now) && !rooms.promise(RangeId(3), now));
        assert!(rooms.take(RangeId(3), now).is_none(), "nobody promised it");
        let first = rooms.take(RangeId(1), now);
        assert!(first.is_some() && !rooms.promise(RangeId(3), now));
        drop(first);
        assert!(rooms.promise(RangeId(3), now));
        assert!(!rooms.promise(RangeId(4), now));
        // Neither came.
        let later = now + PROMISE;
        assert!(rooms.promise(RangeId(4), later) && rooms.take(RangeId(5), later).is_some());
    }
}
