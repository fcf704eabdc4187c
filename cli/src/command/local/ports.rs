//! Who listens on a port of this machine, as `/proc` says.

use std::fs;
use std::net::{SocketAddr, TcpListener};

/// Inodes of sockets.
type Inodes = Vec<String>;

/// Whether a process listens at `address`.
pub fn is_taken(address: &str) -> bool {
    let address = address.parse::<SocketAddr>();
    let bound = address.map(TcpListener::bind);
    matches!(bound, Ok(Err(error)) if error.kind() == std::io::ErrorKind::AddrInUse)
}

/// Whether `pid` is the process that listens at `address`. Two processes cannot listen at one address, so
/// that then it, and no other process, answers there.
pub fn is_served_by(address: &str, pid: u32) -> bool {
    let listening = listening(address);
    !listening.is_empty() && has_socket(pid, &listening)
}

/// The process that listens at `address`, as people know it: its number and its command line.
pub fn owner(address: &str) -> Option<String> {
    let listening = listening(address);
    let pids = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.find(|pid| has_socket(*pid, &listening))?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line: Vec<_> = line.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
    let shown: String = line.join(" ").trim().chars().take(300).collect();
    Some(format!("process {pid} ({shown})"))
}

fn has_socket(pid: u32, inodes: &Inodes) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut links = open.filter_map(|fd| fs::read_link(fd.path()).ok());
    links.any(|link| {
        let name = link.to_string_lossy();
        let inode = name.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        inode.is_some_and(|inode| inodes.iter().any(|known| known == inode))
    })
}

/// The sockets that listen on the port of `address`, on whichever address of this machine.
fn listening(address: &str) -> Inodes {
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let Some(port) = port else { return Vec::new() };
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let rows = tables.iter().flatten().flat_map(|table| table.lines().skip(1));
    let inode = |row: &str| {
        let fields: Vec<_> = row.split_whitespace().collect();
        // Number, local address, remote address, state (0A: listens), …, inode.
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let at = local.rsplit_once(':').and_then(|(_, hex)| u16::from_str_radix(hex, 16).ok());
        (at == Some(port) && *state == "0A").then(|| (*inode).to_owned())
    };
    rows.filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_listener_is_found_with_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let me = std::process::id();
        assert!(is_taken(&address) && is_served_by(&address, me));
        assert!(!is_served_by(&address, 1));
        let who = owner(&address).unwrap();
        assert!(who.starts_with(&format!("process {me} (")), "{who}");
        drop(listener);
        assert!(!is_taken(&address) && !is_served_by(&address, me) && owner(&address).is_none());
    }
}
