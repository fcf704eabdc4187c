//! A whole cluster of real processes: members of the meta service and data nodes.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use tempfile::TempDir;

use crate::binary::isotherm_binary;
use crate::cut_network::CutNetwork;
use crate::logs::{LogAlarm, alarms_in, tail};
use crate::ports::PortBlock;
use crate::power_loss_disk::{PowerLossDisk, sweep_stale_disks};
use crate::process::{Process, ProcessSpec};
use crate::spawner::Spawner;

/// Set to keep the logs and data of a cluster after its end.
const KEEP_ENV: &str = "ISOTHERM_KEEP_DIR";

/// One process of a cluster, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// A member of the meta service; its id is the index plus one.
    Meta(usize),
    /// A data node; its node id is what meta gave it.
    Node(usize),
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Member::Meta(index) => write!(f, "meta-{}", index + 1),
            Member::Node(index) => write!(f, "node-{}", index + 1),
        }
    }
}

/// Shape of a cluster.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Data nodes.
    pub nodes: usize,
    /// Members of the meta service: 1 or 3.
    pub meta_nodes: usize,
    /// Ranges that the key space starts with.
    pub ranges: usize,
    /// Replicas of each range.
    pub replicas: usize,
    /// Environment of every process.
    pub env: BTreeMap<String, String>,
    /// Environment of single members, on top of `env`.
    pub member_env: BTreeMap<Member, BTreeMap<String, String>>,
    /// More arguments of single members, such as `--label zone=a`.
    pub member_args: BTreeMap<Member, Vec<OsString>>,
    /// Where single members keep their data directory; the others keep theirs in the cluster's
    /// own temporary directory.
    pub data_parents: BTreeMap<Member, PathBuf>,
    /// Gives every member a [`PowerLossDisk`] of this size in MiB.
    pub disk_mib: Option<u64>,
    /// Gives every member an address of its own on a [`CutNetwork`].
    pub cut_network: bool,
    /// The binary; otherwise [`isotherm_binary`] finds it.
    pub binary: Option<PathBuf>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            nodes: 3,
            meta_nodes: 1,
            ranges: 8,
            replicas: 3,
            env: BTreeMap::new(),
            member_env: BTreeMap::new(),
            member_args: BTreeMap::new(),
            data_parents: BTreeMap::new(),
            disk_mib: None,
            cut_network: false,
            binary: None,
        }
    }
}

/// A running cluster. Dropping it kills and reaps every process, unmounts its disks and deletes
/// its directories (unless `ISOTHERM_KEEP_DIR` is set).
// The fields drop in this order: processes before the thread whose death kills them, both before
// the disks that they use, and the directory with the logs last.
#[derive(Debug)]
pub struct ProcessCluster {
    processes: BTreeMap<Member, Process>,
    spawner: Spawner,
    disks: BTreeMap<Member, PowerLossDisk>,
    network: Option<CutNetwork>,
    _ports: PortBlock,
    dir: TempDir,
}

impl ProcessCluster {
    /// Starts every process; [`ProcessCluster::wait_ready`] waits for them.
    pub fn start(options: &ClusterOptions) -> anyhow::Result<Self> {
        let binary = match &options.binary {
            Some(path) => path.clone(),
            None => isotherm_binary()?,
        };
        let mut dir = tempfile::Builder::new().prefix("isotherm-cluster-").tempdir()?;
        dir.disable_cleanup(env::var_os(KEEP_ENV).is_some());
        let mut ports = PortBlock::take()?;
        let members = members_of(options);
        let mut addresses = BTreeMap::new();
        let network = match options.cut_network {
            true => Some(CutNetwork::create(ports.number(), &members)?),
            false => None,
        };
        for member in &members {
            let mut address = ports.next_address()?;
            if let Some(network) = &network {
                address.set_ip(network.address(*member).into());
            }
            addresses.insert(*member, address);
        }
        let mut cluster = Self {
            processes: BTreeMap::new(),
            spawner: Spawner::start()?,
            disks: BTreeMap::new(),
            network,
            _ports: ports,
            dir,
        };
        for member in members {
            let parent = cluster.data_parent(member, options)?;
            let spec = cluster.spec(member, options, &binary, &addresses, &parent);
            cluster.processes.insert(member, Process::new(spec));
        }
        cluster.start_all()?;
        Ok(cluster)
    }

