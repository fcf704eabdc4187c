//! How large each field and each message can be, for `docs/sizes.md` (`tests/sizes.rs`).
//!
//! A message is as large as its fields together. Fields of texts, bytes and lists are bounded by the code that
//! takes them in, or makes them, as the rows here say; without a row a field has no bound, and a test
//! fails. Where a message as a whole is smaller than its fields together, it has a row of its own.

use isotherm_types::limits::{
    ADDRESS_BYTES_MAX, BATCH_OPS_MAX, BOOTSTRAP_RANGES_MAX, BOUND_BYTES_MAX, DAMAGED_RANGES_MAX,
    ERROR_DESCRIPTORS_MAX, GET_MANY_KEYS_MAX, GONE_MAX, KEY_BYTES_MAX, LABEL_BYTES_MAX,
    LABELS_BYTES_MAX, LABELS_MAX, LISTED_BYTES_MAX, LOADS_BYTES_MAX, MEMBERS_MAX,
    MESSAGE_BYTES_MAX, NODES_MAX, OPERATIONS_LISTED_MAX, OUTCOME_BYTES_MAX, OUTCOMES_BYTES_MAX,
    PAYLOAD_BYTES_MAX, REMOVED_BYTES_MAX, REPLICAS_MAX, REPORTS_BYTES_MAX, REQUEST_BYTES_MAX,
    ROUTES_MAX, SAMPLE_BYTES_MAX, SCAN_PAGE_BYTES_MAX, SCAN_PAGE_KEYS_MAX, SETTING_BYTES_MAX,
    SPLIT_KEYS_MAX, TEXT_BYTES_MAX, VALUE_BYTES_MAX,
};

/// What bounds a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// A text, or bytes, of at most so many bytes.
    Bytes(usize),
    /// A list of so many things at most.
    Items(usize),
    /// A list of so many texts, each of so many bytes at most.
    Texts(usize, usize),
    /// A list that is cut by the bytes of what it lists, without their framing; one thing alone may
    /// have more.
    Cut(usize),
    /// A list, or a map, that has at most so many bytes on the wire.
    Within(usize),
}

use Bound::{Bytes, Cut, Items, Texts, Within};

/// Texts of a query: `crates/aggregate/src/query.rs`, `function.rs`.
const QUERY_TEXT: usize = 4 << 10;
/// `crates/aggregate/src/filter.rs`.
const FILTER_TEXT: usize = 16 << 10;
/// Functions in one pass: `crates/aggregate/src/function.rs`.
const FUNCTIONS_MAX: usize = 64;
/// Settings that there are, at most, and the text that explains one.
const SETTINGS_MAX: usize = 64;
const HELP_BYTES_MAX: usize = 512;
/// One of a few words.
const WORD: usize = 32;
/// Keys in a sample (`meta/src/registry/loads.rs`) and the framing and weight of each.
const SAMPLE_FRAMING: usize = 512 * 16;
/// A problem or a blocker names a process by its address, in one sentence.
const SENTENCE: usize = ADDRESS_BYTES_MAX + 256;
/// A first range: its keys are short (`meta/src/bootstrap.rs`), and it has at most nine replicas.
const SEED_BYTES: usize = 9 * 24 + 64;

