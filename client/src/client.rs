//! The client itself: what all of its operations share.

use crate::flight::Flight;
use crate::node_link::{LinkError, NodeLink};
use crate::retry::{Attempts, Budget, Next};
use crate::router::{Route, Router};
use crate::session::Session;
use crate::{Admin, ClientError, ClientOptions, ErrorKind};
use isotherm_proto::WireError;
use isotherm_proto::internal::error::Code;
use isotherm_proto::internal::range_service_client::RangeServiceClient;
use isotherm_proto::internal::{
    OpenSessionRequest, RangeTimestampRequest, range_request, range_response,
};
use isotherm_transport::{MetaLink, channel};
use isotherm_types::{NodeId, SessionId, Timestamp, limits};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tonic::transport::Channel;

const SESSION_TIMEOUT: Duration = Duration::from_secs(2);
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
    /// By address. They reconnect by themselves.
    channels: Mutex<HashMap<String, Channel>>,
    session: arc_swap::ArcSwapOption<Session>,
    opening: Flight,
    newest_ts: AtomicU64,
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
            channels: Mutex::default(),
            session: arc_swap::ArcSwapOption::empty(),
            opening: Flight::default(),
            newest_ts: AtomicU64::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What operators ask.
    pub fn admin(&self) -> Admin<'_> {
        Admin::new(self)
    }

    /// How long its operations are tried before they fail.
    pub fn timeout(&self) -> Duration {
        self.inner.options.timeout
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
        Attempts::new(&self.budget, self.options.timeout)
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
        let link = Arc::new(NodeLink::start(address));
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
        let known = self.channels.lock().get(&address).cloned();
        let channel = match known {
            Some(channel) => channel,
            None => {
                let made = channel(&address)
                    .map_err(|e| ClientError::new(ErrorKind::Unreachable, e.to_string()))?;
                let mut channels = self.channels.lock();
                // Those to where no node is any more end.
                channels.retain(|address, _| self.router.is_address(address));
                channels.insert(address, made.clone());
                made
            }
        };
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
                let _ = tokio::time::timeout(limit, self.router.refresh_addresses()).await;
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

    /// Some nodes to ask what any node can answer, in random order.
    async fn some_nodes(&self) -> Result<Vec<NodeId>, ClientError> {
        let mut nodes = self.router.nodes();
        if nodes.is_empty() {
            self.router.get_ranges(None, 0, 1).await?;
            nodes = self.router.nodes();
        }
        fastrand::shuffle(&mut nodes);
        if nodes.is_empty() {
            let message = "the cluster has no nodes yet";
            return Err(ClientError::new(ErrorKind::Unavailable, message));
        }
        Ok(nodes)
    }

    pub async fn fetch_timestamp(&self) -> Result<Timestamp, ClientError> {
        let mut last = None;
        for node in self.some_nodes().await? {
            let mut rpc = self.rpc(node).await?;
            let asked = rpc.timestamp(RangeTimestampRequest {});
            match tokio::time::timeout(SESSION_TIMEOUT, asked).await {
                Ok(Ok(answer)) => {
                    let ts = Timestamp(answer.into_inner().ts);
                    self.saw(ts);
                    return Ok(ts);
                }
                Ok(Err(status)) => last = Some(status.message().to_owned()),
                Err(_) => last = Some(format!("{node} did not answer in time")),
            }
        }
        let why = last.unwrap_or_default();
        Err(ClientError::new(ErrorKind::Unavailable, format!("no timestamp: {why}")))
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
        let mut last = None;
        for node in self.some_nodes().await? {
            let mut rpc = self.rpc(node).await?;
            let asked = rpc.open_session(OpenSessionRequest {});
            match tokio::time::timeout(SESSION_TIMEOUT, asked).await {
                Ok(Ok(answer)) => {
                    let answer = answer.into_inner();
                    self.saw(Timestamp(answer.ts));
                    let (issuer, number) = (answer.session_issuer, answer.session_number);
                    let session = Session::new(SessionId { issuer, number });
                    self.session.store(Some(Arc::new(session)));
                    return Ok(());
                }
                Ok(Err(status)) => last = Some(status.message().to_owned()),
                Err(_) => last = Some(format!("{node} did not answer in time")),
            }
        }
        let why = last.unwrap_or_default();
        Err(ClientError::new(ErrorKind::Unavailable, format!("no session could be opened: {why}")))
    }
}