    /// All members: meta first.
    pub fn members(&self) -> Vec<Member> {
        self.processes.keys().copied().collect()
    }

    /// The data nodes.
    pub fn nodes(&self) -> Vec<Member> {
        self.members().into_iter().filter(|m| matches!(m, Member::Node(_))).collect()
    }

    /// The members of the meta service.
    pub fn metas(&self) -> Vec<Member> {
        self.members().into_iter().filter(|m| matches!(m, Member::Meta(_))).collect()
    }

    /// Addresses of the meta service, as `--meta` wants them.
    pub fn meta_addresses(&self) -> Vec<String> {
        self.metas().iter().map(|m| self.processes[m].spec().listen.to_string()).collect()
    }

    /// The process of `member`; panics for a member that the cluster does not have.
    pub fn process(&self, member: Member) -> &Process {
        &self.processes[&member]
    }

    /// The process of `member`; panics for a member that the cluster does not have.
    pub fn process_mut(&mut self, member: Member) -> &mut Process {
        self.processes.get_mut(&member).expect("members come from this cluster")
    }

    /// The network; panics without [`ClusterOptions::cut_network`].
    pub fn network(&self) -> &CutNetwork {
        self.network.as_ref().expect("the cluster was started with a network of its own")
    }

    /// Directory with the logs and, unless they lie elsewhere, the data directories.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// SIGKILL to `members`, all of them before the first is waited for.
    pub fn kill(&mut self, members: &[Member]) -> anyhow::Result<()> {
        for member in members {
            self.process_mut(*member).kill_no_wait()?;
        }
        for member in members {
            self.process_mut(*member).kill().with_context(|| format!("kill {member}"))?;
        }
        Ok(())
    }

    /// Cuts the power of `members`: they die, and their disks come back with what was synced. They
    /// are not started again. Needs [`ClusterOptions::disk_mib`].
    ///
    /// The processes are gone before the disks stop, within milliseconds: ext4 lets an `fdatasync`
    /// that is under way when the file system shuts down return success without its data, which
    /// no power cut does, and a process that lives would acknowledge by it.
    pub fn power_loss(&mut self, members: &[Member]) -> anyhow::Result<()> {
        self.kill(members)?;
        for member in members {
            let disk = self.disks.get(member).with_context(|| format!("{member} has no disk"))?;
            disk.shutdown().with_context(|| format!("shut down the disk of {member}"))?;
        }
        for member in members {
            let disk = self.disks.get_mut(member).expect("looked up above");
            disk.remount().with_context(|| format!("remount the disk of {member}"))?;
        }
        Ok(())
    }

    /// Starts what does not run.
    pub fn start_all(&mut self) -> anyhow::Result<()> {
        for process in self.processes.values_mut() {
            process.start(&self.spawner)?;
        }
        Ok(())
    }

    /// Starts `member` with the arguments of its first start, unless it runs.
    pub fn start_member(&mut self, member: Member) -> anyhow::Result<()> {
        self.processes
            .get_mut(&member)
            .expect("members come from this cluster")
            .start(&self.spawner)
    }

    /// Undoes every pause and starts what does not run.
    pub fn heal(&mut self) -> anyhow::Result<()> {
        for process in self.processes.values_mut() {
            process.resume()?;
        }
        self.start_all()
    }

    /// Waits until every process is ready. The error has the end of the log of the one that is
    /// not.
    pub async fn wait_ready(&mut self, timeout: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + timeout;
        for process in self.processes.values_mut() {
            if let Err(error) = process.wait_ready(deadline).await {
                let log = tail(process.log(), 20);
                return Err(error.context(format!("the log ends:\n{log}")));
            }
        }
        Ok(())
    }

