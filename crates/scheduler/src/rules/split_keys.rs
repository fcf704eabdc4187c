//! Where a range is cut: the weighted sample of its keys decides.

use crate::KeySample;
use isotherm_types::{Key, KeyRange};
use std::collections::BTreeMap;

/// Above this share of the sample one key carries the range, and no cut evens it out.
const ONE_KEY: f64 = 0.5;
/// A cut into two gives each side at least this share.
const SIDE_MIN: f64 = 0.25;

/// What the sample says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cut {
    /// Cut at these keys; the share of each piece.
    At {
        /// Ascending, inside of the span.
        keys: Vec<Key>,
        /// One more than keys.
        shares: Vec<f64>,
    },
    /// One key carries most: cut around it, so that it is its own range; without keys it already
    /// is.
    OneKey {
        /// Which.
        key: Key,
        /// Its share.
        share: f64,
        /// Where to cut.
        keys: Vec<Key>,
        /// Shares of the pieces.
        shares: Vec<f64>,
    },
    /// Nothing was sampled inside of the span.
    NoSample,
}

/// The sampled keys inside of `span`, each once, with their shares of the whole.
pub(crate) fn shares(span: &KeyRange, sample: &[KeySample]) -> Vec<(Key, f64)> {
    let mut weights: BTreeMap<&Key, f64> = BTreeMap::new();
    for taken in sample.iter().filter(|s| s.weight > 0.0 && span.contains(&s.key)) {
        *weights.entry(&taken.key).or_default() += taken.weight;
    }
    let all: f64 = weights.values().sum();
    weights.into_iter().map(|(key, weight)| (key.clone(), weight / all)).collect()
}

/// Where to cut `span` into at most `pieces` of about equal heat.
pub(crate) fn choose(span: &KeyRange, sample: &[KeySample], pieces: usize) -> Cut {
    let shares = shares(span, sample);
    let Some((key, share)) = shares.iter().max_by(|a, b| a.1.total_cmp(&b.1)) else {
        return Cut::NoSample;
    };
    if *share > ONE_KEY || shares.len() == 1 {
        return isolate(span, &shares, key, *share);
    }
    // What lies left of a cut at each key; a cut at the first key of the span is none.
    let mut left = 0.0;
    let mut cuts = Vec::with_capacity(shares.len());
    for (key, share) in &shares {
        if left > 0.0 || key != span.start() {
            cuts.push((key.clone(), left));
        }
        left += share;
    }
    let nearest = |to: f64| {
        let off = |cut: &&(Key, f64)| (cut.1 - to).abs();
        cuts.iter().min_by(|a, b| off(a).total_cmp(&off(b)))
    };
    let mut chosen: Vec<(Key, f64)> =
        (1..pieces).filter_map(|n| nearest(n as f64 / pieces as f64).cloned()).collect();
    chosen.dedup();
    chosen.retain(|(_, left)| *left > 0.0);
    let at = with_shares(&chosen);
    let largest = at.1.iter().copied().fold(0.0, f64::max);
    if largest > 1.0 - SIDE_MIN {
        let middle: Vec<_> = nearest(0.5).cloned().into_iter().collect();
        let (keys, shares) = with_shares(&middle);
        return Cut::At { keys, shares };
    }
    Cut::At { keys: at.0, shares: at.1 }
}

/// The key with half of the sample on each side, if there is one inside.
pub(crate) fn median(span: &KeyRange, sample: &[KeySample]) -> Option<Key> {
    let mut left = 0.0;
    for (key, share) in shares(span, sample) {
        if left + share / 2.0 >= 0.5 && key != *span.start() {
            return Some(key);
        }
        left += share;
    }
    None
}

/// The highest sampled key, if a cut there leaves something on both sides.
pub(crate) fn highest(span: &KeyRange, sample: &[KeySample]) -> Option<Key> {
    let keys = sample.iter().map(|taken| &taken.key).filter(|key| span.contains(key));
    keys.max().filter(|key| *key != span.start()).cloned()
}

fn with_shares(cuts: &[(Key, f64)]) -> (Vec<Key>, Vec<f64>) {
    let bounds = cuts.iter().map(|(_, left)| *left).chain(Some(1.0));
    let mut before = 0.0;
    let shares = bounds.map(|left| left - std::mem::replace(&mut before, left)).collect();
    (cuts.iter().map(|(key, _)| key.clone()).collect(), shares)
}

fn isolate(span: &KeyRange, shares: &[(Key, f64)], key: &Key, share: f64) -> Cut {
    let point = KeyRange::point(key);
    let below: f64 = shares.iter().filter(|(k, _)| k < key).map(|(_, share)| share).sum();
    let (mut keys, mut parts) = (Vec::new(), Vec::new());
    if key != span.start() {
        keys.push(key.clone());
        parts.push(below);
    }
    parts.push(share);
    if span.contains(point.end()) {
        keys.push(point.end().clone());
        parts.push((1.0 - below - share).max(0.0));
    }
    Cut::OneKey { key: key.clone(), share, keys, shares: parts }
}
