//! Where a range is cut: the weighted sample of its keys decides.

use crate::KeySample;
use isotherm_types::{Key, KeyRange};
use std::collections::BTreeMap;

/// Above this share of the sample one key carries the range, and no cut evens it out.
const ONE_KEY: f64 = 0.5;
/// Of fewer rows than this a scan is not cut: every piece would be read by it again.
const SCANNED_ROWS_MIN: usize = 8;
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
    /// Scans and aggregates of so many rows: there is nothing to gain from a cut.
    FewRows(usize),
    /// Nothing was sampled inside of the span.
    NoSample,
}

/// A sampled key, once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Share {
    pub key: Key,
    /// Of the whole.
    pub share: f64,
    /// Of the whole, by operations on this key alone.
    pub own: f64,
}

/// The sampled keys inside of `span`, each once, with their shares of the whole.
pub(crate) fn shares(span: &KeyRange, sample: &[KeySample]) -> Vec<Share> {
    let mut weights: BTreeMap<&Key, (f64, f64)> = BTreeMap::new();
    for taken in sample.iter().filter(|s| s.weight > 0.0 && span.contains(&s.key)) {
        let (weight, own) = weights.entry(&taken.key).or_default();
        *weight += taken.weight;
        *own += if taken.is_scanned { 0.0 } else { taken.weight };
    }
    let all: f64 = weights.values().map(|(weight, _)| weight).sum();
    let share = |(key, (weight, own)): (&Key, (f64, f64))| Share {
        key: key.clone(),
        share: weight / all,
        own: own / all,
    };
    weights.into_iter().map(share).collect()
}

/// Where to cut `span` into at most `pieces` of about equal heat.
pub(crate) fn choose(span: &KeyRange, sample: &[KeySample], pieces: usize) -> Cut {
    let shares = shares(span, sample);
    let Some(hottest) = shares.iter().max_by(|a, b| a.own.total_cmp(&b.own)) else {
        return Cut::NoSample;
    };
    // What is done to one key alone decides about that key: a scan comes by all of its rows.
    let own: f64 = shares.iter().map(|share| share.own).sum();
    if hottest.own > ONE_KEY || (shares.len() == 1 && own > ONE_KEY) {
        return isolate(span, &shares, hottest);
    }
    if own <= ONE_KEY && shares.len() < SCANNED_ROWS_MIN {
        return Cut::FewRows(shares.len());
    }
    // What lies left of a cut at each key; a cut at the first key of the span is none.
    let mut left = 0.0;
    let mut cuts = Vec::with_capacity(shares.len());
    for Share { key, share, .. } in &shares {
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
    for Share { key, share, .. } in shares(span, sample) {
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

fn isolate(span: &KeyRange, shares: &[Share], hottest: &Share) -> Cut {
    let Share { key, share, .. } = hottest;
    let (point, share) = (KeyRange::point(key), *share);
    let below: f64 = shares.iter().filter(|other| other.key < *key).map(|other| other.share).sum();
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
