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
    /// A range whose one-second average was above the threshold this long is hot, whatever the
    /// ten-second average has caught up with by then.
    pub hot_after_ms: u64,
    /// A hot range below this part of what the average node carries is not cut any further: that
    /// many hot pieces per node are enough to even nodes out. Bounds how many ranges heat makes.
    pub hot_pieces_per_node: f64,
    /// Differences between nodes below this share of a node's capacity are noise.
    pub noise: f64,
    /// Leaders handed over by one node at the same time, to even nodes out.
    pub transfers_per_node: usize,
    /// Splits under way at the same time, per node.
    pub splits_per_node: usize,
    /// Merges (and alignments for one) under way at the same time, in the cluster.
    pub merges_at_once: usize,
    /// A range does not go back to a node that it left, for this long, unless it must.
    pub return_after_ms: u64,
    /// A node whose disk is used above this share receives no replica.
    pub disk_full: f64,
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
            hot_after_ms: 2000,
            hot_pieces_per_node: 0.75,
            noise: 0.02,
            transfers_per_node: 8,
            splits_per_node: 2,
            merges_at_once: 4,
            return_after_ms: 60_000,
            disk_full: 0.95,
        }
    }
}
