//! Which nodes are there, and which ranges they lead.

use super::loads::{Load, Loads};
use isotherm_types::{
    ClusterVersion, Incarnation, Key, NodeId, RangeDescriptor, RangeId, ReplicaId,
};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

/// Between two heartbeats of a node.
pub const HEARTBEAT: Duration = Duration::from_millis(500);
/// A node that was silent that long is down.
pub const DOWN_AFTER: Duration = Duration::from_secs(3);
/// How long a new leader says nothing about nodes that it has not heard of.
pub const GRACE: Duration = Duration::from_secs(2);
/// How long nodes have to find a leader again that could not hear them for a while, before their
/// silence meanwhile counts.
pub const EXCUSED_FOR: Duration = Duration::from_secs(30);
/// A range that nobody has led for that long is unavailable, whatever its replicas could do: an
/// election takes a second or two.
pub const UNLED_AFTER: Duration = Duration::from_secs(5);

/// A replica of which its leader has not heard for that long is a problem though its node is there: nodes
/// show the child of a split one after the other.
pub const UNHEARD_AFTER: Duration = Duration::from_secs(10);

/// Keeps in `known` since when each of `now_so` is so.
fn since(
    known: &mut HashMap<RangeId, Instant>,
    now_so: impl Iterator<Item = RangeId>,
    now: Instant,
) {
    let mut before = std::mem::take(known);
    *known = now_so.map(|id| (id, before.remove(&id).unwrap_or(now))).collect();
}

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// It sends heartbeats.
    Up,
    /// It does, but takes no writes.
    ReadOnly,
    /// It registered and has not sent one yet.
    Joining,
    /// It was silent for [`DOWN_AFTER`].
    Down,
    /// This leader is too new to know.
    Unknown,
}

impl NodeState {
    /// Whether its replicas count as alive. What is not known is not counted as lost.
    pub fn counts_as_alive(self) -> bool {
        match self {
            Self::Up | Self::ReadOnly | Self::Unknown => true,
            Self::Joining | Self::Down => false,
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::ReadOnly => "read-only",
            Self::Joining => "joining",
            Self::Down => "down",
            Self::Unknown => "unknown",
        })
    }
}

/// The numbers of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Heartbeat {
    /// Replicas on the node.
    pub replicas: u64,
    /// How many of them lead.
    pub leaders: u64,
    /// Size of its disk.
    pub disk_total_bytes: u64,
    /// What is free of it.
    pub disk_free_bytes: u64,
    /// Whether it takes no writes.
    pub read_only: bool,
    /// Whether its process is about to end.
    pub draining: bool,
    /// The newest order to seed that it carried out.
    pub seeded: u64,
    /// CPU that it uses, in cores.
    pub load: f64,
    /// CPU that it may use, in cores.
    pub capacity_cores: f64,
    /// The newest cluster version that it supports.
    pub supports: ClusterVersion,
    /// The cluster version that it has heard of.
    pub knows: ClusterVersion,
    /// Its replicas that are at an earlier version than that.
    pub replicas_behind: u64,
}

/// What the leader knows of a node.
#[derive(Debug, Clone)]
pub struct Presence {
    /// Which start of it.
    pub incarnation: Incarnation,
    /// The newest heartbeat, and when it came.
    pub heartbeat: Option<(Instant, Heartbeat)>,
    registered: Instant,
    /// The last heartbeat, of this start or, until there is one, the first registration after the last
    /// heartbeat of an earlier start: one that starts again and again without getting anywhere is
    /// silent since the first time.
    heard: Instant,
    /// The ranges that it reported to this leader, as it has them.
    reported: HashMap<RangeId, Hosted>,
}

/// A replica as its node reported it.
#[derive(Debug, Clone, Default)]
pub struct Hosted {
    /// Which; 0: it did not say.
    pub replica: ReplicaId,
    /// The version that it has applied.
    pub version: u64,
    /// The first key of its range, which stays for life: who owns it now has absorbed a range that
    /// the map does not have any more.
    pub start: Key,
}

