//! The client itself: what all of its operations share.

use crate::flight::Flight;
use crate::node_link::{LinkError, NodeLink};
use crate::retry::{Attempts, Budget, Next};
use crate::router::{Route, Router};
use crate::session::Session;
use crate::{Admin, ClientError, ClientOptions, ErrorKind};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use isotherm_proto::WireError;
use isotherm_proto::internal::error::Code;
use isotherm_proto::internal::range_service_client::RangeServiceClient;
use isotherm_proto::internal::{
    OpenSessionRequest, RangeTimestampRequest, range_request, range_response,
};
use isotherm_transport::{MetaLink, status_text};
use isotherm_types::{ClusterId, NodeId, SessionId, Timestamp, limits};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tonic::transport::Channel;
use tonic::{Response, Status};

const SESSION_TIMEOUT: Duration = Duration::from_secs(2);
/// What any node can answer is asked of a further one after this long.
const NEXT_AFTER: Duration = Duration::from_millis(300);
/// A node that did not answer is asked after all others for this long.
const SILENT_FOR: Duration = Duration::from_secs(10);
/// An operation that met a node that is gone waits no longer for news of it.
const REFRESH_TIMEOUT: Duration = Duration::from_millis(500);

/// A connection to a cluster. Cheap to clone; all clones share everything.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub options: ClientOptions,
    pub meta: Arc<MetaLink>,
    pub router: Router,
    pub budget: Budget,
    links: Mutex<HashMap<NodeId, Arc<NodeLink>>>,
    /// Nodes that did not answer, and when that was.
    silent: Mutex<HashMap<NodeId, Instant>>,
    /// Nodes whose last request was not answered, and why.
    troubles: Mutex<BTreeMap<NodeId, String>>,
    session: arc_swap::ArcSwapOption<Session>,
    opening: Flight,
    newest_ts: AtomicU64,
    /// Milliseconds that operations get less than the timeout.
    spent_ms: AtomicU64,
}

/// What one attempt ended with, if not with an answer.
pub(crate) enum Failed {
    /// Certainly not applied by this attempt.
    Definite {
        /// Why.
        error: WireError,
        /// When another attempt makes sense, if it does.
        next: Next,
    },
    /// Perhaps applied.
    Unknown(String),
}

impl Client {
    /// A client of the cluster whose meta service is at the given addresses. Connects when it is
    /// first used.
    pub fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        if options.meta.is_empty() {
            let message = "no address of the meta service is given";
            return Err(ClientError::new(ErrorKind::Invalid, message));
        }
        let meta = Arc::new(MetaLink::new(options.meta.clone()));
        let inner = Inner {
            options,
            router: Router::new(meta.clone()),
            meta,
            budget: Budget::new(),
            links: Mutex::default(),
            silent: Mutex::default(),
            troubles: Mutex::default(),
            session: arc_swap::ArcSwapOption::empty(),
            opening: Flight::default(),
            newest_ts: AtomicU64::new(0),
            spent_ms: AtomicU64::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What operators ask.
    pub fn admin(&self) -> Admin<'_> {
        Admin::new(self)
    }

    /// Talks to this cluster only, instead of to the cluster that answers first.
    pub fn pin(&self, cluster: ClusterId) {
        // It is the first that is said.
        let _ = self.inner.router.is_our_cluster(cluster.get());
    }

    /// Takes time that the caller spent on something else from the timeout of each operation that follows, where the
    /// timeout is meant for all of it. A quarter of it is always left.
    pub fn spend(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.inner.spent_ms.store(ms, Ordering::Relaxed);
    }

    /// Where a node was when it was last heard of: asked while the meta service does not answer.
    pub fn learn_node(&self, node: NodeId, address: &str) {
        let (id, address) = (node.get(), address.to_owned());
        let node = isotherm_proto::internal::NodeAddress { id, address, incarnation: 0 };
        self.inner.router.note_addresses(&[node], true);
    }

    /// How long its operations are tried before they fail.
    pub fn timeout(&self) -> Duration {
        self.inner.timeout()
    }

