//! Collects what all nodes answer to one aggregate.
//!
//! Every node is asked once for all parts that it leads, and answers what they come to. Each answer
//! says exactly which spans it is for; what a node refuses or leaves open is asked again, where it
//! is now, at the same timestamp. Every key of the span counts exactly once: an answer is accepted
//! only for what is still open in the request that it belongs to.

use super::aggregate::{AggregateProgress, RangeWork};
use super::hold::Keeper;
use super::partials::{Memory, Read, merge, read_partial};
use super::read::unexpected_answer;
use crate::client::Inner;
use crate::retry::{Attempts, Next};
use crate::router::Route;
use crate::{ClientError, ErrorKind};
use isotherm_aggregate::{Partial, Query, QueryText};
use isotherm_proto::internal::{
    AggregatePart, AggregateQuery, AggregateRequest, AggregateResponse, AggregateWork,
};
use isotherm_proto::{Retry, WireError};
use isotherm_transport::status_text;
use isotherm_types::{KeyRange, NodeId, RangeId, Timestamp};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;

/// A node that leads something says at least this often that it is there.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Parts asked of one node at a time, and their bytes.
const PARTS_MAX: usize = 50_000;
const PARTS_BYTES_MAX: usize = 4 << 20;

/// How the collecting ended.
pub(super) enum Outcome {
    Done(Sum),
    /// A node answered by older rules than it was asked to: it is of an older version. All parts of one
    /// answer are computed by the same rules, so everything is to be asked again by those.
    OlderRules,
}

/// What was merged, when everything was answered.
pub(super) struct Sum {
    pub at: Timestamp,
    pub partial: Partial,
    pub query: Arc<Query>,
    pub work: Vec<RangeWork>,
    pub repeated: u64,
    pub memory: Option<OwnedSemaphorePermit>,
}

/// What a stream brings.
pub(super) enum Event {
    /// An answer, and its partial as it was read.
    Message(AggregateResponse, Option<Partial>),
    /// An answer by older rules than were asked for.
    OlderRules,
    /// It ended, with an error or not.
    End(Option<WireError>),
}

/// What one node was asked.
pub(super) struct Request {
    node: NodeId,
    routes: HashMap<RangeId, Arc<Route>>,
    /// What it has not answered.
    open: Vec<KeyRange>,
    /// Beginning of an answer that comes in several messages.
    begun: Partial,
    /// When to ask for the rest.
    next: Option<Next>,
    /// Why the node did not answer all of it, as it said itself.
    refused: Option<String>,
    /// The node has not begun: it is busy with others.
    is_waiting: bool,
}

pub(super) struct Coordinator {
    pub inner: Arc<Inner>,
    pub keeper: Keeper,
    pub text: QueryText,
    pub query: Arc<Query>,
    pub at: Timestamp,
    /// Spans that are part of no request at the moment.
    pub open: Vec<KeyRange>,
    pub requests: HashMap<u64, Request>,
    pub streams: JoinSet<()>,
    pub next_request: u64,
    pub events: mpsc::Sender<(u64, Event)>,
    pub merged: Partial,
    pub memory: Memory,
    pub work: BTreeMap<(RangeId, NodeId), AggregateWork>,
    pub repeated: u64,
    pub ranges_all: u64,
}

