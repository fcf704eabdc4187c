#![allow(clippy::unwrap_used)]
use super::*;
use crate::command::{
    Body, OpResult, Split, SplitChild, WriteEntry, WriteOp, WriteOutcome, WriteRequest,
};
use crate::replica::{Frozen, SessionMemory};
use crate::type_config::{Host, LeaderId, Membership, SnapshotMeta, StoredMembership};
use isotherm_storage::codec::{self, Record};
use isotherm_storage::{LocalKey, StateKind};
use isotherm_types::limits::PAYLOAD_BYTES_MAX;
use isotherm_types::sizes::{SizeRow, with_rows};
use isotherm_types::{
    ClusterVersion, KeyRange, NodeId, RangeEpoch, RangeId, ReplicaId, SessionId, WriteId,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

fn rows(list: &[(&str, usize, &str)]) -> Vec<SizeRow> {
    let row = |(name, bytes_max, why): &(&str, usize, &str)| SizeRow {
        name: (*name).to_owned(),
        bytes_max: *bytes_max,
        why: (*why).to_owned(),
    };
    list.iter().map(row).collect()
}

#[test]
fn the_document_has_a_row_for_every_record() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/sizes.md");
    let document = std::fs::read_to_string(path).unwrap();
    let wanted = with_rows(&document, "crates/raftstore", &rows(RECORDS)).unwrap();
    let wanted = with_rows(&wanted, "crates/raftstore layouts", &rows(LAYOUTS)).unwrap();
    if std::env::var_os("WRITE_SIZES").is_some() {
        std::fs::write(path, wanted).unwrap();
    } else {
        assert!(document == wanted, "run this test with WRITE_SIZES=1");
    }
}

#[test]
fn every_record_on_disk_has_a_row() {
    let named: Vec<_> = RECORDS.iter().chain(LAYOUTS).map(|(name, _, _)| *name).collect();
    for kind in StateKind::ALL {
        let row = isotherm_storage::sizes::state_record(kind);
        assert!(named.contains(&row), "{kind:?}: there is no row {row}");
    }
    let (range, ts) = (RangeId(1), Timestamp(1));
    for key in [
        LocalKey::Descriptor(range),
        LocalKey::Applied(range),
        LocalKey::Dedup { origin: range, ts },
    ] {
        let row = isotherm_storage::sizes::local_record(&key);
        assert!(named.contains(&row), "{key:?}: there is no row {row}");
    }
}

const MAX: u64 = u64::MAX;

fn log_id() -> LogId {
    LogId::new(LeaderId { term: MAX, node_id: MAX }, MAX)
}

fn vote() -> Vote {
    Vote::new_committed(MAX, MAX)
}

fn epoch() -> RangeEpoch {
    RangeEpoch { version: MAX, conf_ver: MAX }
}

fn span() -> KeyRange {
    KeyRange::new(vec![1; KEY_BYTES_MAX], vec![2; KEY_BYTES_MAX]).unwrap()
}

fn ids() -> impl Iterator<Item = u64> {
    (0..REPLICAS_MAX as u64).map(|n| MAX - n)
}

fn descriptor() -> RangeDescriptor {
    let nodes: Vec<_> = ids().map(NodeId).collect();
    let mut descriptor = RangeDescriptor::first(RangeId(MAX), span(), &nodes);
    descriptor.replicas.iter_mut().zip(ids()).for_each(|(r, id)| r.id = ReplicaId(id));
    descriptor.next_replica_id = ReplicaId(MAX);
    descriptor.epoch = epoch();
    descriptor
}

fn voters() -> StoredVoters {
    let set: BTreeSet<u64> = ids().collect();
    (vec![set.clone(), set], ids().map(|id| (id, Host(id))).collect::<BTreeMap<_, _>>())
}

fn membership() -> StoredMembership {
    let (sets, hosts) = voters();
    StoredMembership::new(Some(log_id()), Membership::new(sets, hosts).unwrap())
}

