//! Batches of rows on their way to the cluster, several at a time, with the rows of each key in order.
//!
//! Every key belongs to one lane, by its hash. A lane has one batch under way and fills the next, so a
//! row is sent only when every earlier row of its key is written; in a batch the last row of a key takes
//! the place of the ones before it. The client sends a batch again under the same number if an answer is
//! lost, and a range applies it once: what was overtaken does not come back.

use bytes::Bytes;
use isotherm_client::{Client, ClientError, ErrorKind, Write};
use isotherm_types::Key;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use tokio::task::JoinSet;

const LANES: usize = 16;
/// Lines of a batch, also those that a later one of their key replaced.
const BATCH_ROWS: u64 = 500;
const BATCH_BYTES: usize = 512 << 10;

/// Rows that are sent together, one per key.
#[derive(Default)]
struct Batch {
    writes: Vec<Write>,
    places: HashMap<Key, usize>,
    bytes: usize,
    /// Lines of the file that it stands for, and the first of them.
    lines: u64,
    first_line: u64,
}

impl Batch {
    fn push(&mut self, line: u64, key: Key, value: Bytes) {
        if self.lines == 0 {
            self.first_line = line;
        }
        self.lines += 1;
        self.bytes += key.len() + value.len();
        let write = Write::Put { key: key.clone(), value };
        match self.places.entry(key) {
            Entry::Vacant(place) => {
                place.insert(self.writes.len());
                self.writes.push(write);
            }
            Entry::Occupied(place) => {
                if let Some(before) = self.writes.get_mut(*place.get()) {
                    *before = write;
                }
            }
        }
    }

    fn is_full(&self) -> bool {
        self.lines >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }
}

#[derive(Default)]
struct Lane {
    next: Batch,
    /// First line of the batch that is under way, or of one that failed.
    sent: Option<u64>,
}

/// The lane, how many lines were written, and whether they were.
type Sent = (usize, u64, Result<(), ClientError>);

/// All lanes of an import.
pub struct Lanes {
    client: Client,
    lanes: Vec<Lane>,
    under_way: JoinSet<Sent>,
    rows: u64,
    last_line: u64,
}

impl Lanes {
    pub fn new(client: Client) -> Self {
        let lanes = (0..LANES).map(|_| Lane::default()).collect();
        Self { client, lanes, under_way: JoinSet::new(), rows: 0, last_line: 0 }
    }

    /// Rows that were written.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The last line up to which every row is written.
    pub fn written_up_to(&self) -> u64 {
        let open = self.lanes.iter().flat_map(|lane| {
            let next = (lane.next.lines > 0).then_some(lane.next.first_line);
            lane.sent.into_iter().chain(next)
        });
        open.min().map_or(self.last_line, |first| first.saturating_sub(1))
    }

    /// Takes a row, as soon as there is room for it. Dropped while it waits, it has not taken it.
    pub async fn push(&mut self, line: u64, key: Key, value: Bytes) -> Result<(), ClientError> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let at = (hasher.finish() % LANES as u64) as usize;
        while self.lanes.get(at).is_some_and(|lane| lane.next.is_full()) {
            self.settle_one().await?;
        }
        self.last_line = line;
        if let Some(lane) = self.lanes.get_mut(at) {
            lane.next.push(line, key, value);
        }
        self.send(at, false);
        Ok(())
    }

    /// Waits for what is under way, and writes the rest too if `all` of it is wanted.
    pub async fn finish(&mut self, all: bool) -> Result<(), ClientError> {
        let mut failed = None;
        loop {
            if all && failed.is_none() {
                self.send_all();
            }
            if self.under_way.is_empty() {
                return failed.map_or(Ok(()), Err);
            }
            if let Err(error) = self.settle_one().await {
                failed.get_or_insert(error);
            }
        }
    }

    /// Sends the next batch of a lane if it is full (or as it is) and the one before it is done.
    fn send(&mut self, at: usize, as_it_is: bool) {
        let Some(lane) = self.lanes.get_mut(at) else { return };
        let is_due = lane.next.is_full() || (as_it_is && lane.next.lines > 0);
        if !is_due || lane.sent.is_some() {
            return;
        }
        let batch = std::mem::take(&mut lane.next);
        lane.sent = Some(batch.first_line);
        let client = self.client.clone();
        self.under_way.spawn(async move {
            let done = client.write_all(batch.writes).await;
            (at, batch.lines, done.map(drop))
        });
    }

    /// Whether a batch is on its way.
    pub fn is_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Whether rows wait for their batch to be full.
    pub fn is_waiting(&self) -> bool {
        self.lanes.iter().any(|lane| lane.next.lines > 0 && lane.sent.is_none())
    }

    /// Sends what waits, full or not: no more rows come for now.
    pub fn send_all(&mut self) {
        (0..LANES).for_each(|at| self.send(at, true));
    }

    /// Waits until one batch is done. One that failed leaves its lane closed. May be dropped.
    pub async fn settle_one(&mut self) -> Result<(), ClientError> {
        let (at, lines, done) = match self.under_way.join_next().await {
            None => return Ok(()),
            Some(Ok(sent)) => sent,
            Some(Err(error)) => {
                return Err(ClientError::new(ErrorKind::Internal, error.to_string()));
            }
        };
        done?;
        self.rows += lines;
        if let Some(lane) = self.lanes.get_mut(at) {
            lane.sent = None;
        }
        self.send(at, false);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_last_row_of_a_key_takes_the_place_of_those_before_it() {
        let mut batch = Batch::default();
        for (line, key, value) in [(3, "a", "1"), (4, "b", "2"), (5, "a", "3")] {
            batch.push(line, Key::from(key), Bytes::from(value));
        }
        let expected = [Write::put("a", "3"), Write::put("b", "2")];
        assert_eq!(batch.writes, expected);
        assert_eq!((batch.lines, batch.first_line), (3, 3));
    }
}
