//! Names of this crate's metrics.

/// Log records handed to the database, all groups.
pub(crate) const LOG_APPENDS: &str = "isotherm_log_appends_total";
/// Bytes of those records.
pub(crate) const LOG_BYTES: &str = "isotherm_log_append_bytes_total";
/// Syncs of the log: appends per sync is what group commit gains.
pub(crate) const LOG_SYNCS: &str = "isotherm_log_syncs_total";
/// How long one write and its sync took.
pub(crate) const LOG_SYNC_SECONDS: &str = "isotherm_log_sync_seconds";
/// Bytes submitted to the log and not written yet.
pub(crate) const LOG_QUEUE_BYTES: &str = "isotherm_log_queue_bytes";
/// Flushes of the data engine.
pub(crate) const DATA_FLUSHES: &str = "isotherm_data_flushes_total";
/// How long one flush took.
pub(crate) const DATA_FLUSH_SECONDS: &str = "isotherm_data_flush_seconds";
/// Older versions and tombstones that compactions left out.
pub(crate) const DATA_COLLECTED_ROWS: &str = "isotherm_data_collected_rows_total";
/// Bytes of those, before compression.
pub(crate) const DATA_COLLECTED_BYTES: &str = "isotherm_data_collected_bytes_total";
/// Memory of the data engine, by what it is for.
pub(crate) const DATA_MEMORY_BYTES: &str = "isotherm_data_memory_bytes";
/// Bytes of the batches written to the data engine.
pub(crate) const DATA_WRITE_BYTES: &str = "isotherm_data_write_bytes_total";
