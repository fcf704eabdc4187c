//! Reported descriptors that the map does not have yet.
//!
//! A split reaches meta in pieces, from several nodes and in any order; a merge as one descriptor that
//! is wider than before, or in pieces too if a split followed before meta heard of either. The pool
//! holds the newest descriptor of each range until pieces are together that cover exactly what the
//! map holds under other bounds; those then enter the map as one change. A piece alone is held, not
//! an error. What a newer descriptor supersedes is dropped: its range was absorbed.

use isotherm_types::limits::META_COMMAND_BYTES_MAX;
use isotherm_types::{Key, RangeDescriptor, RangeId, RangeMap};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Most changes in one command, and bytes of their descriptors together, about: what does not fit is for the
/// next one.
const CHANGES_MAX: usize = 1000;
const CHANGES_BYTES_MAX: usize = META_COMMAND_BYTES_MAX / 2;
/// Bytes of one change that fits into a command: descriptors that replace each other are taken as a whole.
const CHANGE_BYTES_MAX: usize = META_COMMAND_BYTES_MAX - 1024;
/// Most descriptors that are held: far above what a cluster splits at once. Beyond it what comes is
/// dropped; the next leader asks for it again.
const HELD_MAX: usize = 100_000;

/// Descriptors newer than the map's.
#[derive(Debug, Default)]
pub struct Pool {
    held: HashMap<RangeId, RangeDescriptor>,
}