/// Who leads a range, as its leader said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderReport {
    /// Where.
    pub node: NodeId,
    /// In which term.
    pub term: u64,
    /// Which replica it is. One term may have several leaders, each with a higher replica id than
    /// the one before.
    pub replica: ReplicaId,
    /// The replicas that it hears from.
    pub live: Vec<ReplicaId>,
    /// How large the range is.
    pub size_bytes: u64,
}

impl LeaderReport {
    /// Its place in the order of the range's leaders.
    fn place(&self) -> (u64, ReplicaId) {
        (self.term, self.replica)
    }
}

/// Everything that one leadership heard.
#[derive(Debug)]
pub struct Registry {
    since: Instant,
    /// When it began to hear, or began again.
    hears_since: Instant,
    nodes: HashMap<NodeId, Presence>,
    leaders: HashMap<RangeId, LeaderReport>,
    /// Since when nobody has led a range, and the time of the last look.
    unled: HashMap<RangeId, Instant>,
    /// Ranges whose leader does not hear of a replica whose node is there, and since when.
    unheard: HashMap<RangeId, Instant>,
    looked: Instant,
    loads: Loads,
    /// Nodes that stay out because their data are damaged, and how.
    damaged_nodes: BTreeMap<NodeId, String>,
    /// Ranges whose replicas on a node cannot be read, of each node that has some.
    damaged_ranges: BTreeMap<NodeId, Vec<RangeId>>,
}

