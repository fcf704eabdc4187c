//! Every metric of every process: its type and what it means.
//!
//! Names follow the rules that `promtool check metrics` checks: units are base units and stand at the end
//! (`_seconds`, `_bytes`), counters end with `_total`. `crates/testkit/tests/metrics.rs` finds a metric that
//! is recorded and does not stand here.

use Kind::{Counter, Gauge, Histogram};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

const METRICS: &[(Kind, &str, &str)] = &[
    // Of every process.
    (Gauge, "isotherm_build_info", "1, with the version of the software"),
    (Gauge, "isotherm_disk_free_bytes", "Free space of the file system of the data directory"),
    (Gauge, "isotherm_disk_stalled", "1 while a write to the disk hangs, otherwise 0"),
    (
        Counter,
        "isotherm_connections_refused_total",
        "Connections refused because there were too many",
    ),
    // Links between processes.
    (Gauge, "isotherm_link_inbound_bytes", "Bytes received on links that were not taken yet"),
    (Gauge, "isotherm_link_queued_bytes", "Bytes that wait to be sent on links"),
    (
        Counter,
        "isotherm_link_calls_refused_total",
        "Calls refused because too many were being answered",
    ),
    (Counter, "isotherm_link_calls_late_total", "Calls that were not answered by their deadline"),
    (Counter, "isotherm_link_streams_broken_total", "Streams on links that ended with an error"),
    (Counter, "isotherm_link_frames_total", "Frames sent on links"),
    (Counter, "isotherm_link_messages_total", "Messages sent on links, each of one or more frames"),
    // Storage.
    (Counter, "isotherm_log_appends_total", "Log records written, of all groups"),
    (Counter, "isotherm_log_append_bytes_total", "Bytes of log records written"),
    (Counter, "isotherm_log_syncs_total", "Syncs of the log"),
    (Histogram, "isotherm_log_sync_seconds", "Time of one write of the log and its sync"),
    (Gauge, "isotherm_log_queue_bytes", "Bytes handed to the log and not written yet"),
    (Counter, "isotherm_data_flushes_total", "Flushes of the data database"),
    (Histogram, "isotherm_data_flush_seconds", "Time of one flush of the data database"),
    (
        Counter,
        "isotherm_data_collected_rows_total",
        "Older versions and tombstones that compactions dropped",
    ),
    (
        Counter,
        "isotherm_data_collected_bytes_total",
        "Bytes of dropped versions, before compression",
    ),
    (
        Gauge,
        "isotherm_data_memory_bytes",
        "Memory of the data database, by part: block_cache, block_cache_pinned, memtables, tables",
    ),
    (
        Counter,
        "isotherm_data_write_bytes_total",
        "Bytes of the batches written to the data database",
    ),
    // Replicas.
    (Gauge, "isotherm_replicas", "Replicas on this node"),
    (Gauge, "isotherm_leaders", "Replicas on this node that lead their range"),
    (Gauge, "isotherm_replicas_asleep", "Replicas of ranges that sleep because they are not used"),
    (Counter, "isotherm_replica_wakes_total", "Replicas that were woken, by reason"),
    (Counter, "isotherm_replica_rebuilds_total", "Starts of a consensus instance that had failed"),
    (Counter, "isotherm_replicas_damaged_total", "Replicas found to be damaged on disk"),
    (Counter, "isotherm_replicas_lost_total", "Replicas whose node lacks what it had acknowledged"),
    (Gauge, "isotherm_tombstones", "Records of replicas that were removed from this node"),
    (Counter, "isotherm_snapshots_installed_total", "Snapshots of ranges that were installed"),
    (Counter, "isotherm_snapshot_sent_bytes_total", "Bytes of snapshots sent to other nodes"),
    (
        Gauge,
        "isotherm_safe_point_timestamp_seconds",
        "Up to when history may be dropped, in Unix time",
    ),
    (Counter, "isotherm_collections_total", "Collections of history, one for each part of a range"),
    (Histogram, "isotherm_collection_seconds", "Time of one collection of history"),
    (
        Gauge,
        "isotherm_scrub_completed_timestamp_seconds",
        "When all replicas had last been read, in Unix time",
    ),
    (
        Gauge,
        "isotherm_scrub_damaged_replicas",
        "Damaged replicas that the last reading of all found",
    ),
    (Counter, "isotherm_scrub_bytes_total", "Bytes read to find damage"),
    (
        Gauge,
        "isotherm_remembered_results",
        "Results of writes that are remembered for clients that repeat them",
    ),
    // Requests to a node.
    (
        Counter,
        "isotherm_writes_refused_total",
        "Writes refused before they were proposed, by reason",
    ),
    (Counter, "isotherm_requests_refused_total", "Requests refused when they arrived, by reason"),
    (Counter, "isotherm_answers_refused_total", "Answers dropped for lack of memory"),
    (Gauge, "isotherm_request_bytes", "Memory that requests and their answers take"),
    (Gauge, "isotherm_request_limit_bytes", "Memory that requests and their answers may take"),
    (
        Counter,
        "isotherm_streams_given_up_total",
        "Streams of answers that ended because they were not read",
    ),
    (Counter, "isotherm_aggregates_total", "Aggregates begun"),
    (Gauge, "isotherm_aggregates_active", "Aggregates that are read at the moment"),
    (Counter, "isotherm_scanned_rows_total", "Rows read by aggregates"),
    (Counter, "isotherm_scanned_bytes_total", "Bytes of keys and values read by aggregates"),
    (Counter, "isotherm_timestamp_requests_total", "Requests for timestamps to the meta service"),
    (Counter, "isotherm_timestamps_total", "Timestamps requested"),
    (
        Histogram,
        "isotherm_timestamp_wait_seconds",
        "Time from a request for timestamps to its answer",
    ),
    // The meta service.
    (Gauge, "isotherm_meta_is_leader", "1 while this meta member leads, otherwise 0"),
    (Gauge, "isotherm_meta_ranges", "Ranges in the partition map"),
    (Gauge, "isotherm_meta_nodes", "Registered nodes"),
    (Gauge, "isotherm_meta_holds", "Long reads that hold history back"),
    (
        Gauge,
        "isotherm_meta_safe_point_timestamp_seconds",
        "Up to when history may be dropped, in Unix time",
    ),
    (Gauge, "isotherm_meta_reported_replicas", "Replicas that nodes have reported"),
    (Gauge, "isotherm_meta_reported_leaders", "Ranges whose leader is known"),
    (Gauge, "isotherm_meta_load_keys_bytes", "Bytes of the sampled keys of warm ranges"),
    (Counter, "isotherm_meta_timestamps_issued_total", "Timestamps issued"),
    (Counter, "isotherm_meta_oracle_rounds_total", "Quorum rounds that covered timestamps"),
    (
        Histogram,
        "isotherm_meta_oracle_seconds",
        "Time from the start of such a round until its timestamps were issued",
    ),
    (
        Histogram,
        "isotherm_scheduler_decide_seconds",
        "Time of one look of the scheduler at the cluster",
    ),
    (Counter, "isotherm_scheduler_decisions_total", "Actions that the scheduler decided, by rule"),
];

/// Tells the recorder what all of them mean.
pub(crate) fn describe() {
    for &(kind, name, help) in METRICS {
        match kind {
            Counter => metrics::describe_counter!(name, help),
            Gauge => metrics::describe_gauge!(name, help),
            Histogram => metrics::describe_histogram!(name, help),
        }
    }
}