/// Every field of a text, of bytes or of a list, with what bounds it and where.
pub const FIELDS: &[(&str, Bound, &str)] = &[
    ("isotherm.v1.GetRequest.key", Bytes(KEY_BYTES_MAX), "client/src/limits.rs"),
    ("isotherm.v1.GetResponse.value", Bytes(VALUE_BYTES_MAX), "a value that was written"),
    (
        "isotherm.v1.GetManyRequest.keys",
        Texts(GET_MANY_KEYS_MAX, KEY_BYTES_MAX),
        "node/src/service/kv.rs",
    ),
    ("isotherm.v1.GetManyResponse.values", Cut(1 << 20), "node/src/service/kv.rs"),
    ("isotherm.v1.PutRequest.key", Bytes(KEY_BYTES_MAX), "client/src/limits.rs"),
    ("isotherm.v1.PutRequest.value", Bytes(VALUE_BYTES_MAX), "client/src/limits.rs"),
    ("isotherm.v1.PutWrite.key", Bytes(KEY_BYTES_MAX), "client/src/limits.rs"),
    ("isotherm.v1.PutWrite.value", Bytes(VALUE_BYTES_MAX), "client/src/limits.rs"),
    ("isotherm.v1.DeleteRequest.key", Bytes(KEY_BYTES_MAX), "client/src/limits.rs"),
    ("isotherm.v1.DeleteWrite.key", Bytes(KEY_BYTES_MAX), "client/src/limits.rs"),
    ("isotherm.v1.IncrementRequest.key", Bytes(KEY_BYTES_MAX), "client/src/limits.rs"),
    ("isotherm.v1.IncrementWrite.key", Bytes(KEY_BYTES_MAX), "client/src/limits.rs"),
    ("isotherm.v1.CompareAndSetRequest.key", Bytes(KEY_BYTES_MAX), "client/src/limits.rs"),
    ("isotherm.v1.CompareAndSetRequest.expected", Bytes(REQUEST_BYTES_MAX), "client/src/limits.rs"),
    ("isotherm.v1.CompareAndSetRequest.value", Bytes(VALUE_BYTES_MAX), "client/src/limits.rs"),
    ("isotherm.v1.CompareAndSetWrite.key", Bytes(KEY_BYTES_MAX), "client/src/limits.rs"),
    ("isotherm.v1.CompareAndSetWrite.expected", Bytes(REQUEST_BYTES_MAX), "client/src/limits.rs"),
    ("isotherm.v1.CompareAndSetWrite.value", Bytes(VALUE_BYTES_MAX), "client/src/limits.rs"),
    ("isotherm.v1.PutRequest.request_id", Bytes(16), "node/src/service/kv_convert.rs"),
    ("isotherm.v1.DeleteRequest.request_id", Bytes(16), "node/src/service/kv_convert.rs"),
    ("isotherm.v1.CompareAndSetRequest.request_id", Bytes(16), "node/src/service/kv_convert.rs"),
    ("isotherm.v1.IncrementRequest.request_id", Bytes(16), "node/src/service/kv_convert.rs"),
    ("isotherm.v1.BatchRequest.request_id", Bytes(16), "node/src/service/kv_convert.rs"),
    (
        "isotherm.v1.CompareAndSetResponse.current",
        Bytes(VALUE_BYTES_MAX),
        "a value that was written",
    ),
    ("isotherm.v1.BatchRequest.writes", Items(BATCH_OPS_MAX), "client/src/limits.rs"),
    ("isotherm.v1.BatchResponse.outcomes", Items(BATCH_OPS_MAX), "one per write"),
    (
        "isotherm.v1.WriteFailure.message",
        Bytes(OUTCOME_BYTES_MAX),
        "node/src/service/kv_convert.rs",
    ),
    ("isotherm.v1.ScanRequest.start_key", Bytes(BOUND_BYTES_MAX), "node/src/service/kv_convert.rs"),
    ("isotherm.v1.ScanRequest.end_key", Bytes(BOUND_BYTES_MAX), "node/src/service/kv_convert.rs"),
    (
        "isotherm.v1.ScanPage.rows",
        Items(SCAN_PAGE_KEYS_MAX as usize),
        "crates/raftstore/src/replica/read.rs",
    ),
    ("isotherm.v1.ScanPage.resume_key", Bytes(BOUND_BYTES_MAX), "a bound of the span, or a key"),
    ("isotherm.v1.KeyValue.key", Bytes(KEY_BYTES_MAX), "a key that was written"),
    ("isotherm.v1.KeyValue.value", Bytes(VALUE_BYTES_MAX), "a value that was written"),
    (
        "isotherm.v1.AggregateRequest.start_key",
        Bytes(BOUND_BYTES_MAX),
        "node/src/service/kv_convert.rs",
    ),
    (
        "isotherm.v1.AggregateRequest.end_key",
        Bytes(BOUND_BYTES_MAX),
        "node/src/service/kv_convert.rs",
    ),
    (
        "isotherm.v1.AggregateRequest.figures",
        Within(3 * QUERY_TEXT),
        "crates/aggregate/src/function.rs",
    ),
    ("isotherm.v1.AggregateRequest.value", Bytes(QUERY_TEXT), "crates/aggregate/src/query.rs"),
    ("isotherm.v1.AggregateRequest.filter", Bytes(FILTER_TEXT), "crates/aggregate/src/filter.rs"),
    (
        "isotherm.v1.AggregateRequest.group_by",
        Texts(1, QUERY_TEXT),
        "node/src/service/kv_convert.rs",
    ),
    ("isotherm.v1.AggregateGroups.groups", Cut(1 << 20), "node/src/service/groups.rs"),
    ("isotherm.v1.AggregateGroup.name", Bytes(VALUE_BYTES_MAX), "a part of a key or value"),
    (
        "isotherm.v1.AggregateGroup.figures",
        Items(FUNCTIONS_MAX),
        "crates/aggregate/src/function.rs",
    ),
    ("isotherm.v1.AggregateFigure.name", Bytes(WORD), "crates/aggregate/src/function.rs"),
    ("isotherm.v1.AggregateFigure.digits", Bytes(1024), "the digits of a sum"),
    ("isotherm.internal.v1.KeyRange.start", Bytes(BOUND_BYTES_MAX), "node/src/service/convert.rs"),
    ("isotherm.internal.v1.KeyRange.end", Bytes(BOUND_BYTES_MAX), "node/src/service/convert.rs"),
    (
        "isotherm.internal.v1.Descriptor.replicas",
        Items(REPLICAS_MAX),
        "crates/proto/src/convert.rs",
    ),
    ("isotherm.internal.v1.Error.message", Bytes(TEXT_BYTES_MAX), "crates/proto/src/error.rs"),
    (
        "isotherm.internal.v1.Error.descriptors",
        Items(ERROR_DESCRIPTORS_MAX),
        "crates/proto/src/error.rs",
    ),
    (
        "isotherm.internal.v1.RangeRequests.requests",
        Cut(512 << 10),
        "crates/transport/src/gather.rs",
    ),
    (
        "isotherm.internal.v1.RangeResponses.responses",
        Cut(1 << 20),
        "node/src/service/range_stream.rs",
    ),
    (
        "isotherm.internal.v1.CasRemove.expected",
        Bytes(REQUEST_BYTES_MAX),
        "node/src/service/convert.rs",
    ),
    ("isotherm.internal.v1.ReadPoint.key", Bytes(KEY_BYTES_MAX), "node/src/service/convert.rs"),
    ("isotherm.internal.v1.PointResult.value", Bytes(VALUE_BYTES_MAX), "a value that was written"),
    (
        "isotherm.internal.v1.PageResult.rows",
        Items(SCAN_PAGE_KEYS_MAX as usize),
        "crates/raftstore/src/replica/read.rs",
    ),
    ("isotherm.internal.v1.Row.key", Bytes(KEY_BYTES_MAX), "a key that was written"),
    ("isotherm.internal.v1.Row.value", Bytes(VALUE_BYTES_MAX), "a value that was written"),
    (
        "isotherm.internal.v1.AggregateQuery.functions",
        Bytes(QUERY_TEXT),
        "crates/aggregate/src/function.rs",
    ),
    (
        "isotherm.internal.v1.AggregateQuery.value",
        Bytes(QUERY_TEXT),
        "crates/aggregate/src/query.rs",
    ),
    (
        "isotherm.internal.v1.AggregateQuery.filter",
        Bytes(FILTER_TEXT),
        "crates/aggregate/src/filter.rs",
    ),
    (
        "isotherm.internal.v1.AggregateQuery.group_by",
        Bytes(QUERY_TEXT),
        "crates/aggregate/src/query.rs",
    ),
    (
        "isotherm.internal.v1.AggregateRequest.parts",
        Cut(4 << 20),
        "client/src/operation/coordinator.rs",
    ),
    (
        "isotherm.internal.v1.AggregateResponse.covered",
        Cut(8 << 20),
        "node/src/service/aggregate_answer.rs",
    ),
    (
        "isotherm.internal.v1.AggregateResponse.partial",
        Bytes(4 << 20),
        "node/src/service/aggregate_answer.rs",
    ),
    (
        "isotherm.internal.v1.AggregateResponse.refusals",
        Cut(8 << 20),
        "node/src/service/aggregate_answer.rs",
    ),
    (
        "isotherm.internal.v1.AggregateResponse.work",
        Cut(8 << 20),
        "node/src/service/aggregate_answer.rs",
    ),
    ("isotherm.internal.v1.WriteBatch.ops", Items(BATCH_OPS_MAX), "node/src/service/convert.rs"),
    (
        "isotherm.internal.v1.NumberedBatch.numbers",
        Items(BATCH_OPS_MAX),
        "node/src/service/convert.rs",
    ),
    ("isotherm.internal.v1.WriteOp.key", Bytes(KEY_BYTES_MAX), "node/src/service/convert.rs"),
    ("isotherm.internal.v1.WriteOp.put", Bytes(VALUE_BYTES_MAX), "node/src/service/convert.rs"),
    ("isotherm.internal.v1.Cas.expected", Bytes(REQUEST_BYTES_MAX), "node/src/service/convert.rs"),
    ("isotherm.internal.v1.Cas.value", Bytes(VALUE_BYTES_MAX), "node/src/service/convert.rs"),
    ("isotherm.internal.v1.WriteBatchResult.results", Items(BATCH_OPS_MAX), "one per operation"),
    (
        "isotherm.internal.v1.OpResult.refused",
        Bytes(WORD + 32),
        "crates/raftstore/src/command/write.rs",
    ),
    ("isotherm.internal.v1.CasResult.current", Bytes(VALUE_BYTES_MAX), "a value that was written"),
    (
        "isotherm.internal.v1.SplitRangeRequest.keys",
        Texts(SPLIT_KEYS_MAX, KEY_BYTES_MAX),
        "node/src/service/range.rs",
    ),
    (
        "isotherm.internal.v1.SplitRangeResponse.descriptors",
        Items(SPLIT_KEYS_MAX + 1),
        "parent and children",
    ),
    (
        "isotherm.internal.v1.ListReplicasResponse.replicas",
        Cut(LISTED_BYTES_MAX),
        "node/src/service/range.rs",
    ),
    (
        "isotherm.internal.v1.ListRoutesResponse.ranges",
        Items(ROUTES_MAX),
        "node/src/service/routes.rs",
    ),
    (
        "isotherm.internal.v1.ListRoutesResponse.nodes",
        Items(NODES_MAX + 1),
        "meta/src/service/register.rs",
    ),
    (
        "isotherm.internal.v1.ListOperationsResponse.operations",
        Items(OPERATIONS_LISTED_MAX),
        "meta/src/service/operations.rs",
    ),
    ("isotherm.internal.v1.Operation.kind", Bytes(WORD), "one of a few words"),
    ("isotherm.internal.v1.Operation.state", Bytes(WORD), "one of a few words"),
    (
        "isotherm.internal.v1.Operation.reason",
        Bytes(TEXT_BYTES_MAX),
        "meta/src/service/operations.rs",
    ),
    ("isotherm.internal.v1.Operation.step", Bytes(TEXT_BYTES_MAX), "meta/src/operations/driver.rs"),
    ("isotherm.internal.v1.KeySample.key", Bytes(KEY_BYTES_MAX), "a key that was used"),
    (
        "isotherm.internal.v1.RangeLoad.sample",
        Within(SAMPLE_BYTES_MAX + SAMPLE_FRAMING),
        "node/src/loads.rs, meta/src/registry/loads.rs",
    ),
    ("isotherm.internal.v1.RangeLoad.middle", Bytes(KEY_BYTES_MAX), "a key that was written"),
    (
        "isotherm.internal.v1.ExplainRangeResponse.decisions",
        Items(64),
        "meta/src/scheduling/journal.rs, meta/src/service/heat.rs",
    ),
    ("isotherm.internal.v1.Decision.rule", Bytes(WORD), "one of a few words"),
    ("isotherm.internal.v1.Decision.action", Bytes(TEXT_BYTES_MAX), "meta/src/service/heat.rs"),
    ("isotherm.internal.v1.Decision.reason", Bytes(TEXT_BYTES_MAX), "meta/src/service/heat.rs"),
    ("isotherm.internal.v1.Decision.outcome", Bytes(TEXT_BYTES_MAX), "meta/src/service/heat.rs"),
    ("isotherm.internal.v1.HotResponse.ranges", Cut(LISTED_BYTES_MAX), "meta/src/service/heat.rs"),
    ("isotherm.internal.v1.HotRange.start", Bytes(KEY_BYTES_MAX), "a bound of a range"),
    ("isotherm.internal.v1.HotRange.end", Bytes(KEY_BYTES_MAX), "a bound of a range"),
    ("isotherm.internal.v1.SetIntentRequest.intent", Bytes(WORD), "meta/src/service/heat.rs"),
    (
        "isotherm.internal.v1.UpgradeStatusResponse.processes",
        Items(NODES_MAX + MEMBERS_MAX),
        "meta/src/service/register.rs, meta/src/config.rs",
    ),
    (
        "isotherm.internal.v1.UpgradeStatusResponse.blockers",
        Texts(NODES_MAX + MEMBERS_MAX + 1, SENTENCE),
        "one per process",
    ),
    ("isotherm.internal.v1.ProcessVersion.kind", Bytes(WORD), "one of a few words"),
    (
        "isotherm.internal.v1.ProcessVersion.address",
        Bytes(ADDRESS_BYTES_MAX),
        "meta/src/service/register.rs, meta/src/config.rs",
    ),
    (
        "isotherm.internal.v1.ProcessVersion.software",
        Bytes(LABEL_BYTES_MAX),
        "meta/src/service/register.rs, meta/src/service/upgrade.rs",
    ),
    ("isotherm.internal.v1.MembersResponse.members", Items(MEMBERS_MAX), "meta/src/config.rs"),
    (
        "isotherm.internal.v1.MembersResponse.software",
        Bytes(LABEL_BYTES_MAX),
        "the version of a build",
    ),
    ("isotherm.internal.v1.Member.address", Bytes(ADDRESS_BYTES_MAX), "meta/src/config.rs"),
    (
        "isotherm.internal.v1.RegisterNodeRequest.address",
        Bytes(ADDRESS_BYTES_MAX),
        "meta/src/service/register.rs",
    ),
    (
        "isotherm.internal.v1.RegisterNodeRequest.http_address",
        Bytes(ADDRESS_BYTES_MAX),
        "meta/src/service/register.rs",
    ),
    (
        "isotherm.internal.v1.RegisterNodeRequest.labels",
        Within(LABELS_BYTES_MAX + LABELS_MAX * 10),
        "meta/src/service/register.rs",
    ),
    (
        "isotherm.internal.v1.RegisterNodeRequest.version",
        Bytes(LABEL_BYTES_MAX),
        "meta/src/service/register.rs",
    ),
    (
        "isotherm.internal.v1.HeartbeatRequest.address",
        Bytes(ADDRESS_BYTES_MAX),
        "meta/src/service/register.rs",
    ),
    (
        "isotherm.internal.v1.HeartbeatRequest.reports",
        Cut(REPORTS_BYTES_MAX),
        "node/src/heartbeat.rs",
    ),
    ("isotherm.internal.v1.HeartbeatRequest.gone", Items(GONE_MAX), "node/src/heartbeat.rs"),
    (
        "isotherm.internal.v1.HeartbeatRequest.damaged_ranges",
        Items(DAMAGED_RANGES_MAX),
        "node/src/heartbeat.rs",
    ),
    (
        "isotherm.internal.v1.ReportDamageRequest.what",
        Bytes(TEXT_BYTES_MAX),
        "crates/storage/src/dir/damage.rs",
    ),
    ("isotherm.internal.v1.HeartbeatRequest.loads", Cut(LOADS_BYTES_MAX), "node/src/loads.rs"),
    (
        "isotherm.internal.v1.RangeReport.split_children",
        Items(SPLIT_KEYS_MAX),
        "meta/src/service/heartbeat.rs",
    ),
    (
        "isotherm.internal.v1.RangeReport.live_replicas",
        Items(REPLICAS_MAX),
        "meta/src/service/heartbeat.rs",
    ),
    (
        "isotherm.internal.v1.HeartbeatResponse.seed",
        Within(BOOTSTRAP_RANGES_MAX * SEED_BYTES),
        "meta/src/config.rs, meta/src/bootstrap.rs",
    ),
    (
        "isotherm.internal.v1.HeartbeatResponse.nodes",
        Items(NODES_MAX),
        "meta/src/service/register.rs",
    ),
    (
        "isotherm.internal.v1.HeartbeatResponse.settings",
        Within(SETTINGS_MAX * (2 * SETTING_BYTES_MAX + 16)),
        "meta/src/settings.rs",
    ),
    (
        "isotherm.internal.v1.HeartbeatResponse.removed",
        Cut(REMOVED_BYTES_MAX),
        "meta/src/service/heartbeat.rs",
    ),
    (
        "isotherm.internal.v1.NodeAddress.address",
        Bytes(ADDRESS_BYTES_MAX),
        "meta/src/service/register.rs",
    ),
    (
        "isotherm.internal.v1.GetRangesResponse.ranges",
        Cut(LISTED_BYTES_MAX),
        "meta/src/service/ranges.rs",
    ),
    (
        "isotherm.internal.v1.GetRangesResponse.nodes",
        Items(NODES_MAX),
        "meta/src/service/register.rs",
    ),
    (
        "isotherm.internal.v1.RangeLocation.live_replicas",
        Items(REPLICAS_MAX),
        "meta/src/service/heartbeat.rs",
    ),
    (
        "isotherm.internal.v1.ListNodesResponse.nodes",
        Items(NODES_MAX),
        "meta/src/service/register.rs",
    ),
    (
        "isotherm.internal.v1.NodeStatus.address",
        Bytes(ADDRESS_BYTES_MAX),
        "meta/src/service/register.rs",
    ),
    (
        "isotherm.internal.v1.NodeStatus.http_address",
        Bytes(ADDRESS_BYTES_MAX),
        "meta/src/service/register.rs",
    ),
    ("isotherm.internal.v1.NodeStatus.state", Bytes(WORD), "one of a few words"),
    (
        "isotherm.internal.v1.NodeStatus.labels",
        Within(LABELS_BYTES_MAX + LABELS_MAX * 10),
        "meta/src/service/register.rs",
    ),
    (
        "isotherm.internal.v1.NodeStatus.version",
        Bytes(LABEL_BYTES_MAX),
        "meta/src/service/register.rs",
    ),
    ("isotherm.internal.v1.NodeStatus.intent", Bytes(WORD), "one of a few words"),
    (
        "isotherm.internal.v1.GetSettingsResponse.settings",
        Items(SETTINGS_MAX),
        "meta/src/settings.rs",
    ),
    ("isotherm.internal.v1.Setting.name", Bytes(SETTING_BYTES_MAX), "meta/src/settings.rs"),
    ("isotherm.internal.v1.Setting.value", Bytes(SETTING_BYTES_MAX), "meta/src/settings.rs"),
    (
        "isotherm.internal.v1.Setting.default_value",
        Bytes(SETTING_BYTES_MAX),
        "meta/src/settings.rs",
    ),
    ("isotherm.internal.v1.Setting.help", Bytes(HELP_BYTES_MAX), "meta/src/settings.rs"),
    (
        "isotherm.internal.v1.SetSettingRequest.name",
        Bytes(SETTING_BYTES_MAX),
        "meta/src/settings.rs",
    ),
    (
        "isotherm.internal.v1.SetSettingRequest.value",
        Bytes(SETTING_BYTES_MAX),
        "meta/src/settings.rs",
    ),
    (
        "isotherm.internal.v1.StatusResponse.problems",
        Within((NODES_MAX + 128) * SENTENCE),
        "one sentence per node, and few more: meta/src/service/status.rs",
    ),
    ("isotherm.internal.v1.StatusResponse.members", Items(MEMBERS_MAX), "meta/src/config.rs"),
    ("isotherm.internal.v1.StatusResponse.nodes", Items(NODES_MAX), "meta/src/service/register.rs"),
    ("isotherm.internal.v1.Frames.frames", Cut(512 << 10), "crates/transport/src/gather.rs"),
    (
        "isotherm.internal.v1.Frame.payload",
        Bytes(PAYLOAD_BYTES_MAX),
        "crates/transport/src/link.rs",
    ),
    (
        "isotherm.internal.v1.SnapshotChunk.payload",
        Bytes(PAYLOAD_BYTES_MAX),
        "crates/transport/src/link.rs",
    ),
    (
        "isotherm.internal.v1.SnapshotAnswer.payload",
        Bytes(64),
        "a vote: crates/raftstore/src/replica/stage_snapshot.rs",
    ),
];

