//! What is remembered of one range: what it costs in all likelihood, since when it is hot or cold,
//! and where it came from.

use crate::{ClusterView, RangeView, Settings};
use isotherm_types::NodeId;

/// What the believed cost of a range follows its one-second average with.
pub(crate) const BELIEF_MS: f64 = 3000.0;

/// What is remembered of one range.
#[derive(Debug, Clone, Default)]
pub(crate) struct Past {
    /// The last view that had it.
    pub seen_ms: u64,
    /// Version of its descriptor in that view.
    pub version: u64,
    /// The last leader that was known.
    pub leader: Option<NodeId>,
    /// What it costs its leader, as far as that can be believed: frozen at what was expected until
    /// a change has settled, then following what is measured.
    pub cores: f64,
    /// Until then what is measured says little.
    pub settle_until_ms: u64,
    /// Whether the last view fell before that.
    is_frozen: bool,
    /// Since when its fast average is above the threshold.
    pub hot_since_ms: Option<u64>,
    /// Since when both averages are cold.
    pub cold_since_ms: Option<u64>,
    /// When its leader changed last.
    pub leader_since_ms: Option<u64>,
    /// When it was cut, or cut off, for whatever reason.
    pub split_ms: Option<u64>,
    /// Whether it is the growing end of a lineage that was cut for its appends.
    pub is_growing: bool,
    /// Nodes that it was taken from to even out, and when.
    pub left: Vec<(NodeId, u64)>,
    /// The last order that failed: when, why, how often in a row.
    pub failed: Option<(u64, String, u32)>,
}

impl Past {
    /// Until when nothing is ordered for it, because the last order failed.
    pub fn backoff_until_ms(&self, settings: &Settings) -> u64 {
        let wait = |&(at, _, times): &(u64, String, u32)| {
            let pause =
                settings.settle_ms.max(100).saturating_mul(1 << times.saturating_sub(1).min(4));
            at.saturating_add(pause)
        };
        self.failed.as_ref().map_or(0, wait)
    }

    /// Whether something changed so lately that what is measured says little.
    pub fn is_settling(&self, now_ms: u64) -> bool {
        now_ms < self.settle_until_ms
    }

    /// Whether its leader changed so lately that it stays where it is.
    pub fn is_led_newly(&self, now_ms: u64, settings: &Settings) -> bool {
        self.leader_since_ms.is_some_and(|at| now_ms.saturating_sub(at) < settings.settle_ms)
    }

    /// Whether it left `node` so recently that going back would be to and fro.
    pub fn left_lately(&self, node: NodeId, now_ms: u64, settings: &Settings) -> bool {
        let is_recent = |&(left, at): &(NodeId, u64)| {
            left == node && now_ms.saturating_sub(at) < settings.return_after_ms
        };
        self.left.iter().any(is_recent)
    }

    /// It was taken from `node` to even something out.
    pub fn leave(&mut self, node: NodeId, now_ms: u64) {
        self.left.retain(|&(left, _)| left != node);
        self.left.push((node, now_ms));
        if self.left.len() > 4 {
            self.left.remove(0);
        }
    }
}

impl Past {
    /// Learns what the view shows of its load; `by`: how much of the way belief goes.
    pub fn follow(&mut self, range: &RangeView, view: &ClusterView, settings: &Settings, by: f64) {
        let (now, load) = (view.now_ms, &range.load);
        if now >= self.settle_until_ms && self.is_frozen {
            // Three times what the fast average needs have gone by: it tells the truth now.
            self.cores = load.fast.cores;
        } else if now >= self.settle_until_ms {
            self.cores += (load.fast.cores - self.cores) * by;
        }
        self.is_frozen = now < self.settle_until_ms;
        let is_cold = load.fast.cores.max(load.slow.cores) < settings.cold_cores;
        self.cold_since_ms = if is_cold { self.cold_since_ms.or(Some(now)) } else { None };
        let is_hot = load.fast.cores > 0.0 && load.fast.cores > threshold(range, view, settings);
        self.hot_since_ms = if is_hot { self.hot_since_ms.or(Some(now)) } else { None };
    }
}

/// Above this many cores `range` is hot: a share of one core, or of what its leader's node may use
/// if that is less.
pub(crate) fn threshold(range: &RangeView, view: &ClusterView, settings: &Settings) -> f64 {
    let leader = range.leader.and_then(|leader| view.nodes.get(&leader));
    // What is no number is as little as can be: a comparison with it would say anything.
    let capacity = leader.map_or(1.0, |node| node.capacity_cores.max(0.01));
    settings.hot_cores * capacity.min(1.0)
}
