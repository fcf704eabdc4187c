//! One process of a local cluster, as `cluster.json` describes it.

use super::ports;
use crate::environment::OF_ONE_PROCESS;
use crate::failure::{Failure, UNEXPECTED};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Lines of a log that are shown when its process ends early.
const TAIL_LINES: usize = 5;

/// A process, running or not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Process {
    pub id: u64,
    pub address: String,
    pub http: String,
    /// 0: it was stopped, or not started yet.
    pub pid: u32,
    pub data_dir: PathBuf,
    pub log: PathBuf,
    pub argv: Vec<String>,
}

/// The arguments of a process behind its program.
type Arguments = Vec<Vec<u8>>;

fn arguments(pid: u32) -> Arguments {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = line.split(|b| *b == 0).filter(|a| !a.is_empty());
    line.skip(1).map(<[u8]>::to_vec).collect()
}

/// Every process of this machine by its arguments.
pub fn by_arguments() -> HashMap<Arguments, u32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.map(|pid| (arguments(pid), pid)).filter(|(args, _)| !args.is_empty()).collect()
}

impl Process {
    fn own_arguments(&self) -> Arguments {
        let own = self.argv.iter().skip(1).filter(|arg| !arg.is_empty());
        own.map(|arg| arg.as_bytes().to_vec()).collect()
    }

    /// Whether it runs: its pid may belong to another process by now.
    pub fn is_running(&self) -> bool {
        self.pid != 0 && arguments(self.pid) == self.own_arguments()
    }

    /// Takes note of its pid if it runs under another than the one that is known: the command that started it may
    /// have been killed before it could write that down.
    pub fn find(&mut self, running: &HashMap<Arguments, u32>) {
        if !self.is_running() {
            self.pid = running.get(&self.own_arguments()).copied().unwrap_or(0);
        }
    }

    /// What a flag of its command line says.
    pub fn argument(&self, flag: &str) -> Option<&str> {
        let at = self.argv.iter().position(|arg| arg == flag)?;
        self.argv.get(at + 1).map(String::as_str)
    }

    pub fn start(&mut self) -> Result<(), Failure> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.argv[0]);
        for name in OF_ONE_PROCESS {
            command.env_remove(name);
        }
        let child = command
            .args(&self.argv[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for us: we stop it in order.
            .process_group(0)
            .spawn();
        let child =
            child.map_err(|e| Failure::new(UNEXPECTED, format!("{}: {e}", self.argv[0])))?;
        self.pid = child.id();
        Ok(())
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid as i32).filter(|_| self.is_running()) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Whether it is there at all, also in the moment after its start in which the kernel does not
    /// show its command line yet.
    pub fn is_there(&self) -> bool {
        // A child of ours that ended stays a zombie until it is waited for.
        reap();
        let Some(pid) = Pid::from_raw(self.pid as i32) else { return false };
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        test_kill_process(pid).is_ok()
            && (self.is_running() || (line.is_empty() && !self.is_zombie()))
    }

    /// Whether it is this process that answers at its address.
    pub fn is_serving(&self) -> bool {
        self.is_running() && ports::is_served_by(&self.address, self.pid)
    }

    fn is_zombie(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The state follows the name, which is in parentheses.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
    }

    /// That it ended, and what it said last.
    pub fn ended(&self) -> Failure {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(TAIL_LINES).collect();
        let tail = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
        let (address, log) = (&self.address, self.log.display());
        Failure::new(UNEXPECTED, format!("{address} ended; {log} says:\n{tail}"))
    }
}

/// Collects children that ended.
pub fn reap() {
    use rustix::process::{WaitOptions, wait};
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}
