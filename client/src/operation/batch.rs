//! Several writes at once: atomic on each range that they touch.

use super::types::{RequestId, Write, WriteResult};
use super::write::{Named, Sent, check};
use crate::client::Client;
use crate::retry::Attempts;
use crate::{ClientError, ErrorKind};
use futures::future::join_all;
use isotherm_types::RangeId;
use std::collections::HashMap;

/// How often a batch is grouped again because ranges were split under it.
const REGROUPS_MAX: usize = 32;

/// What became of one write.
type Outcome = Result<WriteResult, ClientError>;

/// What of a batch takes effect together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Atomic {
    /// All writes of one range.
    PerRange,
    /// Each write by itself.
    No,
}

impl Client {
    /// Applies `writes`: in the order given and atomically on each range that they touch; different
    /// ranges are independent of each other. The error is definite only if nothing of the batch
    /// was applied; if a part of it was, or may have been, it is `Indeterminate` and says so.
    pub async fn batch(&self, writes: Vec<Write>) -> Result<Vec<WriteResult>, ClientError> {
        self.apply(writes, Atomic::PerRange).await
    }

    /// The same for writes that need not be atomic: what a range refuses because it would replace or
    /// answer too much at once is sent in smaller pieces, in order.
    pub async fn write_all(&self, writes: Vec<Write>) -> Result<Vec<WriteResult>, ClientError> {
        self.apply(writes, Atomic::No).await
    }

    async fn apply(
        &self,
        writes: Vec<Write>,
        atomic: Atomic,
    ) -> Result<Vec<WriteResult>, ClientError> {
        check(&writes)?;
        let mut results = vec![None; writes.len()];
        let done = self.batch_rounds(&writes, None, &mut results, atomic).await;
        let applied: Vec<_> = results.into_iter().flatten().flatten().collect();
        match done {
            Ok(()) => Ok(applied),
            Err(error) if applied.is_empty() => Err(error),
            Err(error) => Err(partial(error, applied.len(), writes.len())),
        }
    }

    /// The same as [`Client::batch`], and says of each write what became of it. An error as a whole means
    /// that nothing was, or will be, applied. With the identity that its caller gives it, every attempt of the batch
    /// carries the same writes in the same order: each of them takes effect once, whatever became of other
    /// attempts, and its result is that of the attempt that did.
    pub async fn batch_outcomes(
        &self,
        writes: Vec<Write>,
        request: Option<RequestId>,
    ) -> Result<Vec<Result<WriteResult, ClientError>>, ClientError> {
        check(&writes)?;
        let mut results = vec![None; writes.len()];
        let done = self.batch_rounds(&writes, request, &mut results, Atomic::PerRange).await;
        let Err(error) = done else {
            return Ok(results.into_iter().flatten().collect());
        };
        let is_definite = |result: &Option<Outcome>| match result {
            Some(Ok(_)) => false,
            Some(Err(error)) => error.is_definite(),
            None => true,
        };
        if results.iter().all(is_definite) {
            return Err(error);
        }
        // What was not sent, or not answered for certain, was not applied.
        let says_more = error.kind == ErrorKind::Expired || !error.is_definite();
        let kind = if says_more { ErrorKind::Unavailable } else { error.kind };
        let not_sent = || {
            let why =
                format!("not applied, because of another write of the batch: {}", error.message);
            ClientError::new(kind, why)
        };
        Ok(results.into_iter().map(|result| result.unwrap_or_else(|| Err(not_sent()))).collect())
    }

