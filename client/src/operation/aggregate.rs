//! One answer over all keys of a span, at one timestamp (`coordinator.rs`).

use super::coordinator::{Coordinator, Outcome, Sum};
use super::hold::{Keeper, check_at};
use super::partials::{Memory, off_thread};
use super::read::unexpected_answer;
use crate::client::Client;
use crate::{ClientError, ErrorKind};
use isotherm_aggregate::{Answer, Finishing, GroupAnswer, Partial, Query, QueryText, Rules};
use isotherm_types::{KeyRange, NodeId, RangeId, Timestamp};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

/// Messages that wait to be merged: each may be of some megabytes.
const MESSAGES_MAX: usize = 4;

/// What to compute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AggregateOptions {
    /// Over which keys.
    pub span: KeyRange,
    /// Which functions, of what, grouped by what.
    pub query: QueryText,
    /// As of when; `None`: now.
    pub at: Option<Timestamp>,
}

/// How far an aggregate has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AggregateProgress {
    /// The timestamp of the answer.
    pub at: Timestamp,
    /// Rows read.
    pub rows: u64,
    /// Bytes of keys and values read.
    pub bytes: u64,
    /// Ranges that at least a part is answered of.
    pub ranges: u64,
    /// Ranges that lie in the span, as far as is known.
    pub ranges_all: u64,
}

/// The answer, and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregated {
    /// The timestamp that it shows.
    pub at: Timestamp,
    /// What was computed.
    pub answer: Answer,
    /// What was read, by range.
    pub work: Vec<RangeWork>,
    /// How often something had to be asked again: after a split, a change of leaders, a lost node.
    pub repeated: u64,
}

impl Aggregated {
    /// Ranges that were read.
    pub fn ranges(&self) -> u64 {
        ranges(&self.work)
    }
}

fn ranges(work: &[RangeWork]) -> u64 {
    let mut ranges: Vec<_> = work.iter().map(|work| work.range).collect();
    // In order already, with one line per node that led it.
    ranges.dedup();
    ranges.len() as u64
}

/// An answer whose groups are computed as they are asked for, in order.
pub struct AggregatedGroups {
    /// The timestamp that it shows.
    pub at: Timestamp,
    /// Ranges that were read.
    pub ranges: u64,
    /// Rows that the condition accepted.
    pub rows: u64,
    /// Of them, those whose value is no number although a function needed one.
    pub skipped: u64,
    groups: Finishing,
    /// What the groups take of the memory that they share.
    _memory: Option<OwnedSemaphorePermit>,
}

impl Iterator for AggregatedGroups {
    type Item = GroupAnswer;

    fn next(&mut self) -> Option<GroupAnswer> {
        self.groups.next()
    }
}

/// What was read of one range on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeWork {
    /// Which range.
    pub range: RangeId,
    /// Who led it.
    pub node: NodeId,
    /// Rows read.
    pub rows: u64,
    /// Bytes of keys and values read.
    pub bytes: u64,
    /// Time spent reading, of all threads together.
    pub took: Duration,
}

impl Client {
    /// Computes an aggregate. The time limit of the client is for each step: it ends with an error
    /// if no part of the span is answered for that long.
    pub async fn aggregate(&self, options: AggregateOptions) -> Result<Aggregated, ClientError> {
        self.aggregate_with(options, |_| ()).await
    }

    /// The same, and says how far it is.
    pub async fn aggregate_with(
        &self,
        options: AggregateOptions,
        progress: impl FnMut(AggregateProgress),
    ) -> Result<Aggregated, ClientError> {
        let sum = self.coordinate(options, None, progress).await?;
        let (partial, query) = (sum.partial, sum.query);
        let answer = off_thread(move || partial.finish(&query)).await?;
        Ok(Aggregated { at: sum.at, answer, work: sum.work, repeated: sum.repeated })
    }

    /// The same within memory that it shares with others, a permit of `memory` for each byte; fails
    /// as [`ErrorKind::Busy`] when there is not enough. The groups are computed as they are asked
    /// for, so that they do not take more than what was merged.
    pub async fn aggregate_within(
        &self,
        options: AggregateOptions,
        memory: Arc<Semaphore>,
        progress: impl FnMut(AggregateProgress),
    ) -> Result<AggregatedGroups, ClientError> {
        let sum = self.coordinate(options, Some(memory), progress).await?;
        let ranges = ranges(&sum.work);
        let (partial, query) = (sum.partial, sum.query);
        let groups = off_thread(move || partial.finish_by_group(&query)).await?;
        let (rows, skipped) = (groups.rows, groups.skipped);
        Ok(AggregatedGroups { at: sum.at, ranges, rows, skipped, groups, _memory: sum.memory })
    }

    async fn coordinate(
        &self,
        options: AggregateOptions,
        memory: Option<Arc<Semaphore>>,
        mut progress: impl FnMut(AggregateProgress),
    ) -> Result<Sum, ClientError> {
        let invalid = |why: String| ClientError::new(ErrorKind::Invalid, why);
        let query = Query::parse(&options.query).map_err(|e| invalid(e.to_string()))?;
        check_at(options.at)?;
        let at = match options.at {
            Some(at) => at,
            None => self.timestamp().await?,
        };
        // By the newest rules; by the first ones if a node knows no others.
        for rules in [Rules::Second, Rules::First] {
            let (events, incoming) = mpsc::channel(MESSAGES_MAX);
            let query = Arc::new(query.clone().under(rules));
            let coordinator = Coordinator {
                inner: self.inner.clone(),
                keeper: Keeper::new(self.clone(), options.at.is_some()),
                text: options.query.clone(),
                query,
                at,
                open: vec![options.span.clone()],
                requests: HashMap::new(),
                streams: JoinSet::new(),
                next_request: 0,
                events,
                merged: Partial::new(),
                memory: Memory { shared: memory.clone(), taken: None },
                work: BTreeMap::new(),
                repeated: 0,
                ranges_all: 0,
            };
            if let Outcome::Done(done) = coordinator.run(incoming, &mut progress).await? {
                self.inner.saw(at);
                return Ok(done);
            }
        }
        Err(unexpected_answer())
    }
}
