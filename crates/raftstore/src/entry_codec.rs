//! How log entries, the log's own state and openraft's messages become bytes.
//!
//! openraft's serde layouts change between its versions, so nothing of it is written bare: every
//! record and every message starts with a version byte of ours, and entries, the part that lives
//! long and travels most, have a layout of their own:
//!
//! ```text
//! entry    version | kind | term u64 | replica u64 | index u64 | body        (big-endian)
//!          kind 0: blank, no body   1: command, its bytes   2: membership, codec
//! append   version | head len u32 | head (codec) | (entry len u32 | entry)*
//! others   version | codec of openraft's type as of that version
//! ```
//!
//! Unknown versions and kinds are refused, never skipped: an entry that this process does not
//! understand must stop the replica.

use crate::sizes::Raftstore;
use crate::type_config::{
    AppendEntriesRequest, Command, Entry, EntryPayload, Host, LeaderId, LogId, Membership, Vote,
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use isotherm_storage::codec::Record;
use isotherm_storage::{StorageError, codec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use thiserror::Error;

/// Version of an entry's layout.
const ENTRY_VERSION: u8 = 1;
/// Version of messages and of the log's own state: openraft 0.10.0-alpha.37.
const MESSAGE_VERSION: u8 = 1;

const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Bytes of an entry before its body.
const ENTRY_HEAD_BYTES: usize = 2 + 3 * 8;

/// Bytes that are not what they should be.
#[derive(Debug, Error)]
pub enum CodecError {
    /// Written by a newer software, or damaged.
    #[error("{what} has the unknown version or kind {found}")]
    Unknown {
        /// Of what.
        what: &'static str,
        /// The byte.
        found: u8,
    },
    /// Shorter or longer than it says.
    #[error("{what} is cut off")]
    CutOff {
        /// Of what.
        what: &'static str,
    },
    /// A membership without voters, or similar nonsense.
    #[error("a log entry holds an impossible membership: {0}")]
    Membership(String),
    /// The codec refused it.
    #[error(transparent)]
    Codec(#[from] StorageError),
}

impl From<CodecError> for io::Error {
    fn from(error: CodecError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

type Result<T> = std::result::Result<T, CodecError>;

/// A membership as it is stored: voters (two sets while joint), hosts of everyone.
pub(crate) type StoredVoters = (Vec<BTreeSet<u64>>, BTreeMap<u64, Host>);

/// An entry as a log record.
pub fn encode_entry(entry: &Entry) -> Bytes {
    let mut out = BytesMut::with_capacity(entry_capacity(entry));
    put_entry(entry, &mut out);
    out.freeze()
}

fn entry_capacity(entry: &Entry) -> usize {
    let body = match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(command) => command.0.len(),
        EntryPayload::Membership(_) => 256,
    };
    ENTRY_HEAD_BYTES + body
}

fn put_entry(entry: &Entry, out: &mut BytesMut) {
    let mut head = |kind: u8| {
        out.put_u8(ENTRY_VERSION);
        out.put_u8(kind);
        out.put_u64(entry.log_id.leader_id.term);
        out.put_u64(entry.log_id.leader_id.node_id);
        out.put_u64(entry.log_id.index);
    };
    match &entry.payload {
        EntryPayload::Blank => head(BLANK),
        EntryPayload::Normal(command) => {
            head(COMMAND);
            out.put_slice(&command.0);
        }
        EntryPayload::Membership(membership) => {
            head(MEMBERSHIP);
            let hosts = membership.nodes().map(|(id, host)| (*id, *host)).collect();
            let stored: StoredVoters = (membership.get_joint_config().clone(), hosts);
            out.put_slice(&codec::encode(&stored));
        }
    }
}

/// The entry of a log record. A command shares the record's memory.
pub fn decode_entry(mut bytes: Bytes) -> Result<Entry> {
    if bytes.len() < ENTRY_HEAD_BYTES {
        return Err(CodecError::CutOff { what: "a log entry" });
    }
    let version = bytes.get_u8();
    if version != ENTRY_VERSION {
        return Err(CodecError::Unknown { what: "a log entry", found: version });
    }
    let kind = bytes.get_u8();
    let leader_id = LeaderId { term: bytes.get_u64(), node_id: bytes.get_u64() };
    let log_id = LogId::new(leader_id, bytes.get_u64());
    let payload = match kind {
        BLANK if bytes.is_empty() => EntryPayload::Blank,
        BLANK => return Err(CodecError::CutOff { what: "a blank log entry" }),
        COMMAND => EntryPayload::Normal(Command(bytes)),
        MEMBERSHIP => {
            let (voters, hosts): StoredVoters = codec::decode(&bytes)?;
            let membership = Membership::new(voters, hosts);
            EntryPayload::Membership(membership.map_err(|e| CodecError::Membership(e.to_string()))?)
        }
        found => return Err(CodecError::Unknown { what: "a log entry", found }),
    };
    Ok(Entry { log_id, payload })
}

/// Everything of an append request that is not entries.
#[derive(Serialize, Deserialize)]
pub(crate) struct AppendHead {
    pub(crate) vote: Vote,
    pub(crate) prev_log_id: Option<LogId>,
    pub(crate) leader_commit: Option<LogId>,
}

/// An append request as a message.
pub fn encode_append(request: &AppendEntriesRequest) -> Bytes {
    let head = codec::encode(&AppendHead {
        vote: request.vote,
        prev_log_id: request.prev_log_id,
        leader_commit: request.leader_commit,
    });
    let entries: usize = request.entries.iter().map(|e| 4 + entry_capacity(e)).sum();
    let mut out = BytesMut::with_capacity(5 + head.len() + entries);
    out.put_u8(MESSAGE_VERSION);
    out.put_u32(head.len() as u32);
    out.put_slice(&head);
    for entry in &request.entries {
        let at = out.len();
        out.put_u32(0);
        put_entry(entry, &mut out);
        let len = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&len.to_be_bytes());
    }
    out.freeze()
}

/// The append request of a message. Entries are copied out: the message can be part of a larger
/// buffer shared with other groups, which one entry in a log's memory would keep alive.
pub fn decode_append(mut bytes: &[u8]) -> Result<AppendEntriesRequest> {
    const WHAT: &str = "an append request";
    let version = take(&mut bytes, 1, WHAT)?[0];
    if version != MESSAGE_VERSION {
        return Err(CodecError::Unknown { what: WHAT, found: version });
    }
    let head: AppendHead = codec::decode(take_sized(&mut bytes, WHAT)?)?;
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let entry = take_sized(&mut bytes, WHAT)?;
        entries.push(decode_entry(Bytes::copy_from_slice(entry))?);
    }
    let AppendHead { vote, prev_log_id, leader_commit } = head;
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

fn take<'a>(bytes: &mut &'a [u8], n: usize, what: &'static str) -> Result<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(n).ok_or(CodecError::CutOff { what })?;
    *bytes = rest;
    Ok(taken)
}

fn take_sized<'a>(bytes: &mut &'a [u8], what: &'static str) -> Result<&'a [u8]> {
    let len = take(bytes, 4, what)?.get_u32();
    take(bytes, len as usize, what)
}

/// Any other message, or a part of the log's state: a vote, a log id.
pub fn encode_message<T: Serialize + Record<Raftstore>>(message: &T) -> Vec<u8> {
    let mut out = vec![MESSAGE_VERSION];
    out.extend_from_slice(&codec::encode(message));
    out
}

/// What [`encode_message`] made `bytes` of.
pub fn decode_message<T: DeserializeOwned + Record<Raftstore>>(bytes: &[u8]) -> Result<T> {
    const WHAT: &str = "a message or a record of the log's state";
    match bytes.split_first() {
        None => Err(CodecError::CutOff { what: WHAT }),
        Some((&MESSAGE_VERSION, rest)) => Ok(codec::decode(rest)?),
        Some((&found, _)) => Err(CodecError::Unknown { what: WHAT, found }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::type_config::VoteRequest;

    fn entry(index: u64, payload: EntryPayload) -> Entry {
        Entry { log_id: LogId::new(LeaderId { term: 3, node_id: 2 }, index), payload }
    }

    fn samples() -> Vec<Entry> {
        let voters = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])];
        let hosts: BTreeMap<u64, Host> = (1..=5).map(|id| (id, Host(id + 10))).collect();
        let membership = Membership::new(voters, hosts).unwrap();
        vec![
            entry(1, EntryPayload::Membership(membership)),
            entry(2, EntryPayload::Blank),
            entry(3, EntryPayload::Normal(Command(Bytes::from_static(b"a command")))),
            entry(4, EntryPayload::Normal(Command(Bytes::new()))),
        ]
    }

    #[test]
    fn every_kind_of_entry_survives_the_round_trip() {
        for entry in samples() {
            assert_eq!(decode_entry(encode_entry(&entry)).unwrap(), entry);
        }
    }

    #[test]
    fn an_append_request_survives_the_round_trip() {
        let request = AppendEntriesRequest {
            vote: Vote::new_committed(3, 2),
            prev_log_id: Some(samples()[0].log_id),
            entries: samples(),
            leader_commit: None,
        };
        let bytes = encode_append(&request);
        let back = decode_append(&bytes).unwrap();
        assert_eq!(back.entries, request.entries);
        assert_eq!(back.vote, request.vote);
        assert_eq!(back.prev_log_id, request.prev_log_id);
        assert_eq!(back.leader_commit, request.leader_commit);
        assert!(decode_append(&bytes[..bytes.len() - 1]).is_err());
        assert!(decode_append(&[]).is_err());
    }

    #[test]
    fn a_message_survives_the_round_trip() {
        let request = VoteRequest::new(Vote::new(4, 1), Some(samples()[1].log_id));
        assert_eq!(decode_message::<VoteRequest>(&encode_message(&request)).unwrap(), request);
    }

    #[test]
    fn unknown_versions_and_kinds_are_refused() {
        let good = encode_entry(&samples()[1]);
        for at in [0, 1] {
            let mut bad = good.to_vec();
            bad[at] = 9;
            assert!(matches!(decode_entry(bad.into()), Err(CodecError::Unknown { found: 9, .. })));
        }
        assert!(matches!(decode_entry(good.slice(..10)), Err(CodecError::CutOff { .. })));
        let mut message = encode_message(&samples()[1].log_id);
        message[0] = 9;
        assert!(decode_message::<LogId>(&message).is_err());
    }
}
