//! What is remembered between two views: since when ranges are hot or cold, what they cost in all
//! likelihood, and what was ordered and does not show yet.

use crate::figures::Seconds;
use crate::past::BELIEF_MS;
pub(crate) use crate::past::{Past, threshold};
use crate::{Action, ClusterView, PendingMove, RangeView, Rule, Settings};
use isotherm_types::{Key, NodeId, RangeId};
use std::collections::{BTreeMap, HashMap};

/// How long an order may stay without an effect before it counts as lost.
const ORDER_MS: u64 = 10_000;
/// The same for a merge, which waits for all replicas of two ranges.
const MERGE_MS: u64 = 60_000;

/// One piece of a split that was ordered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Piece {
    /// First key of it.
    pub start: Key,
    /// The share of the heat that the sample gives it.
    pub share: f64,
    /// Whether it is the end that appends go to, cut off so that the rest is rid of them.
    pub is_growing: bool,
}

/// Something that was ordered and does not show in views yet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    /// What.
    pub action: Action,
    /// By which rule.
    pub rule: Rule,
    /// When.
    pub at_ms: u64,
    /// The version of the range's descriptor then.
    pub version: u64,
    /// Who led the range then.
    pub from: Option<NodeId>,
    /// What a split makes.
    pub pieces: Vec<Piece>,
    /// Whether the replica that is moved is to lead afterwards: its heat is booked there already.
    pub leads: bool,
}

/// Everything that is remembered. A new one knows nothing: cold ranges are not merged and failed
/// orders are tried again, and nothing else is lost.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    ranges: HashMap<RangeId, Past>,
    orders: BTreeMap<RangeId, Order>,
    last_ms: Option<u64>,
    begun_ms: Option<u64>,
    aligning: HashMap<RangeId, u64>,
    over_since: HashMap<NodeId, u64>,
    /// Where the next look for badly placed ranges starts.
    pub cursor: usize,
}

impl Memory {
    /// What is remembered of `range`; [`Self::observe`] made an entry for each range of the view.
    pub fn past(&self, range: RangeId) -> Option<&Past> {
        self.ranges.get(&range)
    }

    /// What was ordered for `range` and does not show yet; of a merge both ranges have it.
    pub fn order(&self, range: RangeId) -> Option<&Order> {
        self.orders.get(&range)
    }

    /// Whether it saw its first view so lately that some nodes have not reported since: what they
    /// carry cannot be compared yet. For how long still.
    pub fn warms_up_ms(&self, now_ms: u64, settings: &Settings) -> u64 {
        self.begun_ms
            .map_or(0, |begun| begun.saturating_add(settings.settle_ms).saturating_sub(now_ms))
    }

    /// As if it had seen views for long.
    #[cfg(test)]
    pub fn warmed(mut self) -> Self {
        self.begun_ms = Some(0);
        self
    }

    /// Notes whether `node` carries more than it should, and answers for how long it has.
    pub fn note_over(&mut self, node: NodeId, is_over: bool, now_ms: u64) -> u64 {
        if is_over {
            now_ms.saturating_sub(*self.over_since.entry(node).or_insert(now_ms))
        } else {
            self.over_since.remove(&node);
            0
        }
    }

    /// Keeps other rules from moving replicas of `range`, which are being brought to the nodes of a
    /// neighbour.
    pub fn align(&mut self, range: RangeId, now_ms: u64) {
        self.aligning.insert(range, now_ms.saturating_add(MERGE_MS));
    }

    /// Whether it is being aligned with a neighbour.
    pub fn is_aligning(&self, range: RangeId, now_ms: u64) -> bool {
        self.aligning.get(&range).is_some_and(|&until| now_ms < until)
    }

    /// How many ranges are being aligned.
    pub fn aligning(&self) -> usize {
        self.aligning.len()
    }

    /// Everything that was ordered and does not show yet, by range.
    pub fn orders(&self) -> impl Iterator<Item = (RangeId, &Order)> {
        self.orders.iter().map(|(&range, order)| (range, order))
    }

    /// Books `order` until a view shows its effect.
    pub fn book(&mut self, order: Order) {
        if let Action::Merge { right, .. } = order.action {
            self.orders.insert(right, order.clone());
        }
        self.orders.insert(order.action.range(), order);
    }

    /// Takes the booking of `action` back, for `why`.
    pub fn fail(&mut self, action: &Action, now_ms: u64, why: &str) {
        let mut ranges = vec![action.range()];
        if let Action::Merge { right, .. } = action {
            ranges.push(*right);
        }
        for range in ranges {
            // What is not booked any more was given up for something else, or is known to be lost.
            if self.orders.get(&range).is_none_or(|order| order.action != *action) {
                continue;
            }
            self.orders.remove(&range);
            if let Some(past) = self.ranges.get_mut(&range) {
                let times = past.failed.as_ref().map_or(0, |&(_, _, times)| times);
                past.failed = Some((now_ms, why.to_owned(), times.saturating_add(1)));
            }
        }
    }

