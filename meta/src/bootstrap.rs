//! The first ranges of a cluster: where the key space is cut, and which nodes hold what.

use crate::machine::Founding;
use isotherm_types::{Key, KeyRange, NodeId, RaftTiming};
use std::collections::{BTreeMap, BTreeSet};

/// The printable characters of ASCII.
const FIRST: u8 = 0x20;
const CHARACTERS: usize = 0x7e - 0x20 + 1;
/// Above this many replicas per node the ranges run with fewer heartbeats.
const FAST_REPLICAS_PER_NODE_MAX: usize = 200;

/// The keys that cut the key space into `ranges` ranges: printable prefixes of two characters
/// (three, if there are not enough of those), evenly.
pub fn split_keys(ranges: usize) -> Vec<Key> {
    let mut len = 2;
    let mut prefixes = CHARACTERS * CHARACTERS;
    while prefixes < ranges {
        len += 1;
        prefixes *= CHARACTERS;
    }
    (1..ranges).map(|i| prefix(i * prefixes / ranges, len)).collect()
}

/// The `number`-th prefix of `len` characters.
fn prefix(mut number: usize, len: usize) -> Key {
    let mut key = vec![FIRST; len];
    for place in key.iter_mut().rev() {
        let character = u8::try_from(number % CHARACTERS).expect("there are 95 characters");
        *place = FIRST + character;
        number /= CHARACTERS;
    }
    key.into()
}

/// A node that ranges may be put on, and where it is.
pub type Candidate = (NodeId, BTreeMap<String, String>);

/// The first ranges: their spans and the nodes of their replicas. The first replica of each range
/// goes round the nodes; the others go where labels are least alike (the one with the fewest values
/// first, as the scheduler has it), then where the fewest are.
pub fn plan(founding: &Founding, nodes: &[Candidate]) -> Vec<(KeyRange, Vec<NodeId>)> {
    let keys = split_keys(founding.ranges);
    let spans = KeyRange::all().split_at(&keys).expect("the keys ascend and none is empty");
    let mut values: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
    for (name, value) in nodes.iter().flat_map(|(_, labels)| labels) {
        values.entry(name).or_default().insert(value);
    }
    let mut names: Vec<_> = values.keys().copied().collect();
    names.sort_by_key(|name| values[name].len());
    // Without labels going round is even, and exactly so. With them those to come count as well.
    let counts = !names.is_empty();
    let mut replicas_on = vec![0usize; nodes.len()];
    (0..spans.len()).for_each(|i| replicas_on[i % nodes.len()] += usize::from(counts));
    let mut place = |i: usize| -> Vec<NodeId> {
        let mut chosen = vec![i % nodes.len()];
        while chosen.len() < founding.replicas.min(nodes.len()) {
            let alike = |n: usize| -> Vec<usize> {
                let same = |name: &&String| {
                    let value = |n: usize| nodes[n].1.get(*name);
                    chosen.iter().filter(|&&c| value(c) == value(n)).count()
                };
                names.iter().map(same).collect()
            };
            let next = (0..nodes.len())
                .filter(|n| !chosen.contains(n))
                .min_by_key(|&n| {
                    (alike(n), replicas_on[n], (n + nodes.len() - i % nodes.len()) % nodes.len())
                })
                .expect("there are more nodes than replicas so far");
            chosen.push(next);
        }
        chosen[1..].iter().for_each(|&n| replicas_on[n] += usize::from(counts));
        chosen.into_iter().map(|n| nodes[n].0).collect()
    };
    spans.into_iter().enumerate().map(|(i, span)| (span, place(i))).collect()
}

