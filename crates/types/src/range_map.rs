//! The partition map: descriptors that tile the whole key space, with no hole and no overlap.

use crate::{Key, KeyRange, RangeDescriptor, RangeId};
use std::collections::{BTreeMap, HashMap, HashSet};
use thiserror::Error;

/// The copy of all descriptors that meta keeps.
///
/// Invariant (asserted by [`RangeMap::check_tiling`]): once bootstrapped, the spans tile the key
/// space after every change. A change therefore replaces a set of ranges by another set over the
/// same span; a range whose first key a newer one took over goes without a successor of its own
/// ([`RangeDescriptor::is_superseded_by`]).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeMap {
    by_start: BTreeMap<Key, RangeDescriptor>,
    start_of: HashMap<RangeId, Key>,
}

/// Why a change of the map was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RangeMapError {
    /// The map already knows this epoch or a newer one, or what absorbed the range; nothing to do.
    #[error("{range} is already known at this epoch or a newer one, or was absorbed since")]
    Stale {
        /// Which range.
        range: RangeId,
    },
    /// Taking it would leave a hole or an overlap; it is held until the other half is known.
    #[error("taking {range} with span {span} would leave a hole or an overlap in the map")]
    NoTiling {
        /// Which range.
        range: RangeId,
        /// The span it came with.
        span: KeyRange,
    },
}

impl RangeMap {
    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.by_start.len()
    }

    /// Whether the cluster was not bootstrapped yet.
    pub fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }

    /// All descriptors in key order.
    pub fn iter(&self) -> impl Iterator<Item = &RangeDescriptor> {
        self.by_start.values()
    }

    /// The descriptor of `id`.
    pub fn get(&self, id: RangeId) -> Option<&RangeDescriptor> {
        self.by_start.get(self.start_of.get(&id)?)
    }

    /// The range that holds `key`.
    pub fn locate(&self, key: &[u8]) -> Option<&RangeDescriptor> {
        let (_, found) = self.by_start.range(..=Key::copy_from_slice(key)).next_back()?;
        found.span.contains(key).then_some(found)
    }

    /// The ranges that share a key with `span`, in key order.
    pub fn overlapping<'a>(
        &'a self,
        span: &'a KeyRange,
    ) -> impl Iterator<Item = &'a RangeDescriptor> + 'a {
        let first = self.locate(span.start()).map_or(span.start(), |d| d.span.start());
        let from_first = self.by_start.range(first.clone()..);
        from_first.map(|(_, d)| d).take_while(|d| span.is_before_end(d.span.start()))
    }

    /// Whether `d` is newer than what the map holds under its id, and not of a range of which the
    /// map knows that it was absorbed.
    pub fn is_news(&self, d: &RangeDescriptor) -> bool {
        let is_newer = self.get(d.id).is_none_or(|known| d.epoch.is_newer_than(known.epoch));
        is_newer && self.locate(d.span.start()).is_none_or(|known| !d.is_superseded_by(known))
    }

    /// Replaces what the map knows by `changed`, as one change. What its descriptors supersede goes.
    ///
    /// Every descriptor must be news to the map ([`RangeMap::is_news`]; a stale one fails the whole
    /// change only if all are stale), and afterwards the map must still tile the key space. On an
    /// error the map is unchanged. Costs as much as the change is large, whatever the size of the
    /// map.
    pub fn apply(&mut self, changed: &[RangeDescriptor]) -> Result<(), RangeMapError> {
        let fresh: Vec<_> = changed.iter().filter(|d| self.is_news(d)).collect();
        let Some(first) = fresh.first() else {
            let range = changed.first().map_or(RangeId::META, |d| d.id);
            return Err(RangeMapError::Stale { range });
        };
        let Some(gone) = self.replaced_by(&fresh) else {
            return Err(RangeMapError::NoTiling { range: first.id, span: first.span.clone() });
        };
        for id in gone {
            self.remove(id);
        }
        for d in fresh {
            self.insert(d.clone());
        }
        Ok(())
    }

    /// The ranges that go as `fresh` comes: those of the same ids, and those that it supersedes.
    /// None if the map would not tile then. Looks at the ranges concerned only: a map that tiles
    /// still does if what comes covers exactly what goes.
    fn replaced_by(&self, fresh: &[&RangeDescriptor]) -> Option<HashSet<RangeId>> {
        let ids: HashSet<_> = fresh.iter().map(|d| d.id).collect();
        if ids.len() < fresh.len() {
            return None;
        }
        // No two that overlap: so this looks at every range of the map about once.
        let come = runs(fresh.iter().map(|d| &d.span))?;
        let superseded = fresh.iter().flat_map(|d| {
            self.overlapping(&d.span)
                .filter(|known| known.is_superseded_by(d))
                .map(|known| known.id)
        });
        let gone: HashSet<_> =
            ids.iter().copied().filter(|id| self.get(*id).is_some()).chain(superseded).collect();
        let spans = gone.iter().filter_map(|id| self.get(*id)).map(|d| &d.span);
        let go = if self.is_empty() { Some(vec![KeyRange::all()]) } else { runs(spans) };
        (go == Some(come)).then_some(gone)
    }

    /// Asserts the invariant.
    pub fn check_tiling(&self) {
        assert!(self.is_empty() || self.tiles(), "the range map does not tile the key space");
    }

    fn tiles(&self) -> bool {
        let mut expected = Some(Key::new());
        for d in self.by_start.values() {
            if expected.as_ref() != Some(d.span.start()) {
                return false;
            }
            expected = (!d.span.end().is_empty()).then(|| d.span.end().clone());
        }
        expected.is_none()
    }

    fn remove(&mut self, id: RangeId) {
        if let Some(start) = self.start_of.remove(&id) {
            self.by_start.remove(&start);
        }
    }

    fn insert(&mut self, d: RangeDescriptor) {
        self.start_of.insert(d.id, d.span.start().clone());
        self.by_start.insert(d.span.start().clone(), d);
    }
}