impl Pool {
    /// Holds `d` if it is newer than what the map and the pool have; says whether it was.
    pub fn offer(&mut self, map: &RangeMap, d: RangeDescriptor) -> bool {
        let known = self.held.get(&d.id);
        let is_newer = known.is_none_or(|known| d.epoch.is_newer_than(known.epoch));
        let fits = known.is_some() || self.held.len() < HELD_MAX;
        let is_taken = is_newer && fits && map.is_news(&d);
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

    /// Forgets what the map has by now, and what something newer supersedes.
    pub fn prune(&mut self, map: &RangeMap) {
        let standing: HashSet<_> = self.standing(map).values().map(|d| d.id).collect();
        self.held.retain(|id, _| standing.contains(id));
    }

    /// What is held, is news to the map and is not superseded by something else that is held, by
    /// first key.
    fn standing(&self, map: &RangeMap) -> BTreeMap<&Key, &RangeDescriptor> {
        let mut held: Vec<_> = self.held.values().filter(|d| map.is_news(d)).collect();
        held.sort_by(|a, b| {
            // Of two that begin together the newer one first: it supersedes the other.
            let newest_first = b.epoch.version.cmp(&a.epoch.version).then(a.id.cmp(&b.id));
            a.span.start().cmp(b.span.start()).then(newest_first)
        });
        let mut standing = BTreeMap::new();
        // Those that began before the one that is looked at and reach over its first key.
        let mut open: Vec<&RangeDescriptor> = Vec::new();
        for d in held {
            open.retain(|before| before.span.is_before_end(d.span.start()));
            if !open.iter().any(|before| d.is_superseded_by(before)) {
                standing.entry(d.span.start()).or_insert(d);
            }
            open.push(d);
        }
        standing
    }

    /// The changes that the map can take now, each a set of descriptors that covers exactly what it
    /// replaces; no two concern the same keys.
    pub fn changes(&self, map: &RangeMap) -> Vec<Vec<RangeDescriptor>> {
        let standing = self.standing(map);
        let (mut changes, mut bytes) = (Vec::new(), 0);
        // Where the last change ends; none: at the end of the key space.
        let mut done_to = Some(Key::new());
        for (start, first) in &standing {
            let Some(after) = &done_to else { break };
            if *start < after || changes.len() == CHANGES_MAX {
                continue;
            }
            let Some(cover) = cover(map, first, &standing) else { continue };
            let size = cover.iter().map(|d| size_bytes(d)).sum::<usize>();
            if size > CHANGE_BYTES_MAX {
                let (range, pieces) = (cover[0].id, cover.len());
                tracing::error!(range_id = %range, pieces, bytes = size, "a change of the map is too large to be agreed on: what became of the range is not in the map");
                continue;
            }
            if bytes + size > CHANGES_BYTES_MAX && !changes.is_empty() {
                break;
            }
            bytes += size;
            let end = cover.last().expect("it has the first").span.end();
            done_to = (!end.is_empty()).then(|| end.clone());
            changes.push(cover.into_iter().cloned().collect());
        }
        changes
    }
}

/// Bytes of a descriptor in a command, at most.
fn size_bytes(d: &RangeDescriptor) -> usize {
    const NUMBER: usize = 9;
    let keys = d.span.start().len() + d.span.end().len();
    keys + 7 * NUMBER + d.replicas.len() * (2 * NUMBER + 1)
}

/// The fewest descriptors from `first` on, side by side, that begin and end where ranges of the map
/// do, and replace all of those between: each by its own successor or by what supersedes it.
fn cover<'a>(
    map: &'a RangeMap,
    first: &'a RangeDescriptor,
    standing: &BTreeMap<&Key, &'a RangeDescriptor>,
) -> Option<Vec<&'a RangeDescriptor>> {
    let mut old = map.locate(first.span.start())?;
    if old.span.start() != first.span.start() {
        return None;
    }
    let mut cover = vec![first];
    loop {
        let last = *cover.last()?;
        // The one of the map that begins within the last piece goes only if that one is newer.
        if last.span.contains(old.span.start()) && last.id != old.id && !old.is_superseded_by(last)
        {
            return None;
        }
        if last.span.end() == old.span.end() {
            return Some(cover);
        }
        if !old.span.end().is_empty() && last.span.is_before_end(old.span.end()) {
            old = map.locate(old.span.end())?;
        } else {
            cover.push(*standing.get(last.span.end())?);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::Command;
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

    /// A range between two keys of 4 KiB.
    fn long(id: u64, from: usize, to: usize, version: u64) -> RangeDescriptor {
        let key = |n: usize| format!("{n:04096}");
        let (start, end) = (if from == 0 { String::new() } else { key(from) }, key(to));
        range(id, &start, &end, version)
    }

    #[test]
    fn a_command_takes_as_many_changes_as_fit() {
        let count = 1200;
        let first: Vec<_> = (0..count)
            .map(|n| long(n as u64 + 1, n, n + 1, 1))
            .chain([range(9999, &format!("{count:04096}"), "", 1)])
            .collect();
        let mut map = RangeMap::default();
        map.apply(&first).unwrap();
        let mut pool = Pool::default();
        for n in 0..count {
            assert!(pool.offer(&map, long(n as u64 + 1, n, n + 1, 2)));
        }
        let mut taken = 0;
        while taken < count {
            let changes = pool.changes(&map);
            assert!(!changes.is_empty());
            taken += changes.len();
            let command = Command::TakeDescriptors { changes: changes.clone() }.encode();
            assert!(command.len() <= META_COMMAND_BYTES_MAX, "{} bytes", command.len());
            changes.iter().for_each(|change| map.apply(change).unwrap());
            pool.prune(&map);
        }
        assert_eq!(taken, count);
    }

    #[test]
    fn a_change_that_fits_into_no_command_does_not_hold_up_the_others() {
        let mut map = RangeMap::default();
        let end = 1100;
        let last = format!("{end:04096}");
        map.apply(&[long(1, 0, end, 1), range(2, &last, "", 1)]).unwrap();
        let mut pool = Pool::default();
        for n in 0..end {
            pool.offer(&map, long(if n == 0 { 1 } else { 100 + n as u64 }, n, n + 1, 2));
        }
        pool.offer(&map, range(2, &last, "", 2));
        let changes = pool.changes(&map);
        assert_eq!(changes.len(), 1, "not the one of 9 MB");
        assert_eq!(changes[0][0].id, RangeId(2));
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

    #[test]
    fn a_merge_is_one_descriptor_and_what_it_absorbed_is_not_held_any_more() {
        let (mut map, mut pool) = (map(), Pool::default());
        // As it froze, a membership change that the map lacks, heard of before the merge.
        let mut frozen = range(2, "m", "", 2);
        frozen.epoch.conf_ver = 2;
        assert!(pool.offer(&map, frozen.clone()));
        assert!(pool.offer(&map, range(1, "", "", 3)));
        let changes = pool.changes(&map);
        assert_eq!(changes, [[range(1, "", "", 3)]]);
        map.apply(&changes[0]).unwrap();
        assert!(!pool.offer(&map, frozen), "the map knows better");
        pool.prune(&map);
        assert!(pool.is_empty());
    }

    #[test]
    fn a_late_report_of_what_was_absorbed_is_dropped_for_the_newer_one_that_is_held() {
        let map = map();
        let (wide, frozen) = (range(1, "", "s", 4), range(2, "m", "", 2));
        for reports in [[&wide, &frozen], [&frozen, &wide]] {
            let mut pool = Pool::default();
            for report in reports {
                pool.offer(&map, report.clone());
            }
            assert!(pool.changes(&map).is_empty(), "the rest of the second is missing");
            pool.prune(&map);
            assert_eq!(pool.held.values().collect::<Vec<_>>(), [&wide]);
        }
    }

    #[test]
    fn a_merge_and_the_split_after_it_come_together() {
        let (mut map, mut pool) = (map(), Pool::default());
        pool.offer(&map, range(3, "s", "", 4));
        assert!(pool.changes(&map).is_empty());
        pool.offer(&map, range(1, "", "s", 4));
        let changes = pool.changes(&map);
        assert_eq!(changes, [[range(1, "", "s", 4), range(3, "s", "", 4)]]);
        map.apply(&changes[0]).unwrap();
        map.check_tiling();
        assert_eq!(map.get(RangeId(2)), None);
    }

    #[test]
    fn a_wider_range_that_is_not_newer_than_its_neighbour_does_not_enter() {
        let (map, mut pool) = (map(), Pool::default());
        let mut wider = range(1, "", "", 1);
        wider.epoch.conf_ver = 2;
        assert!(pool.offer(&map, wider));
        assert!(pool.changes(&map).is_empty());
    }

    /// Every descriptor that ranges had while they were split and merged as told, and the map then.
    fn lived(steps: &[(bool, String)]) -> (Vec<RangeDescriptor>, RangeMap) {
        let mut truth = map();
        let mut all = Vec::new();
        for (child, (merges, key)) in (10..).zip(steps) {
            let old = truth.locate(key.as_bytes()).unwrap().clone();
            let changed = if *merges {
                let right = truth.locate(old.span.end()).cloned();
                let Some(right) = right.filter(|_| !old.span.end().is_empty()) else { continue };
                let frozen = RangeDescriptor { epoch: right.epoch.next_version(), ..right };
                truth.apply(std::slice::from_ref(&frozen)).unwrap();
                let version = old.epoch.version.max(frozen.epoch.version) + 1;
                let (start, end) = (old.span.start().clone(), frozen.span.end().clone());
                let span = KeyRange::new(start, end).unwrap();
                all.push(frozen);
                let epoch = RangeEpoch { version, ..old.epoch };
                vec![RangeDescriptor { span, epoch, ..old }]
            } else {
                let Some(spans) = old.span.split_at(&[key.clone().into()]) else { continue };
                let epoch = old.epoch.next_version();
                let half = |id, span: &KeyRange| RangeDescriptor {
                    id,
                    span: span.clone(),
                    epoch,
                    ..old.clone()
                };
                vec![half(old.id, &spans[0]), half(RangeId(child), &spans[1])]
            };
            truth.apply(&changed).unwrap();
            truth.check_tiling();
            all.extend(changed);
        }
        (all, truth)
    }

    proptest! {
        /// Ranges are split and merged again and again; what nodes ever said of them arrives in any
        /// order, each alone, some of it twice and some only after it is long past.
        #[test]
        fn pieces_of_many_splits_and_merges_come_together_in_any_order(
            steps in prop::collection::vec((prop::bool::weighted(0.4), "[a-z]{1,2}"), 1..40),
            heard in 0..101u32, seed in any::<u64>(),
        ) {
            let (all, truth) = lived(&steps);
            let mut rng = fastrand::Rng::with_seed(seed);
            // What is past is heard of by chance, what holds at the end for certain.
            let mut reports: Vec<_> =
                all.into_iter().filter(|_| rng.u32(..100) < heard).chain(truth.iter().cloned()).collect();
            rng.shuffle(&mut reports);
            let (mut map, mut pool) = (map(), Pool::default());
            for report in reports {
                pool.offer(&map, report);
                loop {
                    pool.prune(&map);
                    let changes = pool.changes(&map);
                    if changes.is_empty() { break }
                    for change in changes {
                        map.apply(&change).unwrap();
                        map.check_tiling();
                    }
                }
            }
            prop_assert_eq!(map, truth);
            prop_assert!(pool.is_empty(), "{:?}", pool);
        }
    }
}
