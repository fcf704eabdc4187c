//! A node reports what it hosts, and learns what it should do.

use super::ranges::first_within;
use super::upgrade::check_supported;
use crate::machine::SEED_NUMBER;
use crate::member::Meta;
use crate::registry::{HEARTBEAT, Heartbeat, Hosted, LeaderReport};
use isotherm_proto::internal as pb;
use isotherm_proto::internal::error::Code;
use isotherm_proto::{ConvertError, WireError};
use isotherm_types::limits::{DAMAGED_RANGES_MAX, REMOVED_BYTES_MAX, REPLICAS_MAX, SPLIT_KEYS_MAX};
use isotherm_types::{
    ClusterVersion, Incarnation, Key, NodeId, RangeDescriptor, RangeId, ReplicaId,
};
use std::time::Instant;

/// Characters that are kept of what a node says is damaged.
const DAMAGE_CHARS_MAX: usize = 300;

/// A report whose descriptors were checked.
struct Report {
    range: RangeId,
    term: u64,
    led: Option<LeaderReport>,
    descriptors: Vec<RangeDescriptor>,
    replica: ReplicaId,
}

fn check_report(node: NodeId, report: pb::RangeReport) -> Result<Report, WireError> {
    for (what, n, max) in [
        ("split_children", report.split_children.len(), SPLIT_KEYS_MAX),
        ("live_replicas", report.live_replicas.len(), REPLICAS_MAX),
    ] {
        if n > max {
            let why = format!("a range report: field {what} has {n}: the limit is {max}");
            return Err(WireError::new(Code::Invalid, why));
        }
    }
    let convert = || -> Result<Vec<RangeDescriptor>, ConvertError> {
        let own = report.descriptor.ok_or(ConvertError::Missing("descriptor"))?;
        [own].into_iter().chain(report.split_children).map(TryInto::try_into).collect()
    };
    let descriptors =
        convert().map_err(|e| WireError::new(Code::Invalid, format!("a range report: {e}")))?;
    let range = descriptors[0].id;
    let named = descriptors[0].replica_on(node).map_or(ReplicaId(0), |r| r.id);
    let said = Some(ReplicaId(report.replica_id)).filter(|id| id.get() != 0);
    let replica = said.unwrap_or(named);
    let led = report.is_leader.then(|| LeaderReport {
        node,
        term: report.term,
        replica,
        live: report.live_replicas.into_iter().map(ReplicaId).collect(),
        size_bytes: report.size_bytes,
    });
    Ok(Report { range, term: report.term, led, descriptors, replica })
}

impl Meta {
    pub(super) fn heartbeat(
        &self,
        request: pb::HeartbeatRequest,
    ) -> Result<pb::HeartbeatResponse, WireError> {
        self.leading()?;
        let (node, incarnation) = (NodeId(request.node_id), Incarnation(request.incarnation));
        self.check_sender(&request)?;
        let supports = ClusterVersion::from_wire(request.supports_version);
        check_supported(self.group.machine().read().version(), ClusterVersion::FIRST, supports)?;
        let heartbeat = Heartbeat {
            replicas: request.replicas,
            leaders: request.leaders,
            disk_total_bytes: request.disk_total_bytes,
            disk_free_bytes: request.disk_free_bytes,
            read_only: request.read_only,
            draining: request.draining,
            seeded: request.seeded,
            load: request.load,
            capacity_cores: request.capacity_cores,
            supports,
            replicas_behind: request.replicas_behind,
            knows: ClusterVersion::from_wire(request.knows_version),
        };
        let reports = request
            .reports
            .into_iter()
            .map(|report| check_report(node, report))
            .collect::<Result<Vec<_>, _>>()?;
        let (is_change, report_all) = {
            let mut registry = self.registry.lock();
            let known = registry.presence(node).and_then(|p| p.heartbeat);
            let is_known = known.is_some_and(|(_, h)| h.seeded == heartbeat.seeded);
            registry.heartbeat(node, incarnation, heartbeat, Instant::now());
            let damaged = request.damaged_ranges.iter().take(DAMAGED_RANGES_MAX);
            registry.note_damaged_ranges(node, damaged.map(|range| RangeId(*range)).collect());
            for report in &reports {
                registry.report(node, report.range, report.term, report.led.clone());
                let own = &report.descriptors[0];
                // A copy: what came with the message shares all of its memory.
                let start = Key::copy_from_slice(own.span.start());
                let (replica, version) = (report.replica, own.epoch.version);
                let hosted = Hosted { replica, version, start };
                registry.note_replica(node, report.range, Some(hosted));
            }
            for load in request.loads {
                let (range, term) = (RangeId(load.range_id), load.term);
                registry.note_load(range, term, load.into());
            }
            for range in &request.gone {
                registry.note_replica(node, RangeId(*range), None);
            }
            (!is_known, registry.lacks_reports(node))
        };
        let is_news = self.hold(reports);
        if is_news || is_change {
            self.news.notify_one();
        }
        Ok(self.answer_heartbeat(node, request.seeded, report_all))
    }

