//! Conversions between wire messages and `isotherm-types`. What comes from the wire is checked;
//! what goes out cannot fail.

use crate::internal as pb;
use isotherm_types::{
    KeyRange, KeyRangeError, NodeId, RaftTiming, RangeDescriptor, RangeEpoch, RangeId,
    ReplicaDescriptor, ReplicaId, ReplicaRole, SessionId, Timestamp, WriteId, limits,
};
use thiserror::Error;

/// A message that is well-formed protobuf but not what it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConvertError {
    /// A field that must be there is not.
    #[error("field {0} is missing")]
    Missing(&'static str),
    /// Bounds in the wrong order.
    #[error(transparent)]
    Span(#[from] KeyRangeError),
    /// More than the limit.
    #[error("field {field} has {n}: the limit is {max}")]
    TooLarge {
        /// Which field.
        field: &'static str,
        /// How many things or bytes it has.
        n: usize,
        /// And may have.
        max: usize,
    },
    /// An enum value that this version does not know.
    #[error("unknown value {value} in field {field}")]
    Unknown {
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: i32,
    },
}

impl From<&KeyRange> for pb::KeyRange {
    fn from(span: &KeyRange) -> Self {
        Self { start: span.start().clone(), end: span.end().clone() }
    }
}

impl TryFrom<pb::KeyRange> for KeyRange {
    type Error = ConvertError;
    fn try_from(span: pb::KeyRange) -> Result<Self, ConvertError> {
        Ok(KeyRange::new(span.start, span.end)?)
    }
}

impl From<RangeEpoch> for pb::Epoch {
    fn from(epoch: RangeEpoch) -> Self {
        Self { version: epoch.version, conf_ver: epoch.conf_ver }
    }
}

impl From<pb::Epoch> for RangeEpoch {
    fn from(epoch: pb::Epoch) -> Self {
        Self { version: epoch.version, conf_ver: epoch.conf_ver }
    }
}

impl From<&ReplicaDescriptor> for pb::Replica {
    fn from(replica: &ReplicaDescriptor) -> Self {
        let role = match replica.role {
            ReplicaRole::Voter => pb::Role::Voter,
            ReplicaRole::Learner => pb::Role::Learner,
            ReplicaRole::Incoming => pb::Role::Incoming,
            ReplicaRole::Outgoing => pb::Role::Outgoing,
        };
        Self { id: replica.id.get(), node: replica.node.get(), role: role.into() }
    }
}

impl TryFrom<pb::Replica> for ReplicaDescriptor {
    type Error = ConvertError;
    fn try_from(replica: pb::Replica) -> Result<Self, ConvertError> {
        let role = match pb::Role::try_from(replica.role) {
            Ok(pb::Role::Voter) => ReplicaRole::Voter,
            Ok(pb::Role::Learner) => ReplicaRole::Learner,
            Ok(pb::Role::Incoming) => ReplicaRole::Incoming,
            Ok(pb::Role::Outgoing) => ReplicaRole::Outgoing,
            _ => return Err(ConvertError::Unknown { field: "role", value: replica.role }),
        };
        Ok(Self { id: ReplicaId(replica.id), node: NodeId(replica.node), role })
    }
}

impl From<&RangeDescriptor> for pb::Descriptor {
    fn from(d: &RangeDescriptor) -> Self {
        Self {
            id: d.id.get(),
            span: Some((&d.span).into()),
            epoch: Some(d.epoch.into()),
            replicas: d.replicas.iter().map(Into::into).collect(),
            next_replica_id: d.next_replica_id.get(),
        }
    }
}

fn check_max(field: &'static str, n: usize, max: usize) -> Result<(), ConvertError> {
    if n > max { Err(ConvertError::TooLarge { field, n, max }) } else { Ok(()) }
}

impl TryFrom<pb::Descriptor> for RangeDescriptor {
    type Error = ConvertError;
    fn try_from(d: pb::Descriptor) -> Result<Self, ConvertError> {
        check_max("replicas", d.replicas.len(), limits::REPLICAS_MAX)?;
        for bound in d.span.iter().flat_map(|span| [&span.start, &span.end]) {
            check_max("span", bound.len(), limits::KEY_BYTES_MAX)?;
        }
        Ok(Self {
            id: RangeId(d.id),
            span: d.span.ok_or(ConvertError::Missing("span"))?.try_into()?,
            epoch: d.epoch.ok_or(ConvertError::Missing("epoch"))?.into(),
            replicas: d.replicas.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            next_replica_id: ReplicaId(d.next_replica_id),
        })
    }
}

impl From<RaftTiming> for pb::RaftTiming {
    fn from(t: RaftTiming) -> Self {
        Self {
            heartbeat_ms: t.heartbeat_ms,
            election_min_ms: t.election_min_ms,
            election_max_ms: t.election_max_ms,
        }
    }
}

impl From<pb::RaftTiming> for RaftTiming {
    fn from(t: pb::RaftTiming) -> Self {
        Self {
            heartbeat_ms: t.heartbeat_ms,
            election_min_ms: t.election_min_ms,
            election_max_ms: t.election_max_ms,
        }
    }
}

impl pb::WriteBatch {
    /// The identity of this write across its attempts.
    pub fn write_id(&self) -> WriteId {
        WriteId {
            session: SessionId { issuer: self.session_issuer, number: self.session_number },
            seq: self.seq,
            floor: self.floor,
            birth: Timestamp(self.birth),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_descriptor_is_taken_up_to_its_limits() {
        let nodes = |n: usize| (1..=n as u64).map(NodeId).collect::<Vec<_>>();
        let descriptor = |key: usize, replicas: usize| {
            let span = KeyRange::new(vec![b'a'; key], vec![b'b'; key]).unwrap();
            pb::Descriptor::from(&RangeDescriptor::first(RangeId(1), span, &nodes(replicas)))
        };
        let (key, replicas) = (limits::KEY_BYTES_MAX, limits::REPLICAS_MAX);
        assert!(RangeDescriptor::try_from(descriptor(key, replicas)).is_ok());
        for (key, replicas, field) in [(key + 1, 1, "span"), (1, replicas + 1, "replicas")] {
            let refused = RangeDescriptor::try_from(descriptor(key, replicas)).unwrap_err();
            assert!(refused.to_string().contains(field), "{refused}");
            assert!(refused.to_string().contains("the limit is"), "{refused}");
        }
    }
}
