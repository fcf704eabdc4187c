//! Several writes at once: atomic on each range that they touch.

use super::types::{Write, WriteResult};
use super::write::{Sent, check};
use crate::client::Client;
use crate::{ClientError, ErrorKind};
use futures::future::join_all;
use isotherm_types::RangeId;
use std::collections::HashMap;

/// How often a batch is grouped again because ranges were split under it.
const REGROUPS_MAX: usize = 32;

impl Client {
    /// Applies `writes`: in the order given and atomically on each range that they touch; different
    /// ranges are independent of each other. If any range fails, the error is that of the first,
    /// and the writes of other ranges may have been applied.
    pub async fn batch(&self, writes: Vec<Write>) -> Result<Vec<WriteResult>, ClientError> {
        check(&writes)?;
        let mut results: Vec<Option<WriteResult>> = vec![None; writes.len()];
        let mut left: Vec<usize> = (0..writes.len()).collect();
        for _ in 0..REGROUPS_MAX {
            let groups = self.group(&writes, &left).await?;
            let sent = groups.into_iter().map(|positions| async {
                let group: Vec<Write> = positions.iter().map(|at| writes[*at].clone()).collect();
                let sent = self.send_group(&group).await;
                (positions, sent)
            });
            left.clear();
            let mut failed = None;
            for (positions, sent) in join_all(sent).await {
                match sent {
                    Ok(Sent::Done(done)) => {
                        for (at, result) in positions.into_iter().zip(done) {
                            results[at] = Some(result);
                        }
                    }
                    Ok(Sent::Regroup) => left.extend(positions),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
            if left.is_empty() {
                return Ok(results.into_iter().flatten().collect());
            }
            left.sort_unstable();
        }
        let message = "the ranges of the batch keep being split";
        Err(ClientError::new(ErrorKind::Unavailable, message))
    }

    /// The positions `of` writes, by range, each in its order.
    async fn group(&self, writes: &[Write], of: &[usize]) -> Result<Vec<Vec<usize>>, ClientError> {
        let inner = &self.inner;
        let mut attempts = inner.attempts();
        let mut groups: HashMap<RangeId, Vec<usize>> = HashMap::new();
        for at in of {
            let route = loop {
                match inner.router.locate(writes[*at].key()).await {
                    Ok(route) => break route,
                    Err(error) => {
                        let (error, pause) = super::read::retry_routing(error)?;
                        if !attempts.pause(pause).await {
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
