//! The partition map, and where leaders are.

use crate::member::Meta;
use crate::registry::{RangeHealth, load_message};
use isotherm_proto::WireError;
use isotherm_proto::internal as pb;
use isotherm_proto::internal::error::Code;
use isotherm_types::{ClusterId, KeyRange, RangeDescriptor, RangeId};
use std::time::Instant;

/// Most ranges in one answer.
const RANGES_MAX: usize = 10_000;
/// Bytes of their keys in one answer: with long keys it has fewer ranges.
const KEYS_BYTES_MAX: usize = 4 << 20;

/// The first ranges whose keys fit into one answer; at least one. The caller asks for the rest.
fn fitting<'a>(
    ranges: impl Iterator<Item = &'a RangeDescriptor>,
) -> impl Iterator<Item = &'a RangeDescriptor> {
    let mut bytes = 0;
    ranges.take_while(move |range| {
        let is_first = bytes == 0;
        bytes += 1 + range.span.start().len() + range.span.end().len();
        is_first || bytes <= KEYS_BYTES_MAX
    })
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
                    let ranges = machine.ranges().overlapping(&span).take(limit);
                    fitting(ranges).map(locate).collect()
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
        let ranges: Vec<_> = (1..=2_000).map(range).collect();
        assert_eq!(fitting(ranges.iter()).count(), 524, "of 8,001 bytes each");
        assert_eq!(fitting(ranges.iter().take(1)).count(), 1);
    }
}