impl Coordinator {
    pub async fn run(
        mut self,
        mut incoming: mpsc::Receiver<(u64, Event)>,
        mut progress: impl FnMut(AggregateProgress),
    ) -> Result<Outcome, ClientError> {
        let inner = self.inner.clone();
        let mut attempts = inner.attempts();
        let mut ask_at = Some(Instant::now());
        let mut last_error = None;
        while !self.open.is_empty() || !self.requests.is_empty() {
            self.keeper.keep(self.at).await?;
            let wait_until = ask_at.unwrap_or(attempts.deadline).min(attempts.deadline);
            tokio::select! {
                event = incoming.recv() => {
                    let Some((id, event)) = event else { return Err(unexpected_answer()) };
                    match event {
                        Event::OlderRules => return Ok(Outcome::OlderRules),
                        Event::Message(message, partial) => {
                            if self.accept(id, message, partial).await? {
                                attempts = inner.attempts();
                                progress(self.progress());
                            }
                        }
                        Event::End(error) => {
                            let Some((error, next)) = self.ended(id, error)? else { continue };
                            last_error = Some(error);
                            let Some(delay) = attempts.delay(next) else { break };
                            let at = Instant::now() + delay;
                            ask_at = Some(ask_at.map_or(at, |before| before.min(at)));
                        }
                    }
                }
                () = tokio::time::sleep_until(wait_until.into()) => {
                    if ask_at.take().is_none() || attempts.left().is_zero() {
                        break;
                    }
                    if let Err((error, next)) = self.ask(&attempts).await {
                        super::read::retry_routing(error.clone())?;
                        last_error = Some(error);
                        let Some(delay) = attempts.delay(next) else { break };
                        ask_at = Some(Instant::now() + delay);
                    }
                }
            }
        }
        if !self.open.is_empty() || !self.requests.is_empty() {
            if self.requests.values().any(|request| request.is_waiting) {
                let message = "too many aggregates wait for the same nodes: try again later";
                return Err(ClientError::new(ErrorKind::Busy, message));
            }
            for request in self.requests.values().filter(|request| !request.open.is_empty()) {
                let why = "it did not answer all that it was asked in time".to_owned();
                self.inner.note_trouble(request.node, Some(why));
            }
            let message = "no part of the aggregate was answered within the time limit";
            let error = || ClientError::new(ErrorKind::Unavailable, message);
            return Err(last_error.unwrap_or_else(error));
        }
        self.keeper.release().await;
        let work = self.work.into_iter().map(|((range, node), work)| RangeWork {
            range,
            node,
            rows: work.rows,
            bytes: work.bytes,
            took: Duration::from_micros(work.micros),
        });
        Ok(Outcome::Done(Sum {
            at: self.at,
            partial: self.merged,
            query: self.query,
            work: work.collect(),
            repeated: self.repeated,
            memory: self.memory.taken,
        }))
    }

    /// Asks the nodes that lead what is open, one request for each.
    async fn ask(&mut self, attempts: &Attempts<'_>) -> Result<(), (ClientError, Next)> {
        type Parts = Vec<(Arc<Route>, KeyRange)>;
        let mut by_node: HashMap<NodeId, Parts> = HashMap::new();
        let mut routed = 0;
        while let Some(span) = self.open.last().cloned() {
            let route = match self.inner.locate(attempts, span.start()).await {
                Ok(route) => route,
                Err(error) => {
                    // What was routed before is open again.
                    let parts = by_node.into_values().flatten().map(|(_, span)| span);
                    self.open.extend(parts);
                    return Err((error, Next::PAUSE));
                }
            };
            let part = route.descriptor.span.intersect(&span);
            let part = part.filter(|part| part.start() == span.start());
            let part = part.ok_or_else(|| (unexpected_answer(), Next::PAUSE))?;
            self.open.pop();
            let end = part.end().clone();
            if !end.is_empty()
                && let Ok(rest) = KeyRange::new(end, span.end().clone())
                && part.end() != span.end()
            {
                self.open.push(rest);
            }
            routed += 1;
            by_node.entry(route.target()).or_default().push((route, part));
        }
        self.ranges_all = self.ranges_all.max(routed);
        for (node, parts) in by_node {
            let mut rest = &parts[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(fitting(rest));
                self.ask_node(node, now);
                rest = later;
            }
        }
        Ok(())
    }

    fn ask_node(&mut self, node: NodeId, parts: &[(Arc<Route>, KeyRange)]) {
        let id = self.next_request;
        self.next_request += 1;
        let text = self.text.clone();
        let part = |(route, span): &(Arc<Route>, KeyRange)| AggregatePart {
            range_id: route.descriptor.id.get(),
            version: route.descriptor.epoch.version,
            span: Some(span.into()),
        };
        let request = AggregateRequest {
            query: Some(AggregateQuery {
                functions: text.functions,
                value: text.value,
                filter: text.filter,
                group_by: text.group_by,
                groups_max: text.groups_max,
            }),
            at: self.at.get(),
            rules: self.query.rules().number(),
            parts: parts.iter().map(part).collect(),
            cluster_id: self.inner.router.cluster(),
        };
        let routes = parts.iter().map(|(route, _)| (route.descriptor.id, route.clone()));
        let routes = routes.collect();
        let open = parts.iter().map(|(_, span)| span.clone()).collect();
        let request_state = Request {
            node,
            routes,
            open,
            begun: Partial::new(),
            next: None,
            refused: None,
            is_waiting: false,
        };
        self.requests.insert(id, request_state);
        let (inner, events) = (self.inner.clone(), self.events.clone());
        let query = self.query.clone();
        self.streams.spawn(async move {
            let error = stream(&inner, node, request, &query, id, &events).await.err();
            let _ = events.send((id, Event::End(error))).await;
        });
    }

