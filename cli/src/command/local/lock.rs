//! One command at a time changes the directory of a local cluster.

use crate::failure::{CONDITION, Failure, INTERRUPTED};
use crate::output;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Between two tries.
const POLL: Duration = Duration::from_millis(50);
/// What a holder says of itself, in bytes.
const HOLDER_BYTES_MAX: u64 = 200;

/// The right to start and stop the processes of a directory. The kernel gives it back when the process
/// that holds it ends, however that happens; processes that it starts do not inherit it.
#[derive(Debug)]
pub struct DirectoryLock(File);

impl DirectoryLock {
    /// Takes it for `command`, within `limit`. Fails with [`CONDITION`] if another command holds it for
    /// longer, and with [`INTERRUPTED`] on `stop`.
    pub async fn take(
        dir: &Path,
        command: &str,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Result<Self, Failure> {
        let path = dir.join("cluster.lock");
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = file.map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
        let deadline = Instant::now() + limit;
        let mut has_said = false;
        while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let (shown, holder) = (dir.display(), holder(&path));
            if Instant::now() >= deadline {
                let why = format!(
                    "{shown} is being changed by {holder}: nothing was done by this command, within {}",
                    humantime::format_duration(limit)
                );
                return Err(Failure::new(CONDITION, why));
            }
            if !has_said {
                output::say(&format!("waiting for {holder}, which changes {shown}"));
                has_said = true;
            }
            if stop.run_until_cancelled(tokio::time::sleep(POLL)).await.is_none() {
                return Err(Failure::new(INTERRUPTED, "stopped before anything was done"));
            }
        }
        file.set_len(0)?;
        write!(file, "isotherm {command} (process {})", std::process::id())?;
        Ok(Self(file))
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // The process that waits next must not read that this one holds it. Closing the file gives it back.
        let _ = self.0.set_len(0);
    }
}

fn holder(path: &Path) -> String {
    let mut text = String::new();
    let read = File::open(path).map(|file| file.take(HOLDER_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(Ok(_)) if !text.is_empty() => text,
        _ => "another command".to_owned(),
    }
}
