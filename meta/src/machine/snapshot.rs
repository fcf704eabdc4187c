//! The agreed state as bytes: a format byte, then one of the layouts below: the newest that the cluster
//! version allows, so that members of an older software can read it until the upgrade is finalized.

use super::command::Founding;
use super::merges::Merges;
use super::nodes::NodeIntent;
use super::operations::Operations;
use super::state::{MetaMachine, NodeRecord, Window};
use isotherm_storage::codec;
use isotherm_types::{
    ClusterId, ClusterVersion, NodeId, RaftTiming, RangeDescriptor, RangeMap, Timestamp,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The newest layout.
const FORMAT: u8 = 5;

/// Layout 1: before there was a safe point.
#[derive(Serialize, Deserialize)]
pub(super) struct V1 {
    cluster: Option<ClusterId>,
    timing: Option<RaftTiming>,
    founding: Option<Founding>,
    ranges: Vec<RangeDescriptor>,
    seeds: Vec<RangeDescriptor>,
    nodes: BTreeMap<NodeId, NodeRecord>,
    nodes_given: u64,
    ranges_given: u64,
    incarnations_given: u64,
    window: Window,
    settings: BTreeMap<String, String>,
}

/// Layout 2.
#[derive(Serialize, Deserialize)]
pub(super) struct V2 {
    base: V1,
    operations: Operations,
    safe_point: Timestamp,
}

/// Layout 3: what is wanted of nodes.
#[derive(Serialize, Deserialize)]
pub(super) struct V3 {
    base: V2,
    intents: BTreeMap<NodeId, NodeIntent>,
}

/// Layout 4: merges.
#[derive(Serialize, Deserialize)]
pub(super) struct V4 {
    base: V3,
    merges: Merges,
}

/// Layout 5, from [`ClusterVersion::BOUNDED_WRITES`] on: the cluster version itself.
#[derive(Serialize, Deserialize)]
pub(super) struct V5 {
    base: V4,
    version: ClusterVersion,
}

impl From<V4> for V5 {
    fn from(base: V4) -> Self {
        Self { base, version: ClusterVersion::FIRST }
    }
}

impl From<V3> for V4 {
    fn from(base: V3) -> Self {
        Self { base, merges: Merges::default() }
    }
}

impl From<V2> for V3 {
    fn from(base: V2) -> Self {
        Self { base, intents: BTreeMap::new() }
    }
}

impl From<V1> for V2 {
    fn from(base: V1) -> Self {
        Self { base, operations: Operations::default(), safe_point: Timestamp::ZERO }
    }
}

impl MetaMachine {
    pub(super) fn to_snapshot(&self) -> Vec<u8> {
        let base = V1 {
            cluster: self.cluster,
            timing: self.timing,
            founding: self.founding,
            ranges: self.ranges.iter().cloned().collect(),
            seeds: self.seeds.clone(),
            nodes: self.nodes.clone(),
            nodes_given: self.nodes_given,
            ranges_given: self.ranges_given,
            incarnations_given: self.incarnations_given,
            window: self.window,
            settings: self.settings.clone(),
        };
        let (operations, safe_point) = (self.operations.clone(), self.safe_point);
        let base = V2 { base, operations, safe_point };
        let base = V3 { base, intents: self.intents.clone() };
        let base = V4 { base, merges: self.merges.clone() };
        let (format, state) = if self.version == ClusterVersion::FIRST {
            (4, codec::encode(&base))
        } else {
            (FORMAT, codec::encode(&V5 { base, version: self.version }))
        };
        [vec![format], state].concat()
    }

    pub(super) fn from_snapshot(bytes: &[u8]) -> Result<Self, String> {
        let (format, rest) = bytes.split_first().ok_or("the snapshot is empty")?;
        let state: V5 = match *format {
            1 => {
                let first = codec::decode::<V1, _>(rest).map_err(|e| e.to_string())?;
                V4::from(V3::from(V2::from(first))).into()
            }
            2 => {
                let second = codec::decode::<V2, _>(rest).map_err(|e| e.to_string())?;
                V4::from(V3::from(second)).into()
            }
            3 => V4::from(codec::decode::<V3, _>(rest).map_err(|e| e.to_string())?).into(),
            4 => codec::decode::<V4, _>(rest).map_err(|e| e.to_string())?.into(),
            FORMAT => codec::decode(rest).map_err(|e| e.to_string())?,
            newer => {
                return Err(format!("snapshot format {newer} is not known, only 1 to {FORMAT}"));
            }
        };
        let V5 { base: V4 { base: V3 { base, intents }, merges }, version } = state;
        if version > ClusterVersion::CURRENT {
            let known = ClusterVersion::CURRENT;
            return Err(format!(
                "the cluster uses version {version}, this software knows up to {known}: upgrade it"
            ));
        }
        let V2 { base: state, operations, safe_point } = base;
        let mut ranges = RangeMap::default();
        if !state.ranges.is_empty() {
            ranges.apply(&state.ranges).map_err(|e| e.to_string())?;
        }
        Ok(Self {
            cluster: state.cluster,
            timing: state.timing,
            founding: state.founding,
            ranges,
            seeds: state.seeds,
            nodes: state.nodes,
            nodes_given: state.nodes_given,
            ranges_given: state.ranges_given,
            incarnations_given: state.incarnations_given,
            window: state.window,
            settings: state.settings,
            operations,
            safe_point,
            intents,
            merges,
            version,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_of_older_layouts_are_read() {
        let mut machine = MetaMachine::default();
        machine.settings.insert("read.confirm".to_owned(), "quorum".to_owned());
        machine.safe_point = Timestamp(7);
        machine.intents.insert(NodeId(2), NodeIntent::Draining);
        let raised = MetaMachine { version: ClusterVersion::BOUNDED_WRITES, ..machine.clone() };
        let newest = raised.to_snapshot();
        assert_eq!(newest[0], FORMAT);
        assert_eq!(MetaMachine::from_snapshot(&newest), Ok(raised));
        let fourth = machine.to_snapshot();
        assert_eq!(fourth[0], 4, "members of an older software read it");
        assert_eq!(MetaMachine::from_snapshot(&fourth), Ok(machine.clone()));
        let V4 { base: third, .. } = codec::decode(&fourth[1..]).expect("just encoded");
        let read = |format: u8, bytes: Vec<u8>| {
            MetaMachine::from_snapshot(&[vec![format], bytes].concat()).expect("an older layout")
        };
        assert_eq!(read(3, codec::encode(&third)), machine);
        let base = third.base;
        let second = MetaMachine { intents: BTreeMap::new(), ..machine };
        assert_eq!(read(2, codec::encode(&base)), second);
        let first = MetaMachine { safe_point: Timestamp::ZERO, ..second };
        assert_eq!(read(1, codec::encode(&base.base)), first);
        assert!(MetaMachine::from_snapshot(&[FORMAT + 1, 1]).is_err());
        let unknown = ClusterVersion(ClusterVersion::CURRENT.0 + 1);
        let unknown = MetaMachine { version: unknown, ..MetaMachine::default() };
        let refused = MetaMachine::from_snapshot(&unknown.to_snapshot());
        assert!(refused.is_err_and(|why| why.contains("upgrade it")));
    }
}
