//! What one member of a group asks another.

/// Numbers on the wire: they are never used again for something else. Those from 100 on belong to
/// the hosts of groups themselves, beside openraft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Method {
    /// A heartbeat, or entries outside a stream.
    AppendEntries = 1,
    /// A stream of entries.
    AppendStream = 2,
    /// A vote.
    Vote = 3,
    /// Whether a vote would be granted.
    PreVote = 4,
    /// Take over leadership.
    TransferLeader = 5,
    /// A whole snapshot, in chunks.
    Snapshot = 6,
}

impl Method {
    /// Its number on the wire.
    pub const fn number(self) -> u32 {
        self as u32
    }
}

impl TryFrom<u32> for Method {
    type Error = String;

    fn try_from(number: u32) -> Result<Self, String> {
        const ALL: [Method; 6] = [
            Method::AppendEntries,
            Method::AppendStream,
            Method::Vote,
            Method::PreVote,
            Method::TransferLeader,
            Method::Snapshot,
        ];
        let found = ALL.into_iter().find(|method| method.number() == number);
        found.ok_or_else(|| format!("method {number} is not known here"))
    }
}
