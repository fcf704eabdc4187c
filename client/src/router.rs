//! Which node leads the range of a key, as far as is known.
//!
//! Descriptors come from meta's map and from nodes that answer "the range has changed". A newer
//! version of a span always replaces an older one, never the other way round, so that a map that
//! lags behind cannot undo what a node has said. Addresses of nodes come with every answer of meta;
//! they are asked for again when a node cannot be connected to.

use crate::flight::Flight;
use crate::{ClientError, ErrorKind};
use isotherm_proto::internal::{self as pb, GetRangesRequest};
use isotherm_transport::MetaLink;
use isotherm_types::limits::KEY_BYTES_MAX;
use isotherm_types::{Key, KeyRange, NodeId, RangeDescriptor, RangeEpoch, RangeId};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
/// Ranges asked for at a time.
const FETCH_RANGES: u32 = 256;
/// Between two lookups of addresses: many operations find out at once that a node is gone.
const ADDRESSES_EVERY: Duration = Duration::from_millis(250);

/// What is known of one range.
#[derive(Debug)]
pub(crate) struct Route {
    pub descriptor: RangeDescriptor,
    /// The node that leads, as last heard; 0: not known.
    leader: AtomicU64,
    /// Whom to try next while it is not known.
    turn: AtomicUsize,
}

impl Route {
    /// The node to ask.
    pub fn target(&self) -> NodeId {
        match self.leader.load(Ordering::Relaxed) {
            0 => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                let replicas = &self.descriptor.replicas;
                replicas.get(turn % replicas.len().max(1)).map_or(NodeId(0), |r| r.node)
            }
            leader => NodeId(leader),
        }
    }

    /// `asked` does not lead; perhaps it said who does. Whether there is somebody else to ask at
    /// once.
    pub fn not_led_by(&self, asked: NodeId, leader: Option<NodeId>) -> bool {
        match leader.filter(|l| *l != asked) {
            Some(leader) => {
                self.leader.store(leader.get(), Ordering::Relaxed);
                true
            }
            None => {
                let (from, none) = (asked.get(), 0);
                let _ =
                    self.leader.compare_exchange(from, none, Ordering::Relaxed, Ordering::Relaxed);
                false
            }
        }
    }

    /// `node` answered as the leader.
    pub fn led_by(&self, node: NodeId) {
        if self.leader.load(Ordering::Relaxed) != node.get() {
            self.leader.store(node.get(), Ordering::Relaxed);
        }
    }
}

#[derive(Default)]
struct State {
    by_start: BTreeMap<Key, Arc<Route>>,
    addresses: HashMap<NodeId, String>,
}

/// The cache.
pub(crate) struct Router {
    meta: Arc<MetaLink>,
    state: RwLock<State>,
    fetching: Flight,
    addresses_asked: Mutex<Option<Instant>>,
}

impl Router {
    pub fn new(meta: Arc<MetaLink>) -> Self {
        let (state, fetching) = (RwLock::default(), Flight::default());
        Self { meta, state, fetching, addresses_asked: Mutex::default() }
    }

    pub fn address(&self, node: NodeId) -> Option<String> {
        self.state.read().addresses.get(&node).cloned()
    }

    /// Whether some node is there, as far as is known.
    pub fn is_address(&self, address: &str) -> bool {
        self.state.read().addresses.values().any(|known| known == address)
    }

