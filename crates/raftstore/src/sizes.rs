//! Everything that this crate encodes, with its largest size: the rows of `docs/sizes.md`.
//!
//! The sizes follow from the limits of what is taken in. What is persisted by software before a limit was
//! there, or agreed on in a log, is read whatever its size.

use crate::command::Envelope;
use crate::entry_codec::{AppendHead, StoredVoters};
use crate::group::{Head, Saved};
use crate::network::CampaignOrder;
use crate::replica::{
    AppliedState, BeforeMerges, DedupRecord, DedupRow, InstallMarker, Preamble, REMEMBERED_OP_BYTES,
};
use crate::store::{CreationRecord, Ping, Refused, SLEEP_ORDERS_MAX, SleepOrders, Tombstone};
use crate::type_config::{
    AppendEntriesResponse, LogId, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, Vote, VoteRequest, VoteResponse,
};
use isotherm_storage::codec::{list_bytes, sized_bytes, uint_bytes};
use isotherm_types::limits::{
    BATCH_OPS_MAX, KEY_BYTES_MAX, MESSAGE_BYTES_MAX, REPLICAS_MAX, REQUEST_BYTES_MAX,
    SPLIT_KEYS_MAX,
};
use isotherm_types::{RangeDescriptor, Timestamp};

/// Whose list this is.
pub struct Raftstore;

/// Ranges whose results a range consults beside its own: those that it was split from, and that it absorbed,
/// within the time for which results are remembered.
pub(crate) const ORIGINS_MAX: usize = 4096;
/// Files of one staged snapshot, of rows and of remembered results each: 256 GiB at 16 MiB.
pub(crate) const STAGED_FILES_MAX: usize = 16 << 10;
/// Replicas that one snapshot may replace beside its own.
pub(crate) const SWALLOWED_MAX: usize = 1024;
/// Bytes of an agreed state that is kept in memory: it is one record on disk, and those have less than 4 GiB.
pub const STATE_BYTES_MAX: usize = 2 << 30;
/// Bytes of a path: `PATH_MAX` of Linux.
const PATH_BYTES_MAX: usize = 4096;
/// Slots of what is remembered: 4 s each, of a minute by default.
const SLOTS_MAX: usize = 64;

/// The version byte of the codec.
const VERSION: usize = 1;
/// A number of 64 bits, of 32 and of 16.
const U64: usize = uint_bytes(u64::MAX);
const U32: usize = uint_bytes(u32::MAX as u64);
const U16: usize = uint_bytes(u16::MAX as u64);

const LEADER_ID: usize = 2 * U64;
const LOG_ID: usize = LEADER_ID + U64;
const OPTION_LOG_ID: usize = 1 + LOG_ID;
const VOTE: usize = LEADER_ID + 1;
const SPAN: usize = 2 * sized_bytes(KEY_BYTES_MAX);
const EPOCH: usize = 2 * U64;
/// Bytes of a range's descriptor inside of another record.
pub const DESCRIPTOR: usize = U64 + SPAN + EPOCH + list_bytes(REPLICAS_MAX, 2 * U64 + 1) + U64;
const MEMBERSHIP: usize =
    list_bytes(2, list_bytes(REPLICAS_MAX, U64)) + list_bytes(REPLICAS_MAX, 2 * U64);
const STORED_MEMBERSHIP: usize = OPTION_LOG_ID + MEMBERSHIP;
/// openraft keeps the place of a text that it does not use any more.
const SNAPSHOT_META: usize = OPTION_LOG_ID + STORED_MEMBERSHIP + 1;
const MEMORY: usize = U64 + list_bytes(ORIGINS_MAX, 2 * U64) + list_bytes(SLOTS_MAX, U64 + U32);
const BEFORE_MERGES: usize = OPTION_LOG_ID + STORED_MEMBERSHIP + U64 + U16 + MEMORY;
const APPLIED: usize = BEFORE_MERGES + 1 + U64 + EPOCH + U64 + list_bytes(8, U64);
const HEADER: usize = DESCRIPTOR + APPLIED;

