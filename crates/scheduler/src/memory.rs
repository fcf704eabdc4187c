//! What is remembered from one view to the next.

use crate::{Action, ClusterView, RangeView, Settings};
use isotherm_types::{Key, NodeId, RangeEpoch, RangeId};
use std::collections::{HashMap, HashSet};

/// An order whose effect no view shows is forgotten after this long.
const BOOKED_MS: u64 = 10_000;
/// What a finished transfer changed shows in a view within this time.
const SHOWN_MS: u64 = 2_000;

/// What is remembered of one range.
#[derive(Debug, Clone)]
struct Known {
    epoch: RangeEpoch,
    leader: Option<NodeId>,
    /// Since when it is cold; none: it is not.
    cold_since_ms: Option<u64>,
    /// When it last was cut, moved or handed over, and which of it.
    changed: Option<(u64, &'static str)>,
    /// When it came out of a cut because of its heat.
    cut_ms: Option<u64>,
}

/// An order whose effect is not visible yet.
#[derive(Debug, Clone)]
pub(crate) struct Booked {
    /// What was ordered.
    pub action: Action,
    /// By which epoch it was decided.
    epoch: RangeEpoch,
    at_ms: u64,
    /// When it was reported as done.
    done_ms: Option<u64>,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    known: HashMap<RangeId, Known>,
    booked: HashMap<RangeId, Booked>,
    /// Where growing ends were cut off: ranges that start there are not cut for their heat again.
    ends: HashSet<Key>,
    /// Orders that were refused: not again before this.
    refused: HashMap<RangeId, (u64, String)>,
}

impl Memory {
    /// Compares a view with the last one.
    pub fn observe(&mut self, view: &ClusterView, settings: &Settings) {
        let now = view.now_ms;
        let is_first = self.known.is_empty();
        let mut known = HashMap::with_capacity(view.ranges.len());
        for range in &view.ranges {
            let d = &range.descriptor;
            let is_cold = heat_max(range) < settings.cold_cores;
            let before = self.known.remove(&d.id);
            let mut next = match before {
                Some(before) => before,
                None => Known {
                    epoch: d.epoch,
                    leader: range.leader,
                    cold_since_ms: None,
                    changed: (!is_first).then_some((now, "it was made")),
                    cut_ms: (!is_first).then_some(now),
                },
            };
            if d.epoch.version != next.epoch.version {
                (next.changed, next.cut_ms) = (Some((now, "it was cut")), Some(now));
            } else if d.epoch != next.epoch {
                next.changed = Some((now, "its replicas changed"));
            } else if range.leader != next.leader && range.leader.is_some() {
                next.changed = Some((now, "its leader changed"));
            }
            next.epoch = d.epoch;
            next.leader = range.leader.or(next.leader);
            next.cold_since_ms =
                if is_cold { Some(next.cold_since_ms.unwrap_or(now)) } else { None };
            known.insert(d.id, next);
        }
        self.known = known;
        let by_id: HashMap<RangeId, &RangeView> =
            if self.booked.is_empty() { HashMap::new() } else { by_id(view) };
        self.booked
            .retain(|id, booked| by_id.get(id).is_some_and(|range| booked.is_open(range, view)));
        self.refused.retain(|_, (until, _)| *until > now);
    }

    /// Notes an order.
    pub fn book(&mut self, action: Action, epoch: RangeEpoch, now_ms: u64) {
        let booked = Booked { action, epoch, at_ms: now_ms, done_ms: None };
        self.booked.insert(booked.action.range(), booked);
    }

    /// What became of an order. One that was refused is not repeated at once.
    pub fn finish(&mut self, action: &Action, now_ms: u64, refused: Option<&str>, pause_ms: u64) {
        let range = action.range();
        if self.booked.get(&range).is_none_or(|booked| booked.action != *action) {
            return;
        }
        match refused {
            Some(why) => {
                self.booked.remove(&range);
                self.refused.insert(range, (now_ms + pause_ms, why.to_owned()));
            }
            None => {
                if let Some(booked) = self.booked.get_mut(&range) {
                    booked.done_ms = Some(now_ms);
                }
            }
        }
    }

    /// The order about a range that no view shows yet.
    pub fn booked(&self, range: RangeId) -> Option<&Booked> {
        self.booked.get(&range)
    }

    /// All orders that no view shows yet.
    pub fn all_booked(&self) -> impl Iterator<Item = &Booked> {
        self.booked.values()
    }

    /// Why the last order about a range failed, if that was just now.
    pub fn refused(&self, range: RangeId) -> Option<&str> {
        self.refused.get(&range).map(|(_, why)| why.as_str())
    }

    /// How long ago the range changed, and in which way.
    pub fn changed(&self, range: RangeId, now_ms: u64) -> Option<(u64, &'static str)> {
        let (at, what) = self.known.get(&range)?.changed?;
        Some((now_ms.saturating_sub(at), what))
    }

    /// How long ago the range was cut for its heat.
    pub fn cut(&self, range: RangeId, now_ms: u64) -> Option<u64> {
        Some(now_ms.saturating_sub(self.known.get(&range)?.cut_ms?))
    }

    /// For how long the range has been cold; none: it is not.
    pub fn cold_for(&self, range: RangeId, now_ms: u64) -> Option<u64> {
        Some(now_ms.saturating_sub(self.known.get(&range)?.cold_since_ms?))
    }

    /// The growing end of a range was cut off here.
    pub fn note_end(&mut self, at: Key) {
        self.ends.insert(at);
    }

    /// Whether a range that starts here is the growing end of another.
    pub fn is_end(&self, start: &Key) -> bool {
        self.ends.contains(start)
    }
}

impl Booked {
    /// Whether its effect is still to be seen.
    fn is_open(&self, range: &RangeView, view: &ClusterView) -> bool {
        let now = view.now_ms;
        if now.saturating_sub(self.at_ms) > BOOKED_MS {
            return false;
        }
        match &self.action {
            Action::Transfer { to, .. } if range.leader == Some(*to) => false,
            Action::Split { .. } | Action::Merge { .. }
                if range.descriptor.epoch.version > self.epoch.version =>
            {
                false
            }
            // Moves are shown by the view itself.
            Action::Move { range, .. } | Action::Add { range, .. }
                if view.moves.iter().any(|m| m.range == *range) =>
            {
                false
            }
            _ => self.done_ms.is_none_or(|done| now.saturating_sub(done) < SHOWN_MS),
        }
    }
}

/// The ranges of a view by id.
pub(crate) fn by_id(view: &ClusterView) -> HashMap<RangeId, &RangeView> {
    view.ranges.iter().map(|range| (range.descriptor.id, range)).collect()
}

/// What a range costs, as rules about balance see it: both averages, so that a moment does not decide.
pub(crate) fn heat(range: &RangeView) -> f64 {
    (range.load.fast.cores + range.load.slow.cores) / 2.0
}

/// What it costs at most.
pub(crate) fn heat_max(range: &RangeView) -> f64 {
    range.load.fast.cores.max(range.load.slow.cores)
}
