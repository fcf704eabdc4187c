//! One look at a cluster: the books of its nodes, and what was decided so far.

use crate::memory::{Memory, by_id, heat};
use crate::{
    Action, ClusterView, Decision, Intent, Liveness, NodeView, PendingMove, RangeView, Rule,
    Settings,
};
use isotherm_types::{NodeId, RangeId, ReplicaRole};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A node whose disk is fuller than this gets nothing more.
const DISK_FULL_SHARE: f64 = 0.95;

/// What a node has, counting what was ordered and is not visible yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    /// Replicas.
    pub replicas: usize,
    /// Ranges that it leads.
    pub leaders: usize,
    /// What the ranges that it leads cost, in cores.
    pub cores: f64,
    /// What it may use, in cores.
    pub capacity: f64,
    /// Moves under way that bring it a replica, and that take one away.
    pub moves_in: usize,
    pub moves_out: usize,
}

impl Book {
    /// The share of its CPU that the ranges it leads use.
    pub fn use_share(&self) -> f64 {
        self.cores / self.capacity.max(1e-6)
    }
}

/// One look.
pub(crate) struct Pass<'a> {
    pub view: &'a ClusterView,
    pub settings: &'a Settings,
    pub memory: &'a mut Memory,
    pub books: BTreeMap<NodeId, Book>,
    pub by_id: HashMap<RangeId, &'a RangeView>,
    moving: HashMap<RangeId, &'a PendingMove>,
    /// Ranges that something was decided about in this look.
    touched: HashSet<RangeId>,
    pub decisions: Vec<Decision>,
}

impl<'a> Pass<'a> {
    /// Opens the books.
    pub fn new(view: &'a ClusterView, settings: &'a Settings, memory: &'a mut Memory) -> Self {
        let mut books: BTreeMap<NodeId, Book> = view
            .nodes
            .values()
            .map(|node| (node.id, Book { capacity: node.capacity_cores, ..Book::default() }))
            .collect();
        let mut with = |node: NodeId, change: &dyn Fn(&mut Book)| {
            if let Some(book) = books.get_mut(&node) {
                change(book);
            }
        };
        for range in &view.ranges {
            for replica in &range.descriptor.replicas {
                with(replica.node, &|book| book.replicas += 1);
            }
            let handed = match memory.booked(range.descriptor.id).map(|b| &b.action) {
                Some(Action::Transfer { to, .. }) => Some(*to),
                _ => None,
            };
            if let Some(leader) = handed.or(range.leader) {
                with(leader, &|book| {
                    book.leaders += 1;
                    book.cores += heat(range);
                });
            }
        }
        let by_id = by_id(view);
        let mut move_of = |range: RangeId, from: Option<NodeId>, to: NodeId| {
            let has = by_id.get(&range).is_some_and(|r| r.descriptor.replica_on(to).is_some());
            with(to, &|book| {
                book.moves_in += 1;
                book.replicas += usize::from(!has);
            });
            if let Some(from) = from {
                with(from, &|book| {
                    book.moves_out += 1;
                    book.replicas = book.replicas.saturating_sub(1);
                });
            }
        };
        for moved in &view.moves {
            move_of(moved.range, moved.from, moved.to);
        }
        for booked in memory.all_booked() {
            match &booked.action {
                Action::Move { range, from, to } => move_of(*range, Some(*from), *to),
                Action::Add { range, to } => move_of(*range, None, *to),
                _ => {}
            }
        }
        let moving = view.moves.iter().map(|moved| (moved.range, moved)).collect();
        Self {
            view,
            settings,
            memory,
            books,
            by_id,
            moving,
            touched: HashSet::new(),
            decisions: Vec::new(),
        }
    }

    /// Decides to do something: it is booked, and nothing else is done about the range in this look.
    pub fn act(&mut self, rule: Rule, action: Action, reason: String) {
        let range = action.range();
        let heat_of = |id: &RangeId| self.by_id.get(id).map_or(0.0, |range| heat(range));
        match &action {
            Action::Transfer { range, to } => {
                let cores = heat_of(range);
                let from = self.by_id.get(range).and_then(|range| range.leader);
                for (node, sign) in [(from, -1.0), (Some(*to), 1.0)] {
                    if let Some(book) = node.and_then(|node| self.books.get_mut(&node)) {
                        book.cores += sign * cores;
                        book.leaders = book.leaders.saturating_add_signed(sign as isize);
                    }
                }
            }
            Action::Move { from, to, .. } => {
                if let Some(book) = self.books.get_mut(from) {
                    book.moves_out += 1;
                    book.replicas = book.replicas.saturating_sub(1);
                }
                if let Some(book) = self.books.get_mut(to) {
                    book.moves_in += 1;
                    book.replicas += 1;
                }
            }
            Action::Add { to, .. } => {
                if let Some(book) = self.books.get_mut(to) {
                    book.moves_in += 1;
                    book.replicas += 1;
                }
            }
            Action::Merge { right, .. } => {
                self.touched.insert(*right);
            }
            Action::Split { .. } | Action::CancelMove { .. } => {}
        }
        self.touched.insert(range);
        if let Some(view) = self.by_id.get(&range) {
            self.memory.book(action.clone(), view.descriptor.epoch, self.view.now_ms);
        }
        self.decisions.push(Decision { range, rule, action: Some(action), reason });
    }

    /// Decides to do nothing, and says why.
    pub fn decline(&mut self, rule: Rule, range: RangeId, reason: String) {
        self.decisions.push(Decision { range, rule, action: None, reason });
    }