impl Registry {
    /// Of a leadership that begins now.
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            hears_since: now,
            nodes: HashMap::new(),
            leaders: HashMap::new(),
            unled: HashMap::new(),
            unheard: HashMap::new(),
            looked: now,
            loads: Loads::default(),
            damaged_nodes: BTreeMap::new(),
            damaged_ranges: BTreeMap::new(),
        }
    }

    /// Whether the leadership is so new that silence means nothing.
    pub fn is_in_grace(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.hears_since) < GRACE
    }

    /// A node started. What an earlier start of it said no longer holds.
    pub fn register(&mut self, node: NodeId, incarnation: Incarnation, now: Instant) {
        let known = self.nodes.get(&node).filter(|known| known.heartbeat.is_none());
        let presence = Presence {
            incarnation,
            heartbeat: None,
            registered: now,
            heard: known.map_or(now, |known| known.heard),
            reported: HashMap::new(),
        };
        self.nodes.insert(node, presence);
        self.leaders.retain(|_, leader| leader.node != node);
    }

    /// A heartbeat of a start that is not an old one.
    pub fn heartbeat(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        heartbeat: Heartbeat,
        now: Instant,
    ) {
        if self.nodes.get(&node).is_none_or(|known| known.incarnation != incarnation) {
            self.register(node, incarnation, now);
        }
        let presence = self.nodes.get_mut(&node).expect("it was put there just now");
        presence.heartbeat = Some((now, heartbeat));
        presence.heard = now;
        self.damaged_nodes.remove(&node);
    }

    /// A node says that it stays out. Until its next heartbeat.
    pub fn note_damage(&mut self, node: NodeId, what: String) {
        self.damaged_nodes.insert(node, what);
    }

    /// The nodes that stay out because their data are damaged, and how.
    pub fn damaged_nodes(&self) -> &BTreeMap<NodeId, String> {
        &self.damaged_nodes
    }

    /// The ranges whose replicas on `node` cannot be read: those that its last heartbeat named.
    pub fn note_damaged_ranges(&mut self, node: NodeId, ranges: Vec<RangeId>) {
        if ranges.is_empty() {
            self.damaged_ranges.remove(&node);
        } else {
            self.damaged_ranges.insert(node, ranges);
        }
    }

    /// The ranges that cannot be read on some node, of each node that has some.
    pub fn damaged_ranges(&self) -> &BTreeMap<NodeId, Vec<RangeId>> {
        &self.damaged_ranges
    }

    /// What `node` says of one range: that it leads it, or (`None`) that it does not.
    pub fn report(&mut self, node: NodeId, range: RangeId, term: u64, led: Option<LeaderReport>) {
        if let Some(presence) = self.nodes.get_mut(&node) {
            presence.reported.entry(range).or_default();
        }
        let known = self.leaders.get(&range);
        match led {
            Some(report) if known.is_none_or(|known| known.place() <= report.place()) => {
                self.leaders.insert(range, report);
            }
            // It stepped down. In a newer term whoever leads will say so.
            None if known.is_some_and(|known| known.node == node && known.term <= term) => {
                self.leaders.remove(&range);
            }
            _ => {}
        }
    }

    /// Which replica of a range `node` says it has; none: it has none any more.
    pub fn note_replica(&mut self, node: NodeId, range: RangeId, hosted: Option<Hosted>) {
        let Some(presence) = self.nodes.get_mut(&node) else { return };
        match hosted {
            Some(hosted) => presence.reported.insert(range, hosted),
            None => presence.reported.remove(&range),
        };
    }

    /// Whether every replica of `d` on a node that is there has applied the map's version of it:
    /// then all of them have applied the last split of its lineage.
    pub fn is_applied_everywhere(
        &self,
        d: &RangeDescriptor,
        states: &HashMap<NodeId, NodeState>,
    ) -> bool {
        let alive = |node: &NodeId| states.get(node).is_some_and(|s| s.counts_as_alive());
        d.replicas.iter().filter(|r| alive(&r.node)).all(|r| {
            let hosted = self.nodes.get(&r.node).and_then(|p| p.reported.get(&d.id));
            hosted.is_some_and(|h| h.version >= d.epoch.version)
        })
    }

    /// What a range costs, as its leader said.
    pub fn loads(&self) -> &Loads {
        &self.loads
    }

    /// A leader says what ranges cost.
    pub fn note_load(&mut self, range: RangeId, term: u64, load: Load) {
        self.loads.note(range, term, load);
    }

    /// A look at everything: of all ranges there are `unled` have no leader now, and `unheard` have one that
    /// does not hear of a replica whose node is there.
    pub fn look(
        &mut self,
        unled: impl Iterator<Item = RangeId>,
        unheard: impl Iterator<Item = RangeId>,
        now: Instant,
    ) {
        self.loads.expire(|range| self.leaders.get(&range).map(|leader| leader.term), now);
        since(&mut self.unled, unled, now);
        since(&mut self.unheard, unheard, now);
        self.looked = now;
    }

    /// Whether a replica of a range that its leader does not hear of has not been missing for
    /// [`UNHEARD_AFTER`], up to the last look.
    pub fn is_settling(&self, range: RangeId) -> bool {
        let since = self.unheard.get(&range);
        since.is_none_or(|&at| self.looked.saturating_duration_since(at) < UNHEARD_AFTER)
    }

    /// Whether nobody has led a range for [`UNLED_AFTER`], up to the last look.
    pub fn is_unled(&self, range: RangeId) -> bool {
        let since = self.unled.get(&range);
        since.is_some_and(|&at| self.looked.saturating_duration_since(at) >= UNLED_AFTER)
    }

    /// Forgets what was said of ranges that are not there any more. One of which the map has not heard
    /// yet is there as long as a node reports it: its leader need not say again that it leads.
    pub fn forget_ranges(&mut self, exists: impl Fn(RangeId) -> bool) {
        self.loads.retain(&exists);
        let nodes = &self.nodes;
        let is_reported = |range: &RangeId| nodes.values().any(|p| p.reported.contains_key(range));
        self.leaders.retain(|range, _| exists(*range) || is_reported(range));
        let reported: usize = nodes.values().map(|p| p.reported.len()).sum();
        metrics::gauge!("isotherm_meta_reported_replicas").set(reported as f64);
        metrics::gauge!("isotherm_meta_reported_leaders").set(self.leaders.len() as f64);
        metrics::gauge!("isotherm_meta_load_keys_bytes").set(self.loads.keys_bytes() as f64);
    }

    /// Forgets the nodes that are not registered any more.
    pub fn forget_nodes(&mut self, is_registered: impl Fn(NodeId) -> bool) {
        self.nodes.retain(|node, _| is_registered(*node));
        self.damaged_nodes.retain(|node, _| is_registered(*node));
        self.damaged_ranges.retain(|node, _| is_registered(*node));
    }

    /// Since when the node is silent: its last heartbeat, the start that has not led to one yet, or the
    /// beginning of this leadership. While silence is excused, not before that.
    pub fn silent_since(&self, node: NodeId, now: Instant) -> Instant {
        let heard = self.nodes.get(&node).map_or(self.since, |presence| presence.heard);
        let is_excused = now.saturating_duration_since(self.hears_since) < EXCUSED_FOR;
        if is_excused { heard.max(self.hears_since) } else { heard }
    }

    /// This leadership has heard nothing for a while, and not because the nodes were silent: it stood
    /// still, or had no quorum and refused them. Until they have had the time to find it again nothing
    /// is concluded from that.
    pub fn excuse_silence(&mut self, now: Instant) {
        self.hears_since = now;
    }

    /// The replicas that `node` said it has.
    pub fn replicas_on(&self, node: NodeId) -> impl Iterator<Item = (RangeId, &Hosted)> {
        let reported = self.nodes.get(&node).into_iter().flat_map(|p| &p.reported);
        reported.map(|(range, hosted)| (*range, hosted)).filter(|(_, h)| h.replica.get() != 0)
    }

    /// Whether `node` has replicas of which this leadership was not told.
    pub fn lacks_reports(&self, node: NodeId) -> bool {
        let Some(presence) = self.nodes.get(&node) else { return true };
        let replicas = presence.heartbeat.map_or(0, |(_, h)| h.replicas);
        (presence.reported.len() as u64) < replicas
    }

    /// What is known of a node.
    pub fn presence(&self, node: NodeId) -> Option<&Presence> {
        self.nodes.get(&node)
    }

    /// How a node is.
    pub fn state(&self, node: NodeId, now: Instant) -> NodeState {
        let within = |at: Instant, limit| now.saturating_duration_since(at) < limit;
        match self.nodes.get(&node) {
            Some(Presence { heartbeat: Some((at, h)), .. }) if within(*at, DOWN_AFTER) => {
                if h.read_only { NodeState::ReadOnly } else { NodeState::Up }
            }
            Some(Presence { heartbeat: Some(_), .. }) => NodeState::Down,
            Some(presence) if within(presence.registered, DOWN_AFTER) => NodeState::Joining,
            _ if self.is_in_grace(now) => NodeState::Unknown,
            _ => NodeState::Down,
        }
    }

    /// Who led `range` last.
    pub fn leader(&self, range: RangeId) -> Option<&LeaderReport> {
        self.leaders.get(&range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: NodeId = NodeId(1);
    const R: RangeId = RangeId(5);

    fn led(node: u64, term: u64) -> Option<LeaderReport> {
        let (node, replica) = (NodeId(node), ReplicaId(node));
        Some(LeaderReport { node, term, replica, live: Vec::new(), size_bytes: 0 })
    }

    #[test]
    fn a_node_joins_is_up_falls_silent_and_is_down() {
        let start = Instant::now();
        let mut registry = Registry::new(start);
        assert_eq!(registry.state(N, start), NodeState::Unknown);
        assert_eq!(registry.state(N, start + GRACE), NodeState::Down);
        registry.register(N, Incarnation(1), start + GRACE);
        assert_eq!(registry.state(N, start + GRACE), NodeState::Joining);
        let mut heartbeat = Heartbeat::default();
        let at = start + GRACE * 2;
        registry.heartbeat(N, Incarnation(1), heartbeat, at);
        assert_eq!(registry.state(N, at + HEARTBEAT), NodeState::Up);
        assert_eq!(registry.state(N, at + DOWN_AFTER), NodeState::Down);
        heartbeat.read_only = true;
        registry.heartbeat(N, Incarnation(1), heartbeat, at + DOWN_AFTER);
        assert_eq!(registry.state(N, at + DOWN_AFTER), NodeState::ReadOnly);
    }

    #[test]
    fn a_node_that_restarts_is_silent_since_it_registered() {
        let elected = Instant::now();
        let mut registry = Registry::new(elected);
        registry.heartbeat(N, Incarnation(1), Heartbeat::default(), elected + HEARTBEAT);
        let (day, second) = (Duration::from_secs(86_400), Duration::from_secs(1));
        let restarted = elected + day;
        registry.heartbeat(N, Incarnation(1), Heartbeat::default(), restarted - second);
        registry.register(N, Incarnation(2), restarted);
        // Its start takes longer than that.
        let later = restarted + DOWN_AFTER + second;
        assert_eq!(registry.state(N, later), NodeState::Down);
        assert_eq!(registry.silent_since(N, later), restarted);
        // It ends before it sends a heartbeat, and starts again.
        registry.register(N, Incarnation(3), later);
        assert_eq!(registry.silent_since(N, later), restarted, "starts alone are no sign of life");
        registry.heartbeat(N, Incarnation(3), Heartbeat::default(), later + second);
        registry.register(N, Incarnation(4), later + second * 2);
        let again = later + second * 2;
        assert_eq!(registry.silent_since(N, again), again);
    }

    #[test]
    fn silence_that_was_not_the_nodes_fault_is_excused() {
        let elected = Instant::now();
        let mut registry = Registry::new(elected);
        registry.heartbeat(N, Incarnation(1), Heartbeat::default(), elected);
        let later = elected + DOWN_AFTER * 100;
        assert_eq!(registry.silent_since(N, later), elected);
        registry.excuse_silence(later);
        assert_eq!((registry.silent_since(N, later), registry.is_in_grace(later)), (later, true));
        // It does not come back: then it is dead since it was heard last.
        assert_eq!(registry.silent_since(N, later + EXCUSED_FOR), elected);
    }

    #[test]
    fn the_newest_term_says_who_leads() {
        let now = Instant::now();
        let mut registry = Registry::new(now);
        registry.report(NodeId(1), R, 4, led(1, 4));
        registry.report(NodeId(2), R, 3, led(2, 3));
        assert_eq!(registry.leader(R).map(|l| l.node), Some(NodeId(1)));
        registry.report(NodeId(2), R, 5, led(2, 5));
        assert_eq!(registry.leader(R).map(|l| l.node), Some(NodeId(2)));
        registry.report(NodeId(1), R, 5, led(1, 5));
        assert_eq!(registry.leader(R).map(|l| l.node), Some(NodeId(2)));
        registry.report(NodeId(1), R, 5, None);
        assert_eq!(registry.leader(R).map(|l| l.node), Some(NodeId(2)));
        registry.report(NodeId(2), R, 6, None);
        assert_eq!(registry.leader(R), None);
    }

    #[test]
    fn a_new_leadership_asks_for_all_reports_until_it_has_them() {
        let now = Instant::now();
        let mut registry = Registry::new(now);
        let heartbeat = Heartbeat { replicas: 2, ..Heartbeat::default() };
        registry.heartbeat(N, Incarnation(1), heartbeat, now);
        assert!(registry.lacks_reports(N));
        registry.report(N, RangeId(1), 1, None);
        registry.report(N, RangeId(2), 1, None);
        assert!(!registry.lacks_reports(N));
        registry.heartbeat(N, Incarnation(2), heartbeat, now);
        assert!(registry.lacks_reports(N));
    }

    #[test]
    fn a_range_that_is_gone_has_no_leader_and_one_that_the_map_lacks_keeps_its() {
        let now = Instant::now();
        let (child, gone) = (RangeId(6), RangeId(7));
        let mut registry = Registry::new(now);
        registry.heartbeat(N, Incarnation(1), Heartbeat::default(), now);
        for range in [R, child, gone] {
            registry.report(N, range, 4, led(1, 4));
            registry.note_replica(N, range, Some(Hosted::default()));
        }
        registry.note_replica(N, gone, None);
        registry.forget_ranges(|range| range == R);
        let led = [R, child, gone].map(|range| registry.leader(range).is_some());
        assert_eq!(led, [true, true, false]);
        registry.forget_nodes(|_| false);
        assert!(registry.presence(N).is_none());
    }

    #[test]
    fn a_restarted_node_leads_nothing_until_it_says_so() {
        let now = Instant::now();
        let mut registry = Registry::new(now);
        registry.heartbeat(N, Incarnation(1), Heartbeat::default(), now);
        registry.report(N, R, 4, led(1, 4));
        registry.register(N, Incarnation(2), now);
        assert_eq!(registry.leader(R), None);
    }
}
