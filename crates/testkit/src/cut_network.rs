//! A network whose links can be cut, each direction by itself.
//!
//! Every member gets a network namespace with one address on a bridge; the test itself is on that bridge
//! too. A direction is cut by a rule of the receiver's namespace that drops what comes from the sender:
//! silently, as a broken network does. Needs root, `ip` and `nft`.

use crate::Member;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::process::Command;
use thiserror::Error;

/// Why there is no such network.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// It cannot be made on this machine: not root, or without the tools.
    #[error("no network of its own for this test: {0}")]
    Unsupported(String),
}

/// One member's end.
#[derive(Debug)]
struct Host {
    namespace: String,
    address: Ipv4Addr,
}

/// The network of one cluster. Dropping it removes its namespaces and its bridge.
#[derive(Debug)]
pub struct CutNetwork {
    bridge: String,
    hosts: BTreeMap<Member, Host>,
}

fn run(line: &str) -> Result<(), NetworkError> {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    let said = command.args(words).output();
    let said = said.map_err(|e| NetworkError::Unsupported(format!("{line}: {e}")))?;
    if said.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&said.stderr).trim().to_owned();
    Err(NetworkError::Unsupported(format!("{line}: {why}")))
}

impl CutNetwork {
    /// A network for `members`. No two networks that exist at the same time may have the same
    /// `number`; what an earlier one of that number left is removed.
    pub fn create(number: u16, members: &[Member]) -> Result<Self, NetworkError> {
        let [high, low] = number.to_be_bytes();
        let address = |host: u8| Ipv4Addr::new(10, 224 + high % 16, low, host);
        let bridge = format!("iso{number}");
        let hosts = (11..).zip(members).map(|(host, member)| {
            let namespace = format!("iso{number}-{host}");
            (*member, Host { namespace, address: address(host) })
        });
        let network = Self { bridge, hosts: hosts.collect() };
        network.remove();
        network.make(address(1))?;
        Ok(network)
    }

    fn make(&self, gateway: Ipv4Addr) -> Result<(), NetworkError> {
        let bridge = &self.bridge;
        run(&format!("ip link add {bridge} type bridge"))?;
        run(&format!("ip address add {gateway}/24 dev {bridge}"))?;
        run(&format!("ip link set {bridge} up"))?;
        for (n, Host { namespace, address }) in self.hosts.values().enumerate() {
            let end = format!("{bridge}v{n}");
            run(&format!("ip netns add {namespace}"))?;
            run(&format!("ip link add {end} type veth peer name eth0 netns {namespace}"))?;
            run(&format!("ip link set {end} master {bridge} up"))?;
            let inside = format!("ip netns exec {namespace}");
            run(&format!("{inside} ip link set lo up"))?;
            run(&format!("{inside} ip address add {address}/24 dev eth0"))?;
            run(&format!("{inside} ip link set eth0 up"))?;
            run(&format!("{inside} nft add table ip cut"))?;
            run(&format!(
                "{inside} nft add chain ip cut input {{ type filter hook input priority 0; }}"
            ))?;
        }
        Ok(())
    }

    /// Removes what there is of it.
    fn remove(&self) {
        // Errors say that something is not there. The other end of a veth goes with its namespace,
        // but late: so it is removed first.
        for (n, host) in self.hosts.values().enumerate() {
            let _ = run(&format!("ip link del {}v{n}", self.bridge));
            let _ = run(&format!("ip netns del {}", host.namespace));
        }
        let _ = run(&format!("ip link del {}", self.bridge));
    }

    /// Where `member` is.
    pub fn address(&self, member: Member) -> Ipv4Addr {
        self.hosts[&member].address
    }

    /// What stands before the program of `member`, so that it runs in its namespace.
    pub(crate) fn prefix(&self, member: Member) -> Vec<OsString> {
        let namespace = &self.hosts[&member].namespace;
        ["ip", "netns", "exec", namespace].into_iter().map(OsString::from).collect()
    }

    /// Loses everything that `from` sends to `to` from now on.
    pub fn cut(&self, from: Member, to: Member) -> Result<(), NetworkError> {
        let (from, to) = (&self.hosts[&from], &self.hosts[&to]);
        let inside = format!("ip netns exec {}", to.namespace);
        run(&format!("{inside} nft add rule ip cut input ip saddr {} drop", from.address))
    }

    /// Loses nothing any more.
    pub fn heal(&self) -> Result<(), NetworkError> {
        for host in self.hosts.values() {
            run(&format!("ip netns exec {} nft flush chain ip cut input", host.namespace))?;
        }
        Ok(())
    }
}

impl Drop for CutNetwork {
    fn drop(&mut self) {
        self.remove();
    }
}