fn applied(origins: usize) -> AppliedState {
    let origin = crate::replica::Origin { range: RangeId(MAX), upto: Timestamp(MAX) };
    let mut memory = SessionMemory::default();
    // A slot is 4 s of the timestamps' clock.
    for slot in 0..SLOTS_MAX as u64 {
        let ts = Timestamp::from_physical_ms((1 << 45) + slot * 4096);
        memory.remember(ts, u32::MAX / SLOTS_MAX as u32, 1 << 40, u32::MAX, 1);
    }
    memory.origins = vec![origin; origins];
    memory.floor = Timestamp(MAX);
    AppliedState {
        log_id: Some(log_id()),
        membership: membership(),
        last_ts: Timestamp(MAX),
        apply_version: ClusterVersion(u16::MAX),
        memory,
        frozen: Some(Frozen { into: RangeId(MAX), into_epoch: epoch(), ts: Timestamp(MAX) }),
        absorbed: VecDeque::from(vec![RangeId(MAX); 8]),
    }
}

fn snapshot_meta() -> SnapshotMeta {
    SnapshotMeta { last_log_id: Some(log_id()), last_membership: membership() }
}

fn request(ops: Vec<WriteOp>) -> WriteRequest {
    let session = SessionId { issuer: MAX, number: MAX };
    WriteRequest { id: WriteId { session, seq: MAX, floor: MAX, birth: Timestamp(MAX) }, ops }
}

fn envelope(body: Body) -> Envelope {
    Envelope {
        apply_version: ClusterVersion(u16::MAX),
        range_version: MAX,
        ts: Timestamp(MAX),
        closed_ts: Timestamp(MAX),
        flags: u32::MAX,
        body,
    }
}

fn outcome(ops: usize) -> WriteOutcome {
    let current = Some(bytes::Bytes::from(vec![7; 32]));
    let results = vec![OpResult::Cas { applied: false, current }; ops];
    WriteOutcome { ts: Timestamp(MAX), index: u32::MAX, results }
}

/// The largest value of a type, and bytes of which one more would be too many.
fn check<T>(largest: &T, is_exact: bool)
where
    T: Record<Raftstore> + Serialize + DeserializeOwned,
{
    let (name, max) = (T::NAME, T::BYTES_MAX);
    let bytes = codec::encode(largest);
    assert!(bytes.len() <= max, "{name}: {} bytes and {max} at most", bytes.len());
    if is_exact {
        assert_eq!(bytes.len(), max, "{name}");
    }
    assert!(codec::decode::<T, _>(&bytes).is_ok(), "{name}: the largest is read");
    if T::READ_BYTES_MAX < usize::MAX {
        let mut more = bytes;
        more.resize(T::READ_BYTES_MAX + 1, 0);
        let refused = codec::decode::<T, _>(&more).err().unwrap().to_string();
        assert!(refused.contains("at most"), "{name}: {refused}");
    }
}

#[test]
fn the_largest_of_each_record_passes_and_one_byte_more_is_refused() {
    check(&vote(), true);
    check(&log_id(), true);
    check(&Some(log_id()), true);
    check(&voters(), true);
    let head =
        AppendHead { vote: vote(), prev_log_id: Some(log_id()), leader_commit: Some(log_id()) };
    check(&head, true);
    check(&VoteRequest::new(vote(), Some(log_id())), true);
    check(&VoteResponse::new(vote(), Some(log_id()), true), true);
    check(&AppendEntriesResponse::PartialSuccess(Some(log_id())), true);
    check::<StreamAppendResult>(&Ok(Some(log_id())), true);
    check(&TransferLeaderRequest::new(vote(), MAX, Some(log_id())), true);
    check::<TransferLeaderResponse>(&Ok(()), false);
    check(&SnapshotResponse::new(vote()), true);
    check(&descriptor(), true);
    check(&CreationRecord { descriptor: descriptor() }, true);
    check(&Timestamp(MAX), true);
    check(&Tombstone::largest(), true);
    check(&Ping { boot: MAX }, true);
    check(&CampaignOrder { term: MAX }, true);
    check(&vec![MAX; SLEEP_ORDERS_MAX], true);
    check(&applied(ORIGINS_MAX), false);
    // Of a numbered batch; those that are remembered as a whole take less.
    let session = SessionId { issuer: MAX, number: MAX };
    let row: DedupRow = vec![(session, MAX, outcome(1)); BATCH_OPS_MAX];
    check(&row, true);
    check::<DedupRow>(&vec![(session, MAX, outcome(BATCH_OPS_MAX))], false);
    let bytes = codec::encode(&row);
    let records: Vec<DedupRecord> = vec![(RangeId(MAX), Timestamp(MAX), bytes)];
    check(&records, false);
    let header =
        crate::replica::SnapshotHeader { descriptor: descriptor(), applied: applied(ORIGINS_MAX) };
    check(&Preamble { vote: vote(), meta: snapshot_meta(), header }, false);
    // All but the state itself.
    let saved = Saved { meta: snapshot_meta(), state: bytes::Bytes::new() };
    let framing = <Saved as Record<Raftstore>>::BYTES_MAX - sized_bytes(STATE_BYTES_MAX) + 1;
    assert_eq!(codec::encode(&saved).len(), framing);
    check(&Head { vote: vote(), meta: snapshot_meta(), state_bytes: MAX }, true);
}

