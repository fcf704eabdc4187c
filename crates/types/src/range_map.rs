//! The partition map: descriptors that tile the whole key space, with no hole and no overlap.

use crate::{Key, KeyRange, RangeDescriptor, RangeId};
use std::collections::{BTreeMap, HashMap};
use thiserror::Error;

/// The copy of all descriptors that meta keeps.
///
/// Invariant (checked by [`RangeMap::check_tiling`]): once bootstrapped, the spans tile the key space after
/// every change. A change therefore replaces a set of ranges by another set over the same span.
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

    /// Replaces what the map knows by `changed`, as one change.
    ///
    /// Every descriptor must be newer than what the map holds under its id (a stale one fails the whole
    /// change only if all are stale), and afterwards the map must still tile the key space.
    /// On an error the map is unchanged.
    pub fn apply(&mut self, changed: &[RangeDescriptor]) -> Result<(), RangeMapError> {
        let fresh: Vec<_> = changed
            .iter()
            .filter(|d| self.get(d.id).is_none_or(|known| d.epoch.is_newer_than(known.epoch)))
            .collect();
        let Some(first) = fresh.first() else {
            let range = changed.first().map_or(RangeId::META, |d| d.id);
            return Err(RangeMapError::Stale { range });
        };
        let mut next = self.clone();
        for d in &fresh {
            next.remove(d.id);
        }
        for d in &fresh {
            if next.by_start.contains_key(d.span.start()) {
                return Err(RangeMapError::NoTiling { range: d.id, span: d.span.clone() });
            }
            next.insert((*d).clone());
        }
        if !next.tiles() {
            return Err(RangeMapError::NoTiling { range: first.id, span: first.span.clone() });
        }
        *self = next;
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NodeId, RangeEpoch};

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
    fn a_stale_descriptor_is_rejected() {
        let mut map = RangeMap::default();
        map.apply(&[range(1, "", "", 2)]).expect("bootstrap");
        assert!(matches!(map.apply(&[range(1, "", "", 1)]), Err(RangeMapError::Stale { .. })));
    }
}
