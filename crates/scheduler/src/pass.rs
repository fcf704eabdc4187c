//! One pass over one view: the view by numbers, with what was ordered counted as if it were done,
//! and the decisions so far.
//!
//! Nodes and ranges are numbered in the order of the view, so that rules index vectors. Rules look
//! at the figures of a [`Pass`], and change them only through [`Pass::order`].

use crate::figures::Seconds;
use crate::memory::{Memory, Order, Past, Piece};
use crate::stand::Stand;
use crate::{Action, ClusterView, Decision, PendingMerge, PendingMove, RangeView, Rule, Settings};
use isotherm_types::{NodeId, RangeId};
use std::collections::{BTreeMap, HashMap};

/// The number of a node that is not known, or of no node.
pub(crate) const NOWHERE: u32 = u32::MAX;
/// Of each rule, this many ranges per pass get to know why nothing is done.
const DECLINED_MAX: usize = 64;

/// The state of one pass.
pub(crate) struct Pass<'a> {
    /// What is decided about.
    pub view: &'a ClusterView,
    /// The limits.
    pub settings: &'a Settings,
    /// What is remembered.
    pub memory: &'a mut Memory,
    /// Only this range is of interest; all others are decided silently.
    pub focus: Option<RangeId>,
    /// How nodes stand, by number.
    pub nodes: Vec<Stand<'a>>,
    /// Who leads each range, or will, by number.
    pub leaders: Vec<u32>,
    /// What each range is believed to cost.
    pub cores: Vec<f64>,
    /// Whether something may be ordered for a range: it has a leader, and nothing is under way.
    pub is_free: Vec<bool>,
    /// Decisions so far.
    pub decisions: Vec<Decision>,
    pending: HashMap<RangeId, &'a PendingMove>,
    merging: HashMap<RangeId, &'a PendingMerge>,
    offsets: Vec<u32>,
    members: Vec<u32>,
    pub(crate) ordinals: HashMap<NodeId, u32>,
    declined: [usize; 9],
    /// How many values each label has, most significant label first.
    pub label_values: Vec<usize>,
}

impl<'a> Pass<'a> {
    /// The pass over `view`, which `memory` has observed already.
    pub fn new(
        view: &'a ClusterView,
        settings: &'a Settings,
        memory: &'a mut Memory,
        focus: Option<RangeId>,
    ) -> Self {
        let mut pass = Self {
            view,
            settings,
            memory,
            focus,
            nodes: view.nodes.values().map(Stand::new).collect(),
            leaders: Vec::with_capacity(view.ranges.len()),
            cores: Vec::with_capacity(view.ranges.len()),
            is_free: Vec::with_capacity(view.ranges.len()),
            decisions: Vec::new(),
            pending: view.moves.iter().map(|m| (m.range, m)).collect(),
            merging: view.merges.iter().flat_map(|m| [(m.left, m), (m.right, m)]).collect(),
            offsets: vec![0],
            members: Vec::with_capacity(view.ranges.len() * 3),
            ordinals: (0..).zip(view.nodes.keys()).map(|(number, &id)| (id, number)).collect(),
            declined: [0; 9],
            label_values: Vec::new(),
        };
        pass.number_labels();
        for range in &view.ranges {
            pass.count(range);
        }
        pass
    }

    /// Labels with few values part the cluster most, so they come first: a zone before a rack.
    fn number_labels(&mut self) {
        let mut values: BTreeMap<&str, HashMap<&str, u32>> = BTreeMap::new();
        for node in self.view.nodes.values() {
            for (key, value) in node.labels.iter() {
                let known = values.entry(key).or_default();
                let next = known.len() as u32;
                known.entry(value).or_insert(next);
            }
        }
        let mut labels: Vec<_> = values.into_iter().collect();
        labels.sort_by_key(|(key, values)| (values.len(), *key));
        for stand in &mut self.nodes {
            let number = |(key, values): &(&str, HashMap<&str, u32>)| {
                let value = stand.view.labels.get(*key);
                value.and_then(|value| values.get(value.as_str()).copied()).unwrap_or(NOWHERE)
            };
            stand.labels = labels.iter().map(number).collect();
        }
        self.label_values = labels.iter().map(|(_, values)| values.len()).collect();
    }

