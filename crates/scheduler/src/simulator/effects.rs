//! What orders do to the cluster when their time has come, and what befalls nodes.

use super::simulation::{Event, Simulation, Truth};
use crate::{Action, Liveness, RangeLoad, RangeView};
use isotherm_types::{Key, KeyRange, NodeId, RangeId, ReplicaDescriptor, ReplicaId, ReplicaRole};
use std::sync::Arc;

impl Simulation {
    fn is_up(&self, node: NodeId) -> bool {
        self.view.nodes.get(&node).is_some_and(|node| node.liveness == Liveness::Up)
    }

    /// `action` takes effect, or says why it cannot.
    pub(super) fn carry_out(&mut self, action: &Action) -> Result<(), &'static str> {
        let i = *self.index.get(&action.range()).ok_or("no such range")?;
        let is_moving = self.view.moves.iter().any(|m| m.range == action.range());
        let has_leader = self.view.ranges[i].leader.is_some();
        match action {
            Action::Split { keys, .. } if has_leader && !is_moving => self.split(i, keys),
            Action::Split { .. } => Err("it has no leader, or a replica moves"),
            Action::Merge { right, .. } => self.merge(i, *right),
            Action::Transfer { to, .. } => {
                let is_up = self.is_up(*to);
                let range = &mut self.view.ranges[i];
                if !has_leader || !is_up || range.descriptor.replica_on(*to).is_none() {
                    return Err("nobody to hand over to");
                }
                range.leader = Some(*to);
                Ok(())
            }
            Action::Move { range, from, to } => self.move_replica(i, *range, Some(*from), *to),
            Action::Add { range, to } => self.move_replica(i, *range, None, *to),
            Action::CancelMove { range } => {
                self.view.moves.retain(|m| m.range != *range);
                Ok(())
            }
        }
    }

    fn move_replica(
        &mut self,
        i: usize,
        range: RangeId,
        from: Option<NodeId>,
        to: NodeId,
    ) -> Result<(), &'static str> {
        if !self.view.moves.iter().any(|m| m.range == range && m.to == to) {
            return Err("given up");
        }
        self.view.moves.retain(|m| m.range != range);
        if !self.is_up(to) || self.view.ranges[i].leader.is_none() {
            return Err("its target or its leader is gone");
        }
        let nodes = &self.view.nodes;
        let range = &mut self.view.ranges[i];
        let mut descriptor = (*range.descriptor).clone();
        descriptor.replicas.retain(|replica| Some(replica.node) != from);
        let id = descriptor.next_replica_id;
        descriptor.next_replica_id = ReplicaId(id.0 + 1);
        descriptor.replicas.push(ReplicaDescriptor { id, node: to, role: ReplicaRole::Voter });
        descriptor.epoch.conf_ver += 1;
        if range.leader == from {
            let others = descriptor.replicas.iter().map(|replica| replica.node);
            range.leader = others.into_iter().find(|n| nodes[n].liveness == Liveness::Up);
        }
        range.descriptor = Arc::new(descriptor);
        self.refresh_live(i);
        Ok(())
    }

    fn refresh_live(&mut self, i: usize) {
        let replicas = self.view.ranges[i].descriptor.replicas.clone();
        let live = replicas.iter().filter(|replica| self.is_up(replica.node)).map(|r| r.id);
        self.view.ranges[i].live = live.collect();
    }

    fn split(&mut self, i: usize, keys: &[Key]) -> Result<(), &'static str> {
        let parent = self.view.ranges[i].clone();
        let spans = parent.descriptor.span.split_at(keys).ok_or("a key is not inside")?;
        let mut pieces = Vec::new();
        for (n, span) in spans.into_iter().enumerate() {
            let mut descriptor = (*parent.descriptor).clone();
            descriptor.span = span;
            descriptor.epoch.version += 1;
            let mut load = parent.load.clone();
            if n > 0 {
                descriptor.id = RangeId(self.next_range);
                self.next_range += 1;
                load = RangeLoad::default();
            }
            self.later(500, Event::MaySplit(descriptor.id));
            let size_bytes = parent.size_bytes / (keys.len() as u64 + 1);
            let descriptor = Arc::new(descriptor);
            let piece =
                RangeView { descriptor, load, size_bytes, may_split: false, ..parent.clone() };
            pieces.push(piece);
        }
        let mut truths = vec![Truth::default(); pieces.len()];
        truths[0] = self.truth[i];
        self.view.ranges.splice(i..=i, pieces);
        self.truth.splice(i..=i, truths);
        self.number();
        Ok(())
    }

    fn merge(&mut self, i: usize, right: RangeId) -> Result<(), &'static str> {
        let next = self.view.ranges.get(i + 1).filter(|r| r.descriptor.id == right).cloned();
        let next = next.ok_or("not its neighbour")?;
        let left = &mut self.view.ranges[i];
        let nodes = |range: &RangeView| {
            let mut nodes: Vec<_> = range.descriptor.replicas.iter().map(|r| r.node).collect();
            nodes.sort();
            nodes
        };
        if nodes(left) != nodes(&next) {
            return Err("not on the same nodes");
        }
        let mut descriptor = (*left.descriptor).clone();
        let (start, end) = (descriptor.span.start().clone(), next.descriptor.span.end().clone());
        descriptor.span = KeyRange::new(start, end).expect("ascending");
        descriptor.epoch.version += 1;
        left.descriptor = Arc::new(descriptor);
        left.size_bytes += next.size_bytes;
        self.view.ranges.remove(i + 1);
        self.truth.remove(i + 1);
        self.number();
        Ok(())
    }

    /// A node goes silent; what it led is led by others after an election.
    pub fn stop(&mut self, id: NodeId) {
        let since_ms = self.view.now_ms;
        if let Some(node) = self.view.nodes.get_mut(&id) {
            node.liveness = Liveness::Down { since_ms };
        }
        for i in 0..self.view.ranges.len() {
            if self.view.ranges[i].descriptor.replica_on(id).is_some() {
                self.refresh_live(i);
                if self.view.ranges[i].leader == Some(id) {
                    self.view.ranges[i].leader = None;
                    let range = self.view.ranges[i].descriptor.id;
                    let delay = self.random.u64(1000..2500);
                    self.later(delay, Event::Elect(range));
                }
            }
        }
    }

    /// It is back, with what it had.
    pub fn start(&mut self, id: NodeId) {
        if let Some(node) = self.view.nodes.get_mut(&id) {
            node.liveness = Liveness::Up;
        }
        for i in 0..self.view.ranges.len() {
            if self.view.ranges[i].descriptor.replica_on(id).is_some() {
                self.refresh_live(i);
            }
        }
    }

    /// One more node, empty.
    pub fn join(&mut self) -> NodeId {
        let id = self.view.nodes.keys().last().map_or(1, |last| last.0 + 1);
        self.view.nodes.insert(NodeId(id), self.setup.node(id));
        NodeId(id)
    }
}
