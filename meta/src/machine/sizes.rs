//! What the machine encodes, with its largest size: rows of `docs/sizes.md`.
//!
//! What is agreed on is read whatever its size; its proposer keeps to the limits.

use super::command::{Command, Reply};
use super::snapshot::{V1, V2, V3, V4, V5};
use isotherm_raftstore::sizes::{DESCRIPTOR, STATE_BYTES_MAX};
use isotherm_storage::codec::{list_bytes, sized_bytes, uint_bytes};
use isotherm_types::limits::{
    ADDRESS_BYTES_MAX, BOOTSTRAP_RANGES_MAX, LABEL_BYTES_MAX, LABELS_BYTES_MAX, LABELS_MAX,
    META_COMMAND_BYTES_MAX, NODES_MAX, RANGES_MAX, SETTING_BYTES_MAX, TEXT_BYTES_MAX,
};

/// Whose list this is.
pub struct Meta;

const VERSION: usize = 1;
const U64: usize = uint_bytes(u64::MAX);

/// Address, HTTP address, labels, version and the last start.
const NODE: usize = U64
    + 2 * sized_bytes(ADDRESS_BYTES_MAX)
    + list_bytes(LABELS_MAX, 2 * 3)
    + LABELS_BYTES_MAX
    + sized_bytes(LABEL_BYTES_MAX);
/// Why an operation failed is one of a few sentences (`meta/src/operations/`).
const STATE: usize = 1 + sized_bytes(128);
const OPERATION: usize = 6 * U64 + STATE + 3 * U64;
const MERGE: usize = 3 * U64 + 2 * 2 * U64 + STATE + 3 * U64;
/// A first range: its keys have three bytes, and it has at most nine replicas.
const SEED: usize = U64 + 2 * sized_bytes(3) + 2 * U64 + list_bytes(9, 2 * U64 + 1) + U64;
/// Settings that there are, at most.
const SETTINGS_MAX: usize = 64;
/// Operations that have ended and are still listed, beside one that runs per range.
const ENDED_MAX: usize = super::operations::ENDED_MAX;

const fn first(ranges: usize, nodes: usize) -> usize {
    let numbers = 10 + 28 + 28 + 3 * U64 + 4 * U64;
    numbers
        + list_bytes(ranges, DESCRIPTOR)
        + list_bytes(BOOTSTRAP_RANGES_MAX, SEED)
        + list_bytes(nodes, U64 + NODE)
        + list_bytes(SETTINGS_MAX, 2 * sized_bytes(SETTING_BYTES_MAX))
}

const fn second(ranges: usize, nodes: usize) -> usize {
    let moves = list_bytes(ranges + ENDED_MAX, U64 + OPERATION);
    first(ranges, nodes) + moves + U64 + list_bytes(ranges, 2 * U64) + U64
}

const fn third(ranges: usize, nodes: usize) -> usize {
    second(ranges, nodes) + list_bytes(nodes, U64 + 1)
}

/// The state with so many ranges and nodes.
const fn fourth(ranges: usize, nodes: usize) -> usize {
    third(ranges, nodes) + list_bytes(ranges + ENDED_MAX, U64 + MERGE)
}

const WHOLE: usize = VERSION + fourth(RANGES_MAX, NODES_MAX) + 3;
const _: () = assert!(WHOLE < STATE_BYTES_MAX, "it is one record, and travels in chunks");