/// All files of the largest snapshot would be 130 MB of paths: a hundredth of them, and what each takes.
#[test]
fn the_largest_marker_of_an_install_is_as_large_as_its_parts() {
    let path = std::path::PathBuf::from("p".repeat(PATH_BYTES_MAX));
    let marker = |files: usize, swallowed: usize| {
        let file = isotherm_storage::SnapshotFile {
            cf: isotherm_storage::SnapshotCf::History,
            path: path.clone(),
            bytes: MAX,
        };
        let staged = crate::replica::StagedSnapshot {
            header: crate::replica::SnapshotHeader {
                descriptor: descriptor(),
                applied: applied(ORIGINS_MAX),
            },
            dir: path.clone(),
            files: vec![file; files],
            dedup_files: vec![path.clone(); files],
        };
        let key = isotherm_storage::ReplicaKey { range: RangeId(MAX), replica: ReplicaId(MAX) };
        let swallowed = vec![(key, span()); swallowed];
        let marker = InstallMarker { old_span: Some(span()), staged, swallowed };
        let bytes = codec::encode(&marker);
        assert!(codec::decode::<InstallMarker, _>(&bytes).is_ok());
        bytes.len()
    };
    let (empty, few) = (marker(0, 0), marker(160, 10));
    let each = SNAPSHOT_FILE + sized_bytes(PATH_BYTES_MAX);
    assert_eq!(few - empty, 160 * each + 10 * (2 * U64 + SPAN));
    let all = empty + STAGED_FILES_MAX * each + SWALLOWED_MAX * (2 * U64 + SPAN) + 3 * 2;
    let max = <InstallMarker as Record<Raftstore>>::BYTES_MAX;
    assert!(all <= max && all > max - 4096, "{all} of {max}");
}

#[test]
fn the_largest_entries_fit_and_larger_ones_are_not_proposed() {
    let size = REQUEST_BYTES_MAX / BATCH_OPS_MAX;
    let key = bytes::Bytes::from(vec![1; 255]);
    let expected = Some(bytes::Bytes::from(vec![2; size - 255 - 1]));
    let op = WriteOp::Cas { key, expected, value: bytes::Bytes::from(vec![3; 1]) };
    let op = WriteOp::Numbered { number: u32::MAX, op: Box::new(op) };
    let many = request(vec![op; BATCH_OPS_MAX]);
    assert_eq!(many.size_bytes(), REQUEST_BYTES_MAX);
    let many = envelope(Body::Writes(WriteEntry { writes: vec![many] }));
    let largest = many.encode().len();
    let max = <Envelope as Record<Raftstore>>::BYTES_MAX;
    assert!(largest <= max && largest > max - max / 50, "{largest} of {max}");
    let replicas: Vec<_> = ids().map(ReplicaId).collect();
    let split = Split {
        epoch: epoch(),
        keys: vec![vec![1; KEY_BYTES_MAX].into(); SPLIT_KEYS_MAX],
        children: vec![SplitChild { range: RangeId(MAX), replicas }; SPLIT_KEYS_MAX],
    };
    assert!(envelope(Body::Split(split)).encode().len() <= max);
    assert!(crate::replica::check_entry(max).is_ok());
    let refused = crate::replica::check_entry(max + 1).unwrap_err().to_string();
    assert!(refused.contains(&format!("the limit is {max}")), "{refused}");
    assert!(crate::replica::check_origins(ORIGINS_MAX).is_ok());
    assert!(crate::replica::check_origins(ORIGINS_MAX + 1).is_err());
    assert!(LAYOUTS.iter().all(|(_, bytes, _)| *bytes <= PAYLOAD_BYTES_MAX));
}
