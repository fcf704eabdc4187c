//! Keys of the log database.
//!
//! ```text
//! 1 ‖ name                             a record of the node
//! 2 ‖ range ‖ replica ‖ kind           a record of a replica
//! 3 ‖ range ‖ replica ‖ index          an entry
//! ```
//! Numbers are 8 bytes, big-endian. All share one column family: with several, one that is
//! rarely written (votes) would keep every old write-ahead file alive.

use super::engine::{ReplicaKey, StateKind};
use crate::{Result, StorageError};
use isotherm_types::{RangeId, ReplicaId};

const NODE: u8 = 1;
const STATE: u8 = 2;
const ENTRY: u8 = 3;
const PREFIX: usize = 17;

pub(super) fn node(name: &str) -> Vec<u8> {
    [&[NODE], name.as_bytes()].concat()
}

fn prefix(tag: u8, r: ReplicaKey) -> [u8; PREFIX] {
    let mut out = [tag; PREFIX];
    out[1..9].copy_from_slice(&r.range.get().to_be_bytes());
    out[9..].copy_from_slice(&r.replica.get().to_be_bytes());
    out
}

pub(super) fn state(r: ReplicaKey, kind: StateKind) -> [u8; PREFIX + 1] {
    let mut out = [kind.tag(); PREFIX + 1];
    out[..PREFIX].copy_from_slice(&prefix(STATE, r));
    out
}

pub(super) fn entry(r: ReplicaKey, index: u64) -> [u8; PREFIX + 8] {
    let mut out = [0; PREFIX + 8];
    out[..PREFIX].copy_from_slice(&prefix(ENTRY, r));
    out[PREFIX..].copy_from_slice(&index.to_be_bytes());
    out
}

/// After the last entry of `r`, and before anything of another replica.
pub(super) fn entries_end(r: ReplicaKey) -> Vec<u8> {
    let mut out = entry(r, u64::MAX).to_vec();
    out.push(0);
    out
}

/// The index of an entry's key.
pub(super) fn index_of(key: &[u8]) -> Result<u64> {
    let refuse = || StorageError::corrupt("log key", format!("{}", key.escape_ascii()));
    let index = key.get(PREFIX..).and_then(|index| index.try_into().ok()).ok_or_else(refuse)?;
    Ok(u64::from_be_bytes(index))
}

/// Whose record or entry is under `key`; none for what is not a replica's.
pub(super) fn replica_of(key: &[u8]) -> Option<ReplicaKey> {
    let (prefix, _) = key.split_first_chunk::<PREFIX>()?;
    let number = |at: usize| {
        let bytes: [u8; 8] = prefix[at..at + 8].try_into().expect("eight bytes");
        u64::from_be_bytes(bytes)
    };
    matches!(prefix[0], STATE | ENTRY)
        .then(|| ReplicaKey { range: RangeId(number(1)), replica: ReplicaId(number(9)) })
}

/// The first key of any replica's records.
pub(super) fn first_state() -> [u8; 1] {
    [STATE]
}

/// The first key of any replica's entries.
pub(super) fn first_entry() -> [u8; 1] {
    [ENTRY]
}

/// After everything of `r` that has the same tag as `key`.
pub(super) fn after_replica(key: &[u8]) -> Vec<u8> {
    let mut out = key[..PREFIX].to_vec();
    // Longer than any key below this prefix, and all ones.
    out.extend_from_slice(&[0xFF; 9]);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_sort_by_replica_then_index(
            a in any::<(u64, u64, u64)>(), b in any::<(u64, u64, u64)>(),
        ) {
            let whose =
                |k: (u64, u64, u64)| ReplicaKey { range: RangeId(k.0), replica: ReplicaId(k.1) };
            let (left, right) = (entry(whose(a), a.2), entry(whose(b), b.2));
            prop_assert_eq!(left.cmp(&right), a.cmp(&b));
            prop_assert_eq!(index_of(&left).unwrap(), a.2);
            prop_assert_eq!(replica_of(&left), Some(whose(a)));
            prop_assert!(left[..] < entries_end(whose(a))[..]);
            prop_assert!(entries_end(whose(a)) < after_replica(&left));
        }
    }
}
