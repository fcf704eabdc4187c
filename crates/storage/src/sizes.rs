//! Rows, keys and files that are written here by hand, with their largest sizes: rows of `docs/sizes.md`.
//!
//! What is structured goes through `codec.rs`; the crate that encodes it lists it.

use crate::LocalKey;
use crate::log::MARK_BYTES;
use crate::log::StateKind;
use isotherm_types::limits::{
    ADDRESS_BYTES_MAX, KEY_BYTES_MAX, NODES_MAX, TEXT_BYTES_MAX, VALUE_BYTES_MAX,
};

/// `FORMAT`: one line.
pub(crate) const FORMAT_BYTES_MAX: usize = 128;
/// `identity.json`: five numbers.
pub(crate) const IDENTITY_BYTES_MAX: usize = 4 << 10;
/// `last-start.json`: where the other nodes are. In JSON one byte can take six.
pub(crate) const LAST_START_BYTES_MAX: usize = NODES_MAX * (6 * ADDRESS_BYTES_MAX + 256) + 4096;

/// `DAMAGE`: a text and two numbers.
pub(crate) const DAMAGE_BYTES_MAX: usize = 6 * TEXT_BYTES_MAX + 256;

/// A key as it is encoded: each byte can take two, and two end it.
const ENCODED_KEY: usize = 2 * KEY_BYTES_MAX + 2;
const ROW: usize = 14 + VALUE_BYTES_MAX;

/// Name, largest size and its reason.
pub const LAYOUTS: &[(&str, usize, &str)] = &[
    ("key in live", ENCODED_KEY, "a key (`node/src/service/convert.rs`), whose bytes 0 take two"),
    ("row in live", ROW, "14 bytes and a value (`node/src/service/convert.rs`)"),
    ("key in history", ENCODED_KEY + 8, "a key and a timestamp"),
    ("row in history", ROW, "14 bytes and a value"),
    ("key in local", local_key_bytes(&LARGEST_LOCAL_KEY), "numbers: `LocalKey`"),
    ("key of a record in raft", 18, "numbers; a record of the node has a fixed name"),
    ("key of an entry in raft", 25, "numbers"),
    ("FORMAT", FORMAT_BYTES_MAX, "one line (`dir/data_dir.rs`)"),
    ("LOCK", 0, "it is locked, never written"),
    ("identity.json", IDENTITY_BYTES_MAX, "numbers (`dir/identity.rs`)"),
    (
        "last-start.json",
        LAST_START_BYTES_MAX,
        "2,000 nodes by their addresses (`dir/last_start.rs`); a larger one counts as none",
    ),
    (
        "DAMAGE",
        DAMAGE_BYTES_MAX,
        "a text of 2 KiB and numbers (`dir/damage.rs`); a larger one counts as one that cannot be read",
    ),
    ("mark of a group in raft", MARK_BYTES, "a secret and numbers (`log/groups.rs`)"),
    ("record group in raft", 8, "a number (`log/groups.rs`)"),
    ("record group-secret in raft", 16, "a secret (`log/groups.rs`)"),
    ("record part in raft", 1, "a mark (`meta/src/member/admission.rs`)"),
    ("part of a log file", 1 << 20, "zeros that are written ahead (`log/files.rs`)"),
];

/// The record under each local key: its row in `docs/sizes.md`.
pub const fn local_record(key: &LocalKey) -> &'static str {
    match key {
        LocalKey::Descriptor(_) => "RangeDescriptor",
        LocalKey::Applied(_) => "AppliedState",
        LocalKey::Dedup { .. } => "DedupRow",
    }
}

/// The record of each kind of a replica's state: its row in `docs/sizes.md`.
pub const fn state_record(kind: StateKind) -> &'static str {
    match kind {
        StateKind::Vote => "Vote",
        StateKind::Committed => "Option<LogId>",
        StateKind::Purged => "LogId",
        StateKind::Creation => "CreationRecord",
        StateKind::Tombstone => "Tombstone",
        StateKind::InstallMarker => "InstallMarker",
        StateKind::Machine => "Saved",
        StateKind::Lost => "record that a replica lost a part of its log",
    }
}

const LARGEST_LOCAL_KEY: LocalKey = LocalKey::Dedup {
    origin: isotherm_types::RangeId(u64::MAX),
    ts: isotherm_types::Timestamp(u64::MAX),
};

const fn local_key_bytes(key: &LocalKey) -> usize {
    match key {
        LocalKey::Descriptor(_) | LocalKey::Applied(_) => 9,
        LocalKey::Dedup { .. } => 17,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::key;
    use isotherm_types::Timestamp;
    use isotherm_types::sizes::{SizeRow, with_rows};

    fn size_of(name: &str) -> usize {
        LAYOUTS.iter().find(|(layout, _, _)| *layout == name).unwrap().1
    }

    #[test]
    fn the_document_has_a_row_for_every_layout() {
        let row = |(name, bytes_max, why): &(&str, usize, &str)| SizeRow {
            name: (*name).to_owned(),
            bytes_max: *bytes_max,
            why: (*why).to_owned(),
        };
        let rows: Vec<_> = LAYOUTS.iter().map(row).collect();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/sizes.md");
        let document = std::fs::read_to_string(path).unwrap();
        let wanted = with_rows(&document, "crates/storage", &rows).unwrap();
        if std::env::var_os("WRITE_SIZES").is_some() {
            std::fs::write(path, wanted).unwrap();
        } else {
            assert!(document == wanted, "run this test with WRITE_SIZES=1");
        }
        let parts: Vec<_> = isotherm_types::sizes::parts(&document).collect();
        let known = [
            "crates/proto",
            "crates/raftstore",
            "crates/raftstore layouts",
            "meta",
            "crates/storage",
            "cli",
        ];
        assert_eq!(parts, known, "every part has a test that compares it with the code");
    }

    #[test]
    fn the_largest_keys_are_as_large_as_their_rows_say() {
        let largest = vec![0; KEY_BYTES_MAX];
        key::with_encoded(&largest, |encoded| {
            assert_eq!(encoded.len(), size_of("key in live"));
            assert_eq!(key::history(encoded, Timestamp(1)).len(), size_of("key in history"));
        });
        assert_eq!(LARGEST_LOCAL_KEY.encode().len(), size_of("key in local"));
    }

    /// Types are encoded by `codec` only if they are listed, and listed only by the macro: one list per crate,
    /// whose test compares it with the document.
    #[test]
    fn nothing_is_listed_but_by_the_macro() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut lists = Vec::new();
        let mut folders: Vec<_> = ["crates", "meta", "node", "client", "cli", "jepsen-like-tests"]
            .map(|folder| root.join(folder))
            .into();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "rs") {
                    let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                    let text = std::fs::read_to_string(&path).unwrap();
                    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                    for line in code {
                        let is_impl = line.contains("impl")
                            && line.contains("Record<")
                            && line.contains(" for ");
                        let is_known = name.ends_with("storage/src/codec.rs")
                            || name.ends_with("storage/src/sizes.rs");
                        assert!(!is_impl || is_known, "{name}: {line}: list it by records!");
                        if line.contains("records! {") && !is_known {
                            lists.push(name.clone());
                        }
                    }
                }
            }
        }
        lists.sort();
        assert_eq!(lists, ["crates/raftstore/src/sizes.rs", "meta/src/machine/sizes.rs"]);
    }
}