    /// Takes an answer in; whether it answered something.
    async fn accept(
        &mut self,
        id: u64,
        message: AggregateResponse,
        partial: Option<Partial>,
    ) -> Result<bool, ClientError> {
        // A request that was given up: its spans belong to another one by now.
        let Some(request) = self.requests.get_mut(&id) else { return Ok(false) };
        request.is_waiting = message.is_waiting;
        if partial.is_none() && message.covered.is_empty() && message.refusals.is_empty() {
            // A sign of life. It may come between the parts of an answer, which then goes on.
            return Ok(false);
        }
        merge(&mut request.begun, partial.unwrap_or_default(), &self.query).await?;
        let begun: usize = self.requests.values().map(|request| request.begun.size_bytes()).sum();
        self.memory.grow_to(self.merged.size_bytes() + begun)?;
        if message.has_more {
            return Ok(false);
        }
        let Some(request) = self.requests.get_mut(&id) else { return Ok(false) };
        for covered in message.covered.iter() {
            let covered: KeyRange = covered.clone().try_into().map_err(|_| unexpected_answer())?;
            take(&mut request.open, &covered)?;
        }
        let partial = std::mem::take(&mut request.begun);
        if message.covered.is_empty() && partial.groups() > 0 {
            return Err(unexpected_answer());
        }
        merge(&mut self.merged, partial, &self.query).await?;
        for work in message.work {
            let sum = self.work.entry((RangeId(work.range_id), request.node)).or_default();
            sum.rows += work.rows;
            sum.bytes += work.bytes;
            sum.micros += work.micros;
        }
        for refusal in message.refusals {
            let error = WireError::from(refusal.error.unwrap_or_default());
            if !matches!(error.retry(), Retry::Reroute | Retry::Later) {
                return Err(error.into());
            }
            request.refused = Some(error.0.message.clone());
            if let Some(route) = request.routes.get(&RangeId(refusal.range_id)) {
                let next = self.inner.learn_from(route, request.node, &error);
                // The shortest of all that was said: the others are merely asked again.
                request.next = Some(request.next.map_or(next, |before| before.sooner(next)));
            }
        }
        Ok(!message.covered.is_empty())
    }

    /// A stream ended: what it left open is asked elsewhere.
    fn ended(
        &mut self,
        id: u64,
        error: Option<WireError>,
    ) -> Result<Option<(ClientError, Next)>, ClientError> {
        let Some(request) = self.requests.remove(&id) else { return Ok(None) };
        if request.open.is_empty() {
            return Ok(None);
        }
        self.repeated += 1;
        let mut next = request.next.unwrap_or(Next::PAUSE);
        let said_why = request.refused.filter(|why| !why.is_empty());
        let message = said_why
            .unwrap_or_else(|| format!("{} left a part of the span unanswered", request.node));
        let mut shown = ClientError::new(ErrorKind::Unavailable, message);
        self.inner.note_trouble(request.node, error.as_ref().map(|e| e.0.message.clone()));
        if let Some(error) = error {
            if !matches!(error.retry(), Retry::Reroute | Retry::Later) {
                return Err(error.into());
            }
            next = Next::AfterPause(Duration::from_millis(error.0.retry_after_ms));
            if error.0.retry_after_ms == 0 {
                request.routes.values().for_each(|route| {
                    route.not_led_by(request.node, None);
                });
            }
            shown = error.into();
        }
        self.open.extend(request.open);
        Ok(Some((shown, next)))
    }

    fn progress(&self) -> AggregateProgress {
        let ranges = self.work.len() as u64;
        AggregateProgress {
            at: self.at,
            rows: self.work.values().map(|w| w.rows).sum(),
            bytes: self.work.values().map(|w| w.bytes).sum(),
            ranges,
            ranges_all: self.ranges_all.max(ranges),
        }
    }
}