/// The clocks of the ranges: how many replicas a node gets decides.
pub fn timing(nodes: usize, ranges: usize, replicas: usize) -> RaftTiming {
    let per_node = (ranges * replicas.min(nodes)).div_ceil(nodes.max(1));
    if per_node > FAST_REPLICAS_PER_NODE_MAX { RaftTiming::RELAXED } else { RaftTiming::FAST }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::HashMap;

    fn founding(ranges: usize) -> Founding {
        Founding { nodes: 3, ranges, replicas: 3 }
    }

    /// A node in each zone; `None`: without a label.
    fn in_zones(zones: &[Option<&str>]) -> Vec<Candidate> {
        let labels = |zone: &str| BTreeMap::from([("zone".to_owned(), zone.to_owned())]);
        let node =
            |(n, zone): (u64, &Option<&str>)| (NodeId(n), zone.map(labels).unwrap_or_default());
        (1..).zip(zones).map(node).collect()
    }

    #[test]
    fn replicas_are_in_different_zones_from_the_start() {
        let nodes = in_zones(&[Some("a"), Some("b"), Some("c"), Some("c"), Some("a")]);
        let zone = |n: &NodeId| nodes[(n.get() - 1) as usize].1["zone"].clone();
        for (_, holders) in plan(&founding(50), &nodes) {
            let zones: BTreeSet<_> = holders.iter().map(zone).collect();
            assert_eq!(zones.len(), 3, "{holders:?}");
        }
    }

    /// Nodes register in any order.
    #[test]
    fn nodes_of_one_zone_share_evenly() {
        for twin in 0..4 {
            for other in twin + 1..4 {
                let mut rest = ["a", "b"].into_iter();
                let zones: Vec<_> = (0..4)
                    .map(|n| if n == twin || n == other { Some("c") } else { rest.next() })
                    .collect();
                let mut counts = HashMap::<_, usize>::new();
                for (_, holders) in plan(&founding(8), &in_zones(&zones)) {
                    holders.into_iter().for_each(|n| *counts.entry(n).or_default() += 1);
                }
                let mut counts: Vec<_> = counts.into_values().collect();
                counts.sort_unstable();
                assert_eq!(counts, [4, 4, 8, 8], "{zones:?}");
            }
        }
    }

    #[test]
    fn any_number_of_ranges_tiles_the_key_space() {
        for ranges in (1..=500).chain([9_025, 9_026, 10_000]) {
            let keys = split_keys(ranges);
            assert_eq!(keys.len(), ranges - 1);
            assert!(keys.is_sorted_by(|a, b| a < b), "{ranges}");
            let printable = |key: &Key| key.iter().all(|c| (0x20..=0x7e).contains(c));
            assert!(keys.iter().all(printable), "{ranges}");
            assert!(KeyRange::all().split_at(&keys).is_some());
        }
        assert_eq!(split_keys(9_026)[0].len(), 3);
        assert_eq!(split_keys(9_025)[0].len(), 2);
    }

    #[test]
    fn replicas_are_spread_evenly_and_never_share_a_node() {
        let nodes = in_zones(&[None; 5]);
        let mut first = HashMap::<_, usize>::new();
        let mut all = HashMap::<_, usize>::new();
        for (_, holders) in plan(&founding(50), &nodes) {
            assert_eq!(holders.len(), 3);
            let mut distinct = holders.clone();
            distinct.sort();
            distinct.dedup();
            assert_eq!(distinct.len(), 3);
            *first.entry(holders[0]).or_default() += 1;
            holders.into_iter().for_each(|n| *all.entry(n).or_default() += 1);
        }
        assert!(nodes.iter().all(|(n, _)| first[n] == 10 && all[n] == 30), "{first:?} {all:?}");
    }

    #[test]
    fn fewer_nodes_than_replicas_get_one_each() {
        let planned = plan(&founding(4), &in_zones(&[None]));
        assert!(planned.iter().all(|(_, holders)| holders == &[NodeId(1)]));
    }

    #[test]
    fn many_replicas_per_node_relax_the_clocks() {
        assert_eq!(timing(3, 200, 3), RaftTiming::FAST);
        assert_eq!(timing(3, 201, 3), RaftTiming::RELAXED);
        assert_eq!(timing(10, 500, 3), RaftTiming::FAST);
    }
}
