//! `cluster.json`: what belongs to a local cluster.

use super::process::{Process, by_arguments};
use crate::args::Up;
use crate::failure::{CONDITION, Failure, UNEXPECTED};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

const NODES_FROM: u16 = 10;
const HTTP_PORT_OFFSET: u16 = 1000;

/// Processes of a local cluster, as `up` takes them.
const NODES_MAX: usize = 90;
const META_MAX: usize = 5;
/// `cluster.json`, in bytes: of each process the paths of program, data and log, each at most twice, where
/// in JSON a byte can take six, and what else it is called with.
const CLUSTER_BYTES_MAX: usize = (NODES_MAX + META_MAX) * (5 * 6 * 4096 + 4096);

/// `cluster.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Cluster {
    /// What the cluster calls itself, in decimal digits, once it was ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// It was made by an `up` that has not said `ready`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_unfinished: bool,
    pub meta: Vec<Process>,
    pub nodes: Vec<Process>,
}

/// What a cluster is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    nodes: usize,
    meta_nodes: usize,
    base_port: u16,
    ranges: usize,
    replicas: usize,
}

impl Shape {
    /// As `up` makes it, where nothing is said.
    fn of(args: &Up) -> Self {
        Self {
            nodes: args.nodes.unwrap_or(3),
            meta_nodes: args.meta_nodes.unwrap_or(1),
            base_port: args.base_port.unwrap_or(7400),
            ranges: args.ranges.unwrap_or(8),
            replicas: args.replicas.unwrap_or(3),
        }
    }
}

impl Cluster {
    /// A cluster that is to be made in `dir`.
    pub fn plan(args: &Up, dir: &Path, log_filter: &str) -> Result<Self, Failure> {
        let shape = Shape::of(args);
        let exe = std::env::current_exe()?.to_string_lossy().into_owned();
        let port = |offset: u16| {
            let port = shape.base_port.checked_add(offset);
            let port = port.filter(|p| *p < u16::MAX - HTTP_PORT_OFFSET);
            port.ok_or_else(|| Failure::usage("--base-port: too high"))
        };
        let process = |kind: &str, id: u64, port: u16, mut rest: Vec<String>| {
            let data_dir = dir.join(format!("{kind}-{id}"));
            let address = format!("127.0.0.1:{port}");
            let mut argv = vec![exe.clone(), kind.to_owned()];
            argv.extend(["--listen".to_owned(), address.clone()]);
            argv.extend(["--data-dir".to_owned(), data_dir.to_string_lossy().into_owned()]);
            argv.extend(["--log".to_owned(), log_filter.to_owned()]);
            argv.append(&mut rest);
            Process {
                id,
                address,
                http: format!("127.0.0.1:{}", port + HTTP_PORT_OFFSET),
                pid: 0,
                log: dir.join(format!("{kind}-{id}.log")),
                data_dir,
                argv,
            }
        };
        let meta_ports =
            (0..shape.meta_nodes as u16).map(port).collect::<Result<Vec<_>, Failure>>()?;
        let joined: Vec<_> =
            (1..).zip(&meta_ports).map(|(id, p): (u64, _)| format!("{id}=127.0.0.1:{p}")).collect();
        let addresses: Vec<_> = meta_ports.iter().map(|p| format!("127.0.0.1:{p}")).collect();
        let meta = (1..).zip(&meta_ports).map(|(id, p)| {
            let rest = [
                ("--id", id.to_string()),
                ("--join", joined.join(",")),
                ("--bootstrap-nodes", shape.nodes.to_string()),
                ("--bootstrap-ranges", shape.ranges.to_string()),
                ("--replicas", shape.replicas.to_string()),
            ];
            process("meta", id, *p, rest.into_iter().flat_map(|(k, v)| [k.to_owned(), v]).collect())
        });
        let meta = meta.collect();
        let node = |i: u16| {
            let rest = vec!["--meta".to_owned(), addresses.join(",")];
            Ok(process("node", u64::from(i) + 1, port(NODES_FROM + i)?, rest))
        };
        let nodes = (0..shape.nodes as u16).map(node).collect::<Result<Vec<_>, Failure>>()?;
        Ok(Self { cluster_id: None, is_unfinished: true, meta, nodes })
    }