/// Passes on what one node answers.
async fn stream(
    inner: &Inner,
    node: NodeId,
    request: AggregateRequest,
    query: &Arc<Query>,
    id: u64,
    events: &mpsc::Sender<(u64, Event)>,
) -> Result<(), WireError> {
    use isotherm_proto::internal::error::Code;
    let unavailable = |why: String| WireError::new(Code::Unavailable, why);
    let silent = |_| unavailable(format!("{node} did not answer in time"));
    let opening = async {
        let mut rpc = inner.rpc(node).await.map_err(|e| unavailable(e.message))?;
        rpc.aggregate(request).await.map_err(wire_error)
    };
    let opened = tokio::time::timeout(SILENCE_MAX, opening).await.map_err(silent)?;
    let mut answers = match opened {
        Ok(answers) => answers.into_inner(),
        Err(error) => {
            // Perhaps the node is somewhere else now.
            inner.router.refresh_addresses().await?;
            return Err(error);
        }
    };
    loop {
        let message = tokio::time::timeout(SILENCE_MAX, answers.message()).await;
        match message.map_err(silent)?.map_err(wire_error)? {
            Some(mut message) => {
                let event = match read_partial(std::mem::take(&mut message.partial), query).await? {
                    Read::Nothing => Event::Message(message, None),
                    Read::Partial(partial) => Event::Message(message, Some(partial)),
                    Read::Older => Event::OlderRules,
                };
                if events.send((id, event)).await.is_err() {
                    return Ok(());
                }
            }
            None => return Ok(()),
        }
    }
}

/// How many of the first parts fit into one request; at least one.
fn fitting<T>(parts: &[(T, KeyRange)]) -> usize {
    let mut bytes = 0;
    let fits = |(_, span): &&(T, KeyRange)| {
        bytes += span.start().len() + span.end().len() + 32;
        bytes <= PARTS_BYTES_MAX
    };
    parts.iter().take(PARTS_MAX).take_while(fits).count().max(1)
}

/// The error of an RPC; with the details that a node attached, if it did.
fn wire_error(status: tonic::Status) -> WireError {
    use isotherm_proto::internal::error::Code;
    use prost::Message;
    if !status.details().is_empty()
        && let Ok(error) = isotherm_proto::internal::Error::decode(status.details())
    {
        return error.into();
    }
    // A broken connection, a node that starts: reads can be repeated.
    WireError::new(Code::Unavailable, status_text(&status))
}

/// Takes `covered` out of what is open; it must lie in one of the open spans.
fn take(open: &mut Vec<KeyRange>, covered: &KeyRange) -> Result<(), ClientError> {
    let at = open.iter().position(|span| span.covers(covered)).ok_or_else(unexpected_answer)?;
    let span = open.swap_remove(at);
    if span.start() < covered.start() {
        let before = KeyRange::new(span.start().clone(), covered.start().clone());
        open.push(before.map_err(|_| unexpected_answer())?);
    }
    if !covered.end().is_empty() && span.end() != covered.end() {
        let after = KeyRange::new(covered.end().clone(), span.end().clone());
        open.push(after.map_err(|_| unexpected_answer())?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn span(a: &str, b: &str) -> KeyRange {
        KeyRange::new(a.to_owned(), b.to_owned()).unwrap()
    }

    #[test]
    fn a_request_has_as_many_parts_as_fit_and_one_at_least() {
        let parts = |count: usize, bytes: usize| {
            let span = KeyRange::new(vec![b'k'; bytes], isotherm_types::Key::new()).unwrap();
            fitting(&vec![((), span); count])
        };
        let bytes = PARTS_BYTES_MAX / 1024;
        assert_eq!(parts(1024, bytes - 32), 1024, "as many bytes as there may be");
        assert_eq!(parts(1025, bytes - 32), 1024);
        assert_eq!(parts(1024, bytes - 31), 1023);
        assert_eq!(parts(2, PARTS_BYTES_MAX), 1);
        assert_eq!(parts(PARTS_MAX + 1, 1), PARTS_MAX);
    }

    #[test]
    fn answers_are_taken_for_what_is_open_and_once() {
        let mut open = vec![span("b", "m"), span("p", "")];
        take(&mut open, &span("d", "f")).unwrap();
        assert!(take(&mut open, &span("d", "f")).is_err(), "twice");
        assert!(take(&mut open, &span("a", "c")).is_err(), "more than was asked");
        assert!(take(&mut open, &span("k", "q")).is_err(), "across a gap");
        take(&mut open, &span("b", "d")).unwrap();
        take(&mut open, &span("f", "m")).unwrap();
        take(&mut open, &span("q", "")).unwrap();
        assert_eq!(open, [span("p", "q")]);
        take(&mut open, &span("p", "q")).unwrap();
        assert!(open.is_empty());
    }
}
