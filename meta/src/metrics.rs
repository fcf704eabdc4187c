//! The names of this crate's metrics; what they mean is told by `telemetry/catalogue.rs`.

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
pub const SAFE_POINT_SECONDS: &str = "isotherm_meta_safe_point_timestamp_seconds";
/// Timestamps handed out.
pub const TIMESTAMPS_ISSUED: &str = "isotherm_meta_timestamps_issued_total";
/// Quorum rounds that covered timestamps.
pub const ORACLE_ROUNDS: &str = "isotherm_meta_oracle_rounds_total";
/// From the start of such a round until its timestamps were issued.
pub const ORACLE_SECONDS: &str = "isotherm_meta_oracle_seconds";