/// Framing of one operation in a batch: tags, lengths and what is not keys and values.
const OP_FRAMING: usize = 40;
/// A request that writes: keys and values, with the framing of every operation.
const WRITES: usize = REQUEST_BYTES_MAX + BATCH_OPS_MAX * OP_FRAMING;
/// One write alone.
const ONE_WRITE: usize = REQUEST_BYTES_MAX + OP_FRAMING;
/// Rows of a page: the last one begins below the limit of a page. Per row two lengths and a timestamp.
const PAGE: usize =
    SCAN_PAGE_BYTES_MAX + KEY_BYTES_MAX + VALUE_BYTES_MAX + SCAN_PAGE_KEYS_MAX as usize * 32;
/// A descriptor of a range, whose bounds are keys.
const DESCRIPTOR: usize = 2 * (KEY_BYTES_MAX + 3) + REPLICAS_MAX * 26 + 64;

/// Every message that as a whole is smaller than its fields together, with its size and why.
pub const WHOLE: &[(&str, usize, &str)] = &[
    (
        "isotherm.v1.CompareAndSetWrite",
        ONE_WRITE,
        "it is a part of a request: client/src/limits.rs",
    ),
    (
        "isotherm.v1.CompareAndSetRequest",
        ONE_WRITE + 40,
        "key, expected and new value are one request: client/src/limits.rs",
    ),
    ("isotherm.v1.BatchRequest", WRITES + 32, "keys and values together: client/src/limits.rs"),
    (
        "isotherm.v1.BatchResponse",
        OUTCOMES_BYTES_MAX + BATCH_OPS_MAX * OP_FRAMING,
        "values and texts together, in results of 40 B: node/src/service/kv_convert.rs",
    ),
    ("isotherm.v1.ScanPage", PAGE, "pages are cut by bytes: crates/raftstore/src/replica/read.rs"),
    (
        "isotherm.internal.v1.Descriptor",
        DESCRIPTOR,
        "its bounds are keys: crates/proto/src/convert.rs",
    ),
    (
        "isotherm.internal.v1.RangeLocation",
        DESCRIPTOR + REPLICAS_MAX * 10 + KEY_BYTES_MAX + 256,
        "its load is without keys: meta/src/service/ranges.rs",
    ),
    (
        "isotherm.internal.v1.Cas",
        ONE_WRITE,
        "it is a part of a request: node/src/service/convert.rs",
    ),
    (
        "isotherm.internal.v1.WriteOp",
        ONE_WRITE + 8,
        "it is a part of a request: node/src/service/convert.rs",
    ),
    (
        "isotherm.internal.v1.WriteBatch",
        WRITES,
        "keys and values together: node/src/service/convert.rs",
    ),
    (
        "isotherm.internal.v1.WriteBatchResult",
        MESSAGE_BYTES_MAX - 2048,
        "refused beyond it: node/src/service/range_stream.rs; from cluster version 3 on at most 4 MiB of values: crates/raftstore/src/replica/bounds.rs",
    ),
    (
        "isotherm.internal.v1.PageResult",
        PAGE + 2 * BOUND_BYTES_MAX + 64,
        "pages are cut by bytes: crates/raftstore/src/replica/read.rs",
    ),
    (
        "isotherm.internal.v1.AggregateResponse",
        MESSAGE_BYTES_MAX,
        "4 MiB of partials, and what was gathered until 8 MiB: node/src/service/aggregate_answer.rs",
    ),
];