    /// Every node that is known.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.state.read().addresses.keys().copied().collect()
    }

    /// The route of `key`, if it is known.
    pub fn cached(&self, key: &[u8]) -> Option<Arc<Route>> {
        let state = self.state.read();
        let (_, route) = state.by_start.range::<[u8], _>((Unbounded, Included(key))).next_back()?;
        route.descriptor.span.contains(key).then(|| route.clone())
    }

    /// The route of the last keys before `end` (empty: of the key space), if it is known.
    pub fn cached_before(&self, end: &Key) -> Option<Arc<Route>> {
        let state = self.state.read();
        let last = if end.is_empty() {
            state.by_start.iter().next_back()
        } else {
            state.by_start.range::<[u8], _>((Unbounded, Excluded(&end[..]))).next_back()
        };
        let (_, route) = last?;
        let route_end = route.descriptor.span.end();
        let reaches = route_end.is_empty() || (!end.is_empty() && route_end >= end);
        reaches.then(|| route.clone())
    }

    /// The route of `key`.
    pub async fn locate(&self, key: &[u8]) -> Result<Arc<Route>, ClientError> {
        if let Some(route) = self.cached(key) {
            return Ok(route);
        }
        let span = KeyRange::new(Key::copy_from_slice(key), Key::new());
        let span = span.expect("an unbounded end follows every key");
        let found = self.fetching.share(|| self.cached(key), self.fetch(&span)).await?;
        found.ok_or_else(unknown)
    }

    /// The route of the last keys before `end` (empty: of the key space).
    pub async fn locate_before(&self, end: &Key) -> Result<Arc<Route>, ClientError> {
        if let Some(route) = self.cached_before(end) {
            return Ok(route);
        }
        let span = KeyRange::new(last_key_before(end), Key::new());
        let span = span.expect("an unbounded end follows every key");
        let found = self.fetching.share(|| self.cached_before(end), self.fetch(&span)).await?;
        found.ok_or_else(unknown)
    }

    /// Asks where the nodes are, unless that was done a moment ago; a failure shows elsewhere.
    pub async fn refresh_addresses(&self) {
        let now = Instant::now();
        let is_due = |last: Instant| now.duration_since(last) >= ADDRESSES_EVERY;
        {
            let mut asked = self.addresses_asked.lock();
            if !asked.is_none_or(is_due) {
                return;
            }
            *asked = Some(now);
        }
        let _ = self.get_ranges(None, 0, 1).await;
    }

    async fn fetch(&self, span: &KeyRange) -> Result<(), ClientError> {
        let answer = self.get_ranges(Some(span), 0, FETCH_RANGES).await?;
        for location in answer.ranges {
            let Some(descriptor) = location.descriptor else { continue };
            let descriptor = descriptor
                .try_into()
                .map_err(|e| ClientError::new(ErrorKind::Internal, format!("{e}")))?;
            self.learn(descriptor, NodeId(location.leader_node));
        }
        Ok(())
    }

    /// Asks meta for ranges; addresses that come along are kept.
    pub async fn get_ranges(
        &self,
        span: Option<&KeyRange>,
        range_id: u64,
        limit: u32,
    ) -> Result<pb::GetRangesResponse, ClientError> {
        let unreachable = |why: String| ClientError::new(ErrorKind::Unreachable, why);
        let mut leader = self.meta.leader().await.map_err(|e| unreachable(e.0.message.clone()))?;
        let request = GetRangesRequest { span: span.map(Into::into), limit, range_id };
        let asked = tokio::time::timeout(FETCH_TIMEOUT, leader.get_ranges(request)).await;
        let answer = match asked {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => {
                self.meta.forget_leader();
                return Err(unreachable(format!("meta service: {}", status.message())));
            }
            Err(_) => {
                self.meta.forget_leader();
                return Err(unreachable("the meta service did not answer in time".to_owned()));
            }
        };
        self.meta.check(answer.error.clone())?;
        let mut state = self.state.write();
        for node in &answer.nodes {
            state.addresses.insert(NodeId(node.id), node.address.clone());
        }
        Ok(answer)
    }

    /// Takes a descriptor in, unless something newer is known of any part of its span; whether it
    /// was taken. Without a word on the leader it is taken to be who led the span before: a child
    /// is first led by the leader of its parent.
    pub fn learn(&self, descriptor: RangeDescriptor, leader: NodeId) -> bool {
        let mut state = self.state.write();
        let span = &descriptor.span;
        let before = state.by_start.range(..=span.start().clone()).next_back();
        let inside = state.by_start.range(span.start().clone()..);
        let overlapping: Vec<_> = before
            .into_iter()
            .chain(inside.take_while(|(start, _)| span.is_before_end(start)))
            .filter(|(_, route)| route.descriptor.span.overlaps(span))
            .map(|(start, route)| (start.clone(), route.clone()))
            .collect();
        let is_old = |route: &Route| {
            let known = route.descriptor.epoch;
            let order = |e: RangeEpoch| (e.version, e.conf_ver);
            known.version > descriptor.epoch.version
                || (route.descriptor.id == descriptor.id && order(known) >= order(descriptor.epoch))
        };
        if let Some((_, known)) = overlapping.iter().find(|(_, route)| is_old(route)) {
            if known.descriptor.id == descriptor.id && leader != NodeId(0) {
                known.led_by(leader);
            }
            return false;
        }
        let before = overlapping.first().map(|(_, route)| route.leader.load(Ordering::Relaxed));
        let before = before.filter(|node| descriptor.replica_on(NodeId(*node)).is_some());
        let leader = if leader == NodeId(0) { NodeId(before.unwrap_or(0)) } else { leader };
        for (start, _) in overlapping {
            state.by_start.remove(&start);
        }
        let route = Route {
            leader: AtomicU64::new(leader.get()),
            turn: AtomicUsize::new(fastrand::usize(..64)),
            descriptor,
        };
        state.by_start.insert(route.descriptor.span.start().clone(), Arc::new(route));
        true
    }

    /// Forgets a route that led nowhere, so that the next lookup asks meta.
    pub fn forget(&self, range: RangeId) {
        self.state.write().by_start.retain(|_, route| route.descriptor.id != range);
    }
}