    /// What does not answer at the moment, a sentence for each: of the nodes as far as they were asked, and
    /// of the meta service. Why an operation failed, if it did for want of an answer.
    pub fn troubles(&self) -> Vec<String> {
        let nodes = self.inner.troubles.lock();
        let known = self.inner.router.nodes().len();
        let mut all: Vec<_> = self.inner.meta.trouble().into_iter().collect();
        if !nodes.is_empty() {
            let which: Vec<_> = nodes.iter().map(|(node, why)| format!("{node}: {why}")).collect();
            let quorum = if nodes.len() * 2 > known { "there may be no quorum: " } else { "" };
            let (silent, which) = (nodes.len(), which.join("; "));
            all.push(format!("{quorum}{silent} of {known} nodes did not answer ({which})"));
        }
        all
    }

    /// A current timestamp of the cluster.
    pub async fn timestamp(&self) -> Result<Timestamp, ClientError> {
        let mut attempts = self.inner.attempts();
        loop {
            match attempts.within(self.inner.fetch_timestamp()).await {
                Ok(ts) => return Ok(ts),
                Err(error) if !attempts.again(Next::PAUSE).await => return Err(error),
                Err(_) => {}
            }
        }
    }
}

impl Inner {
    pub fn attempts(&self) -> Attempts<'_> {
        Attempts::new(&self.budget, self.timeout())
    }

    /// How long an operation may take.
    pub fn timeout(&self) -> Duration {
        let spent = Duration::from_millis(self.spent_ms.load(Ordering::Relaxed));
        let timeout = self.options.timeout;
        timeout.saturating_sub(spent).max(timeout / 4)
    }

    /// Attempts of a part of an operation.
    pub fn attempts_until(&self, deadline: Instant) -> Attempts<'_> {
        Attempts::until(&self.budget, deadline)
    }

    /// The route of `key`, looked up within the time of `attempts`.
    pub async fn locate(
        &self,
        attempts: &Attempts<'_>,
        key: &[u8],
    ) -> Result<Arc<Route>, ClientError> {
        match self.router.cached(key) {
            Some(route) => Ok(route),
            None => attempts.within(self.router.locate(key)).await,
        }
    }

    /// The stream to `node`.
    fn link(&self, node: NodeId) -> Result<Arc<NodeLink>, String> {
        let address = self.router.address(node);
        let address = address.ok_or_else(|| format!("the address of {node} is not known"))?;
        let mut links = self.links.lock();
        if let Some(link) = links.get(&node)
            && !link.is_down()
            && link.address == address
        {
            return Ok(link.clone());
        }
        let link = Arc::new(NodeLink::start(address, self.router.cluster()));
        // Those of nodes that are gone for good end here.
        links.retain(|node, _| self.router.address(*node).is_some());
        links.insert(node, link.clone());
        Ok(link)
    }

    /// Some node's RPCs that are not on a stream.
    pub async fn rpc(&self, node: NodeId) -> Result<RangeServiceClient<Channel>, ClientError> {
        if self.router.address(node).is_none() {
            self.router.get_ranges(None, 0, 1).await?;
        }
        let address = self.router.address(node);
        let address = address.ok_or_else(|| {
            ClientError::new(ErrorKind::Unreachable, format!("the address of {node} is not known"))
        })?;
        let channel = self.router.channel(&address);
        let channel =
            channel.map_err(|e| ClientError::new(ErrorKind::Unreachable, e.to_string()))?;
        Ok(RangeServiceClient::new(channel)
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::MESSAGE_BYTES_MAX))
    }

    /// One attempt at the node that leads `route`, as far as is known.
    pub async fn attempt(
        &self,
        route: &Route,
        timeout: Duration,
        body: range_request::Body,
    ) -> Result<range_response::Body, Failed> {
        let node = route.target();
        let started = Instant::now();
        let timeout = timeout.min(self.options.attempt_timeout);
        let d = &route.descriptor;
        let sent = match self.link(node) {
            Ok(link) => link.send(d.id.get(), d.epoch.version, timeout, body).await,
            Err(why) => Err(LinkError::NotSent(why)),
        };
        match &sent {
            Ok(_) => self.note_trouble(node, None),
            Err(LinkError::NotSent(why) | LinkError::Lost(why)) => {
                self.note_trouble(node, Some(why.clone()));
            }
        }
        let sent = match sent {
            // A node of another cluster has the address now: ours was not reached.
            Ok(range_response::Body::Error(e)) if e.code() == Code::Incompatible => {
                Err(LinkError::NotSent(e.message))
            }
            sent => sent,
        };
        match sent {
            Ok(range_response::Body::Error(error)) => {
                let error = WireError::from(error);
                let next = self.learn_from(route, node, &error);
                if error.code() == Code::Indeterminate {
                    return Err(Failed::Unknown(error.0.message.clone()));
                }
                Err(Failed::Definite { error, next })
            }
            Ok(body) => {
                route.led_by(node);
                self.budget.succeeded();
                Ok(body)
            }
            Err(LinkError::NotSent(why)) => {
                route.not_led_by(node, None);
                // Perhaps the node is somewhere else now.
                let asked = self.router.address(node);
                let limit = timeout.saturating_sub(started.elapsed()).min(REFRESH_TIMEOUT);
                let refreshed = tokio::time::timeout(limit, self.router.refresh_addresses()).await;
                if let Ok(Err(error)) = refreshed {
                    return Err(Failed::Definite { error, next: Next::PAUSE });
                }
                let has_moved = self.router.address(node) != asked;
                if has_moved {
                    route.led_by(node);
                }
                let next = if has_moved { Next::AtOnce } else { Next::PAUSE };
                Err(Failed::Definite { error: WireError::new(Code::Unavailable, why), next })
            }
            Err(LinkError::Lost(why)) => {
                route.not_led_by(node, None);
                Err(Failed::Unknown(why))
            }
        }
    }

    /// Takes in what a refusal says of the route, and whether it pays to ask again at once.
    pub(crate) fn learn_from(&self, route: &Route, node: NodeId, error: &WireError) -> Next {
        let is_redirected = match error.code() {
            Code::NotLeader => {
                let leader = Some(NodeId(error.0.leader_node)).filter(|n| *n != NodeId(0));
                route.not_led_by(node, leader)
            }
            Code::EpochMismatch => {
                let mut has_news = false;
                for descriptor in &error.0.descriptors {
                    if let Ok(descriptor) = descriptor.clone().try_into() {
                        has_news |= self.router.learn(descriptor, NodeId(0));
                    }
                }
                if error.0.descriptors.is_empty() {
                    self.router.forget(route.descriptor.id);
                }
                has_news
            }
            Code::RangeNotFound => {
                self.router.forget(route.descriptor.id);
                false
            }
            _ => false,
        };
        let pause = Duration::from_millis(error.0.retry_after_ms);
        if is_redirected { Next::AtOnce } else { Next::AfterPause(pause) }
    }

    /// Notes a timestamp that the cluster has shown.
    pub fn saw(&self, ts: Timestamp) {
        self.newest_ts.fetch_max(ts.get(), Ordering::Relaxed);
    }

    /// The newest timestamp that the cluster has shown.
    pub fn newest_ts(&self) -> Timestamp {
        Timestamp(self.newest_ts.load(Ordering::Relaxed))
    }

    /// Some nodes to ask what any node can answer, in random order; those that did not answer lately
    /// come last.
    async fn some_nodes(&self) -> Result<Vec<NodeId>, ClientError> {
        let mut nodes = self.router.nodes();
        if nodes.is_empty() {
            self.router.get_ranges(None, 0, 1).await?;
            nodes = self.router.nodes();
        }
        fastrand::shuffle(&mut nodes);
        {
            let mut silent = self.silent.lock();
            silent.retain(|_, since| since.elapsed() < SILENT_FOR);
            nodes.sort_by_key(|node| silent.contains_key(node));
        }
        if nodes.is_empty() {
            let message = "the cluster has no nodes yet";
            return Err(ClientError::new(ErrorKind::Unavailable, message));
        }
        Ok(nodes)
    }

    /// Notes why a node did not answer; `None`: it did.
    pub(crate) fn note_trouble(&self, node: NodeId, why: Option<String>) {
        let mut troubles = self.troubles.lock();
        match why {
            Some(why) => drop(troubles.insert(node, why)),
            None => drop(troubles.remove(&node)),
        }
    }

    fn note_silence(&self, node: NodeId, is_silent: bool) {
        let mut silent = self.silent.lock();
        if is_silent {
            silent.insert(node, Instant::now());
        } else {
            silent.remove(&node);
        }
    }

    /// Asks nodes for what any of them can answer, one after the other; one that does not answer soon
    /// is not waited for before the next one is asked.
    async fn ask_any<T, F>(
        &self,
        what: &str,
        ask: impl Fn(RangeServiceClient<Channel>) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut nodes = self.some_nodes().await?.into_iter();
        let mut asked = FuturesUnordered::new();
        let one = |node: NodeId| {
            let ask = &ask;
            async move {
                let rpc = self.rpc(node).await.map_err(|e| e.to_string())?;
                let answer = tokio::time::timeout(SESSION_TIMEOUT, ask(rpc)).await;
                let answer = match answer {
                    Ok(Ok(answer)) => Ok(answer.into_inner()),
                    Ok(Err(status)) => Err(status_text(&status)),
                    Err(_) => Err(format!("{node} did not answer in time")),
                };
                self.note_trouble(node, answer.as_ref().err().cloned());
                self.note_silence(node, answer.is_err());
                answer
            }
        };
        let mut last = "no node was asked".to_owned();
        let mut latest = nodes.next();
        asked.extend(latest.map(&one));
        loop {
            let next = tokio::time::timeout(NEXT_AFTER, asked.next()).await;
            match next {
                Ok(Some(Ok(answer))) => return Ok(answer),
                Ok(Some(Err(why))) => last = why,
                Ok(None) => {
                    let why = format!("{what}: {last}");
                    return Err(ClientError::new(ErrorKind::Unavailable, why));
                }
                Err(_) => {
                    if let Some(node) = latest {
                        self.note_silence(node, true);
                        self.note_trouble(node, Some("it has not answered yet".to_owned()));
                    }
                }
            }
            latest = nodes.next();
            asked.extend(latest.map(&one));
        }
    }

    pub async fn fetch_timestamp(&self) -> Result<Timestamp, ClientError> {
        let cluster_id = self.router.cluster();
        let ask = |mut rpc: RangeServiceClient<Channel>| async move {
            rpc.timestamp(RangeTimestampRequest { cluster_id }).await
        };
        let ts = Timestamp(self.ask_any("no timestamp", ask).await?.ts);
        self.saw(ts);
        Ok(ts)
    }

    /// The session of this client, opened by its first write.
    pub async fn session(&self) -> Result<Arc<Session>, ClientError> {
        if let Some(session) = self.session.load_full() {
            return Ok(session);
        }
        let opened = self.opening.share(|| self.session.load_full(), self.open_session()).await?;
        let none =
            || ClientError::new(ErrorKind::Internal, "a session was opened and is not there");
        opened.ok_or_else(none)
    }

    async fn open_session(&self) -> Result<(), ClientError> {
        let cluster_id = self.router.cluster();
        let ask = |mut rpc: RangeServiceClient<Channel>| async move {
            rpc.open_session(OpenSessionRequest { cluster_id }).await
        };
        let answer = self.ask_any("no session could be opened", ask).await?;
        self.saw(Timestamp(answer.ts));
        let (issuer, number) = (answer.session_issuer, answer.session_number);
        let session = Session::new(SessionId { issuer, number });
        self.session.store(Some(Arc::new(session)));
        Ok(())
    }
}
