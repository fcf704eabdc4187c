//! One answer over all keys of a span, at one timestamp.
//!
//! Every node is asked once for all parts that it leads, and answers what they come to. Each answer
//! says exactly which spans it is for; what a node refuses or leaves open is asked again, where it
//! is now, at the same timestamp. Every key of the span counts exactly once: an answer is accepted
//! only for what is still open in the request that it belongs to.

use super::hold::Keeper;
use super::read::odd_answer;
use crate::client::{Client, Inner};
use crate::retry::{Attempts, Next};
use crate::router::Route;
use crate::{ClientError, ErrorKind};
use isotherm_aggregate::{Answer, Partial, Query, QueryText};
use isotherm_proto::internal::{
    AggregatePart, AggregateQuery, AggregateRequest, AggregateResponse, AggregateWork,
};
use isotherm_proto::{Retry, WireError};
use isotherm_types::{KeyRange, NodeId, RangeId, Timestamp};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// A node that leads something says at least this often that it is there.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Messages that wait to be merged.
const MESSAGES_MAX: usize = 64;
/// Parts asked of one node at a time.
const PARTS_MAX: usize = 50_000;

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
        let mut ranges: Vec<_> = self.work.iter().map(|work| work.range).collect();
        // In order already, with one line per node that led it.
        ranges.dedup();
        ranges.len() as u64
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
        let invalid = |why: String| ClientError::new(ErrorKind::Invalid, why);
        let query = Query::parse(&options.query).map_err(|e| invalid(e.to_string()))?;
        let keeper = Keeper::new(self.clone(), options.at.is_some());
        let at = match options.at {
            Some(Timestamp::ZERO) => {
                return Err(invalid(
                    "no timestamp is 0: leave it out to read as of now".to_owned(),
                ));
            }
            Some(at) => at,
            None => self.timestamp().await?,
        };
        let (events, incoming) = mpsc::channel(MESSAGES_MAX);
        let coordinator = Coordinator {
            inner: self.inner.clone(),
            keeper,
            text: options.query,
            query,
            at,
            open: vec![options.span],
            requests: HashMap::new(),
            streams: JoinSet::new(),
            next_request: 0,
            events,
            merged: Partial::new(),
            work: BTreeMap::new(),
            repeated: 0,
            ranges_all: 0,
        };
        let done = coordinator.run(incoming, progress).await?;
        self.inner.saw(at);
        Ok(done)
    }
}

/// What a stream brings.
enum Event {
    Message(AggregateResponse),
    /// It ended, with an error or not.
    End(Option<WireError>),
}

/// What one node was asked.
struct Request {
    node: NodeId,
    routes: HashMap<RangeId, Arc<Route>>,
    /// What it has not answered.
    open: Vec<KeyRange>,
    /// Beginning of an answer that comes in several messages.
    begun: Partial,
    /// When to ask for the rest.
    next: Option<Next>,
    /// The node has not begun: it is busy with others.
    is_waiting: bool,
}

struct Coordinator {
    inner: Arc<Inner>,
    keeper: Keeper,
    text: QueryText,
    query: Query,
    at: Timestamp,
    /// What nobody is asked for at the moment.
    open: Vec<KeyRange>,
    requests: HashMap<u64, Request>,
    streams: JoinSet<()>,
    next_request: u64,
    events: mpsc::Sender<(u64, Event)>,
    merged: Partial,
    work: BTreeMap<(RangeId, NodeId), AggregateWork>,
    repeated: u64,
    ranges_all: u64,
}

impl Coordinator {
    async fn run(
        mut self,
        mut incoming: mpsc::Receiver<(u64, Event)>,
        mut progress: impl FnMut(AggregateProgress),
    ) -> Result<Aggregated, ClientError> {
        let inner = self.inner.clone();
        let mut attempts = inner.attempts();
        let mut ask_at = Some(Instant::now());
        let mut last_error = None;
        while !self.open.is_empty() || !self.requests.is_empty() {
            self.keeper.keep(self.at).await?;
            let wait_until = ask_at.unwrap_or(attempts.deadline).min(attempts.deadline);
            tokio::select! {
                event = incoming.recv() => {
                    let Some((id, event)) = event else { return Err(odd_answer()) };
                    match event {
                        Event::Message(message) => {
                            if self.accept(id, message)? {
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
        Ok(Aggregated {
            at: self.at,
            answer: self.merged.finish(&self.query),
            work: work.collect(),
            repeated: self.repeated,
        })
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
            let part = part.ok_or_else(|| (odd_answer(), Next::PAUSE))?;
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
            for parts in parts.chunks(PARTS_MAX) {
                self.ask_node(node, parts);
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
            parts: parts.iter().map(part).collect(),
            cluster_id: self.inner.router.cluster(),
        };
        let routes = parts.iter().map(|(route, _)| (route.descriptor.id, route.clone()));
        let routes = routes.collect();
        let open = parts.iter().map(|(_, span)| span.clone()).collect();
        let request_state =
            Request { node, routes, open, begun: Partial::new(), next: None, is_waiting: false };
        self.requests.insert(id, request_state);
        let (inner, events) = (self.inner.clone(), self.events.clone());
        self.streams.spawn(async move {
            let error = stream(&inner, node, request, id, &events).await.err();
            let _ = events.send((id, Event::End(error))).await;
        });
    }

    /// Takes an answer in; whether it answered something.
    fn accept(&mut self, id: u64, message: AggregateResponse) -> Result<bool, ClientError> {
        // A request that was given up: its spans belong to another one by now.
        let Some(request) = self.requests.get_mut(&id) else { return Ok(false) };
        request.is_waiting = message.is_waiting;
        let too_much = |e: isotherm_aggregate::AggregateError| {
            ClientError::new(ErrorKind::Invalid, e.to_string())
        };
        if !message.partial.is_empty() {
            let partial =
                Partial::decode(&message.partial, &self.query).map_err(|_| odd_answer())?;
            request.begun.merge(partial, &self.query).map_err(too_much)?;
        }
        if message.has_more {
            return Ok(false);
        }
        for covered in message.covered.iter() {
            let covered: KeyRange = covered.clone().try_into().map_err(|_| odd_answer())?;
            take(&mut request.open, &covered)?;
        }
        let partial = std::mem::take(&mut request.begun);
        if message.covered.is_empty() && partial.groups() > 0 {
            return Err(odd_answer());
        }
        self.merged.merge(partial, &self.query).map_err(too_much)?;
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
        let message = "a part of the span moved while it was read";
        let mut shown = ClientError::new(ErrorKind::Unavailable, message);
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
            Some(message) => {
                if events.send((id, Event::Message(message))).await.is_err() {
                    return Ok(());
                }
            }
            None => return Ok(()),
        }
    }
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
    WireError::new(Code::Unavailable, status.message())
}

/// Takes `covered` out of what is open; it must lie in one of the open spans.
fn take(open: &mut Vec<KeyRange>, covered: &KeyRange) -> Result<(), ClientError> {
    let at = open.iter().position(|span| span.covers(covered)).ok_or_else(odd_answer)?;
    let span = open.swap_remove(at);
    if span.start() < covered.start() {
        let before = KeyRange::new(span.start().clone(), covered.start().clone());
        open.push(before.map_err(|_| odd_answer())?);
    }
    if !covered.end().is_empty() && span.end() != covered.end() {
        let after = KeyRange::new(covered.end().clone(), span.end().clone());
        open.push(after.map_err(|_| odd_answer())?);
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