    /// A node that stays out. It is no sign of life: one that starts again and again and says so each time
    /// is to be replaced all the same.
    pub(super) fn report_damage(
        &self,
        request: pb::ReportDamageRequest,
    ) -> Result<pb::ReportDamageResponse, WireError> {
        self.leading()?;
        self.check_cluster(request.cluster_id)?;
        let node = NodeId(request.node_id);
        if !self.group.machine().read().nodes().contains_key(&node) {
            return Err(WireError::new(Code::NotFound, format!("node {node} is not registered")));
        }
        let what: String = request.what.chars().take(DAMAGE_CHARS_MAX).collect();
        tracing::error!(node_id = %node, what, "the data of a node are damaged: it stays out");
        self.registry.lock().note_damage(node, what);
        Ok(pb::ReportDamageResponse { error: None })
    }

    /// Holds the descriptors that are newer than the map's; says whether there are any.
    fn hold(&self, reports: Vec<Report>) -> bool {
        let machine = self.group.machine().read();
        if !machine.is_bootstrapped() {
            return false;
        }
        let mut pool = self.pool.lock();
        let mut is_news = false;
        for descriptor in reports.into_iter().flat_map(|report| report.descriptors) {
            is_news |= pool.offer(machine.ranges(), descriptor);
        }
        is_news
    }

    fn answer_heartbeat(
        &self,
        node: NodeId,
        seeded: u64,
        report_all: bool,
    ) -> pb::HeartbeatResponse {
        let (seed, seed_number) = {
            let machine = self.group.machine().read();
            let number = if machine.is_bootstrapped() { SEED_NUMBER } else { 0 };
            let is_due = seeded < number;
            let seeds = is_due.then(|| machine.seeds_of(node)).into_iter().flatten();
            (seeds.map(Into::into).collect(), number)
        };
        let removed = self.removed_from(node);
        let settings = self.settings().into_iter().map(|s| (s.name, s.value)).collect();
        pb::HeartbeatResponse {
            error: None,
            seed,
            seed_number,
            nodes: self.node_addresses(),
            heartbeat_ms: u64::try_from(HEARTBEAT.as_millis()).unwrap_or(u64::MAX),
            settings,
            safe_point: self.safe_point().get(),
            report_all,
            removed,
            cluster_version: self.group.machine().read().version().to_wire(),
        }
    }

    /// What proves to `node` that replicas of it are to go: the map's descriptors of ranges that name
    /// them no longer, and of those that absorbed a range which it still has.
    fn removed_from(&self, node: NodeId) -> Vec<pb::Descriptor> {
        let machine = self.group.machine().read();
        let registry = self.registry.lock();
        let ranges = machine.ranges();
        let proof = |(range, hosted): (RangeId, &Hosted)| match ranges.get(range) {
            Some(d) => Some(d).filter(|d| d.has_passed(hosted.replica)),
            // A child of which the map has not heard yet is newer than what the map has there.
            None => ranges.locate(&hosted.start).filter(|d| d.epoch.version > hosted.version),
        };
        let mut proofs: Vec<_> = registry.replicas_on(node).filter_map(proof).collect();
        // One range may have absorbed several.
        proofs.sort_by_key(|d| d.id);
        proofs.dedup_by_key(|d| d.id);
        // The rest is said later: not always the same come first.
        let count = proofs.len();
        proofs.rotate_left(fastrand::usize(..count.max(1)).min(count));
        first_within(proofs.into_iter().map(pb::Descriptor::from), REMOVED_BYTES_MAX)
    }
}