    /// Groups and sends what has no result yet, until all of it has one.
    async fn batch_rounds(
        &self,
        writes: &[Write],
        request: Option<RequestId>,
        results: &mut [Option<Outcome>],
        atomic: Atomic,
    ) -> Result<(), ClientError> {
        let attempts = self.inner.attempts();
        let deadline = attempts.deadline;
        if let Some(since) = request.and_then(|request| request.since) {
            self.check_since(since, &attempts).await?;
        }
        // Of all rounds: a write that an earlier one may have done must not look like a newer one.
        let birth = self.inner.newest_ts();
        let mut left: Vec<usize> = (0..writes.len()).collect();
        // Writes of one range in one piece at most.
        let mut piece_max = writes.len().max(1);
        for _ in 0..REGROUPS_MAX {
            let groups = self.group(writes, &left, self.inner.attempts_until(deadline)).await?;
            let known = &*results;
            let sent = groups.into_iter().map(|positions| async move {
                let mut sent = Vec::new();
                let mut pieces = positions.chunks(piece_max);
                for piece in &mut pieces {
                    let group: Vec<Write> = piece.iter().map(|at| writes[*at].clone()).collect();
                    let batch = |request| Named::Batch { request, positions: piece, birth };
                    let named = request.map_or(Named::ByClient, batch);
                    let unknown = piece.iter().any(|at| known[*at].is_some());
                    let attempts = self.inner.attempts_until(deadline);
                    let done = self.send_group(&group, named, unknown, attempts).await;
                    let goes_on = matches!(done, Ok(Sent::Done(_)));
                    sent.push((piece.to_vec(), done));
                    if !goes_on {
                        break;
                    }
                }
                // Those behind one that was not applied wait for it: the order is kept.
                let waits = || Ok(Sent::Regroup { unknown: false });
                sent.extend(pieces.map(|piece| (piece.to_vec(), waits())));
                sent
            });
            left.clear();
            let mut failed: Option<ClientError> = None;
            for (positions, sent) in join_all(sent).await.into_iter().flatten() {
                match sent {
                    Ok(Sent::Done(done)) => {
                        for (at, result) in positions.into_iter().zip(done) {
                            results[at] = Some(Ok(result));
                        }
                    }
                    Ok(Sent::Regroup { unknown }) => {
                        for at in &positions {
                            if unknown {
                                results[*at] = Some(Err(unknown_outcome()));
                            }
                        }
                        left.extend(positions);
                    }
                    Err(error)
                        if atomic == Atomic::No
                            && error.kind == ErrorKind::TooLarge
                            && positions.len() > 1 =>
                    {
                        piece_max = piece_max.min(positions.len() / 2);
                        left.extend(positions);
                    }
                    Err(error) => {
                        for at in positions {
                            results[at] = Some(Err(error.clone()));
                        }
                        // One that may have been applied outweighs all that certainly were not.
                        if failed.as_ref().is_none_or(ClientError::is_definite) {
                            failed = Some(error);
                        }
                    }
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
            if left.is_empty() {
                return Ok(());
            }
            left.sort_unstable();
        }
        let message = "the ranges of the batch keep being split";
        Err(ClientError::new(ErrorKind::Unavailable, message))
    }

    /// The positions `of` writes, by range, each in its order.
    async fn group(
        &self,
        writes: &[Write],
        of: &[usize],
        mut attempts: Attempts<'_>,
    ) -> Result<Vec<Vec<usize>>, ClientError> {
        let mut groups: HashMap<RangeId, Vec<usize>> = HashMap::new();
        for at in of {
            let route = loop {
                match self.inner.locate(&attempts, writes[*at].key()).await {
                    Ok(route) => break route,
                    Err(error) => {
                        let (error, next) = super::read::retry_routing(error)?;
                        if !attempts.again(next).await {
                            return Err(error);
                        }
                    }
                }
            };
            groups.entry(route.descriptor.id).or_default().push(*at);
        }
        Ok(groups.into_values().collect())
    }
}

/// Of a write that may have been applied, until another attempt says what became of it.
fn unknown_outcome() -> ClientError {
    let message = "the range was split while the outcome of a write was unknown";
    ClientError::new(ErrorKind::Indeterminate, message)
}

/// The error of a batch that was not applied as a whole, nor certainly not at all.
fn partial(error: ClientError, applied: usize, of: usize) -> ClientError {
    let why = error.message;
    let message = format!("{applied} of the {of} writes of the batch were applied, then: {why}");
    ClientError::new(ErrorKind::Indeterminate, message)
}
