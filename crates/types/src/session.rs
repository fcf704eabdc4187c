//! Exactly-once: what a write carries so that a retry of it takes effect once.

use crate::{ClusterId, Incarnation, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One client session: low 32 bits of the cluster id, 32 bits of the issuing node's incarnation,
/// a 64-bit number that the incarnation counts up. Unique for ever without coordination.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct SessionId {
    /// `cluster << 32 | incarnation`.
    pub issuer: u64,
    /// Counted by the issuer.
    pub number: u64,
}

impl SessionId {
    /// The `number`-th session issued by `incarnation` of a node of `cluster`.
    pub fn new(cluster: ClusterId, incarnation: Incarnation, number: u64) -> Self {
        let low = |x: u64| x & 0xffff_ffff;
        Self { issuer: low(cluster.0) << 32 | low(incarnation.0), number }
    }
}

/// The [`WriteId::seq`] of a write whose identity its caller drew: the session is that identity. Sessions
/// count up from 1 and never come here.
pub const REQUEST_SEQ: u64 = u64::MAX;

/// The [`WriteId::seq`] of the write at position `number` of a batch whose identity its caller drew: the session
/// is that identity. Each write of the batch is known by itself, because another attempt can meet other
/// ranges: what one range was asked to do together, two can be, or the other way round.
pub fn numbered_seq(number: u32) -> u64 {
    REQUEST_SEQ - 1 - u64::from(number)
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}", self.issuer, self.number)
    }
}

/// Identity of one write across its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WriteId {
    /// Whose write.
    pub session: SessionId,
    /// Counted up by the session; every attempt of one write carries the same.
    pub seq: u64,
    /// Every `seq` below was answered: an attempt below it is a late duplicate.
    pub floor: u64,
    /// A timestamp that the client had seen before its first attempt; of a write with [`REQUEST_SEQ`] perhaps
    /// only before this attempt. If the range has already
    /// forgotten results that new, the attempt is refused as expired instead of evaluated again.
    pub birth: Timestamp,
}