    fn count(&mut self, range: &'a RangeView) {
        let id = range.descriptor.id;
        let pending = self.pending.get(&id).copied();
        let order = self.memory.order(id);
        let past = self.memory.past(id);
        let cores = past.map_or(range.load.fast.cores, |past| past.cores);
        let now = self.view.now_ms;
        let is_backing_off = past.is_some_and(|past| {
            past.failed.is_some() && now < past.backoff_until_ms(self.settings)
        });
        let is_free = range.leader.is_some()
            && pending.is_none()
            && !self.merging.contains_key(&id)
            && order.is_none()
            && !is_backing_off
            && range.descriptor.is_settled();
        let (mut from, mut to, mut leads) = (None, None, false);
        let mut leader = range.leader;
        if let Some(pending) = pending {
            (from, to) = (pending.from, Some(pending.to));
        }
        match order.map(|order| (&order.action, order.leads)) {
            Some((Action::Transfer { to, .. }, _)) => leader = Some(*to),
            Some((Action::Move { from: gone, to: next, .. }, will_lead)) => {
                (from, to, leads) = (Some(*gone), Some(*next), will_lead);
            }
            Some((Action::Add { to: next, .. }, _)) => to = Some(*next),
            _ => {}
        }
        let number = |node: NodeId| self.ordinals.get(&node).copied().unwrap_or(NOWHERE);
        let sender = range.leader.map_or(NOWHERE, number);
        let to = to.map(number);
        for replica in &range.descriptor.replicas {
            let node = number(replica.node);
            if Some(replica.node) != from && Some(node) != to {
                self.members.push(node);
            }
        }
        self.members.extend(to);
        for &node in &self.members[self.offsets[self.offsets.len() - 1] as usize..] {
            if let Some(stand) = self.nodes.get_mut(node as usize) {
                stand.replicas += 1;
            }
        }
        self.offsets.push(self.members.len() as u32);
        if let Some(to) = to {
            if let Some(stand) = self.nodes.get_mut(to as usize) {
                stand.incoming += 1;
                if range.descriptor.replica_on(stand.id()).is_none() {
                    stand.used_bytes = stand.used_bytes.saturating_add(range.size_bytes);
                }
            }
            if let Some(stand) = self.nodes.get_mut(sender as usize) {
                stand.outgoing += 1;
            }
        }
        let leader = leader.map_or(NOWHERE, number);
        if let Some(stand) = self.nodes.get_mut(sender as usize).filter(|_| leader != sender) {
            stand.handing += 1;
        }
        let heated = if leads { to.unwrap_or(leader) } else { leader };
        if let Some(stand) = self.nodes.get_mut(leader as usize) {
            stand.leaders += 1;
        }
        if let Some(stand) = self.nodes.get_mut(heated as usize) {
            stand.cores += cores;
        }
        self.leaders.push(leader);
        self.cores.push(cores);
        self.is_free.push(is_free);
    }

