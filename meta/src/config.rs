//! How one member is configured.

use crate::MetaError;
use isotherm_transport::check_reachable;
use isotherm_types::NodeId;
use isotherm_types::limits::{ADDRESS_BYTES_MAX, BOOTSTRAP_RANGES_MAX, MEMBERS_MAX};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// From the gRPC port to the HTTP port, unless that is configured.
const HTTP_PORT_OFFSET: u16 = 1000;
const DISK_STALL_LIMIT: Duration = Duration::from_secs(60);

/// One member of the meta service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetaConfig {
    /// Which member this is; one of `peers`.
    pub id: u64,
    /// Where it serves gRPC.
    pub listen: SocketAddr,
    /// Where it serves health and metrics; by default the gRPC port plus 1000.
    #[serde(default)]
    pub http: Option<SocketAddr>,
    /// How others reach it, if not as `peers` says.
    #[serde(default)]
    pub advertise: Option<String>,
    /// What it keeps on disk.
    pub data_dir: PathBuf,
    /// All members, this one included: id and address. The same on all members.
    pub peers: Vec<(u64, String)>,
    /// How the cluster begins. Only the first leader of a new cluster looks at it.
    #[serde(default)]
    pub bootstrap: BootstrapConfig,
    /// With less free space than this the member gives leadership away, with a quarter of it, it takes
    /// nothing. 0 turns that off; without a value it is 5 % of the disk, at most 256 MiB.
    #[serde(default)]
    pub disk_reserve_bytes: Option<u64>,
    /// A process whose disk does not answer for that long ends, if the disks of others do; 0: it never
    /// does; without a value it is a minute.
    #[serde(default)]
    pub disk_stall_limit_ms: Option<u64>,
}

/// How a new cluster begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BootstrapConfig {
    /// How many nodes must have joined before the first ranges are placed.
    pub nodes: usize,
    /// How many ranges the key space is cut into.
    pub ranges: usize,
    /// Replicas of each range, at most one per node.
    pub replicas: usize,
}

impl Default for BootstrapConfig {
    fn default() -> Self {
        Self { nodes: 3, ranges: 3, replicas: 3 }
    }
}

impl MetaConfig {
    /// All faults at once, or none.
    pub fn check(&self) -> Result<(), MetaError> {
        let mut faults = Vec::new();
        let ids: BTreeSet<_> = self.peers.iter().map(|(id, _)| *id).collect();
        if ids.len() < self.peers.len() {
            faults.push("peers: two members have the same id".to_owned());
        }
        if ids.contains(&0) {
            faults.push("peers: member ids start at 1".to_owned());
        }
        if !ids.contains(&self.id) {
            faults.push(format!("peers: member {} itself is not among them", self.id));
        }
        if self.peers.iter().any(|(_, address)| address.trim().is_empty()) {
            faults.push("peers: a member has no address".to_owned());
        }
        for (id, address) in self.members().iter().filter(|(_, address)| !address.trim().is_empty())
        {
            if let Err(why) = check_reachable(address) {
                faults.push(format!(
                    "peers: member {id} is at {address}, and {why}: give the address under which the \
                     other members, nodes and clients reach it, by --advertise HOST:PORT or in --join",
                    id = id.get()
                ));
            }
        }
        if self.peers.len() > MEMBERS_MAX {
            faults.push(format!("peers: {} members, {MEMBERS_MAX} at most", self.peers.len()));
        }
        if self.members().iter().any(|(_, address)| address.len() > ADDRESS_BYTES_MAX) {
            faults.push(format!("peers: an address has more than {ADDRESS_BYTES_MAX} bytes"));
        }
        let BootstrapConfig { nodes, ranges, replicas } = self.bootstrap;
        if nodes == 0 {
            faults.push("bootstrap.nodes: at least 1 node is needed".to_owned());
        }
        if !(1..=BOOTSTRAP_RANGES_MAX).contains(&ranges) {
            faults.push(format!("bootstrap.ranges: {ranges} is not in 1..={BOOTSTRAP_RANGES_MAX}"));
        }
        if !(1..=9).contains(&replicas) {
            faults.push(format!("bootstrap.replicas: {replicas} is not in 1..=9"));
        }
        if self.http.is_none() && self.listen.port().checked_add(HTTP_PORT_OFFSET).is_none() {
            faults.push("http: listen port + 1000 is no port; give one".to_owned());
        }
        if faults.is_empty() { Ok(()) } else { Err(MetaError::Config { faults }) }
    }

