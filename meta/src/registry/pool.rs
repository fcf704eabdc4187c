//! Reported descriptors that the map does not have yet.
//!
//! A split reaches meta in pieces, from several nodes and in any order. The pool holds the newest
//! descriptor of each range until pieces are together that cover exactly what the map holds under
//! other bounds; those then enter the map as one change. A piece alone is held, not an error.

use isotherm_types::{Key, RangeDescriptor, RangeId, RangeMap};
use std::collections::{BTreeMap, HashMap};

/// Most changes in one command.
const CHANGES_MAX: usize = 1000;
/// Most descriptors that are held: far above what a cluster splits at once. Beyond it what comes is
/// dropped; the next leader asks for it again.
const HELD_MAX: usize = 100_000;

/// Descriptors newer than the map's.
#[derive(Debug, Default)]
pub struct Pool {
    held: HashMap<RangeId, RangeDescriptor>,
}

fn is_news(map: &RangeMap, d: &RangeDescriptor) -> bool {
    map.get(d.id).is_none_or(|known| d.epoch.is_newer_than(known.epoch))
}

impl Pool {
    /// Holds `d` if it is newer than what the map and the pool have; says whether it was.
    pub fn offer(&mut self, map: &RangeMap, d: RangeDescriptor) -> bool {
        let known = self.held.get(&d.id);
        let is_newer = known.is_none_or(|known| d.epoch.is_newer_than(known.epoch));
        let fits = known.is_some() || self.held.len() < HELD_MAX;
        let is_taken = is_newer && fits && is_news(map, &d);
        if is_taken {
            self.held.insert(d.id, d);
        }
        is_taken
    }

    /// Whether nothing is held.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Forgets what the map has by now.
    pub fn prune(&mut self, map: &RangeMap) {
        self.held.retain(|_, d| is_news(map, d));
    }

    /// The changes that the map can take now, each a set of descriptors that covers exactly what it
    /// replaces.
    pub fn changes(&self, map: &RangeMap) -> Vec<Vec<RangeDescriptor>> {
        let by_start: BTreeMap<&Key, &RangeDescriptor> =
            self.held.values().map(|d| (d.span.start(), d)).collect();
        let known = self.held.keys().filter_map(|id| map.get(*id));
        known.filter_map(|old| self.cover(old, &by_start)).take(CHANGES_MAX).collect()
    }

    /// Held descriptors that cover exactly the span of `old`, its own successor among them.
    fn cover(
        &self,
        old: &RangeDescriptor,
        by_start: &BTreeMap<&Key, &RangeDescriptor>,
    ) -> Option<Vec<RangeDescriptor>> {
        let mut cover = Vec::new();
        let mut cursor = old.span.start();
        loop {
            let piece = *by_start.get(cursor)?;
            if !old.span.covers(&piece.span) {
                return None;
            }
            cover.push(piece.clone());
            cursor = piece.span.end();
            if cursor == old.span.end() {
                break;
            }
        }
        cover.iter().any(|d| d.id == old.id).then_some(cover)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use isotherm_types::{KeyRange, NodeId, RangeEpoch};
    use proptest::prelude::*;

    fn range(id: u64, start: &str, end: &str, version: u64) -> RangeDescriptor {
        let span = KeyRange::new(start.to_owned(), end.to_owned()).unwrap();
        let epoch = RangeEpoch { version, conf_ver: 1 };
        RangeDescriptor { epoch, ..RangeDescriptor::first(RangeId(id), span, &[NodeId(1)]) }
    }

    fn map() -> RangeMap {
        let mut map = RangeMap::default();
        map.apply(&[range(1, "", "m", 1), range(2, "m", "", 1)]).unwrap();
        map
    }

    #[test]
    fn what_is_known_is_no_news() {
        let (map, mut pool) = (map(), Pool::default());
        assert!(!pool.offer(&map, range(1, "", "m", 1)));
        assert!(pool.is_empty() && pool.changes(&map).is_empty());
    }

    #[test]
    fn a_half_of_a_split_waits_for_the_other() {
        let (mut map, mut pool) = (map(), Pool::default());
        assert!(pool.offer(&map, range(3, "c", "m", 2)));
        assert!(pool.changes(&map).is_empty());
        assert!(pool.offer(&map, range(1, "", "c", 2)));
        let changes = pool.changes(&map);
        assert_eq!(changes.len(), 1);
        map.apply(&changes[0]).unwrap();
        pool.prune(&map);
        assert!(pool.is_empty());
        map.check_tiling();
    }

    #[test]
    fn a_change_of_membership_needs_nobody_else() {
        let (map, mut pool) = (map(), Pool::default());
        let mut moved = range(1, "", "m", 1);
        moved.epoch.conf_ver = 2;
        pool.offer(&map, moved.clone());
        assert_eq!(pool.changes(&map), [[moved]]);
    }

    #[test]
    fn an_older_report_does_not_replace_a_newer_one() {
        let (map, mut pool) = (map(), Pool::default());
        assert!(pool.offer(&map, range(1, "", "b", 3)));
        assert!(!pool.offer(&map, range(1, "", "c", 2)));
    }

    proptest! {
        /// Ranges split again and again; the final descriptors arrive in any order, each alone.
        #[test]
        fn pieces_of_many_splits_come_together_in_any_order(
            keys in prop::collection::btree_set("[a-z]{1,3}", 1..20), seed in any::<u64>(),
        ) {
            let mut truth = map();
            for (child, key) in (10..).zip(&keys) {
                let parent = truth.locate(key.as_bytes()).unwrap().clone();
                let Some(spans) = parent.span.split_at(&[key.clone().into()]) else { continue };
                let epoch = parent.epoch.next_version();
                let half = |id, span: &KeyRange| RangeDescriptor {
                    id, span: span.clone(), epoch, ..parent.clone()
                };
                truth.apply(&[half(parent.id, &spans[0]), half(RangeId(child), &spans[1])]).unwrap();
            }
            let mut reports: Vec<_> = truth.iter().cloned().collect();
            fastrand::Rng::with_seed(seed).shuffle(&mut reports);
            let (mut map, mut pool) = (map(), Pool::default());
            for report in reports {
                pool.offer(&map, report);
                for change in pool.changes(&map) {
                    map.apply(&change).unwrap();
                    map.check_tiling();
                }
                pool.prune(&map);
            }
            prop_assert_eq!(map, truth);
            prop_assert!(pool.is_empty());
        }
    }
}
