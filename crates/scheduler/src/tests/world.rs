//! A cluster on paper: nodes and ranges by name, and time that passes when it is told to.

use crate::{
    Action, ClusterView, Decision, Intent, KeySample, Liveness, NodeView, PendingMove, RangeLoad,
    RangeView, Rates, Rule, Scheduler, Settings,
};
use isotherm_types::{
    Key, KeyRange, NodeId, RangeDescriptor, RangeId, ReplicaDescriptor, ReplicaId, ReplicaRole,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A view that can be changed, and the scheduler that looks at it.
pub(super) struct World {
    pub view: ClusterView,
    pub scheduler: Scheduler,
}

/// A sample with these keys at these weights.
pub(super) fn sample(keys: &[(&'static str, f64)]) -> Vec<KeySample> {
    let taken = |&(key, weight): &(&'static str, f64)| KeySample {
        key: key.into(),
        weight,
        is_scanned: false,
    };
    keys.iter().map(taken).collect()
}

impl World {
    /// `nodes` nodes of one core and 100 GiB, without ranges.
    pub fn new(nodes: u64) -> Self {
        let mut world = Self {
            view: ClusterView { now_ms: 1_000_000, replicas_wanted: 3, ..ClusterView::default() },
            scheduler: Scheduler::new(Settings::default()).warmed(),
        };
        for id in 1..=nodes {
            world.add_node(id);
        }
        world
    }

    pub fn add_node(&mut self, id: u64) {
        let node = NodeView {
            id: NodeId(id),
            liveness: Liveness::Up,
            intent: Intent::Active,
            labels: Arc::default(),
            capacity_cores: 1.0,
            load_cores: 0.0,
            disk_total_bytes: 100 << 30,
            disk_free_bytes: 90 << 30,
            is_read_only: false,
        };
        self.view.nodes.insert(NodeId(id), node);
    }

    pub fn node(&mut self, id: u64) -> &mut NodeView {
        self.view.nodes.get_mut(&NodeId(id)).expect("a node of the script")
    }

    pub fn label(&mut self, id: u64, zone: &str) {
        let labels = BTreeMap::from([("zone".to_owned(), zone.to_owned())]);
        self.node(id).labels = Arc::new(labels);
    }

    /// One more range behind the others, from `start`, on `nodes`, led by the first of them.
    pub fn range(&mut self, start: &'static str, nodes: &[u64]) -> &mut RangeView {
        let id = RangeId(self.view.ranges.len() as u64 + 1);
        if let Some(last) = self.view.ranges.last_mut() {
            let mut descriptor = (*last.descriptor).clone();
            descriptor.span =
                KeyRange::new(descriptor.span.start().clone(), start).expect("ascending");
            last.descriptor = Arc::new(descriptor);
        }
        let nodes: Vec<_> = nodes.iter().map(|&node| NodeId(node)).collect();
        let span = KeyRange::new(start, "").expect("unbounded");
        let descriptor = RangeDescriptor::first(id, span, &nodes);
        self.view.ranges.push(RangeView {
            leader: nodes.first().copied(),
            live: descriptor.replicas.iter().map(|replica| replica.id).collect(),
            descriptor: Arc::new(descriptor),
            load: RangeLoad::default(),
            size_bytes: 1 << 20,
            may_split: true,
            middle: None,
        });
        self.view.ranges.last_mut().expect("pushed just now")
    }

    pub fn get(&mut self, id: u64) -> &mut RangeView {
        let found = self.view.ranges.iter_mut().find(|r| r.descriptor.id == RangeId(id));
        found.expect("a range of the script")
    }

    /// Both averages of `id` are at this from now on.
    pub fn cores(&mut self, id: u64, cores: f64) {
        let load = &mut self.get(id).load;
        load.fast.cores = cores;
        load.slow.cores = cores;
    }

    /// Changes the descriptor of `id`.
    pub fn describe(&mut self, id: u64, change: impl FnOnce(&mut RangeDescriptor)) {
        let range = self.get(id);
        let mut descriptor = (*range.descriptor).clone();
        change(&mut descriptor);
        range.live = descriptor.replicas.iter().map(|replica| replica.id).collect();
        range.descriptor = Arc::new(descriptor);
    }

    /// A node goes silent: what it led has no leader, and nobody hears its replicas.
    pub fn silence(&mut self, id: u64) {
        let since_ms = self.view.now_ms;
        self.node(id).liveness = Liveness::Down { since_ms };
        for range in &mut self.view.ranges {
            let Some(replica) = range.descriptor.replica_on(NodeId(id)) else { continue };
            range.live.retain(|live| *live != replica.id);
            if range.leader == Some(NodeId(id)) {
                range.leader = None;
            }
        }
    }

    /// A move is under way.
    pub fn moving(&mut self, range: u64, from: u64, to: u64) {
        self.view.moves.push(PendingMove {
            range: RangeId(range),
            from: Some(NodeId(from)),
            to: NodeId(to),
            started_ms: self.view.now_ms,
        });
    }

    pub fn wait(&mut self, ms: u64) {
        self.view.now_ms += ms;
    }

    /// What is decided now, all of it.
    pub fn decide(&mut self) -> Vec<Decision> {
        self.scheduler.decide(&self.view)
    }

    /// What is done now, a line each.
    pub fn actions(&mut self) -> String {
        let decisions = self.decide();
        lines(decisions.iter().filter(|decision| decision.action.is_some()))
    }

    /// What `rule` decides now, for and against, a line each.
    pub fn asked(&mut self, rule: Rule) -> String {
        let decisions = self.decide();
        lines(decisions.iter().filter(|decision| decision.rule == rule))
    }

    /// Views a quarter of a second apart for `ms`, whatever is decided in them carried out at once.
    pub fn live(&mut self, ms: u64) -> Vec<Action> {
        let mut all = Vec::new();
        for _ in 0..ms / 250 {
            let actions: Vec<_> = self.decide().into_iter().filter_map(|d| d.action).collect();
            for action in &actions {
                self.carry_out(action);
            }
            all.extend(actions);
            self.wait(250);
        }
        all
    }

    /// The view as it is when `action` is done.
    pub fn carry_out(&mut self, action: &Action) {
        match action {
            Action::Split { range, keys } => self.split(*range, keys),
            Action::Merge { left, right } => self.merge(*left, *right),
            Action::Transfer { range, to } => self.get(range.0).leader = Some(*to),
            Action::Move { range, from, to } => {
                let leads = self.get(range.0).leader == Some(*from);
                self.describe(range.0, |descriptor| {
                    descriptor.replicas.retain(|replica| replica.node != *from);
                    push_replica(descriptor, *to);
                });
                if leads {
                    let range = self.get(range.0);
                    range.leader = range.descriptor.replicas.first().map(|replica| replica.node);
                }
            }
            Action::Add { range, to } => self.describe(range.0, |d| push_replica(d, *to)),
            Action::CancelMove { range } => self.view.moves.retain(|m| m.range != *range),
        }
    }

    fn split(&mut self, range: RangeId, keys: &[Key]) {
        let spans = self.get(range.0).descriptor.span.split_at(keys).expect("keys are inside");
        let mut next = self.view.ranges.iter().map(|r| r.descriptor.id.0).max().unwrap_or(0);
        let parent = self.get(range.0).clone();
        let at = self.view.ranges.iter().position(|r| r.descriptor.id == range).expect("found");
        let pieces = spans.into_iter().enumerate().map(|(n, span)| {
            let mut descriptor = (*parent.descriptor).clone();
            descriptor.span = span;
            descriptor.epoch.version += 1;
            if n > 0 {
                next += 1;
                descriptor.id = RangeId(next);
            }
            let size_bytes = parent.size_bytes / (keys.len() as u64 + 1);
            let descriptor = Arc::new(descriptor);
            RangeView { descriptor, size_bytes, load: RangeLoad::default(), ..parent.clone() }
        });
        let pieces: Vec<_> = pieces.collect();
        self.view.ranges.splice(at..=at, pieces);
    }

    fn merge(&mut self, left: RangeId, right: RangeId) {
        let gone = self.get(right.0).clone();
        self.view.ranges.retain(|r| r.descriptor.id != right);
        self.describe(left.0, |descriptor| {
            let start = descriptor.span.start().clone();
            let end = gone.descriptor.span.end().clone();
            descriptor.span = KeyRange::new(start, end).expect("ascending");
            descriptor.epoch.version += 1;
        });
        self.get(left.0).size_bytes += gone.size_bytes;
    }
}

fn push_replica(descriptor: &mut RangeDescriptor, node: NodeId) {
    let id = descriptor.next_replica_id;
    descriptor.next_replica_id = ReplicaId(id.0 + 1);
    descriptor.replicas.push(ReplicaDescriptor { id, node, role: ReplicaRole::Voter });
    descriptor.epoch.conf_ver += 1;
}

/// Rates at which everything is written and nothing read.
pub(super) fn writes(cores: f64, per_second: f64, appends: f64) -> Rates {
    Rates { writes: per_second, appends, cores, ..Rates::default() }
}

/// Decisions as text, a line each.
pub(super) fn lines<'a>(decisions: impl Iterator<Item = &'a Decision>) -> String {
    let line = |decision: &Decision| match &decision.action {
        Some(action) => format!("{:?}: {action}: {}\n", decision.rule, decision.reason),
        None => format!("{:?}: leave {}: {}\n", decision.rule, decision.range, decision.reason),
    };
    decisions.map(line).collect()
}

/// Compares, and prints both in full if they differ.
#[track_caller]
pub(super) fn expect(is: &str, wanted: &str) {
    let tidy = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
    };
    let (is, wanted) = (tidy(is), tidy(wanted));
    assert!(is == wanted, "decided:\n{}\n\nexpected:\n{}\n", is.join("\n"), wanted.join("\n"));
}