    /// Members that ended by themselves.
    pub fn ended(&mut self) -> anyhow::Result<Vec<Member>> {
        let mut ended = Vec::new();
        for (member, process) in &mut self.processes {
            if !process.is_running()? {
                ended.push(*member);
            }
        }
        Ok(ended)
    }

    /// Panics and ERROR lines in the logs so far.
    pub fn log_alarms(&self) -> anyhow::Result<Vec<(Member, LogAlarm)>> {
        let mut alarms = Vec::new();
        for (member, process) in &self.processes {
            alarms.extend(alarms_in(process.log())?.into_iter().map(|alarm| (*member, alarm)));
        }
        Ok(alarms)
    }

    fn data_parent(&mut self, member: Member, options: &ClusterOptions) -> anyhow::Result<PathBuf> {
        if let Some(parent) = options.data_parents.get(&member) {
            return Ok(parent.clone());
        }
        let Some(size_mib) = options.disk_mib else { return Ok(self.dir.path().to_owned()) };
        sweep_stale_disks()?;
        // The directory's random name tells apart two clusters of one process.
        let unique = self.dir.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let disk = PowerLossDisk::create(&format!("{unique}-{member}"), size_mib)?;
        let path = disk.path().to_owned();
        self.disks.insert(member, disk);
        Ok(path)
    }

    fn spec(
        &self,
        member: Member,
        options: &ClusterOptions,
        binary: &Path,
        addresses: &BTreeMap<Member, SocketAddr>,
        parent: &Path,
    ) -> ProcessSpec {
        let listen = addresses[&member];
        let data_dir = parent.join(format!("{member}-data"));
        let mut args: Vec<OsString> = match member {
            Member::Meta(index) => meta_args(index, options, addresses),
            Member::Node(_) => node_args(addresses),
        };
        args.extend(["--listen".into(), listen.to_string().into()]);
        args.extend(["--data-dir".into(), data_dir.clone().into()]);
        args.extend(options.member_args.get(&member).into_iter().flatten().cloned());
        let mut env = options.env.clone();
        env.extend(options.member_env.get(&member).cloned().unwrap_or_default());
        let log = self.dir.path().join(format!("{member}.log"));
        let mut program = binary.to_owned();
        if let Some(network) = &self.network {
            // It becomes the program: the same process id.
            let mut prefix = network.prefix(member);
            let first = prefix.remove(0);
            args = prefix.into_iter().chain([program.into()]).chain(args).collect();
            program = first.into();
        }
        ProcessSpec { name: member.to_string(), program, args, env, listen, data_dir, log }
    }
}

fn members_of(options: &ClusterOptions) -> Vec<Member> {
    let metas = (0..options.meta_nodes).map(Member::Meta);
    metas.chain((0..options.nodes).map(Member::Node)).collect()
}

fn metas_in(addresses: &BTreeMap<Member, SocketAddr>) -> impl Iterator<Item = (usize, SocketAddr)> {
    addresses.iter().filter_map(|(member, address)| match member {
        Member::Meta(index) => Some((*index, *address)),
        Member::Node(_) => None,
    })
}

fn meta_args(
    index: usize,
    options: &ClusterOptions,
    addresses: &BTreeMap<Member, SocketAddr>,
) -> Vec<OsString> {
    let join: Vec<String> = metas_in(addresses).map(|(i, a)| format!("{}={a}", i + 1)).collect();
    let args = [
        "meta".to_owned(),
        "--id".to_owned(),
        (index + 1).to_string(),
        "--join".to_owned(),
        join.join(","),
        "--bootstrap-nodes".to_owned(),
        options.nodes.to_string(),
        "--bootstrap-ranges".to_owned(),
        options.ranges.to_string(),
        "--replicas".to_owned(),
        options.replicas.to_string(),
    ];
    args.into_iter().map(OsString::from).collect()
}

