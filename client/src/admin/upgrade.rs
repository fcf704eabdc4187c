//! Upgrades: which version of rules and formats the cluster uses, and which its processes support.

use super::{Admin, META_TIMEOUT};
use crate::{ClientError, ErrorKind};
use isotherm_proto::internal::error::Code;
use isotherm_proto::internal::{self as pb};
use isotherm_types::ClusterVersion;
use std::time::Duration;

/// One process of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessVersion {
    /// `meta` or `node`.
    pub kind: String,
    /// Its id among those of its kind.
    pub id: u64,
    /// Where it serves gRPC.
    pub address: String,
    /// Its software; empty if it did not say.
    pub software: String,
    /// The newest cluster version that it supports; `None`: it did not answer.
    pub supports: Option<ClusterVersion>,
}

/// How far an upgrade is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeStatus {
    /// What the cluster uses.
    pub cluster_version: ClusterVersion,
    /// What every process that answered supports.
    pub supported_by_all: ClusterVersion,
    /// All processes.
    pub processes: Vec<ProcessVersion>,
    /// Replicas that are still at an earlier version than the cluster.
    pub replicas_behind: u64,
    /// Why the cluster version cannot be raised now.
    pub blockers: Vec<String>,
}

impl Admin<'_> {
    /// How far an upgrade is.
    pub async fn upgrade_status(&self) -> Result<UpgradeStatus, ClientError> {
        let answer = ask_meta!(self, upgrade_status, pb::UpgradeStatusRequest {})?;
        let process = |p: pb::ProcessVersion| ProcessVersion {
            kind: p.kind,
            id: p.id,
            address: p.address,
            software: p.software,
            supports: (p.supports != 0).then(|| ClusterVersion::from_wire(p.supports)),
        };
        Ok(UpgradeStatus {
            cluster_version: ClusterVersion::from_wire(answer.cluster_version),
            supported_by_all: ClusterVersion::from_wire(answer.supported_by_all),
            processes: answer.processes.into_iter().map(process).collect(),
            replicas_behind: answer.replicas_behind,
            blockers: answer.blockers,
        })
    }

    /// Raises the cluster version to what every process supports, for good. Returns the version that
    /// the cluster uses now; `Condition` if a process has not said what it supports.
    pub async fn finalize_upgrade(&self) -> Result<ClusterVersion, ClientError> {
        let answer = ask_meta!(self, finalize_upgrade, pb::FinalizeUpgradeRequest {})?;
        Ok(ClusterVersion::from_wire(answer.cluster_version))
    }
}
