//! The agreed state as bytes: a format byte, then the newest of the layouts below.

use super::command::Founding;
use super::operations::Operations;
use super::state::{MetaMachine, NodeRecord, Window};
use isotherm_storage::codec;
use isotherm_types::{ClusterId, NodeId, RaftTiming, RangeDescriptor, RangeMap};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The layout that is written.
const FORMAT: u8 = 2;

/// Layout 1.
#[derive(Serialize, Deserialize)]
struct V1 {
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
struct V2 {
    base: V1,
    operations: Operations,
}

impl MetaMachine {
    pub(super) fn to_snapshot(&self) -> Vec<u8> {
        let state = V1 {
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
        let mut bytes = vec![FORMAT];
        bytes.extend(codec::encode(&V2 { base: state, operations: self.operations.clone() }));
        bytes
    }

    pub(super) fn from_snapshot(bytes: &[u8]) -> Result<Self, String> {
        let (format, rest) = bytes.split_first().ok_or("the snapshot is empty")?;
        let decoded = match *format {
            1 => codec::decode(rest).map(|base| V2 { base, operations: Operations::default() }),
            FORMAT => codec::decode(rest),
            _ => return Err(format!("snapshot format {format} is not known, only up to {FORMAT}")),
        };
        let V2 { base: state, operations } = decoded.map_err(|e| e.to_string())?;
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
        })
    }
}
