//! How one node is configured.

use crate::NodeError;
use isotherm_raftstore::StoreTuning;
use isotherm_transport::check_reachable;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// From the gRPC port to the HTTP port, unless that is configured.
const HTTP_PORT_OFFSET: u16 = 1000;

/// One data node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Where it serves gRPC.
    pub listen: SocketAddr,
    /// Where it serves health and metrics; by default the gRPC port plus 1000.
    #[serde(default)]
    pub http: Option<SocketAddr>,
    /// How others reach it, if not as it listens.
    #[serde(default)]
    pub advertise: Option<String>,
    /// What it keeps on disk.
    pub data_dir: PathBuf,
    /// Members of the meta service.
    pub meta: Vec<String>,
    /// Where it is, for placement.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Use a data directory that was noted as damaged, with every replica in it counted as lost.
    #[serde(default)]
    pub clear_damage: bool,
    /// Sizes and intervals.
    #[serde(default)]
    pub tuning: NodeTuning,
}

/// Sizes and intervals of a node. The defaults are for production.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeTuning {
    /// Memory for blocks of data read from disk.
    pub block_cache_bytes: usize,
    /// Flush the data when this much is in memory only.
    pub flush_bytes: u64,
    /// Flush what is in memory only after this long.
    pub flush_interval_ms: u64,
    /// Log kept per range for slow followers, beyond what recovery needs.
    pub log_retain_bytes: u64,
    /// The same for all ranges together.
    pub log_retain_node_bytes: u64,
    /// How fast snapshots leave this node, all together; 0 is no limit.
    pub snapshot_bytes_per_second: u64,
    /// Waited before each sync of the log, to see what a slower disk would do.
    pub log_sync_delay_us: u64,
    /// With less free space than this the node takes no writes and gives its leaderships away. 0
    /// turns that off; without a value it is 5 % of the disk, at most 1 GiB.
    pub disk_reserve_bytes: Option<u64>,
    /// A process whose disk does not answer for that long ends, if the disks of others do; 0: it never
    /// does.
    pub disk_stall_limit_ms: u64,
    /// Confirm every read by a quorum round instead of a lease.
    pub read_quorum: bool,
    /// A stream of answers of which nothing is read for so long is ended.
    pub stream_idle_ms: u64,
    /// Memory for requests that are being answered and for answers; what does not fit is refused as
    /// busy.
    pub request_memory_bytes: usize,
}

impl Default for NodeTuning {
    fn default() -> Self {
        let store = StoreTuning::default();
        Self {
            block_cache_bytes: 128 << 20,
            flush_bytes: store.flush_bytes,
            flush_interval_ms: store.flush_interval.as_millis() as u64,
            log_retain_bytes: store.log_retain_bytes,
            log_retain_node_bytes: store.log_retain_node_bytes,
            snapshot_bytes_per_second: store.snapshot_bytes_per_second,
            log_sync_delay_us: 0,
            disk_reserve_bytes: None,
            disk_stall_limit_ms: store.stall_limit.as_millis() as u64,
            read_quorum: store.read_quorum,
            stream_idle_ms: 60_000,
            request_memory_bytes: 256 << 20,
        }
    }
}

impl NodeTuning {
    /// The part that concerns ranges.
    pub(crate) fn store(&self) -> StoreTuning {
        StoreTuning {
            flush_bytes: self.flush_bytes,
            flush_interval: Duration::from_millis(self.flush_interval_ms),
            log_retain_bytes: self.log_retain_bytes,
            log_retain_node_bytes: self.log_retain_node_bytes,
            snapshot_bytes_per_second: self.snapshot_bytes_per_second,
            stall_limit: Duration::from_millis(self.disk_stall_limit_ms),
            read_quorum: self.read_quorum,
            ..StoreTuning::default()
        }
    }
}

impl NodeConfig {
    /// What is wrong with it, before anything is touched.
    pub(crate) fn check(&self) -> Result<(), NodeError> {
        let wrong = |why: String| Err(NodeError::Config(why));
        if self.meta.is_empty() {
            return wrong("no address of the meta service is given".to_owned());
        }
        match &self.advertise {
            None if self.listen.ip().is_unspecified() => wrong(format!(
                "--listen {} takes connections on every address of this machine, but others need one \
                 address to connect to: add --advertise HOST:PORT, under which all other nodes, the \
                 meta service and clients reach this node",
                self.listen
            )),
            None => Ok(()),
            Some(given) => check_reachable(given).or_else(|why| {
                wrong(format!(
                    "--advertise {given}: {why}; give HOST:PORT under which all other nodes, the meta \
                     service and clients reach this node"
                ))
            }),
        }
    }

    /// How others reach it.
    pub(crate) fn address(&self, listen: SocketAddr) -> String {
        self.advertise.clone().unwrap_or_else(|| listen.to_string())
    }

    /// How others reach its HTTP server, which was bound to `http`: if that is any address, on the host
    /// of `address`.
    pub(crate) fn http_address(&self, http: SocketAddr, address: &str) -> String {
        match address.rsplit_once(':') {
            Some((host, _)) if http.ip().is_unspecified() => format!("{host}:{}", http.port()),
            _ => http.to_string(),
        }
    }

    /// Where it serves HTTP. A gRPC port of 0 (any) means any HTTP port too.
    pub(crate) fn http_addr(&self) -> SocketAddr {
        self.http.unwrap_or_else(|| match self.listen.port() {
            0 => self.listen,
            port => SocketAddr::new(self.listen.ip(), port.saturating_add(HTTP_PORT_OFFSET)),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config(listen: &str, advertise: Option<&str>) -> NodeConfig {
        NodeConfig {
            listen: listen.parse().unwrap(),
            http: None,
            advertise: advertise.map(str::to_owned),
            data_dir: "data".into(),
            meta: vec!["127.0.0.1:7001".to_owned()],
            labels: BTreeMap::new(),
            clear_damage: false,
            tuning: NodeTuning::default(),
        }
    }

    #[test]
    fn an_address_that_nobody_can_connect_to_is_refused_with_what_to_do() {
        for listen in ["0.0.0.0:7101", "[::]:7101", "0.0.0.0:0"] {
            let refused = config(listen, None).check().unwrap_err().to_string();
            assert!(
                refused.contains(listen) && refused.contains("--advertise HOST:PORT"),
                "{refused}"
            );
            config(listen, Some("db-1.example:7101")).check().unwrap();
        }
        for advertise in ["0.0.0.0:7101", "[::]:7101", "db-1.example", "10.0.0.1:0", ":7101", ""] {
            let refused =
                config("127.0.0.1:7101", Some(advertise)).check().unwrap_err().to_string();
            assert!(refused.contains("HOST:PORT"), "{advertise}: {refused}");
        }
        config("127.0.0.1:0", None).check().unwrap();
        config("[::1]:7101", Some("[2001:db8::1]:7101")).check().unwrap();
    }

    #[test]
    fn the_http_server_is_reached_where_the_node_is() {
        let config = config("0.0.0.0:7101", Some("db-1.example:7101"));
        let http = config.http_addr();
        assert_eq!(config.http_address(http, "db-1.example:7101"), "db-1.example:8101");
        let local = SocketAddr::from(([127, 0, 0, 1], 8101));
        assert_eq!(config.http_address(local, "db-1.example:7101"), "127.0.0.1:8101");
    }
}