isotherm_storage::records! {
    RECORDS of Meta:
    Command = META_COMMAND_BYTES_MAX => usize::MAX,
        "an entry of the log: refused above it before it is proposed (`member/meta.rs`); changes of the map are cut at 4 MiB (`registry/pool.rs`)";
    Reply = VERSION + 1 + sized_bytes(TEXT_BYTES_MAX),
        "a sentence why a command was refused (`machine/`)";
    V1 = VERSION + first(RANGES_MAX, NODES_MAX) => usize::MAX,
        "100,000 ranges (`service/admin.rs`), 2,000 nodes (`service/register.rs`), settings; it is only read";
    V2 = VERSION + second(RANGES_MAX, NODES_MAX) => usize::MAX,
        "`V1`, an operation per range and 1,000 that have ended; it is only read";
    V3 = VERSION + third(RANGES_MAX, NODES_MAX) => usize::MAX,
        "`V2`, and what is wanted of each node; it is only read";
    V4 = VERSION + fourth(RANGES_MAX, NODES_MAX) => usize::MAX,
        "`V3`, a merge per range and 1,000 that have ended";
    V5 = WHOLE => usize::MAX,
        "`V4` and a number: the whole state, inside of `Saved`";
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::bootstrap;
    use crate::machine::command::{Founding, NodeDetails};
    use crate::machine::state::{MetaMachine, NodeRecord};
    use isotherm_proto::internal as pb;
    use isotherm_types::limits::KEY_BYTES_MAX;
    use isotherm_types::sizes::{SizeRow, with_rows};
    use isotherm_types::{
        Incarnation, KeyRange, NodeId, RangeDescriptor, RangeEpoch, RangeId, ReplicaId,
    };
    use prost::Message;
    use std::collections::BTreeMap;

    #[test]
    fn the_document_has_a_row_for_every_record() {
        let row = |(name, bytes_max, why): &(&str, usize, &str)| SizeRow {
            name: (*name).to_owned(),
            bytes_max: *bytes_max,
            why: (*why).to_owned(),
        };
        let rows: Vec<_> = RECORDS.iter().map(row).collect();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/sizes.md");
        let document = std::fs::read_to_string(path).unwrap();
        let wanted = with_rows(&document, "meta", &rows).unwrap();
        if std::env::var_os("WRITE_SIZES").is_some() {
            std::fs::write(path, wanted).unwrap();
        } else {
            assert!(document == wanted, "run this test with WRITE_SIZES=1");
        }
    }

    /// A range with keys of 4 KiB and 16 replicas, all numbers as large as they get.
    fn range(n: u64) -> RangeDescriptor {
        let key = |n: u64| {
            let mut key = vec![0xff; KEY_BYTES_MAX];
            key[..8].copy_from_slice(&n.to_be_bytes());
            key
        };
        let nodes: Vec<_> = (0..16).map(|n| NodeId(u64::MAX - n)).collect();
        let span = KeyRange::new(key(n), key(n + 1)).unwrap();
        let mut range = RangeDescriptor::first(RangeId(u64::MAX - n), span, &nodes);
        range.replicas.iter_mut().for_each(|r| r.id = ReplicaId(u64::MAX - r.id.get()));
        range.next_replica_id = ReplicaId(u64::MAX);
        range.epoch = RangeEpoch { version: u64::MAX, conf_ver: u64::MAX };
        range
    }

    fn node() -> NodeRecord {
        let label = |n: usize| (format!("{n:032}"), "v".repeat(32));
        let details = NodeDetails {
            address: "a".repeat(ADDRESS_BYTES_MAX),
            http_address: "a".repeat(ADDRESS_BYTES_MAX),
            labels: (0..LABELS_MAX).map(label).collect(),
            version: "v".repeat(LABEL_BYTES_MAX),
        };
        NodeRecord { incarnation: Incarnation(u64::MAX), details }
    }

    #[test]
    fn a_state_is_as_large_as_its_parts() {
        let empty = MetaMachine::default().to_snapshot().len();
        let (ranges, nodes) = (100, 50);
        let mut machine =
            MetaMachine { seeds: (0..ranges).map(range).collect(), ..Default::default() };
        let with_ranges = machine.to_snapshot().len() - empty;
        assert_eq!(with_ranges, ranges as usize * DESCRIPTOR, "the largest range");
        machine.nodes = (0..nodes).map(|n| (NodeId(u64::MAX - n), node())).collect();
        let with_nodes = machine.to_snapshot().len() - empty - with_ranges;
        // The names and values are short enough for lengths of one byte.
        let lengths = LABELS_MAX * 4;
        assert_eq!(with_nodes, nodes as usize * (U64 + NODE - lengths), "the largest node");
    }

    #[test]
    fn the_first_ranges_fit_into_one_command_and_one_answer() {
        let founding = Founding { nodes: 9, ranges: BOOTSTRAP_RANGES_MAX, replicas: 9 };
        let nodes: Vec<_> = (0..9).map(|n| (NodeId(u64::MAX - n), BTreeMap::new())).collect();
        let ranges = bootstrap::plan(&founding, &nodes);
        let seeds: Vec<_> = (1..)
            .zip(&ranges)
            .map(|(id, (span, nodes))| RangeDescriptor::first(RangeId(id), span.clone(), nodes))
            .collect();
        let command = Command::Bootstrap { ranges }.encode();
        assert!(command.len() < META_COMMAND_BYTES_MAX, "{} bytes", command.len());
        let answer = pb::HeartbeatResponse {
            seed: seeds.iter().map(Into::into).collect(),
            ..Default::default()
        };
        let bound = isotherm_proto::sizes::FIELDS
            .iter()
            .find(|(field, _, _)| *field == "isotherm.internal.v1.HeartbeatResponse.seed");
        let (_, isotherm_proto::sizes::Bound::Within(max), _) = bound.unwrap() else { panic!() };
        assert!(answer.encoded_len() <= *max, "{} bytes", answer.encoded_len());
    }
}