/// The last key that sorts before `end` (empty: of the key space). Ranges start at keys of a
/// limited length only, so the range that holds it reaches `end`.
fn last_key_before(end: &Key) -> Key {
    let mut key = end.to_vec();
    match key.pop() {
        None => {}
        Some(0) => return key.into(),
        Some(last) => key.push(last - 1),
    }
    key.resize(key.len().max(KEY_BYTES_MAX), 0xff);
    key.into()
}

fn unknown() -> ClientError {
    ClientError::new(ErrorKind::Unavailable, "the cluster has no range for the key yet")
}

#[cfg(test)]
mod tests {
    use super::*;
    use isotherm_types::RangeEpoch;

    fn range(id: u64, start: &str, end: &str, version: u64) -> RangeDescriptor {
        let span = KeyRange::new(start.to_owned(), end.to_owned()).expect("ordered");
        let mut d = RangeDescriptor::first(RangeId(id), span, &[NodeId(1), NodeId(2)]);
        d.epoch = RangeEpoch { version, conf_ver: 1 };
        d
    }

    fn found(router: &Router, key: &str) -> Option<(u64, u64)> {
        let route = router.cached(key.as_bytes())?;
        Some((route.descriptor.id.get(), route.descriptor.epoch.version))
    }

    #[test]
    fn a_newer_version_replaces_an_older_one_and_never_the_other_way_round() {
        let router = Router::new(Arc::new(MetaLink::new(Vec::new())));
        router.learn(range(1, "", "", 1), NodeId(1));
        assert_eq!(found(&router, "x"), Some((1, 1)));
        router.learn(range(1, "", "m", 2), NodeId(1));
        assert_eq!((found(&router, "a"), found(&router, "x")), (Some((1, 2)), None));
        router.learn(range(1, "", "", 1), NodeId(1));
        assert_eq!(found(&router, "x"), None, "a map that lags behind");
        router.learn(range(2, "m", "", 2), NodeId(0));
        assert_eq!(found(&router, "x"), Some((2, 2)));
        let last = router.cached_before(&Key::new()).expect("known");
        assert_eq!(last.descriptor.id, RangeId(2));
        let first = router.cached_before(&Key::from_static(b"m")).expect("known");
        assert_eq!(first.descriptor.id, RangeId(1));
    }

    #[test]
    fn an_older_membership_does_not_replace_a_newer_one() {
        let router = Router::new(Arc::new(MetaLink::new(Vec::new())));
        let with_conf_ver = |conf_ver| {
            let mut d = range(1, "", "", 2);
            d.epoch.conf_ver = conf_ver;
            d
        };
        assert!(router.learn(with_conf_ver(3), NodeId(0)));
        assert!(!router.learn(with_conf_ver(2), NodeId(0)));
        assert!(router.learn(with_conf_ver(4), NodeId(0)));
    }

    #[test]
    fn a_child_is_first_looked_for_at_the_leader_of_its_parent() {
        let router = Router::new(Arc::new(MetaLink::new(Vec::new())));
        router.learn(range(1, "", "", 1), NodeId(2));
        router.learn(range(1, "", "m", 2), NodeId(0));
        assert_eq!(router.cached(b"a").expect("known").target(), NodeId(2));
    }

    #[test]
    fn the_last_key_before_an_end_lies_behind_every_start_of_a_range_before_it() {
        let before = |end: &'static [u8]| last_key_before(&Key::from_static(end));
        assert_eq!(before(b"a\0"), Key::from_static(b"a"));
        assert_eq!(before(b"\0"), Key::new());
        for end in [&b"b"[..], b"ab", b"\x01"] {
            let last = before(end);
            assert!(last[..] < *end && last.len() == KEY_BYTES_MAX);
            assert!(last.ends_with(&[0xff; 16]) && last[end.len() - 1] == end[end.len() - 1] - 1);
        }
        assert!(before(b"").iter().all(|byte| *byte == 0xff));
    }

    #[test]
    fn a_hint_is_followed_and_without_one_replicas_take_turns() {
        let router = Router::new(Arc::new(MetaLink::new(Vec::new())));
        router.learn(range(1, "", "", 1), NodeId(1));
        let route = router.cached(b"x").expect("known");
        assert_eq!(route.target(), NodeId(1));
        assert!(route.not_led_by(NodeId(1), Some(NodeId(2))));
        assert_eq!(route.target(), NodeId(2));
        assert!(!route.not_led_by(NodeId(2), None));
        assert_ne!(route.target(), route.target());
    }
}
