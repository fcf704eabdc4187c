//! Upgrades: which cluster version every process supports, and raising the one that is used.
//!
//! The version is raised in two places only: for a cluster that has no ranges yet (what it begins with),
//! and by `isotherm upgrade finalize`. Both take the lowest that all processes support, and neither goes
//! on while one process has not said.

use super::admin::unexpected;
use crate::machine::{Command, NodeIntent, Reply};
use crate::member::{Meta, ask_members};
use crate::registry::DOWN_AFTER;
use isotherm_proto::WireError;
use isotherm_proto::internal as pb;
use isotherm_proto::internal::error::Code;
use isotherm_telemetry::build_info;
use isotherm_types::ClusterVersion;
use isotherm_types::limits::{self, LABEL_BYTES_MAX};
use std::time::{Duration, Instant};

/// How long another member may take to say what it supports.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// One process of the cluster and what it supports.
struct Process {
    kind: &'static str,
    id: u64,
    address: String,
    software: String,
    /// `None`: it does not answer.
    supports: Option<ClusterVersion>,
}

/// What all processes said.
pub(crate) struct Survey {
    /// What the cluster uses.
    pub version: ClusterVersion,
    processes: Vec<Process>,
    replicas_behind: u64,
    /// Starts of nodes so far: a node that starts later is not part of the survey.
    starts: u64,
}

impl Survey {
    /// What every process that answered supports.
    pub fn supported_by_all(&self) -> ClusterVersion {
        let supports = self.processes.iter().filter_map(|process| process.supports);
        supports.min().unwrap_or(self.version).max(self.version)
    }

    /// Why the version must not be raised now.
    pub fn blockers(&self) -> Vec<String> {
        let silent = self.processes.iter().filter(|process| process.supports.is_none());
        let mut blockers: Vec<_> = silent
            .map(|Process { kind, id, address, .. }| match *kind {
                "node" => format!(
                    "node {id} ({address}) has not said which version it supports: start it, or \
                     decommission it"
                ),
                _ => format!("meta member {id} ({address}) does not answer: start it"),
            })
            .collect();
        if self.replicas_behind > 0 {
            blockers.push(format!(
                "{} replicas are still being raised to version {}: wait a moment",
                self.replicas_behind, self.version
            ));
        }
        blockers
    }
}

impl Meta {
    /// Asks every process what it supports. Nodes have said so with their heartbeats.
    pub(crate) async fn survey(&self) -> Survey {
        let members = self.members.iter().map(|(id, address)| async move {
            let own = (build_info().version.to_owned(), ClusterVersion::CURRENT);
            let said = if *id == self.me {
                Some(own)
            } else {
                let answer = tokio::time::timeout(ASK_TIMEOUT, ask_members(address)).await;
                let answer = answer.ok().and_then(Result::ok);
                let answer = answer.filter(|answer| answer.answered_by == id.get());
                let answer = answer.map(|mut answer| {
                    limits::cut_to(&mut answer.software, LABEL_BYTES_MAX);
                    answer
                });
                answer.map(|a| (a.software, ClusterVersion::from_wire(a.supports_version)))
            };
            let (software, supports) = said.map_or((String::new(), None), |(s, v)| (s, Some(v)));
            Process { kind: "meta", id: id.get(), address: address.clone(), software, supports }
        });
        let mut processes = futures::future::join_all(members).await;
        let machine = self.group.machine().read();
        let (registry, now) = (self.registry.lock(), Instant::now());
        let mut replicas_behind = 0;
        for (id, record) in machine.nodes() {
            if machine.intent(*id) == NodeIntent::Decommissioned {
                continue;
            }
            let heartbeat = registry.presence(*id).and_then(|presence| presence.heartbeat);
            let heartbeat = heartbeat
                .filter(|(at, _)| now.saturating_duration_since(*at) < DOWN_AFTER)
                .map(|(_, heartbeat)| heartbeat);
            // Who has not heard of the version cannot have followed it.
            replicas_behind += heartbeat.map_or(0, |heartbeat| {
                let is_informed = heartbeat.knows >= machine.version();
                if is_informed { heartbeat.replicas_behind } else { heartbeat.replicas }
            });
            processes.push(Process {
                kind: "node",
                id: id.get(),
                address: record.details.address.clone(),
                software: record.details.version.clone(),
                supports: heartbeat.map(|heartbeat| heartbeat.supports),
            });
        }
        let (version, starts) = (machine.version(), machine.starts());
        Survey { version, processes, replicas_behind, starts }
    }

    /// Raises the version to what every process of `survey` supports, unless a node has started since.
    pub(crate) async fn raise(&self, term: u64, survey: &Survey) -> Result<(), WireError> {
        let (from, to, starts) = (survey.version, survey.supported_by_all(), survey.starts);
        match self.propose(Command::RaiseVersion { to, starts }, Some(term)).await? {
            Reply::Done => {
                tracing::info!(from = from.0, to = to.0, "the cluster version was raised");
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn upgrade_status(&self) -> Result<pb::UpgradeStatusResponse, WireError> {
        self.confirmed_leading().await?;
        let survey = self.survey().await;
        let (supported_by_all, blockers) = (survey.supported_by_all(), survey.blockers());
        let process = |process: Process| pb::ProcessVersion {
            kind: process.kind.to_owned(),
            id: process.id,
            address: process.address,
            software: process.software,
            supports: process.supports.map_or(0, ClusterVersion::to_wire),
        };
        Ok(pb::UpgradeStatusResponse {
            error: None,
            cluster_version: survey.version.to_wire(),
            supported_by_all: supported_by_all.to_wire(),
            processes: survey.processes.into_iter().map(process).collect(),
            replicas_behind: survey.replicas_behind,
            blockers,
        })
    }

    pub(super) async fn finalize_upgrade(&self) -> Result<pb::FinalizeUpgradeResponse, WireError> {
        let term = self.confirmed_leading().await?;
        let survey = self.survey().await;
        let blockers = survey.blockers();
        if !blockers.is_empty() {
            let why = format!("the upgrade cannot be finalized: {}", blockers.join("; "));
            return Err(WireError::new(Code::Condition, why));
        }
        let (from, to) = (survey.version, survey.supported_by_all());
        if to > from {
            self.raise(term, &survey).await?;
        }
        Ok(pb::FinalizeUpgradeResponse { error: None, cluster_version: to.to_wire() })
    }
}

/// Whether a process that supports `from` to `to` can be part of a cluster at `version`.
pub(super) fn check_supported(
    version: ClusterVersion,
    from: ClusterVersion,
    to: ClusterVersion,
) -> Result<(), WireError> {
    if version > to {
        let why = format!(
            "the cluster is at version {version}, and this node supports {to} at most: its software is \
             too old, an upgrade that is finalized cannot be taken back. Start it with the newer one"
        );
        return Err(WireError::new(Code::Incompatible, why));
    }
    if version < from {
        let why = format!(
            "the cluster is at version {version}, and this node supports {from} at least: its software \
             is too new. Upgrade step by step, and finalize each with `isotherm upgrade finalize`"
        );
        return Err(WireError::new(Code::Incompatible, why));
    }
    Ok(())
}
