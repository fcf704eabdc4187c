//! When something counts as hot, cold, large, dead or uneven.

/// The limits that rules go by; cluster settings, not constants.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Off: nothing is decided.
    pub enabled: bool,
    /// A range is hot above this many cores at its leader (or that share of what the node may use,
    /// if that is less than one core), over a second and over ten.
    pub hot_cores: f64,
    /// A range above this size is cut.
    pub split_bytes: u64,
    /// A range below this many cores at most, for `merge_after_ms`, is cold.
    pub cold_cores: f64,
    /// How long two neighbours must have been cold before they become one.
    pub merge_after_ms: u64,
    /// Neighbours that would be larger than this together stay two.
    pub merge_bytes: u64,
    /// Ranges are not merged below this number: that of the first ones.
    pub ranges_min: usize,
    /// A node that was silent this long is replaced.
    pub dead_after_ms: u64,
    /// How far from the mean a node's load may be, as a share of the mean.
    pub tolerance: f64,
    /// Replica moves at the same time, in and out of one node.
    pub moves_per_node: usize,
    /// After a change the load of a range is not believed for this long.
    pub settle_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            hot_cores: 0.25,
            split_bytes: 256 << 20,
            cold_cores: 0.01,
            merge_after_ms: 5 * 60 * 1000,
            merge_bytes: 64 << 20,
            ranges_min: 1,
            dead_after_ms: 5 * 60 * 1000,
            tolerance: 0.1,
            moves_per_node: 2,
            settle_ms: 3000,
        }
    }
}
