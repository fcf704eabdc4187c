//! What becomes of partial aggregates: read, merged, and counted. What takes long does not run on the
//! async threads, and all that is kept is within memory that several aggregates share.

use super::read::unexpected_answer;
use crate::{ClientError, ErrorKind};
use bytes::Bytes;
use isotherm_aggregate::{AggregateError, Partial, Query};
use isotherm_proto::WireError;
use isotherm_proto::internal::error::Code;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Partials of more groups or bytes than this are not gone through on the async threads.
const GROUPS_INLINE_MAX: usize = 1_000;
const BYTES_INLINE_MAX: usize = 64 << 10;

/// Memory that an aggregate has taken of what it shares with others.
pub(super) struct Memory {
    pub shared: Option<Arc<Semaphore>>,
    pub taken: Option<OwnedSemaphorePermit>,
}

impl Memory {
    /// Takes what is missing to `bytes`.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), ClientError> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let taken = self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = u32::try_from(bytes.saturating_sub(taken)).unwrap_or(u32::MAX);
        if missing == 0 {
            return Ok(());
        }
        let more = shared.clone().try_acquire_many_owned(missing).map_err(|_| {
            let message = "the groups of the aggregates of this node take too much memory together: \
                           try again later, or group by less";
            ClientError::new(ErrorKind::Busy, message)
        })?;
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        Ok(())
    }
}

/// Runs work that may take long where it does not hold up others.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ClientError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| ClientError::new(ErrorKind::Internal, e.to_string()))
}

/// Adds `other` to `sum`; what takes long is not done on the async threads.
pub(super) async fn merge(
    sum: &mut Partial,
    other: Partial,
    query: &Arc<Query>,
) -> Result<(), ClientError> {
    if sum.groups() == 0 {
        *sum = other;
        return Ok(());
    }
    let (mut merging, query) = (std::mem::take(sum), query.clone());
    let is_large = other.groups() > GROUPS_INLINE_MAX;
    let work = move || merging.merge(other, &query).map(|()| merging);
    let merged = if is_large { off_thread(work).await? } else { work() };
    *sum = merged.map_err(|e| ClientError::new(ErrorKind::Invalid, e.to_string()))?;
    Ok(())
}

/// What a message has of a partial.
pub(super) enum Read {
    Nothing,
    Partial(Partial),
    /// One that was computed by older rules than were asked for.
    Older,
}

/// The partial of a message, if it has one.
pub(super) async fn read_partial(bytes: Bytes, query: &Arc<Query>) -> Result<Read, WireError> {
    if bytes.is_empty() {
        return Ok(Read::Nothing);
    }
    let (is_large, query) = (bytes.len() > BYTES_INLINE_MAX, query.clone());
    let work = move || Partial::decode(&bytes, &query);
    let unexpected = |error: ClientError| WireError::new(Code::Internal, error.message);
    let read = if is_large { off_thread(work).await.map_err(unexpected)? } else { work() };
    match read {
        Ok(partial) => Ok(Read::Partial(partial)),
        Err(AggregateError::OlderRules) => Ok(Read::Older),
        Err(_) => Err(unexpected(unexpected_answer())),
    }
}
