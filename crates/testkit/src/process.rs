//! One real process: started, killed, paused, and started again with the same arguments.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::http;
use crate::ports::HTTP_OFFSET;
use crate::spawner::Spawner;

/// What a process is started with, at the first start and at every later one.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// Name in messages and of the log file, such as `node-2`.
    pub name: String,
    /// The binary.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Environment on top of ours.
    pub env: BTreeMap<String, String>,
    /// Address of its gRPC server; HTTP listens on the port plus 1000.
    pub listen: SocketAddr,
    /// Where it keeps its data.
    pub data_dir: PathBuf,
    /// File that gets its output; later starts append.
    pub log: PathBuf,
}

/// A process of a test, running or not. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct Process {
    spec: ProcessSpec,
    child: Option<Child>,
    paused: bool,
    starts: u32,
}

impl Process {
    /// A process that was not started yet.
    pub fn new(spec: ProcessSpec) -> Self {
        Self { spec, child: None, paused: false, starts: 0 }
    }

    /// What it is started with.
    pub fn spec(&self) -> &ProcessSpec {
        &self.spec
    }

    /// What it is started with, to change it before the next start.
    pub fn spec_mut(&mut self) -> &mut ProcessSpec {
        &mut self.spec
    }

    /// How many times it was started.
    pub fn starts(&self) -> u32 {
        self.starts
    }

    /// Its process id while it runs (a paused process runs).
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it is stopped by [`Process::pause`].
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Address of its HTTP server.
    pub fn http(&self) -> SocketAddr {
        let listen = self.spec.listen;
        SocketAddr::new(listen.ip(), listen.port() + HTTP_OFFSET)
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.spec.log
    }

    /// Starts it, unless it runs.
    pub fn start(&mut self, spawner: &Spawner) -> anyhow::Result<()> {
        if self.is_running()? {
            return Ok(());
        }
        let spec = &self.spec;
        let log = File::options()
            .create(true)
            .append(true)
            .open(&spec.log)
            .with_context(|| format!("open {}", spec.log.display()))?;
        let mut command = Command::new(&spec.program);
        command.args(&spec.args).envs(&spec.env).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        let child = spawner
            .spawn(command)
            .with_context(|| format!("start {} ({})", spec.name, spec.program.display()))?;
        self.child = Some(child);
        self.starts += 1;
        Ok(())
    }

    /// Whether it runs; one that ended by itself is reaped here.
    pub fn is_running(&mut self) -> io::Result<bool> {
        Ok(self.child.is_some() && self.reap_if_ended()?.is_none())
    }

    /// SIGKILL, then waits until the process is gone.
    pub fn kill(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        self.paused = false;
        Ok(())
    }

    /// SIGKILL without waiting, so that many processes die at the same moment; follow with
    /// [`Process::kill`], which waits.
    pub fn kill_no_wait(&mut self) -> io::Result<()> {
        self.child.as_mut().map_or(Ok(()), Child::kill)
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    pub fn pause(&mut self) -> io::Result<()> {
        self.signal(Signal::STOP)?;
        self.paused = self.child.is_some();
        Ok(())
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> io::Result<()> {
        self.paused = false;
        self.signal(Signal::CONT)
    }

    /// SIGTERM: asks it to shut down cleanly.
    pub fn terminate(&mut self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Waits until it ended by itself, at most `timeout`; `None` if it never ran.
    pub async fn wait_ended(&mut self, timeout: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + timeout;
        while self.child.is_some() {
            if let Some(status) = self.reap_if_ended()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                bail!("{} still runs after {timeout:?}", self.spec.name);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(None)
    }

    /// Waits until `/ready` answers 200, at most until `deadline`; an error as soon as it ended.
    pub async fn wait_ready(&mut self, deadline: Instant) -> anyhow::Result<()> {
        let mut last = "never asked".to_owned();
        loop {
            if let Some(status) = self.reap_if_ended()? {
                bail!("{} ended ({status}) before it was ready", self.spec.name);
            }
            match http::get(self.http(), "/ready", Duration::from_secs(1)).await {
                Ok((200, _)) => return Ok(()),
                Ok((status, body)) => last = format!("{status} {}", body.trim()),
                Err(error) => {
                    last = format!("{error} (before: {last})").chars().take(200).collect()
                }
            }
            if Instant::now() >= deadline {
                bail!("{} is not ready in time: {last}", self.spec.name);
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    fn reap_if_ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let Some(child) = self.child.as_mut() else { return Ok(None) };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
            self.paused = false;
        }
        Ok(status)
    }

    fn signal(&mut self, signal: Signal) -> io::Result<()> {
        // A child that was not reaped keeps its pid, so the signal cannot hit a stranger.
        match self.child.as_ref().and_then(|c| Pid::from_raw(c.id().cast_signed())) {
            Some(pid) => Ok(kill_process(pid, signal)?),
            None => Ok(()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing better can be done here; the kernel kills it when the spawner ends.
        let _ = self.kill();
    }
}
