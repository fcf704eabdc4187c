//! What is hot, why the scheduler does what it does, and what is wanted of nodes.

use super::{Admin, META_TIMEOUT};
use crate::{ClientError, ErrorKind};
use isotherm_proto::internal::error::Code;
use isotherm_proto::internal::{self as pb};
use isotherm_types::{Key, NodeId, RangeId};
use std::time::Duration;

/// Rates of one range at its leader.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rates {
    /// Keys per second, rows of scans included.
    pub reads: f64,
    /// Operations per second.
    pub writes: f64,
    /// Bytes per second, in and out.
    pub bytes: f64,
    /// Writes per second above all keys that were written before.
    pub appends: f64,
    /// CPU of the leader, in cores, including demand that was queued or refused.
    pub cores: f64,
}

/// A key of a sample.
#[derive(Debug, Clone, PartialEq)]
pub struct KeySample {
    /// The key.
    pub key: Key,
    /// Its share of the heat of the range, from 0 to 1.
    pub share: f64,
}

/// What a range costs its leader.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RangeLoad {
    /// Averaged over about a second.
    pub fast: Rates,
    /// Averaged over about ten seconds.
    pub slow: Rates,
    /// Its hottest keys, the hottest first; empty for a range that is not warm.
    pub keys: Vec<KeySample>,
}

/// A decision of the scheduler about a range.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Which rule decided.
    pub rule: String,
    /// What it does; none: nothing, for the reason.
    pub action: Option<String>,
    /// Why.
    pub reason: String,
    /// How long ago.
    pub age: Duration,
    /// What became of the action, once that is known.
    pub outcome: Option<String>,
}

/// What was decided about a range lately, the newest first, and what it costs.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The decisions.
    pub decisions: Vec<Decision>,
    /// The load that they are about.
    pub load: RangeLoad,
}

/// A hot range.
#[derive(Debug, Clone, PartialEq)]
pub struct HotRange {
    /// Which.
    pub range: RangeId,
    /// Its first key.
    pub start: Key,
    /// Its end; empty: the end of the key space.
    pub end: Key,
    /// Who leads it.
    pub leader: Option<NodeId>,
    /// What it costs.
    pub load: RangeLoad,
    /// The newest decision about it.
    pub decision: Option<Decision>,
}

fn rates(rates: Option<pb::Rates>) -> Rates {
    let r = rates.unwrap_or_default();
    Rates { reads: r.reads, writes: r.writes, bytes: r.bytes, appends: r.appends, cores: r.cores }
}

impl From<pb::RangeLoad> for RangeLoad {
    fn from(load: pb::RangeLoad) -> Self {
        let all: f64 = load.sample.iter().map(|s| s.weight).sum();
        let mut sample = load.sample;
        sample.sort_by(|a, b| a.key.cmp(&b.key));
        let mut keys: Vec<KeySample> = Vec::new();
        for pb::KeySample { key, weight, .. } in sample {
            let share = weight / all.max(f64::MIN_POSITIVE);
            match keys.last_mut() {
                Some(last) if last.key == key => last.share += share,
                _ => keys.push(KeySample { key, share }),
            }
        }
        keys.sort_by(|a, b| b.share.total_cmp(&a.share));
        Self { fast: rates(load.fast), slow: rates(load.slow), keys }
    }
}

fn decision(decision: pb::Decision) -> Decision {
    let stated = |text: String| Some(text).filter(|text| !text.is_empty());
    Decision {
        rule: decision.rule,
        action: stated(decision.action),
        reason: decision.reason,
        age: Duration::from_millis(decision.ms_ago),
        outcome: stated(decision.outcome),
    }
}

impl Admin<'_> {
    /// The last decisions about a range, each with its reason, also why nothing was done.
    pub async fn explain(&self, range: RangeId) -> Result<Explanation, ClientError> {
        let request = pb::ExplainRangeRequest { range_id: range.get() };
        let answer = ask_meta!(self, explain_range, request)?;
        Ok(Explanation {
            decisions: answer.decisions.into_iter().map(decision).collect(),
            load: answer.load.map(RangeLoad::from).unwrap_or_default(),
        })
    }

    /// The hottest ranges, the hottest first; 0: twenty of them.
    pub async fn hot(&self, limit: u32) -> Result<Vec<HotRange>, ClientError> {
        let answer = ask_meta!(self, hot, pb::HotRequest { limit })?;
        let hot = answer.ranges.into_iter().map(|range| HotRange {
            range: RangeId(range.range_id),
            start: range.start,
            end: range.end,
            leader: Some(NodeId(range.leader_node)).filter(|node| node.get() != 0),
            load: range.load.map(RangeLoad::from).unwrap_or_default(),
            decision: range.decision.map(decision),
        });
        Ok(hot.collect())
    }

    /// Says what is wanted of a node: `active`, `draining` or `decommissioning`. Nothing is waited
    /// for.
    pub async fn set_intent(&self, node: NodeId, intent: &str) -> Result<(), ClientError> {
        let request = pb::SetIntentRequest { node_id: node.get(), intent: intent.to_owned() };
        ask_meta!(self, set_intent, request.clone()).map(drop)
    }
}
