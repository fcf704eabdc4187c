//! Long reads register, so that the history they need stays.

use crate::member::Meta;
use crate::registry::HoldRefusal;
use isotherm_proto::WireError;
use isotherm_proto::internal as pb;
use isotherm_proto::internal::error::Code;
use isotherm_types::Timestamp;
use std::time::Instant;

fn refused(refusal: HoldRefusal) -> WireError {
    match refusal {
        HoldRefusal::TooOld { safe_point } => {
            let why = format!(
                "values as old as that may be gone: read at {safe_point} or later, or keep more \
                 with the setting history.retention"
            );
            let mut error = WireError::new(Code::SnapshotTooOld, why);
            error.0.safe_point = safe_point.get();
            error
        }
        HoldRefusal::Full => {
            WireError::new(Code::Busy, "too many long reads are registered: try again later")
        }
    }
}

impl Meta {
    /// Registers, or renews. The registration counts once a quorum confirmed that this member leads
    /// *after* it was noted: a leader that was deposed before then has promised nothing.
    pub(super) async fn hold_snapshot(
        &self,
        request: pb::HoldSnapshotRequest,
    ) -> Result<pb::HoldSnapshotResponse, WireError> {
        let term = self.leading()?;
        let at = Timestamp(request.at);
        if at == Timestamp::ZERO {
            return Err(WireError::new(
                Code::Invalid,
                "no timestamp is 0: name one that was issued",
            ));
        }
        let safe_point = self.safe_point();
        let (id, lifetime) = {
            let mut holds = self.holds.lock();
            let id = holds.hold(request.id, at, safe_point, Instant::now()).map_err(refused)?;
            (id, holds.lifetime())
        };
        if self.confirmed_leading().await? != term {
            // It was noted for a leadership that has ended.
            return Err(WireError::new(Code::Unavailable, "the meta service has a new leader"));
        }
        let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        Ok(pb::HoldSnapshotResponse { error: None, id, lifetime_ms })
    }

    pub(super) fn release_snapshot(
        &self,
        request: pb::ReleaseSnapshotRequest,
    ) -> Result<pb::ReleaseSnapshotResponse, WireError> {
        self.leading()?;
        self.holds.lock().release(request.id);
        Ok(pb::ReleaseSnapshotResponse::default())
    }
}
