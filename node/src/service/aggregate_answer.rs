//! What an aggregate comes to, as it is sent: pieces that are done at about the same time as one
//! answer, in several messages if its groups are many.

use super::answers::AnswerSender;
use super::convert::{invalid, wire_error};
use super::range::status;
use isotherm_aggregate::{Partial, Query};
use isotherm_proto::internal as pb;
use isotherm_raftstore::RangeError;
use isotherm_types::{KeyRange, RangeId};
use prost::Message;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What is done is sent together with everything else that is done by then, …
const GATHER: Duration = Duration::from_millis(20);
/// … up to so many bytes.
const GATHER_BYTES: usize = 8 << 20;
/// Largest partial in one message.
const MESSAGE_BYTES: usize = 4 << 20;

/// A piece of work that is done, or cannot be done.
pub(super) struct Piece {
    pub range: RangeId,
    pub result: Result<Done, RangeError>,
}

/// Rows that were folded.
pub(super) struct Done {
    pub covered: KeyRange,
    pub partial: Partial,
    pub rows: u64,
    pub bytes: u64,
    pub took: Duration,
}

impl Piece {
    /// About what it takes in memory, and at most what it takes on the wire.
    fn size_bytes(&self) -> usize {
        match &self.result {
            Ok(Done { covered, partial, .. }) => {
                64 + covered.start().len() + covered.end().len() + partial.size_bytes()
            }
            Err(error) => 64 + wire_error(error.clone()).0.encoded_len(),
        }
    }
}

/// Sends answers, and signs of life in between.
pub(super) struct Outlet {
    answers: AnswerSender<pb::AggregateResponse>,
    message_bytes: usize,
    /// The beginning of an answer was sent and not its end. The client takes the next message for
    /// more of it, so no other may come in between.
    is_begun: AtomicBool,
}

impl Outlet {
    pub fn new(answers: AnswerSender<pb::AggregateResponse>) -> Self {
        Self { answers, message_bytes: MESSAGE_BYTES, is_begun: AtomicBool::new(false) }
    }

    /// Sends pieces as they are done, until all are or the client is gone.
    pub async fn send_all(&self, query: &Arc<Query>, mut done: mpsc::Receiver<Piece>) {
        while let Some(first) = done.recv().await {
            let mut bytes = first.size_bytes();
            let mut gathered = vec![first];
            let until = Instant::now() + GATHER;
            while bytes < GATHER_BYTES
                && let Ok(Some(more)) = tokio::time::timeout_at(until.into(), done.recv()).await
            {
                bytes += more.size_bytes();
                gathered.push(more);
            }
            if !self.send(query, gathered).await {
                return;
            }
        }
    }

    /// Sends pieces as one answer; whether the client is there. Merging and encoding take long
    /// where groups are many: they do not run on the async threads.
    async fn send(&self, query: &Arc<Query>, pieces: Vec<Piece>) -> bool {
        let (merging, message_bytes) = (query.clone(), self.message_bytes);
        let merged = blocking(move || {
            let (message, merged) = merge(pieces, &merging)?;
            Ok((message, merged.split(message_bytes).into_iter()))
        });
        let (mut message, mut parts) = match merged.await {
            Ok(merged) => merged,
            Err(error) => return self.fail(error).await,
        };
        loop {
            let query = query.clone();
            let encoded = blocking(move || {
                let part = parts.next().unwrap_or_default().encode(&query);
                part.map(|part| (part, parts)).map_err(|e| RangeError::Internal(e.to_string()))
            });
            let (part, rest) = match encoded.await {
                Ok(encoded) => encoded,
                Err(error) => return self.fail(error).await,
            };
            parts = rest;
            let has_more = parts.len() > 0;
            let mut next = if has_more {
                pb::AggregateResponse { has_more, ..Default::default() }
            } else {
                std::mem::take(&mut message)
            };
            next.partial = part.into();
            let bytes = next.encoded_len();
            if has_more {
                self.is_begun.store(true, Ordering::Relaxed);
            }
            let is_there = self.answers.send(next, bytes).await;
            if !has_more || !is_there {
                self.is_begun.store(false, Ordering::Relaxed);
                return is_there;
            }
        }
    }

    async fn fail(&self, error: RangeError) -> bool {
        self.answers.fail(status(error)).await;
        false
    }

    /// Refuses the whole aggregate.
    pub async fn refuse(&self, error: RangeError) {
        self.fail(error).await;
    }

    /// Says now and then that somebody is at it, until the client goes away.
    pub async fn say_alive(&self, every: Duration, is_waiting: bool) {
        loop {
            tokio::select! {
                () = self.answers.closed() => return,
                () = tokio::time::sleep(every) => {
                    // If it does not fit there is something better to read.
                    if !self.is_begun.load(Ordering::Relaxed) {
                        let alive = pb::AggregateResponse { is_waiting, ..Default::default() };
                        self.answers.try_send(alive);
                    }
                }
            }
        }
    }
}

/// Runs work that may take long off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RangeError> + Send + 'static,
) -> Result<T, RangeError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(RangeError::Internal(e.to_string())))
}

