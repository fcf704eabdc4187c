//! Calls of the command as a script makes them: its output is a pipe, nothing is set but what it says.

use isotherm_testkit::isotherm_binary;
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How one call ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// What it printed, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

impl From<std::process::Output> for Ended {
    fn from(output: std::process::Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code().unwrap(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

/// Calls the command with what a script would have as its output: a pipe.
pub struct Script {
    /// Addresses of the meta service.
    pub meta: String,
}

impl Script {
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(isotherm_binary().unwrap());
        command.args(args).env("ISOTHERM_META", &self.meta).stdin(Stdio::null());
        for name in ["ISOTHERM_OUTPUT", "ISOTHERM_CONFIG", "ISOTHERM_TIMEOUT"] {
            command.env_remove(name);
        }
        command
    }

    pub fn run(&self, args: &[&str]) -> Ended {
        self.command(args).output().unwrap().into()
    }

    /// Calls it until it ends as it should; the last one if that takes too long.
    pub fn until(&self, args: &[&str], is_right: impl Fn(&Ended) -> bool) -> Ended {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let ended = self.run(args);
            if is_right(&ended) || Instant::now() > deadline {
                return ended;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