    /// Learns what `view` shows: closes orders whose effect is there, and follows what ranges cost.
    pub fn observe(&mut self, view: &ClusterView, settings: &Settings) {
        let now = view.now_ms;
        let moves: HashMap<_, _> = view.moves.iter().map(|m| (m.range, m)).collect();
        let pieces = self.expected_pieces();
        let merged = self.expected_merges();
        let begun = *self.begun_ms.get_or_insert(now);
        let warms_up = now < begun.saturating_add(settings.settle_ms);
        let elapsed = self.last_ms.map(|last| now.saturating_sub(last));
        let follow = elapsed.map_or(1.0, |ms| 1.0 - (-(ms as f64) / BELIEF_MS).exp());
        let mut ordered = HashMap::new();
        for range in &view.ranges {
            let id = range.descriptor.id;
            if self.orders.contains_key(&id) {
                ordered.insert(id, range);
            }
            let start = range.descriptor.span.start();
            let (is_new, past) = match self.ranges.entry(id) {
                std::collections::hash_map::Entry::Occupied(known) => (false, known.into_mut()),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    (true, entry.insert(Past::default()))
                }
            };
            let version = range.descriptor.epoch.version;
            if is_new || warms_up {
                past.cores = (range.load.fast.cores + range.load.slow.cores) / 2.0;
                past.leader = past.leader.or(range.leader);
            }
            // The first view of all shows what was there before, not what changed.
            if elapsed.is_some() && (is_new || past.version != version) {
                past.settle_until_ms = now.saturating_add(settings.settle_ms);
                past.cold_since_ms = None;
                past.hot_since_ms = None;
                if let Some((piece, cores)) = pieces.get(start) {
                    past.cores = cores * piece.share;
                    past.is_growing = piece.is_growing;
                    past.split_ms = Some(now);
                } else if let Some((cores, cold_since)) = merged.get(&id) {
                    past.cores = *cores;
                    past.cold_since_ms = *cold_since;
                } else if is_new {
                    past.split_ms = Some(now);
                }
            }
            if range.leader.is_some() && past.leader != range.leader {
                if past.leader.is_some() {
                    past.settle_until_ms = now.saturating_add(settings.settle_ms);
                    past.leader_since_ms = Some(now);
                }
                past.leader = range.leader;
            }
            past.version = version;
            past.seen_ms = now;
            past.follow(range, view, settings, follow);
        }
        if self.ranges.len() > view.ranges.len() {
            self.ranges.retain(|_, past| past.seen_ms == now);
        }
        self.close_orders(now, &ordered, &moves);
        self.aligning.retain(|range, until| now < *until && self.ranges.contains_key(range));
        self.last_ms = Some(now);
    }

    /// The pieces of all splits under way, by first key, with what the whole costs.
    fn expected_pieces(&self) -> HashMap<Key, (Piece, f64)> {
        let mut pieces = HashMap::new();
        for (range, order) in &self.orders {
            let cores = self.ranges.get(range).map_or(0.0, |past| past.cores);
            for piece in &order.pieces {
                pieces.insert(piece.start.clone(), (piece.clone(), cores));
            }
        }
        pieces
    }

    /// What the ranges that absorb a neighbour will cost, and since when both are cold.
    fn expected_merges(&self) -> HashMap<RangeId, (f64, Option<u64>)> {
        let both = |(&range, order): (&RangeId, &Order)| match order.action {
            Action::Merge { left, right } if left == range => {
                let (left, right) = (self.ranges.get(&left)?, self.ranges.get(&right)?);
                let cold = left.cold_since_ms.zip(right.cold_since_ms).map(|(a, b)| a.max(b));
                Some((range, (left.cores + right.cores, cold)))
            }
            _ => None,
        };
        self.orders.iter().filter_map(both).collect()
    }

    fn close_orders(
        &mut self,
        now: u64,
        ordered: &HashMap<RangeId, &RangeView>,
        moves: &HashMap<RangeId, &PendingMove>,
    ) {
        let mut lost = Vec::new();
        let ranges = &mut self.ranges;
        self.orders.retain(|id, order| {
            let Some(range) = ordered.get(id) else { return false };
            let mut done = |left: Option<NodeId>| {
                if let Some(past) = ranges.get_mut(id) {
                    past.failed = None;
                    if let Some(node) = left {
                        past.leave(node, now);
                    }
                }
                false
            };
            let age = now.saturating_sub(order.at_ms);
            let descriptor = &range.descriptor;
            let has = |node| descriptor.replica_on(node).is_some();
            let is_pending = moves.contains_key(id);
            match order.action {
                Action::Split { .. } | Action::Merge { .. } => {
                    // Of a merge the one that is absorbed vanishes, and its order with it.
                    let is_merge = matches!(order.action, Action::Merge { .. });
                    let stays = order.action.range() == *id;
                    if stays && descriptor.epoch.version != order.version {
                        return done(None);
                    }
                    if age < if is_merge { MERGE_MS } else { ORDER_MS } {
                        return true;
                    }
                }
                Action::Transfer { to, .. } => {
                    if range.leader == Some(to) {
                        let evens = order.rule > Rule::Evacuate;
                        return done(order.from.filter(|_| evens));
                    }
                    if age < ORDER_MS {
                        return true;
                    }
                }
                Action::Move { from, to, .. } => {
                    if has(to) && !has(from) && !is_pending {
                        let evens = order.rule > Rule::Evacuate;
                        return done(evens.then_some(from));
                    }
                    if is_pending || age < ORDER_MS {
                        return true;
                    }
                }
                Action::Add { to, .. } => {
                    if has(to) && !is_pending {
                        return done(None);
                    }
                    if is_pending || age < ORDER_MS {
                        return true;
                    }
                }
                Action::CancelMove { .. } => return is_pending && age < ORDER_MS,
            }
            lost.push((order.action.clone(), age));
            true
        });
        for (action, age) in lost {
            self.fail(&action, now, &format!("no effect within {}", Seconds(age)));
        }
    }
}