fn node_args(addresses: &BTreeMap<Member, SocketAddr>) -> Vec<OsString> {
    let meta: Vec<String> = metas_in(addresses).map(|(_, a)| a.to_string()).collect();
    vec!["node".into(), "--meta".into(), meta.join(",").into()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    /// A stand-in that prints its arguments and then sleeps.
    fn stand_in(dir: &Path) -> PathBuf {
        let path = dir.join("stand-in");
        fs::write(&path, "#!/bin/sh\necho \"$FLAG $@\"\nexec sleep 60\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn options(dir: &Path) -> ClusterOptions {
        let env = BTreeMap::from([("FLAG".to_owned(), "set".to_owned())]);
        ClusterOptions {
            nodes: 2,
            meta_nodes: 3,
            binary: Some(stand_in(dir)),
            member_env: BTreeMap::from([(Member::Node(1), env)]),
            ..ClusterOptions::default()
        }
    }

    fn wait_for_log(cluster: &ProcessCluster, member: Member, lines: usize) -> String {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let log = fs::read_to_string(cluster.process(member).log()).unwrap_or_default();
            if log.lines().count() >= lines || Instant::now() > deadline {
                return log;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn members_get_their_arguments_and_their_own_environment() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ProcessCluster::start(&options(dir.path())).unwrap();
        let metas = cluster.meta_addresses();
        let log = wait_for_log(&cluster, Member::Meta(1), 1);
        let join = format!("--join 1={},2={},3={}", metas[0], metas[1], metas[2]);
        assert!(log.starts_with(" meta --id 2 ") && log.contains(&join), "{log}");
        let log = wait_for_log(&cluster, Member::Node(1), 1);
        assert!(log.starts_with("set node --meta "), "{log}");
        assert!(log.contains(&metas.join(",")), "{log}");
    }

    #[test]
    fn a_killed_member_starts_again_with_the_same_arguments() {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = ProcessCluster::start(&options(dir.path())).unwrap();
        wait_for_log(&cluster, Member::Node(0), 1);
        cluster.kill(&[Member::Node(0)]).unwrap();
        assert_eq!(cluster.ended().unwrap(), vec![Member::Node(0)]);
        cluster.heal().unwrap();
        assert!(cluster.ended().unwrap().is_empty());
        let log = wait_for_log(&cluster, Member::Node(0), 2);
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], lines[1]);
    }

    #[test]
    fn a_paused_member_stands_still_until_it_is_resumed() {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = ProcessCluster::start(&options(dir.path())).unwrap();
        let node = cluster.process_mut(Member::Node(0));
        node.pause().unwrap();
        let pid = node.pid().unwrap();
        let state = |pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit(") ").next().unwrap().chars().next().unwrap()
        };
        let deadline = Instant::now() + Duration::from_secs(5);
        while state(pid) != 'T' && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(state(pid), 'T');
        cluster.heal().unwrap();
        assert!(!cluster.process(Member::Node(0)).is_paused());
        assert_ne!(state(pid), 'T');
    }

    #[test]
    fn nothing_outlives_the_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = ProcessCluster::start(&options(dir.path())).unwrap();
        cluster.process_mut(Member::Node(0)).pause().unwrap();
        let members = cluster.members();
        let pids: Vec<u32> = members.iter().filter_map(|m| cluster.process(*m).pid()).collect();
        let directory = cluster.dir().to_owned();
        assert_eq!(pids.len(), 5);
        drop(cluster);
        assert!(pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()));
        assert!(!directory.exists());
    }

    #[tokio::test]
    async fn a_member_that_ends_early_is_reported_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        let script = "#!/bin/sh\necho no such flag\nexit 2\n";
        fs::write(options.binary.as_ref().unwrap(), script).unwrap();
        let mut cluster = ProcessCluster::start(&options).unwrap();
        let error = cluster.wait_ready(Duration::from_secs(10)).await.unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("no such flag") && text.contains("meta-1 ended"), "{text}");
    }
}
