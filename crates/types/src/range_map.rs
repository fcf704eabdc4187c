//! The partition map: descriptors that tile the whole key space, with no hole and no overlap.

use crate::{Key, KeyRange, RangeDescriptor, RangeId};
use std::collections::{BTreeMap, HashMap, HashSet};
use thiserror::Error;

/// The copy of all descriptors that meta keeps.
///
/// Invariant (asserted by [`RangeMap::check_tiling`]): once bootstrapped, the spans tile the key
/// space after every change. A change therefore replaces a set of ranges by another set over the
/// same span.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeMap {
    by_start: BTreeMap<Key, RangeDescriptor>,
    start_of: HashMap<RangeId, Key>,
}

/// Why a change of the map was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RangeMapError {
    /// The map already knows this epoch or a newer one; nothing to do.
    #[error("{range} is already known at this epoch or a newer one")]
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

    /// Replaces what the map knows by `changed`, as one change.
    ///
    /// Every descriptor must be newer than what the map holds under its id (a stale one fails the
    /// whole change only if all are stale), and afterwards the map must still tile the key space.
    /// On an error the map is unchanged. Costs as much as the change is large, whatever the size of
    /// the map.
    pub fn apply(&mut self, changed: &[RangeDescriptor]) -> Result<(), RangeMapError> {
        let fresh: Vec<_> = changed
            .iter()
            .filter(|d| self.get(d.id).is_none_or(|known| d.epoch.is_newer_than(known.epoch)))
            .collect();
        let Some(first) = fresh.first() else {
            let range = changed.first().map_or(RangeId::META, |d| d.id);
            return Err(RangeMapError::Stale { range });
        };
        if !self.still_tiles_with(&fresh) {
            return Err(RangeMapError::NoTiling { range: first.id, span: first.span.clone() });
        }
        for d in &fresh {
            self.remove(d.id);
        }
        for d in fresh {
            self.insert(d.clone());
        }
        Ok(())
    }

    /// Whether the map tiles once `fresh` replaced what it holds under the same ids. Looks at the
    /// ranges concerned only: a map that tiles still does if what comes covers exactly what goes.
    fn still_tiles_with(&self, fresh: &[&RangeDescriptor]) -> bool {
        let ids: HashSet<_> = fresh.iter().map(|d| d.id).collect();
        if ids.len() < fresh.len() {
            return false;
        }
        let known = fresh.iter().filter_map(|d| self.get(d.id)).map(|d| &d.span);
        let gone = if self.is_empty() { Some(vec![KeyRange::all()]) } else { runs(known) };
        let come = runs(fresh.iter().map(|d| &d.span));
        come.is_some() && come == gone
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
    /// What `apply` promises, decided by looking at the whole map.
    fn apply_checking_all(map: &RangeMap, changed: &[RangeDescriptor]) -> Option<RangeMap> {
        let is_fresh = |d: &&RangeDescriptor| {
            map.get(d.id).is_none_or(|known| d.epoch.is_newer_than(known.epoch))
        };
        let fresh: Vec<_> = changed.iter().filter(is_fresh).collect();
        let mut next = map.clone();
        fresh.iter().for_each(|d| next.remove(d.id));
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
