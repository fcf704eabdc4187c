//! The first ranges of a cluster: where the key space is cut, and which nodes hold what.

use crate::machine::Founding;
use isotherm_types::{Key, KeyRange, NodeId, RaftTiming};

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

/// The first ranges: their spans and the nodes of their replicas. Replicas go round the nodes, and
/// so does the first of each range.
pub fn plan(founding: &Founding, nodes: &[NodeId]) -> Vec<(KeyRange, Vec<NodeId>)> {
    let keys = split_keys(founding.ranges);
    let spans = KeyRange::all().split_at(&keys).expect("the keys ascend and none is empty");
    let replicas = founding.replicas.min(nodes.len());
    let holders = |i: usize| (0..replicas).map(|r| nodes[(i + r) % nodes.len()]).collect();
    spans.into_iter().enumerate().map(|(i, span)| (span, holders(i))).collect()
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
        let nodes: Vec<_> = (1..=5).map(NodeId).collect();
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
        assert!(nodes.iter().all(|n| first[n] == 10 && all[n] == 30));
    }

    #[test]
    fn fewer_nodes_than_replicas_get_one_each() {
        let planned = plan(&founding(4), &[NodeId(7)]);
        assert!(planned.iter().all(|(_, holders)| holders == &[NodeId(7)]));
    }

    #[test]
    fn many_replicas_per_node_relax_the_clocks() {
        assert_eq!(timing(3, 200, 3), RaftTiming::FAST);
        assert_eq!(timing(3, 201, 3), RaftTiming::RELAXED);
        assert_eq!(timing(10, 500, 3), RaftTiming::FAST);
    }
}