/// What `spans` cover together, as the fewest spans in key order; `None` if two overlap.
fn runs<'a>(spans: impl Iterator<Item = &'a KeyRange>) -> Option<Vec<KeyRange>> {
    let mut spans: Vec<_> = spans.collect();
    spans.sort_by(|a, b| a.start().cmp(b.start()));
    let mut runs: Vec<KeyRange> = Vec::new();
    for span in spans {
        match runs.last_mut() {
            Some(last) if last.is_before_end(span.start()) => return None,
            Some(last) if last.end() == span.start() => {
                *last = KeyRange::new(last.start().clone(), span.end().clone())
                    .expect("it starts before a span that starts before its own end");
            }
            _ => runs.push(span.clone()),
        }
    }
    Some(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NodeId, RangeEpoch};
    use proptest::prelude::*;

    fn range(id: u64, start: &str, end: &str, version: u64) -> RangeDescriptor {
        let span = KeyRange::new(start.to_owned(), end.to_owned()).expect("ordered");
        let mut d = RangeDescriptor::first(RangeId(id), span, &[NodeId(1)]);
        d.epoch = RangeEpoch { version, conf_ver: 1 };
        d
    }

    #[test]
    fn a_split_enters_as_one_change_and_a_child_alone_is_held() {
        let mut map = RangeMap::default();
        map.apply(&[range(1, "", "", 1)]).expect("bootstrap");
        let (parent, child) = (range(1, "", "m", 2), range(2, "m", "", 2));
        let before = map.clone();
        assert!(matches!(
            map.apply(std::slice::from_ref(&child)),
            Err(RangeMapError::NoTiling { .. })
        ));
        assert!(matches!(
            map.apply(std::slice::from_ref(&parent)),
            Err(RangeMapError::NoTiling { .. })
        ));
        assert_eq!(map, before);
        map.apply(&[parent, child]).expect("both halves tile");
        map.check_tiling();
        assert_eq!(map.locate(b"m").map(|d| d.id), Some(RangeId(2)));
        assert_eq!(map.locate(b"a").map(|d| d.id), Some(RangeId(1)));
    }

    #[test]
    fn the_ranges_of_a_span_are_those_that_share_a_key_with_it() {
        let mut map = RangeMap::default();
        map.apply(&[range(1, "", "d", 1), range(2, "d", "m", 1), range(3, "m", "", 1)])
            .expect("they tile");
        let ids = |start: &str, end: &str| {
            let span = KeyRange::new(start.to_owned(), end.to_owned()).expect("ordered");
            map.overlapping(&span).map(|d| d.id.get()).collect::<Vec<_>>()
        };
        assert_eq!(ids("", ""), [1, 2, 3]);
        assert_eq!(ids("a", "d"), [1]);
        assert_eq!(ids("c", "da"), [1, 2]);
        assert_eq!(ids("m", ""), [3]);
    }

    #[test]
    fn a_stale_descriptor_is_rejected() {
        let mut map = RangeMap::default();
        map.apply(&[range(1, "", "", 2)]).expect("bootstrap");
        assert!(matches!(map.apply(&[range(1, "", "", 1)]), Err(RangeMapError::Stale { .. })));
    }

    /// Three ranges, of which the second is to absorb the third.
    fn neighbours() -> RangeMap {
        let mut map = RangeMap::default();
        map.apply(&[range(1, "", "d", 4), range(2, "d", "m", 3), range(3, "m", "", 5)])
            .expect("they tile");
        map
    }

    #[test]
    fn with_the_range_that_absorbed_it_a_range_is_gone_and_stays_gone() {
        let mut map = neighbours();
        map.apply(&[range(3, "m", "", 6)]).expect("it is frozen");
        map.apply(&[range(2, "d", "", 7)]).expect("it covers itself and what it absorbed");
        map.check_tiling();
        assert_eq!((map.len(), map.get(RangeId(3))), (2, None));
        assert_eq!(map.locate(b"x").map(|d| d.id), Some(RangeId(2)));
        let before = map.clone();
        for late in [range(3, "m", "", 5), range(3, "m", "", 6)] {
            let taken = map.apply(std::slice::from_ref(&late));
            assert_eq!(taken, Err(RangeMapError::Stale { range: RangeId(3) }));
        }
        assert_eq!(map, before);
    }

    #[test]
    fn a_merge_that_was_missed_enters_with_the_split_after_it() {
        let mut map = neighbours();
        let pieces = [range(2, "d", "p", 7), range(4, "p", "", 7)];
        for piece in &pieces {
            assert!(map.apply(std::slice::from_ref(piece)).is_err(), "not one without the other");
        }
        map.apply(&pieces).expect("together they cover both");
        map.check_tiling();
        let ids: Vec<_> = map.iter().map(|d| d.id.get()).collect();
        assert_eq!(ids, [1, 2, 4]);
    }

    #[test]
    fn only_a_higher_version_takes_a_neighbour_over() {
        for version in [4, 5] {
            let mut map = neighbours();
            let wide = range(2, "d", "", version);
            assert!(matches!(map.apply(&[wide]), Err(RangeMapError::NoTiling { .. })));
            assert_eq!(map, neighbours());
        }
    }

    #[test]
    fn what_takes_over_only_a_part_of_a_neighbour_waits_for_the_rest() {
        let mut map = neighbours();
        let (wide, rest) = (range(2, "d", "p", 7), range(4, "p", "", 6));
        assert!(map.apply(std::slice::from_ref(&wide)).is_err());
        map.apply(&[wide, rest]).expect("the third was split before its first half was absorbed");
        map.check_tiling();
    }

    /// What `apply` promises, decided by looking at the whole map.
    fn apply_checking_all(map: &RangeMap, changed: &[RangeDescriptor]) -> Option<RangeMap> {
        let is_fresh = |d: &&RangeDescriptor| {
            map.get(d.id).is_none_or(|known| d.epoch.is_newer_than(known.epoch))
                && !map.iter().any(|known| d.is_superseded_by(known))
        };
        let fresh: Vec<_> = changed.iter().filter(is_fresh).collect();
        let mut next = map.clone();
        fresh.iter().for_each(|d| next.remove(d.id));
        for old in map.iter().filter(|old| fresh.iter().any(|d| old.is_superseded_by(d))) {
            next.remove(old.id);
        }
        for d in &fresh {
            if next.get(d.id).is_some() || next.by_start.contains_key(d.span.start()) {
                return None;
            }
            next.insert((*d).clone());
        }
        (!fresh.is_empty() && next.tiles()).then_some(next)
    }

    /// The two halves of `parent` cut at `key`.
    fn halves(parent: &RangeDescriptor, key: Key, child: RangeId) -> Option<[RangeDescriptor; 2]> {
        let spans = parent.span.split_at(&[key])?;
        let epoch = parent.epoch.next_version();
        let half = |id, span: &KeyRange| RangeDescriptor {
            id,
            span: span.clone(),
            epoch,
            ..parent.clone()
        };
        Some([half(parent.id, &spans[0]), half(child, &spans[1])])
    }

    #[test]
    fn ten_thousand_ranges_split_at_random_always_tile() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let mut map = RangeMap::default();
        map.apply(&[range(1, "", "", 1)]).expect("bootstrap");
        while map.len() < 10_000 {
            let key = Key::copy_from_slice(&random().to_be_bytes());
            let child = RangeId(map.len() as u64 + 1);
            let parent = map.locate(&key).expect("every key is somewhere");
            let Some([left, right]) = halves(parent, key, child) else { continue };
            assert!(map.apply(std::slice::from_ref(&left)).is_err());
            assert!(map.apply(std::slice::from_ref(&right)).is_err());
            map.apply(&[left, right]).expect("two halves cover the whole");
            if map.len().is_multiple_of(64) {
                map.check_tiling();
            }
        }
        map.check_tiling();
        assert_eq!(map.start_of.len(), 10_000);
    }

    proptest! {
        #[test]
        fn looking_at_the_neighbourhood_decides_as_looking_at_everything(
            changes in prop::collection::vec(
                prop::collection::vec((1..5u64, 0..5u8, 0..5u8, 1..6u64), 1..4), 1..30,
            ),
        ) {
            let mut map = RangeMap::default();
            map.apply(&[range(1, "", "", 1)]).expect("bootstrap");
            for change in changes {
                let key = |k: u8| if k == 0 { Key::new() } else { vec![k].into() };
                let changed: Vec<_> = change
                    .into_iter()
                    .filter_map(|(id, start, end, version)| {
                        let span = KeyRange::new(key(start), key(end)).ok()?;
                        Some(RangeDescriptor { span, ..range(id, "", "", version) })
                    })
                    .collect();
                let (before, expected) = (map.clone(), apply_checking_all(&map, &changed));
                let taken = map.apply(&changed).is_ok();
                prop_assert_eq!(taken, expected.is_some());
                prop_assert_eq!(&map, &expected.unwrap_or(before));
            }
        }
    }
}