    /// The range numbered `i`.
    pub fn range(&self, i: usize) -> &'a RangeView {
        &self.view.ranges[i]
    }

    /// Its id.
    pub fn id(&self, i: usize) -> RangeId {
        self.view.ranges[i].descriptor.id
    }

    /// What is remembered of it.
    pub fn past(&self, i: usize) -> Option<&Past> {
        self.memory.past(self.id(i))
    }

    /// The nodes that have, or will have, a replica of it.
    pub fn members(&self, i: usize) -> &[u32] {
        &self.members[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }

    /// The move of a replica of it that is under way.
    pub fn pending(&self, i: usize) -> Option<&'a PendingMove> {
        self.pending.get(&self.id(i)).copied()
    }

    /// The node numbered `n`.
    pub fn node(&self, n: u32) -> Option<&Stand<'a>> {
        self.nodes.get(n as usize)
    }

    /// Its id, for a reason.
    pub fn name(&self, n: u32) -> NodeId {
        self.node(n).map_or(NodeId(0), Stand::id)
    }

    /// Whether its leader hears from all replicas: only then one is moved that need not.
    pub fn is_whole(&self, i: usize) -> bool {
        let range = self.range(i);
        range.live.len() >= range.descriptor.replicas.len()
    }

    /// Whether it is being brought to the nodes of a neighbour, to merge with it.
    pub fn is_aligning(&self, i: usize) -> bool {
        self.memory.is_aligning(self.id(i), self.view.now_ms)
    }

    /// Whether a decision about `i` would be of interest.
    pub fn is_asked(&self, i: usize) -> bool {
        self.focus.is_none_or(|focus| focus == self.id(i))
    }

    /// The share of what may be used that the leaders cost, over all nodes that may lead.
    pub fn mean_heat(&self) -> f64 {
        let (mut cores, mut capacity) = (0.0, 0.0);
        for stand in self.nodes.iter().filter(|stand| stand.may_lead) {
            cores += stand.cores;
            capacity += stand.capacity();
        }
        if capacity > 0.0 { cores / capacity } else { 0.0 }
    }

    /// How far from the mean a node's heat may be.
    pub fn band(&self, mean: f64) -> f64 {
        (mean * self.settings.tolerance).max(self.settings.noise)
    }

    /// The nodes that `i` could be handed to: other voters that its leader hears from, on nodes
    /// that serve.
    pub fn heirs(&self, i: usize) -> impl Iterator<Item = u32> + '_ {
        let (range, leader) = (self.range(i), self.leaders[i]);
        let replicas = range.descriptor.replicas.iter();
        replicas.filter(|r| r.role.may_lead() && range.live.contains(&r.id)).filter_map(move |r| {
            let n = *self.ordinals.get(&r.node)?;
            (n != leader && self.nodes[n as usize].may_lead).then_some(n)
        })
    }

    /// Orders `action` for range `i`, and counts it as done.
    pub fn order(&mut self, i: usize, rule: Rule, action: Action, reason: String) {
        self.order_with(i, rule, action, reason, |_| {});
    }

    /// The same, with what else is to be remembered of it.
    pub fn order_with(
        &mut self,
        i: usize,
        rule: Rule,
        action: Action,
        reason: String,
        more: impl FnOnce(&mut Order),
    ) {
        let range = self.range(i);
        let mut order = Order {
            action: action.clone(),
            rule,
            at_ms: self.view.now_ms,
            version: range.descriptor.epoch.version,
            from: range.leader,
            pieces: Vec::<Piece>::new(),
            leads: false,
        };
        more(&mut order);
        let number = |node: NodeId| self.ordinals.get(&node).copied().unwrap_or(NOWHERE);
        let leader = self.leaders[i];
        match action {
            Action::Transfer { to, .. } => {
                let to = number(to);
                self.shift_heat(leader, to, self.cores[i]);
                if let Some(stand) = self.nodes.get_mut(leader as usize) {
                    stand.leaders = stand.leaders.saturating_sub(1);
                    stand.handing += 1;
                }
                if let Some(stand) = self.nodes.get_mut(to as usize) {
                    stand.leaders += 1;
                }
                self.leaders[i] = to;
            }
            Action::Move { from, to, .. } => {
                let (from, to) = (number(from), number(to));
                if let Some(stand) = self.nodes.get_mut(from as usize) {
                    stand.replicas = stand.replicas.saturating_sub(1);
                    stand.used_bytes = stand.used_bytes.saturating_sub(range.size_bytes);
                }
                self.receive(leader, to, range.size_bytes);
                if order.leads {
                    self.shift_heat(leader, to, self.cores[i]);
                }
            }
            Action::Add { to, .. } => self.receive(leader, number(to), range.size_bytes),
            Action::Split { .. } | Action::Merge { .. } | Action::CancelMove { .. } => {}
        }
        self.is_free[i] = false;
        self.memory.book(order);
        if self.is_asked(i) {
            let range = self.id(i);
            self.decisions.push(Decision { range, rule, action: Some(action), reason });
        }
    }

    fn receive(&mut self, sender: u32, to: u32, bytes: u64) {
        if let Some(stand) = self.nodes.get_mut(to as usize) {
            stand.replicas += 1;
            stand.incoming += 1;
            stand.used_bytes = stand.used_bytes.saturating_add(bytes);
        }
        if let Some(stand) = self.nodes.get_mut(sender as usize) {
            stand.outgoing += 1;
        }
    }

    fn shift_heat(&mut self, from: u32, to: u32, cores: f64) {
        if let Some(stand) = self.nodes.get_mut(from as usize) {
            stand.cores -= cores;
        }
        if let Some(stand) = self.nodes.get_mut(to as usize) {
            stand.cores += cores;
        }
    }

    /// Says why `rule` does nothing about range `i`.
    pub fn decline(&mut self, i: usize, rule: Rule, reason: impl FnOnce(&Self) -> String) {
        let declined = self.declined[rule as usize];
        if !self.is_asked(i) || (self.focus.is_none() && declined >= DECLINED_MAX) {
            return;
        }
        // What was ordered in this very pass says more about the range than what it keeps from.
        let now = self.view.now_ms;
        if self.memory.order(self.id(i)).is_some_and(|order| order.at_ms == now) {
            return;
        }
        self.declined[rule as usize] += 1;
        let reason = reason(self);
        self.decisions.push(Decision { range: self.id(i), rule, action: None, reason });
    }

    /// Why nothing may be ordered for range `i`, which is not free.
    pub fn why_not_free(&self, i: usize) -> String {
        let (range, now) = (self.range(i), self.view.now_ms);
        if range.leader.is_none() {
            return self.why_no_leader(i);
        }
        if let Some(order) = self.memory.order(self.id(i)) {
            let age = Seconds(now.saturating_sub(order.at_ms));
            return format!("\"{}\" was ordered {age} ago and does not show yet", order.action);
        }
        if let Some(pending) = self.pending(i) {
            return describe_move(pending, now);
        }
        if let Some(merge) = self.merging.get(&self.id(i)) {
            let age = Seconds(now.saturating_sub(merge.started_ms));
            return format!("{} is being merged into {} since {age}", merge.right, merge.left);
        }
        let past = self.past(i);
        if let Some((at, why, times)) = past.and_then(|past| past.failed.as_ref()) {
            let age = Seconds(now.saturating_sub(*at));
            let until = past.map_or(0, |past| past.backoff_until_ms(self.settings));
            let wait = Seconds(until.saturating_sub(now));
            return format!(
                "the last order failed {age} ago ({why}), {times} in a row; the next one in {wait}"
            );
        }
        "a change of its members is under way".to_owned()
    }

    /// What a range that nobody leads waits for.
    pub fn why_no_leader(&self, i: usize) -> String {
        let members = self.members(i);
        let up = |n: &&u32| {
            self.node(**n).is_some_and(|stand| stand.view.liveness == crate::Liveness::Up)
        };
        let up = members.iter().filter(up).count();
        let (all, quorum) = (members.len(), members.len() / 2 + 1);
        if up < quorum {
            format!(
                "unavailable: no leader, {up} of {all} replicas are on nodes that are up and \
                 {quorum} are needed: bring a node back, nothing can be built without a quorum"
            )
        } else {
            format!(
                "no leader is known, though {up} of {all} replicas are on nodes that are up: an \
                 election is due"
            )
        }
    }
}

/// A move as it stands in reasons.
pub(crate) fn describe_move(pending: &PendingMove, now_ms: u64) -> String {
    let age = Seconds(now_ms.saturating_sub(pending.started_ms));
    match pending.from {
        Some(from) => format!("a replica is moving from {from} to {} since {age}", pending.to),
        None => format!("a replica is being added on {} since {age}", pending.to),
    }
}
