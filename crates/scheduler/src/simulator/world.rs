//! What a simulated cluster starts with.

use crate::{Intent, Liveness, NodeView, RangeLoad, RangeView};
use isotherm_types::{Key, KeyRange, NodeId, RangeDescriptor, RangeId};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A cluster as it is put up.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Of which everything random comes.
    pub seed: u64,
    /// How many nodes.
    pub nodes: u64,
    /// How many ranges, of equal width.
    pub ranges: u64,
    /// How many replicas each range has.
    pub replicas: usize,
    /// What each node may use, in cores.
    pub capacity: f64,
    /// The first so many nodes lead everything; 0: leaders are spread evenly.
    pub led_by_first: u64,
    /// Bytes of each range.
    pub bytes: u64,
    /// Bytes per second of a move.
    pub bytes_per_second: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 1,
            nodes: 3,
            ranges: 24,
            replicas: 3,
            capacity: 1.0,
            led_by_first: 0,
            bytes: 10 << 20,
            bytes_per_second: 50 << 20,
        }
    }
}

impl Setup {
    /// A node that serves.
    pub(super) fn node(&self, id: u64) -> NodeView {
        NodeView {
            id: NodeId(id),
            liveness: Liveness::Up,
            intent: Intent::Active,
            labels: Arc::new(BTreeMap::new()),
            capacity_cores: self.capacity,
            load_cores: 0.0,
            disk_total_bytes: 1 << 40,
            disk_free_bytes: 1 << 40,
            is_read_only: false,
        }
    }

    /// The ranges, each led by its first replica.
    pub(super) fn ranges(&self) -> Vec<RangeView> {
        let width = u64::MAX / self.ranges;
        let bound = |n: u64| if n == 0 || n == self.ranges { Key::new() } else { key(n * width) };
        let first = if self.led_by_first == 0 { self.nodes } else { self.led_by_first };
        let range = |n: u64| {
            let leader = n % first + 1;
            // The others go around the nodes evenly, whoever leads.
            let mut nodes = vec![NodeId(leader)];
            let mut next = n * (self.replicas as u64 - 1);
            if self.led_by_first == 0 {
                next = leader;
            }
            while nodes.len() < self.replicas {
                let node = NodeId(next % self.nodes + 1);
                if !nodes.contains(&node) {
                    nodes.push(node);
                }
                next += 1;
            }
            let span = KeyRange::new(bound(n), bound(n + 1)).expect("ascending");
            let descriptor = RangeDescriptor::first(RangeId(n + 1), span, &nodes);
            RangeView {
                leader: Some(NodeId(leader)),
                live: descriptor.replicas.iter().map(|replica| replica.id).collect(),
                descriptor: Arc::new(descriptor),
                load: RangeLoad::default(),
                size_bytes: self.bytes,
                may_split: true,
                middle: None,
            }
        };
        (0..self.ranges).map(range).collect()
    }
}

/// The key with this number.
pub fn key(number: u64) -> Key {
    Key::copy_from_slice(&number.to_be_bytes())
}

/// The numbers of the keys in a span; the bound after a key is the next number.
pub(super) fn numbers(span: &KeyRange) -> Range<u64> {
    let number = |key: &Key| {
        let mut bytes = [0; 8];
        let taken = key.len().min(8);
        bytes[..taken].copy_from_slice(&key[..taken]);
        u64::from_be_bytes(bytes).saturating_add(u64::from(key.len() > 8))
    };
    let end = if span.end().is_empty() { u64::MAX } else { number(span.end()) };
    number(span.start())..end
}