/// What pieces come to together, and the message that says of which spans.
fn merge(
    pieces: Vec<Piece>,
    query: &Query,
) -> Result<(pb::AggregateResponse, Partial), RangeError> {
    let mut message = pb::AggregateResponse::default();
    let mut merged = Partial::new();
    let mut refused = HashMap::new();
    let mut work: HashMap<RangeId, pb::AggregateWork> = HashMap::new();
    for Piece { range, result } in pieces {
        let done = match result {
            Ok(done) => done,
            Err(error) => {
                refused.insert(range, error);
                continue;
            }
        };
        merged.merge(done.partial, query).map_err(|e| invalid(e.to_string()))?;
        message.covered.push((&done.covered).into());
        let work = work.entry(range).or_default();
        work.range_id = range.get();
        work.rows += done.rows;
        work.bytes += done.bytes;
        work.micros += u64::try_from(done.took.as_micros()).unwrap_or(u64::MAX);
    }
    let refusal = |(range, error): (RangeId, RangeError)| pb::AggregateRefusal {
        range_id: range.get(),
        error: Some(wire_error(error).into()),
    };
    message.refusals = refused.into_iter().map(refusal).collect();
    message.work = work.into_values().collect();
    Ok((message, merged))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::answers::{StreamLimits, answers};
    use super::*;
    use futures::StreamExt;
    use isotherm_aggregate::{Fold, QueryText};

    fn query() -> Arc<Query> {
        let (functions, group_by) = ("count".to_owned(), "prefix:9".to_owned());
        let text = QueryText { functions, group_by, ..QueryText::default() };
        Arc::new(Query::parse(&text).unwrap())
    }

    fn piece(query: &Query, groups: u32) -> Piece {
        let mut fold = Fold::new(query);
        (0..groups).for_each(|n| fold.add(format!("{n:09}").as_bytes(), b"").unwrap());
        let (partial, covered) = (fold.finish(), KeyRange::all());
        let done = Done { covered, partial, rows: 0, bytes: 0, took: Duration::ZERO };
        Piece { range: RangeId(1), result: Ok(done) }
    }

    /// A sign of life between the messages of one answer would be taken for its end.
    #[tokio::test]
    async fn no_sign_of_life_comes_between_the_messages_of_one_answer() {
        let query = query();
        let idle = Duration::from_secs(10);
        // Parts wait for bytes, as they do for a slow client; a sign of life takes none, so that
        // there is always room for it.
        let limits = StreamLimits { messages: 16, bytes: 2_500, idle, memory: None };
        let (sender, mut taken) = answers(limits);
        let outlet = Outlet { message_bytes: 1_000, ..Outlet::new(sender) };
        let (pieces, done) = mpsc::channel(4);
        let sending = tokio::spawn(async move {
            tokio::select! {
                () = outlet.send_all(&query, done) => {}
                () = outlet.say_alive(Duration::from_millis(2), false) => {}
            }
        });
        let query = self::query();
        let (mut is_begun, mut parts, mut signs, mut groups) = (false, 0, 0, 0);
        for _ in 0..3 {
            pieces.send(piece(&query, 100)).await.unwrap();
            loop {
                // Slowly, so that there is room for a sign of life after each message.
                tokio::time::sleep(Duration::from_millis(10)).await;
                let message = taken.next().await.unwrap().unwrap();
                if message.partial.is_empty() {
                    assert!(!is_begun, "a sign of life after {parts} messages of an answer");
                    signs += 1;
                    continue;
                }
                groups += Partial::decode(&message.partial, &query).unwrap().groups();
                is_begun = message.has_more;
                parts += 1;
                if !is_begun {
                    assert_eq!(message.covered.len(), 1);
                    break;
                }
            }
            // The next answer is not there yet.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(parts > 15 && signs > 0 && groups == 300, "{parts} {signs} {groups}");
        drop(pieces);
        sending.await.unwrap();
    }

    #[test]
    fn a_refusal_counts_by_what_it_says() {
        let query = query();
        let descriptors = vec![isotherm_types::RangeDescriptor {
            span: KeyRange::new(vec![b'a'; 4_000], vec![b'b'; 4_000]).unwrap(),
            ..a_descriptor()
        }];
        let error = RangeError::EpochMismatch { current: descriptors };
        let refused = Piece { range: RangeId(1), result: Err(error) };
        assert!(refused.size_bytes() > 8_000);
        let (message, merged) = merge(vec![refused, piece(&query, 3)], &query).unwrap();
        assert_eq!((message.refusals.len(), message.covered.len(), merged.groups()), (1, 1, 3));
    }

    fn a_descriptor() -> isotherm_types::RangeDescriptor {
        isotherm_types::RangeDescriptor {
            id: RangeId(1),
            span: KeyRange::all(),
            epoch: isotherm_types::RangeEpoch { version: 1, conf_ver: 1 },
            replicas: Vec::new(),
            next_replica_id: isotherm_types::ReplicaId(1),
        }
    }
}
