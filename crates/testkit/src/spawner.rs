//! Starts children that cannot outlive us.
//!
//! A child asks the kernel to be killed when its parent dies (`PR_SET_PDEATHSIG`). For the kernel
//! the parent is the *thread* that forked, and the worker threads of an async runtime end when
//! they are idle; so one thread of our own forks all children and lives as long as the
//! [`Spawner`].

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

struct Job {
    command: Command,
    reply: mpsc::Sender<io::Result<Child>>,
}

/// Handle of the thread that forks. Its children die with it: drop it after they were reaped.
#[derive(Debug)]
pub struct Spawner {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Spawner {
    /// Starts the forking thread.
    pub fn start() -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let thread = thread::Builder::new().name("spawner".to_owned()).spawn(move || {
            for Job { mut command, reply } in inbox {
                // A requester that is gone drops the child's handle; the child then ends with us.
                let _ = reply.send(spawn(&mut command));
            }
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Starts `command` in a process group of its own, so that a Ctrl-C meant for the test does
    /// not reach it.
    pub fn spawn(&self, command: Command) -> io::Result<Child> {
        let (reply, answer) = mpsc::channel();
        let ended = || io::Error::other("the spawner has ended");
        let jobs = self.jobs.as_ref().ok_or_else(ended)?;
        jobs.send(Job { command, reply }).map_err(|_| ended())?;
        answer.recv().map_err(|_| ended())?
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // The thread only forwards spawn results; a panic there has nothing to clean up.
            let _ = thread.join();
        }
    }
}

#[allow(unsafe_code)]
fn spawn(command: &mut Command) -> io::Result<Child> {
    let parent = getpid();
    command.process_group(0);
    // SAFETY: the closure runs in the child between fork and exec, where only async-signal-safe
    // calls are allowed: prctl and getppid are bare system calls, and nothing allocates.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the request: then nobody would kill us.
            if getppid() == Some(parent) { Ok(()) } else { Err(io::Error::other("orphaned")) }
        });
    }
    command.spawn()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn children_die_with_their_spawner() {
        let spawner = Spawner::start().unwrap();
        let mut command = Command::new("sleep");
        command.arg("60");
        let mut child = spawner.spawn(command).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        drop(spawner);
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let spawner = Spawner::start().unwrap();
        assert!(spawner.spawn(Command::new("/no/such/program")).is_err());
    }
}
