//! The names of this crate's metrics.

/// How long one look at the cluster takes the scheduler.
pub const DECIDE_SECONDS: &str = "isotherm_scheduler_decide_seconds";
/// Actions that the scheduler decided, by rule.
pub const DECISIONS: &str = "isotherm_scheduler_decisions_total";
/// Whether this member leads: 0 or 1.
pub const IS_LEADER: &str = "isotherm_meta_is_leader";
/// Ranges in the partition map.
pub const RANGES: &str = "isotherm_meta_ranges";
/// Registered nodes.
pub const NODES: &str = "isotherm_meta_nodes";
/// Long reads that are registered.
pub const HOLDS: &str = "isotherm_meta_holds";
/// Physical part of the safe point.
pub const SAFE_POINT_MS: &str = "isotherm_meta_safe_point_ms";
/// Timestamps handed out.
pub const TIMESTAMPS_ISSUED: &str = "isotherm_meta_timestamps_issued_total";
/// Quorum rounds that covered timestamps.
pub const ORACLE_ROUNDS: &str = "isotherm_meta_oracle_rounds_total";
/// From the start of such a round until its timestamps were issued.
pub const ORACLE_SECONDS: &str = "isotherm_meta_oracle_seconds";

/// Tells the recorder what they mean.
pub fn describe() {
    metrics::describe_histogram!(DECIDE_SECONDS, "Time of one look of the scheduler");
    metrics::describe_counter!(DECISIONS, "Actions that the scheduler decided, by rule");
    metrics::describe_gauge!(IS_LEADER, "Whether this meta member leads");
    metrics::describe_gauge!(RANGES, "Ranges in the partition map");
    metrics::describe_gauge!(NODES, "Registered nodes");
    metrics::describe_gauge!(HOLDS, "Long reads that hold history back");
    metrics::describe_gauge!(SAFE_POINT_MS, "Up to when history may be dropped, Unix time in ms");
    metrics::describe_counter!(TIMESTAMPS_ISSUED, "Timestamps handed out");
    metrics::describe_counter!(ORACLE_ROUNDS, "Quorum rounds that covered timestamps");
    metrics::describe_histogram!(
        ORACLE_SECONDS,
        metrics::Unit::Seconds,
        "From the start of a round of the oracle until its timestamps were issued"
    );
}
