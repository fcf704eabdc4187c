//! A client's batch: checked, queued at the range's sequencer, answered when it is applied.

use crate::command::{WriteOutcome, WriteRequest};
use crate::replica::Proposal;
use crate::store::{DiskRoom, RangeError, Store};
use isotherm_types::RangeId;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

impl Store {
    /// Writes `request` to `range`. An error is certain (not applied by this attempt) unless it is
    /// [`RangeError::Indeterminate`].
    pub async fn write(
        &self,
        range: RangeId,
        version: u64,
        request: WriteRequest,
        timeout: Duration,
    ) -> Result<WriteOutcome, RangeError> {
        let replica = self.find(range)?;
        let has_room = match self.ctx.disk_room() {
            DiskRoom::Enough => true,
            DiskRoom::Little => request.makes_room(),
            DiskRoom::None => false,
        };
        if !has_room {
            return Err(RangeError::DiskFull);
        }
        self.ctx.check_oracle()?;
        let (answer, outcome) = oneshot::channel();
        let deadline = Instant::now() + timeout;
        let proposal = Proposal::Write { version, request, deadline, answer };
        match replica.proposals.try_send(proposal) {
            Ok(()) => replica.note_queued(),
            Err(TrySendError::Full(_)) => {
                replica.heat.note_refused();
                metrics::counter!("isotherm_writes_refused_total", "reason" => "busy").increment(1);
                return Err(RangeError::Busy { retry_after: Duration::from_millis(50) });
            }
            Err(TrySendError::Closed(_)) => return Err(RangeError::NotLeader { leader: None }),
        }
        match tokio::time::timeout(timeout, outcome).await {
            Ok(Ok(result)) => result.map_err(|e| self.with_neighbours(e)),
            // Dropped by a sequencer that stopped, or late: it may have been proposed.
            Ok(Err(_)) | Err(_) => Err(RangeError::Indeterminate),
        }
    }
}