/// One operation beside its keys and values: its number, its kind and three lengths, one of them of an option.
const OP: usize = 1 + U32 + 1 + 3 + 1 + 5 + 5;
/// Identity and number of operations of one request.
const REQUEST: usize = 5 * U64 + 3;
/// Client writes: one large request, or as many small ones as make one entry.
const WRITES: usize = REQUEST_BYTES_MAX + BATCH_OPS_MAX * OP + list_bytes(64, REQUEST);
const SPLIT: usize = EPOCH
    + list_bytes(SPLIT_KEYS_MAX, sized_bytes(KEY_BYTES_MAX))
    + list_bytes(SPLIT_KEYS_MAX, U64 + list_bytes(REPLICAS_MAX, U64));
const fn larger(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}
const ENVELOPE: usize = VERSION + U16 + 3 * U64 + U32 + 1 + larger(WRITES, SPLIT);

/// What is remembered of one write beside its operations: session, number, timestamp, index.
const REMEMBERED_WRITE: usize = 4 * U64 + U32;
/// Of one entry: one request of many operations, each remembered by itself. Those of several requests are 64 at
/// most.
const DEDUP_ROW: usize =
    VERSION + list_bytes(BATCH_OPS_MAX, REMEMBERED_WRITE + 1 + REMEMBERED_OP_BYTES);
/// Until a chunk is full; the row that fills it may be a large one. The smallest has 45 bytes.
const DEDUP_CHUNK: usize = (256 << 10) + DEDUP_ROW + (256 << 10) / 40 * (2 * U64 + U32);

const SNAPSHOT_FILE: usize = 1 + sized_bytes(PATH_BYTES_MAX) + U64;
const STAGED: usize = HEADER
    + sized_bytes(PATH_BYTES_MAX)
    + list_bytes(STAGED_FILES_MAX, SNAPSHOT_FILE)
    + list_bytes(STAGED_FILES_MAX, sized_bytes(PATH_BYTES_MAX));
const INSTALL_MARKER: usize =
    VERSION + 1 + SPAN + STAGED + list_bytes(SWALLOWED_MAX, 2 * U64 + SPAN);

/// What is read of a state that has more origins than there should be: those of older software.
const MORE_ORIGINS: usize = 1 << 20;