    /// All of its processes, meta first.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.meta.iter().chain(&self.nodes)
    }

    fn processes_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        self.meta.iter_mut().chain(&mut self.nodes)
    }

    /// Those of its processes that serve at `addresses`.
    pub fn only(&self, addresses: &[String]) -> Self {
        let only = |all: &[Process]| {
            all.iter().filter(|p| addresses.contains(&p.address)).cloned().collect()
        };
        Self { meta: only(&self.meta), nodes: only(&self.nodes), ..self.clone() }
    }

    /// Finds the processes of it that run, also those that were started by an `up` that was killed before
    /// it could note them.
    pub fn find_running(&mut self) {
        let running = by_arguments();
        self.processes_mut().for_each(|process| process.find(&running));
    }

    /// Notes that nothing of it runs.
    pub fn note_stopped(&mut self) {
        self.processes_mut().for_each(|process| process.pid = 0);
    }

    /// What those of its processes log that are started from now on.
    pub fn set_log_filter(&mut self, filter: &str) {
        for process in self.processes_mut().filter(|process| !process.is_running()) {
            let at = process.argv.iter().position(|arg| arg == "--log").map(|at| at + 1);
            if let Some(arg) = at.and_then(|at| process.argv.get_mut(at)) {
                filter.clone_into(arg);
            }
        }
    }

    /// How many ranges it began with.
    pub fn ranges(&self) -> usize {
        self.founding("--bootstrap-ranges").unwrap_or(0)
    }

    fn founding(&self, flag: &str) -> Option<usize> {
        self.meta.first()?.argument(flag)?.parse().ok()
    }

    /// Whether it is the cluster of `dir`, and not that of the directory from which `dir` was copied, or
    /// which it was before it was moved: its processes would work there.
    pub fn check_place(&self, dir: &Path) -> Result<(), Failure> {
        let Some(other) = self.processes().find(|process| !process.data_dir.starts_with(dir))
        else {
            return Ok(());
        };
        let (shown, place) = (dir.display(), other.data_dir.display());
        let why = format!(
            "{shown} was copied or moved: its cluster.json is of a cluster with its data in {place}"
        );
        Err(Failure::new(CONDITION, why))
    }

    /// Whether flags that were given say what it was made with.
    pub fn check_flags(&self, dir: &Path, args: &Up) -> Result<(), Failure> {
        let port = self.meta.first().and_then(|m| m.address.rsplit_once(':')?.1.parse().ok());
        let made_with = |flag| self.founding(flag);
        // Some nodes may have been decommissioned since.
        let nodes = Some(self.nodes.len()).filter(|now| args.nodes == Some(*now));
        let flags = [
            ("--nodes", args.nodes, nodes.or_else(|| made_with("--bootstrap-nodes"))),
            ("--meta-nodes", args.meta_nodes, Some(self.meta.len())),
            ("--base-port", args.base_port.map(usize::from), port),
            ("--ranges", args.ranges, made_with("--bootstrap-ranges")),
            ("--replicas", args.replicas, made_with("--replicas")),
        ];
        let mut differences = Vec::new();
        for (flag, given, stored) in flags {
            if let (Some(given), Some(stored)) = (given, stored)
                && given != stored
            {
                differences.push(format!("{flag} {stored}, not {given}"));
            }
        }
        if differences.is_empty() {
            return Ok(());
        }
        let (shown, with) = (dir.display(), differences.join("; "));
        let advice = if self.is_unfinished {
            "It has never been ready: `isotherm down`, remove the directory, and begin again"
        } else {
            "Leave the flags out to start it, or take another --dir for another cluster"
        };
        Err(Failure::usage(format!("{shown} holds a cluster that was made with {with}. {advice}.")))
    }
}

pub fn cluster_path(dir: &Path) -> PathBuf {
    dir.join("cluster.json")
}

/// What is in the file, up to one byte more than it can have.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(CLUSTER_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

pub fn load(dir: &Path) -> Result<Option<Cluster>, Failure> {
    let path = cluster_path(dir);
    match read_bounded(&path) {
        Ok(text) if text.len() > CLUSTER_BYTES_MAX => {
            let why = format!("{} has more than {CLUSTER_BYTES_MAX} bytes", path.display());
            Err(Failure::new(UNEXPECTED, why))
        }
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|e| Failure::new(UNEXPECTED, format!("{} is damaged: {e}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub fn save(dir: &Path, cluster: &Cluster) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(cluster).map_err(|e| Failure::new(UNEXPECTED, e))?;
    let tmp = dir.join("cluster.json.tmp");
    let mut file = File::create(&tmp)?;
    file.write_all(&text)?;
    file.sync_all()?;
    Ok(fs::rename(tmp, cluster_path(dir))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use isotherm_types::sizes::{SizeRow, with_rows};

    #[test]
    fn the_document_has_a_row_for_the_file() {
        let row = SizeRow {
            name: "cluster.json".to_owned(),
            bytes_max: CLUSTER_BYTES_MAX,
            why: "90 nodes and 5 members by their paths and arguments (`cli/src/command/local/cluster.rs`)"
                .to_owned(),
        };
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/sizes.md");
        let document = fs::read_to_string(path).unwrap();
        let wanted = with_rows(&document, "cli", &[row]).unwrap();
        if std::env::var_os("WRITE_SIZES").is_some() {
            fs::write(path, wanted).unwrap();
        } else {
            assert!(document == wanted, "run this test with WRITE_SIZES=1");
        }
    }

    #[test]
    fn the_largest_file_is_read_and_one_byte_more_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        // What JSON writes at its longest: control characters.
        let path = "\u{1}".repeat(4095);
        let process = Process {
            id: u64::MAX,
            address: "127.0.0.1:65535".to_owned(),
            http: "127.0.0.1:65535".to_owned(),
            pid: u32::MAX,
            data_dir: path.clone().into(),
            log: path.clone().into(),
            argv: [path.clone(), path]
                .into_iter()
                .chain(vec!["--argument".to_owned(); 40])
                .collect(),
        };
        let cluster = Cluster {
            cluster_id: Some(u64::MAX.to_string()),
            is_unfinished: true,
            meta: vec![process.clone(); META_MAX],
            nodes: vec![process; NODES_MAX],
        };
        save(dir.path(), &cluster).unwrap();
        assert_eq!(load(dir.path()).unwrap().unwrap().nodes.len(), NODES_MAX);
        let path = cluster_path(dir.path());
        let mut text = fs::read(&path).unwrap();
        assert!(text.len() <= CLUSTER_BYTES_MAX, "{} bytes", text.len());
        text.resize(CLUSTER_BYTES_MAX, b' ');
        fs::write(&path, &text).unwrap();
        assert!(load(dir.path()).unwrap().is_some(), "the largest");
        text.push(b' ');
        fs::write(&path, &text).unwrap();
        let Err(refused) = load(dir.path()) else { panic!("one byte more") };
        assert!(refused.message.contains("more than"), "{}", refused.message);
    }
}
