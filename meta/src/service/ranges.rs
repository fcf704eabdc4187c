//! The partition map, and where leaders are.

use crate::member::Meta;
use crate::registry::{RangeHealth, load_message};
use isotherm_proto::WireError;
use isotherm_proto::internal as pb;
use isotherm_proto::internal::error::Code;
use isotherm_types::limits::{BOUND_BYTES_MAX, LISTED_BYTES_MAX};
use isotherm_types::{ClusterId, KeyRange, RangeDescriptor, RangeId};
use prost::Message;
use std::time::Instant;

/// Most ranges in one answer.
const RANGES_MAX: usize = 10_000;
/// Bytes of ranges in one answer. The client goes on behind the last of them.
const ANSWER_BYTES_MAX: usize = LISTED_BYTES_MAX;

/// The first of `parts`, at least one, as many as have `bytes_max` bytes together.
pub(super) fn first_within<M: Message>(
    parts: impl IntoIterator<Item = M>,
    bytes_max: usize,
) -> Vec<M> {
    let (mut first, mut bytes) = (Vec::new(), 0);
    for part in parts {
        bytes += part.encoded_len();
        if bytes > bytes_max && !first.is_empty() {
            break;
        }
        first.push(part);
    }
    first
}

impl Meta {
    pub(super) fn get_ranges(
        &self,
        request: pb::GetRangesRequest,
    ) -> Result<pb::GetRangesResponse, WireError> {
        self.leading()?;
        self.check_cluster(request.cluster_id)?;
        let span = match request.span {
            None => KeyRange::all(),
            Some(span) if span.start.len().max(span.end.len()) > BOUND_BYTES_MAX => {
                let why = format!("a bound of a span has more than {BOUND_BYTES_MAX} bytes");
                return Err(WireError::new(Code::Invalid, why));
            }
            Some(span) => {
                span.try_into().map_err(|e| WireError::new(Code::Invalid, format!("{e}")))?
            }
        };
        let limit = match request.limit as usize {
            0 => RANGES_MAX,
            limit => limit.min(RANGES_MAX),
        };
        let ranges = {
            let machine = self.group.machine().read();
            if !machine.is_bootstrapped() {
                return Err(self.not_bootstrapped());
            }
            let registry = self.registry.lock();
            let states = registry.states(machine.nodes(), Instant::now());
            let locate = |d: &RangeDescriptor| {
                let health = RangeHealth::of(d, &registry, &states, 0);
                let known = registry.leader(d.id);
                pb::RangeLocation {
                    descriptor: Some(d.into()),
                    leader_node: health.leader.map_or(0, |l| l.node.get()),
                    leader_term: health.leader.map_or(0, |l| l.term),
                    live_replicas: health.live.iter().map(|r| r.get()).collect(),
                    size_bytes: known.map_or(0, |l| l.size_bytes),
                    load: registry.loads().of(d.id).map(|s| load_message(d.id, &s.load, false)),
                }
            };
            match RangeId(request.range_id) {
                RangeId::META => {
                    let ranges = machine.ranges().overlapping(&span).take(limit).map(locate);
                    first_within(ranges, ANSWER_BYTES_MAX)
                }
                id => {
                    let found = machine.ranges().get(id).map(locate);
                    let missing = || format!("there is no range {id}");
                    vec![found.ok_or_else(|| WireError::new(Code::NotFound, missing()))?]
                }
            }
        };
        let cluster_id = self.group.machine().read().cluster().map_or(0, ClusterId::get);
        Ok(pb::GetRangesResponse { error: None, ranges, nodes: self.node_addresses(), cluster_id })
    }

    fn not_bootstrapped(&self) -> WireError {
        let mut error = WireError::new(
            Code::Unavailable,
            "the cluster has no ranges yet: it waits for its first nodes",
        );
        error.0.retry_after_ms = 100;
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isotherm_types::NodeId;

    #[test]
    fn answers_are_cut_by_the_bytes_of_keys() {
        let range = |n: u64| {
            let span = KeyRange::new(vec![b'a'; 4_000], vec![b'b'; 4_000]).expect("ordered");
            RangeDescriptor::first(RangeId(n), span, &[NodeId(1)])
        };
        let located = |n| pb::RangeLocation {
            descriptor: Some((&range(n)).into()),
            ..pb::RangeLocation::default()
        };
        let first = first_within((1..=2_000).map(located), ANSWER_BYTES_MAX);
        assert_eq!(first.len(), ANSWER_BYTES_MAX / located(1).encoded_len());
        assert_eq!(first_within((1..=2_000).map(located), 1).len(), 1, "one at least");
    }
}
