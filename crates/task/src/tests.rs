//! Each case runs in a process of its own: this test binary again, told by the environment what to do.
#![allow(clippy::unwrap_used)]

use super::{guarded, guarded_thread, until};
use std::process::{Command, Output};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const CASE: &str = "ISOTHERM_TASK_TEST_CASE";
/// How long a process waits for its task to end it.
const PATIENCE: Duration = Duration::from_secs(10);

fn run(case: &str) -> Output {
    let this = std::env::current_exe().unwrap();
    let mut command = Command::new(this);
    command.args(["--exact", "tests::a_case", "--nocapture", "--test-threads=1"]);
    command.env(CASE, case).output().unwrap()
}

/// What a process does that was started by one of the tests below; nothing otherwise.
#[test]
fn a_case() {
    let Ok(case) = std::env::var(CASE) else { return };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stop = CancellationToken::new();
    runtime.block_on(async {
        match case.as_str() {
            "panics" => {
                tokio::spawn(until("heartbeat", stop, async { panic!("{} of 3", 2) }));
                tokio::time::sleep(PATIENCE).await;
            }
            "returns" => {
                tokio::spawn(until("heartbeat", stop, async {}));
                tokio::time::sleep(PATIENCE).await;
            }
            "guarded panics" => {
                tokio::spawn(guarded("one step", async { panic!("no") }));
                tokio::time::sleep(PATIENCE).await;
            }
            "thread panics" => {
                std::thread::spawn(|| guarded_thread("log writer", || panic!("no")));
                tokio::time::sleep(PATIENCE).await;
            }
            "stopped" => {
                let told = stop.clone();
                let task = until("heartbeat", stop.clone(), async move { told.cancelled().await });
                let task = tokio::spawn(task);
                stop.cancel();
                task.await.unwrap();
                assert_eq!(tokio::spawn(guarded("one step", async { 7 })).await.unwrap(), 7);
                assert_eq!(guarded_thread("thread", || 7), 7);
            }
            "dropped" => {
                let task = tokio::spawn(until("heartbeat", stop, std::future::pending::<()>()));
                task.abort();
                assert!(task.await.unwrap_err().is_cancelled());
            }
            other => panic!("{other}"),
        }
    });
}

fn ends(case: &str, says: &[&str]) {
    let ended = run(case);
    let log = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success(), "{case}: {log}");
    let error = log.lines().find(|line| line.contains("ERROR"));
    let error = error.unwrap_or_else(|| panic!("{case}: no ERROR in {log}"));
    for text in says {
        assert!(error.contains(text), "{case}: {text:?} is not in {error}");
    }
}

#[test]
fn a_process_ends_with_its_task() {
    ends("panics", &["heartbeat", "panicked: 2 of 3"]);
    ends("returns", &["heartbeat", "returned"]);
    ends("guarded panics", &["one step", "panicked: no"]);
    ends("thread panics", &["log writer", "panicked: no"]);
}

#[test]
fn a_task_that_was_stopped_or_dropped_ends_nothing() {
    for case in ["stopped", "dropped"] {
        let ended = run(case);
        assert!(ended.status.success(), "{case}: {}", String::from_utf8_lossy(&ended.stderr));
    }
}
