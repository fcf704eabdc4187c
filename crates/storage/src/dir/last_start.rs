//! What a node remembers of its last start, so that it can start again while the meta service is not
//! there: which start it was, which version the cluster ran at, where the other nodes were, and by
//! what to tell that the directory is still where it was.
//!
//! The file is not part of what a directory must have: without it, or with one that this software
//! does not read, a node waits for the meta service.

use isotherm_types::{Incarnation, NodeId};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The layout of the file that this software writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// The last start of a node that the meta service has admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastStart {
    /// The number that it was given.
    pub incarnation: Incarnation,
    /// The version that the cluster ran at; 0: it has none yet.
    pub cluster_version: u32,
    /// Where the directory was.
    pub place: Place,
    /// The other nodes as they were last known.
    pub peers: Vec<KnownPeer>,
}

/// Another node as it was last known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPeer {
    /// Which.
    pub node: NodeId,
    /// Where it serves.
    pub address: String,
    /// Its newest start; 0: not known.
    pub incarnation: Incarnation,
}

/// Where a directory is: a copy of it is somewhere else. A machine whose disk was copied whole differs
/// by its machine id, which whoever makes such copies has to renew, as for all software.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Id of the machine, or of its boot if the machine has none.
    pub machine: String,
    /// Device of the file system.
    pub device: u64,
    /// The directory's inode.
    pub inode: u64,
}

impl Place {
    /// Where `dir` is now.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(dir)?;
        Ok(Self { machine: machine()?, device: metadata.dev(), inode: metadata.ino() })
    }
}

fn machine() -> io::Result<String> {
    for path in ["/etc/machine-id", "/var/lib/dbus/machine-id"] {
        let id = fs::read_to_string(path).unwrap_or_default();
        // An image says `uninitialized` until its first boot.
        if id.trim().len() >= 32 {
            return Ok(id.trim().to_owned());
        }
    }
    // Containers often have none. Then only a restart on the same boot is recognised.
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(format!("boot {}", boot.trim()))
}

#[derive(Serialize, Deserialize)]
struct File<T> {
    format: u32,
    #[serde(flatten)]
    content: T,
}

#[derive(Deserialize)]
struct Nothing {}

pub(super) fn encode(start: &LastStart) -> Vec<u8> {
    let file = File { format: FORMAT, content: start };
    let mut text = serde_json::to_vec_pretty(&file).expect("ids and texts are JSON");
    text.push(b'\n');
    text
}

/// What a file says; an error says why it is of no use.
pub(super) fn decode(text: &[u8]) -> Result<LastStart, String> {
    let unreadable = |e: serde_json::Error| format!("it cannot be read: {e}");
    let File { format, content: Nothing {} } = serde_json::from_slice(text).map_err(unreadable)?;
    if format > FORMAT {
        return Err(format!("it has format {format}, this software knows {FORMAT} at most"));
    }
    let file: File<LastStart> = serde_json::from_slice(text).map_err(unreadable)?;
    Ok(file.content)
}