    /// Why nothing is done about a range now, whatever the rule; none: it is free.
    pub fn busy(&self, range: &RangeView) -> Option<String> {
        let id = range.descriptor.id;
        if self.touched.contains(&id) {
            return Some("something else was just decided about it".to_owned());
        }
        if let Some(moved) = self.moving.get(&id) {
            let secs = self.view.now_ms.saturating_sub(moved.started_ms) / 1000;
            let to = moved.to;
            return Some(match moved.from {
                Some(from) => format!("a move of it from {from} to {to} is under way for {secs} s"),
                None => format!("a new replica of it on {to} is under way for {secs} s"),
            });
        }
        if let Some(booked) = self.memory.booked(id) {
            return Some(format!("it was ordered to {}, which is not visible yet", booked.action));
        }
        if range.leader.is_none() {
            return Some("it has no leader, so nothing can be done with it".to_owned());
        }
        if !range.descriptor.is_settled() {
            return Some("its members are changing".to_owned());
        }
        self.memory.refused(id).map(|why| format!("the last order failed a moment ago: {why}"))
    }

    /// Why what a range costs is not believed yet; none: it is.
    pub fn settling(&self, range: &RangeView, patience_ms: u64) -> Option<String> {
        let (ago, what) = self.memory.changed(range.descriptor.id, self.view.now_ms)?;
        (ago < patience_ms).then(|| {
            let (ago, patience) = (ago as f64 / 1000.0, patience_ms as f64 / 1000.0);
            format!("{what} {ago:.1} s ago: its load is believed again after {patience:.1} s")
        })
    }

    /// Whether a node may lead more.
    pub fn may_lead(&self, node: NodeId) -> bool {
        self.node(node).is_some_and(|n| n.liveness == Liveness::Up && n.intent == Intent::Active)
    }

    /// Whether a node may get replicas.
    pub fn may_host(&self, node: NodeId) -> bool {
        let Some(n) = self.node(node) else { return false };
        self.may_lead(node) && !n.is_read_only && disk_share(n) < DISK_FULL_SHARE
    }

    /// A node of the view.
    pub fn node(&self, node: NodeId) -> Option<&'a NodeView> {
        self.view.nodes.get(&node)
    }

    /// The nodes that serve, with their books.
    pub fn serving(&self) -> impl Iterator<Item = (NodeId, &Book)> {
        self.books.iter().filter(|(node, _)| self.may_lead(**node)).map(|(node, b)| (*node, b))
    }

    /// Whether another move into (out of) a node may begin.
    pub fn has_room_in(&self, node: NodeId) -> bool {
        self.books.get(&node).is_some_and(|b| b.moves_in < self.settings.moves_per_node)
    }

    /// See [`Pass::has_room_in`].
    pub fn has_room_out(&self, node: NodeId) -> bool {
        self.books.get(&node).is_some_and(|b| b.moves_out < self.settings.moves_per_node)
    }

    /// The best node for one more replica of a range, of which the one on `leaving` goes; by how many
    /// failure domains it would span, then by how many replicas it has, then by load.
    pub fn best_host(&self, range: &RangeView, leaving: Option<NodeId>) -> Option<NodeId> {
        let d = &range.descriptor;
        let staying: Vec<NodeId> =
            d.replicas.iter().map(|r| r.node).filter(|n| Some(*n) != leaving).collect();
        let hosts = self.books.iter().filter(|(node, _)| {
            self.may_host(**node) && self.has_room_in(**node) && d.replica_on(**node).is_none()
        });
        let ranked = hosts.map(|(node, book)| {
            let mut nodes = staying.clone();
            nodes.push(*node);
            (self.diversity(&nodes), book, *node)
        });
        let best = ranked.min_by(|(d1, a, n1), (d2, b, n2)| {
            d2.cmp(d1)
                .then(a.replicas.cmp(&b.replicas))
                .then(a.use_share().total_cmp(&b.use_share()))
                .then(n1.cmp(n2))
        });
        best.map(|(_, _, node)| node)
    }

    /// Over how many different values of each label these nodes spread, all labels together.
    pub fn diversity(&self, nodes: &[NodeId]) -> usize {
        let labels: HashSet<(&str, &str)> = nodes
            .iter()
            .filter_map(|node| self.node(*node))
            .flat_map(|n| n.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())))
            .collect();
        labels.len()
    }

    /// Whether a replica may go from one node to another without spreading the range less.
    pub fn keeps_diversity(&self, range: &RangeView, from: NodeId, to: NodeId) -> bool {
        let now: Vec<NodeId> = range.descriptor.replicas.iter().map(|r| r.node).collect();
        let then: Vec<NodeId> =
            now.iter().map(|node| if *node == from { to } else { *node }).collect();
        self.diversity(&then) >= self.diversity(&now)
    }

    /// The nodes that the range's leadership may be handed to.
    pub fn heirs(&self, range: &RangeView) -> impl Iterator<Item = NodeId> {
        let leader = range.leader;
        let live = range.live.clone();
        let voters: Vec<_> =
            range.descriptor.replicas.iter().filter(|r| r.role == ReplicaRole::Voter).collect();
        let able = voters.into_iter().filter(move |r| live.contains(&r.id));
        let nodes: Vec<NodeId> = able.map(|r| r.node).collect();
        nodes.into_iter().filter(move |node| Some(*node) != leader && self.may_lead(*node))
    }

    /// From which cost on a range is hot: a share of what its leader's node may use, if that is
    /// less than a core.
    pub fn hot_from(&self, range: &RangeView) -> f64 {
        let capacity = range.leader.and_then(|n| self.node(n)).map_or(1.0, |n| n.capacity_cores);
        self.settings.hot_cores * capacity.min(1.0)
    }
}

/// How full a disk is; one that says nothing is empty.
pub(crate) fn disk_share(node: &NodeView) -> f64 {
    if node.disk_total_bytes == 0 {
        return 0.0;
    }
    1.0 - node.disk_free_bytes as f64 / node.disk_total_bytes as f64
}
