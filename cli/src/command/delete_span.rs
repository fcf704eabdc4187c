//! Removing every key of a span.
//!
//! The keys are read page by page at one timestamp, so memory is bounded, and each is removed only if its
//! value is still the one of that time: what is written meanwhile stays. Batches run a few at a time. Ctrl-C, or an error, ends it between batches: what is on its
//! way is waited for and counted, so that the number told is exact unless an outcome is unknown.

use super::import::bar;
use crate::failure::{Failure, UNEXPECTED};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use indicatif::ProgressBar;
use isotherm_client::{Client, ClientError, Row, ScanOptions, Write, WriteResult};
use isotherm_types::{Key, KeyRange};
use tokio_util::sync::CancellationToken;

/// Keys removed by one batch.
const BATCH_KEYS: usize = 1000;
const BATCHES_AT_ONCE: usize = 4;

/// How far it came.
pub struct Outcome {
    /// Keys that were there and are gone.
    pub removed: u64,
    /// Why it did not go to the end.
    pub ended: Option<Failure>,
}

/// Removes the keys of `span` until `stop`.
pub async fn delete_span(client: &Client, span: KeyRange, stop: &CancellationToken) -> Outcome {
    let bar = bar(None, "keys removed");
    let mut work = Work { client, running: FuturesUnordered::new(), removed: 0, bar: &bar };
    let ended = work.run(span, stop).await.err();
    // After an error too: batches that are on their way take effect or not, whoever waits.
    let late = work.wait_until_at_most(0).await.err();
    let removed = work.removed;
    bar.finish_and_clear();
    Outcome { removed, ended: ended.or(late) }
}

struct Work<'a> {
    client: &'a Client,
    running: FuturesUnordered<BoxFuture<'a, Result<Vec<WriteResult>, ClientError>>>,
    removed: u64,
    bar: &'a ProgressBar,
}

impl Work<'_> {
    async fn run(&mut self, span: KeyRange, stop: &CancellationToken) -> Result<(), Failure> {
        // Given, it is registered before the first page: between two pages many batches may run.
        let at = Some(self.client.timestamp().await?);
        let options = ScanOptions { span, at, keys_only: true, ..ScanOptions::default() };
        let mut scan = self.client.scan(options);
        let interrupted =
            || Failure::new(UNEXPECTED, "interrupted: the other keys are still there");
        loop {
            let page = stop.run_until_cancelled(scan.next_page()).await;
            let Some(page) = page.ok_or_else(interrupted)?? else { return Ok(()) };
            for keys in page.rows.chunks(BATCH_KEYS) {
                if stop.is_cancelled() {
                    return Err(interrupted());
                }
                // Not a value that was written since: that is not what was asked to go.
                let removal =
                    |(key, row): &(Key, Row)| Write::RemoveVersion { key: key.clone(), ts: row.ts };
                let deletes = keys.iter().map(removal).collect();
                self.running.push(self.client.write_all(deletes).boxed());
                self.wait_until_at_most(BATCHES_AT_ONCE - 1).await?;
            }
        }
    }

    /// Waits until so many batches are on their way; after an error for the others all the same.
    async fn wait_until_at_most(&mut self, count: usize) -> Result<(), Failure> {
        let mut failed = None;
        while self.running.len() > count
            && let Some(done) = self.running.next().await
        {
            match done {
                Ok(results) => {
                    let gone = |r: &&WriteResult| matches!(r, WriteResult::Deleted(d) if d.existed);
                    self.removed += results.iter().filter(gone).count() as u64;
                    self.bar.set_position(self.removed);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}