    /// How long its disk may be silent.
    pub(crate) fn disk_stall_limit(&self) -> Option<Duration> {
        let limit = self.disk_stall_limit_ms.map_or(DISK_STALL_LIMIT, Duration::from_millis);
        (!limit.is_zero()).then_some(limit)
    }

    /// This member's id.
    pub(crate) fn member(&self) -> NodeId {
        NodeId(self.id)
    }

    /// Where it serves HTTP. A gRPC port of 0 (any) means any HTTP port too.
    pub(crate) fn http_addr(&self) -> SocketAddr {
        self.http.unwrap_or_else(|| match self.listen.port() {
            0 => self.listen,
            port => SocketAddr::new(self.listen.ip(), port.saturating_add(HTTP_PORT_OFFSET)),
        })
    }

    /// All members with the addresses under which they are reached, by id.
    pub(crate) fn members(&self) -> Vec<(NodeId, String)> {
        let address = |id: u64, given: &String| match &self.advertise {
            Some(advertised) if id == self.id => advertised.clone(),
            _ => given.clone(),
        };
        let mut members: Vec<_> =
            self.peers.iter().map(|(id, given)| (NodeId(*id), address(*id, given))).collect();
        members.sort();
        members
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config() -> MetaConfig {
        MetaConfig {
            id: 1,
            listen: ([127, 0, 0, 1], 7001).into(),
            http: None,
            advertise: None,
            data_dir: "m1".into(),
            peers: vec![(1, "127.0.0.1:7001".into()), (2, "127.0.0.1:7002".into())],
            bootstrap: BootstrapConfig::default(),
            disk_reserve_bytes: None,
            disk_stall_limit_ms: None,
        }
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        assert!(config().check().is_ok());
        let mut bad = config();
        bad.id = 9;
        bad.bootstrap = BootstrapConfig { nodes: 0, ranges: 0, replicas: 99 };
        let MetaError::Config { faults } = bad.check().unwrap_err() else { panic!() };
        assert_eq!(faults.len(), 4);
    }

    #[test]
    fn so_many_members_with_addresses_of_that_length_are_possible() {
        let with = |members: usize, bytes: usize| {
            let peer = |id: usize| (id as u64, format!("{}:7001", "m".repeat(bytes - 5)));
            MetaConfig { peers: (1..=members).map(peer).collect(), ..config() }.check()
        };
        assert!(with(MEMBERS_MAX, ADDRESS_BYTES_MAX).is_ok());
        let faults = |refused: Result<(), MetaError>| refused.unwrap_err().to_string();
        assert!(faults(with(MEMBERS_MAX + 1, 20)).contains("10 members, 9 at most"));
        assert!(faults(with(1, ADDRESS_BYTES_MAX + 1)).contains("more than 256 bytes"));
    }

    #[test]
    fn a_cluster_begins_with_so_many_ranges_of_so_many_replicas() {
        let with = |ranges: usize, replicas: usize| {
            let bootstrap = BootstrapConfig { ranges, replicas, ..BootstrapConfig::default() };
            MetaConfig { bootstrap, ..config() }.check().map_err(|refused| refused.to_string())
        };
        assert!(with(BOOTSTRAP_RANGES_MAX, 9).is_ok());
        let refused = with(BOOTSTRAP_RANGES_MAX + 1, 9).unwrap_err();
        assert!(refused.contains("10001 is not in 1..=10000"), "{refused}");
        assert!(with(1, 10).unwrap_err().contains("10 is not in 1..=9"));
    }

    #[test]
    fn an_address_that_nobody_can_connect_to_is_refused() {
        let mut bad = config();
        bad.listen = ([0, 0, 0, 0], 7001).into();
        bad.peers[0].1 = "0.0.0.0:7001".into();
        let MetaError::Config { faults } = bad.check().unwrap_err() else { panic!() };
        assert!(faults.len() == 1 && faults[0].contains("--advertise HOST:PORT"), "{faults:?}");
        bad.advertise = Some("meta-1.example:7001".into());
        assert!(bad.check().is_ok());
    }

    #[test]
    fn unknown_fields_are_refused() {
        let mut json = serde_json::to_value(config()).unwrap();
        assert!(serde_json::from_value::<MetaConfig>(json.clone()).is_ok());
        json["bootstrap"]["rangs"] = 3.into();
        assert!(serde_json::from_value::<MetaConfig>(json).is_err());
    }

    #[test]
    fn the_http_port_follows_the_grpc_port() {
        assert_eq!(config().http_addr().port(), 8001);
    }
}