isotherm_storage::records! {
    RECORDS of Raftstore:
    Envelope = ENVELOPE => usize::MAX,
        "a log entry of a range: a request (`node/src/service/convert.rs`) and its framing, checked before it is proposed (`replica/sequencer.rs`)";
    StoredVoters = VERSION + MEMBERSHIP => usize::MAX,
        "a log entry of members: 16 replicas at most (`store/operation/change_members.rs`)";
    AppendHead = VERSION + VOTE + 2 * OPTION_LOG_ID, "numbers";
    Vote = VERSION + VOTE, "numbers";
    LogId = VERSION + LOG_ID, "numbers: how far a log was purged";
    Option<LogId> = VERSION + OPTION_LOG_ID, "numbers: how far a log is committed";
    VoteRequest = VERSION + VOTE + OPTION_LOG_ID + 1, "numbers";
    VoteResponse = VERSION + VOTE + 1 + OPTION_LOG_ID, "numbers";
    AppendEntriesResponse = VERSION + 1 + OPTION_LOG_ID, "numbers";
    StreamAppendResult = VERSION + 1 + larger(OPTION_LOG_ID, 1 + LOG_ID), "numbers";
    TransferLeaderRequest = VERSION + VOTE + U64 + OPTION_LOG_ID, "numbers";
    TransferLeaderResponse = VERSION + 2 + 2 * OPTION_LOG_ID, "numbers";
    SnapshotResponse = VERSION + VOTE, "numbers";
    RangeDescriptor = VERSION + DESCRIPTOR,
        "two keys (`node/src/service/range.rs`, `crates/proto/src/convert.rs`) and 16 replicas (`store/operation/change_members.rs`)";
    AppliedState = VERSION + APPLIED => VERSION + APPLIED + MORE_ORIGINS,
        "4,096 ranges whose results it consults (`replica/sequencer.rs`, `store/operation/merge.rs`), members, slots of what it remembers";
    BeforeMerges = VERSION + BEFORE_MERGES => VERSION + APPLIED + MORE_ORIGINS,
        "`AppliedState` of the first software; it is only read";
    DedupRow = DEDUP_ROW => usize::MAX,
        "16,384 operations of a numbered batch, 36 bytes of each (`replica/bounds.rs`) and its identity; ranges at cluster version 2 keep whole results";
    Vec<DedupRecord> = VERSION + 5 + DEDUP_CHUNK => MESSAGE_BYTES_MAX,
        "a chunk of 256 KiB and one row more (`replica/stage_snapshot.rs`); it is one message";
    InstallMarker = INSTALL_MARKER => INSTALL_MARKER + MORE_ORIGINS,
        "16,384 files and as many of remembered results, by their paths, and 1,024 ranges that were absorbed (`replica/stage_snapshot.rs`)";
    Preamble = VERSION + VOTE + SNAPSHOT_META + HEADER => VERSION + VOTE + SNAPSHOT_META + HEADER + MORE_ORIGINS,
        "`RangeDescriptor` and `AppliedState`: the first chunk of a snapshot";
    Timestamp = VERSION + U64, "a number: the safe point, on disk and in a snapshot";
    u64 = VERSION + U64, "a number: when all replicas were read and checked last (`store/scrub.rs`)";
    CreationRecord = VERSION + DESCRIPTOR, "`RangeDescriptor`";
    Tombstone = VERSION + U64 + 1, "numbers";
    Ping = VERSION + U64, "a number";
    CampaignOrder = VERSION + U64, "a number";
    SleepOrders = VERSION + list_bytes(SLEEP_ORDERS_MAX, 5 * U64), "1,000 groups of one node (`store/hibernate.rs`)";
    Refused = VERSION + list_bytes(SLEEP_ORDERS_MAX, U64), "1,000 groups of one node (`store/hibernate.rs`)";
    Head = VERSION + VOTE + SNAPSHOT_META + U64, "numbers: the first chunk of the meta service's snapshot";
    Saved = VERSION + SNAPSHOT_META + sized_bytes(STATE_BYTES_MAX),
        "the agreed state of the meta service as one record (`group/applied.rs`); it travels in chunks of 256 KiB (`group/snapshot.rs`)";
}

/// Name, largest size and its reason of what has a layout of its own.
pub const LAYOUTS: &[(&str, usize, &str)] = &[
    (
        "log entry",
        ENTRY,
        "26 bytes, and an `Envelope`, a command of the meta service or a membership (`entry_codec.rs`)",
    ),
    (
        "append request",
        5 + VERSION + VOTE + 2 * OPTION_LOG_ID + APPEND_ENTRIES,
        "entries up to 1 MiB and one more (`log_store/reader.rs`), below the payload of a frame",
    ),
    (
        "chunk of a range's snapshot",
        1 + larger(256 << 10, VERSION + 5 + DEDUP_CHUNK),
        "256 KiB, a `Vec<DedupRecord>` or a `Preamble` (`replica/stage_snapshot.rs`)",
    ),
    ("chunk of the meta service's snapshot", 256 << 10, "`group/snapshot.rs`"),
    ("record of the probe of a disk", 0, "nothing (`disk_probe.rs`)"),
    ("record that a replica lost a part of its log", 1, "a mark (`store/quarantine.rs`)"),
];

/// The head of an entry, and the largest body.
const ENTRY: usize = 26 + ENVELOPE;
/// Entries of one request, with their lengths: the smallest has 26 bytes.
const APPEND_ENTRIES: usize = (1 << 20) + (1 << 20) / 26 * 4 + 4 + ENTRY;
const _: () = assert!(
    5 + VERSION + VOTE + 2 * OPTION_LOG_ID + APPEND_ENTRIES
        <= isotherm_types::limits::PAYLOAD_BYTES_MAX,
    "an append request is one frame"
);

#[cfg(test)]
#[path = "sizes_tests.rs"]
mod tests;
