//! The command's contract, row by row: what is typed, in which situation, and the exit code, the output and
//! the messages that it comes to.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "contract/row.rs"]
mod row;
#[path = "contract/running.rs"]
mod running;
#[expect(dead_code, reason = "each test uses a part of what is common")]
#[path = "common/script.rs"]
mod script;
#[path = "contract/usage.rs"]
mod usage;

use isotherm_testkit::{ClusterOptions, Member, PortBlock, ProcessCluster};
use row::{Mismatch, Row, matches};
use running::{HANGING, HISTORY, INTERRUPTED, LOCAL, RUNNING, UNHEALTHY};
use rustix::process::{Pid, Signal, kill_process};
use script::{Ended, Script};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use usage::{NOWHERE, USAGE};

const TABLES: [&[Row]; 8] =
    [USAGE, NOWHERE, RUNNING, HISTORY, HANGING, UNHEALTHY, INTERRUPTED, LOCAL];
/// Calls at a time, of rows that know nothing of one another.
const AT_ONCE: usize = 8;

fn nowhere() -> Script {
    Script { meta: "127.0.0.1:1".to_owned() }
}

#[track_caller]
fn all_hold(mismatches: Vec<Mismatch>) {
    let shown: Vec<_> = mismatches.iter().map(ToString::to_string).collect();
    assert!(shown.is_empty(), "{} rows do not hold:\n{}", shown.len(), shown.join("\n"));
}

/// The rows one after the other.
#[track_caller]
fn in_order(rows: &[Row], script: &Script, dir: &Path) {
    all_hold(rows.iter().filter_map(|row| row.check(script, dir, &[])).collect());
}

/// The rows in any order.
#[track_caller]
fn at_once(rows: &'static [Row], dir: &Path, more: &[&str]) {
    let script = &nowhere();
    let mut mismatches = Vec::new();
    for some in rows.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let check = |row: &'static Row| scope.spawn(move || row.check(script, dir, more));
            let calls: Vec<_> = some.iter().map(check).collect();
            mismatches.extend(calls.into_iter().filter_map(|call| call.join().unwrap()));
        });
    }
    all_hold(mismatches);
}

/// Every command that the help names, below `path`, and `path` itself.
fn commands(path: &[String], found: &mut BTreeSet<String>) {
    let mut args: Vec<&str> = path.iter().map(String::as_str).collect();
    args.push("--help");
    let help = nowhere().run(&args);
    assert_eq!(help.code, 0, "{args:?}: {help:?}");
    if !path.is_empty() {
        found.insert(path.join(" "));
    }
    let named = help.out.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in named.take_while(|line| !line.is_empty()) {
        let name = line.strip_prefix("  ").and_then(|rest| rest.split(' ').next()).unwrap();
        // Longer explanations go on in further lines.
        if !name.is_empty() && name != "help" {
            commands(&[path, &[name.to_owned()]].concat(), found);
        }
    }
}

/// Those of `commands` that no row of `lines` is about.
fn without_row(commands: &BTreeSet<String>, lines: &[&str]) -> Vec<String> {
    let of = |line: &&str| {
        let is_of = |command: &&String| {
            let rest = line.strip_prefix(command.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        commands.iter().filter(is_of).max_by_key(|command| command.len())
    };
    let seen: BTreeSet<_> = lines.iter().filter_map(of).collect();
    commands.iter().filter(|command| !seen.contains(command)).cloned().collect()
}

#[test]
fn every_command_and_every_exit_code_has_a_row() {
    let mut all = BTreeSet::new();
    commands(&[], &mut all);
    assert!(all.len() > 35 && all.contains("range transfer-leader"), "{all:?}");
    let rows = TABLES.concat();
    let lines: Vec<_> = rows.iter().map(|row| row.line).collect();
    assert_eq!(without_row(&all, &lines), Vec::<String>::new(), "commands without a row");
    // One without would be found.
    let fewer: Vec<_> = lines.iter().copied().filter(|l| !l.starts_with("range split")).collect();
    assert_eq!(without_row(&all, &fewer), ["range split"]);
    // Besides what they refuse, what they do.
    let done: Vec<_> = rows.iter().filter(|row| row.code == 0).map(|row| row.line).collect();
    let elsewhere = [
        "config",
        "meta",
        "node",
        "node decommission",
        "operation",
        "operation cancel",
        "range",
        "range move",
        "range transfer-leader",
        "upgrade",
    ];
    assert_eq!(without_row(&all, &done), elsewhere, "commands of which no row is about success");

    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let documented = readme.lines().skip_while(|line| !line.starts_with("| exit code")).skip(2);
    let documented = documented.take_while(|line| line.starts_with("| "));
    let code = |line: &str| line.split('|').nth(1).unwrap().trim().parse::<i32>().unwrap();
    let documented: BTreeSet<_> = documented.map(code).collect();
    assert!(documented.len() > 9, "{documented:?}");
    let met: BTreeSet<_> = rows.iter().map(|row| row.code).collect();
    assert_eq!(met, documented, "exit codes with a row, and those that the README has");
}

#[test]
fn patterns_match_what_they_say() {
    assert!(matches("", "") && !matches("", "x") && !matches("x", ""));
    assert!(matches("a…c…e", "abcde") && matches("…", "") && matches("a…", "a"));
    assert!(!matches("a…c", "abcd") && !matches("a…c…c", "abc"));
    assert!(matches("#.#s", "12.5s") && !matches("#", "") && !matches("#", "1x"));
    assert!(matches("…a…a", "xaya") && !matches("b…", "ab"));
}

#[test]
fn wrong_usage_and_what_needs_no_cluster() {
    let dir = tempfile::tempdir().unwrap();
    at_once(USAGE, dir.path(), &[]);
}

#[test]
fn without_a_cluster_every_command_says_so() {
    let dir = tempfile::tempdir().unwrap();
    at_once(NOWHERE, dir.path(), &["--timeout", "1s"]);
}

/// Calls a command, sends Ctrl-C after a second, and waits for its end; its input stays open.
fn interrupt(row: &Row, script: &Script, dir: &Path) -> Ended {
    let words = row.words(dir);
    let args: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut command = script.command(&args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, row.stdin.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap().into();
    drop(input);
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_answers_as_the_contract_says() {
    let options = ClusterOptions { ranges: 2, ..ClusterOptions::default() };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let script = Script { meta: cluster.meta_addresses().join(",") };
    let dir = cluster.dir().to_owned();
    std::fs::write(dir.join("large"), vec![b'x'; (1 << 20) + 1]).unwrap();
    let run = |rows: &[Row]| tokio::task::block_in_place(|| in_order(rows, &script, &dir));
    run(RUNNING);

    assert_eq!(script.run(&["config", "set", "history.retention", "1s"]).code, 0);
    // Meta lets no history go before it has heard of all who read, for a minute after its start.
    let gone = script.until(&["get", "k", "--at", "1"], |ended| ended.code == 8);
    assert_eq!(gone.code, 8, "{gone:?}");
    run(HISTORY);

    let interrupted = INTERRUPTED.iter();
    let interrupted =
        interrupted.filter_map(|row| row.compare(interrupt(row, &script, &dir), &dir));
    all_hold(tokio::task::block_in_place(|| interrupted.collect()));

    cluster.process_mut(Member::Node(2)).pause().unwrap();
    run(HANGING);
    cluster.kill(&[Member::Node(2)]).unwrap();
    let unhealthy = script.until(&["status"], |ended| ended.code == 6);
    assert_eq!(unhealthy.code, 6, "{unhealthy:?}");
    run(UNHEALTHY);
}

/// Right after a split some of its replicas have yet to show the child.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_just_split_is_merged_again() {
    let options = ClusterOptions { ranges: 1, ..ClusterOptions::default() };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let script = Script { meta: cluster.meta_addresses().join(",") };
    let rounds = || {
        assert_eq!(script.run(&["config", "set", "scheduler.enabled", "false"]).code, 0);
        for round in 0..10 {
            let split = script.run(&["range", "split", "m"]);
            assert_eq!(split.code, 0, "round {round}: {split:?}");
            let merged = script.run(&["range", "merge", "r1", "--wait"]);
            assert_eq!(merged.code, 0, "round {round}: {merged:?}");
        }
    };
    tokio::task::block_in_place(rounds);
}

/// A local cluster is stopped, whatever a test has come to.
struct Local<'a> {
    script: &'a dyn Fn(&[&str]) -> Ended,
}

impl Drop for Local<'_> {
    fn drop(&mut self) {
        (self.script)(&["down"]);
    }
}

#[test]
fn a_local_cluster_is_started_and_stopped_as_the_contract_says() {
    let mut ports = PortBlock::take().unwrap();
    let port = ports.next_address().unwrap().port();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().canonicalize().unwrap();
    let script = Script { meta: format!("127.0.0.1:{port}") };
    let call = |args: &[&str]| {
        let mut command = script.command(args);
        let place = dir.join("local");
        command.env("ISOTHERM_BASE_PORT", port.to_string()).env("ISOTHERM_DIR", place);
        Ended::from(command.output().unwrap())
    };
    let _stopped = Local { script: &call };
    let mut mismatches = Vec::new();
    for row in LOCAL {
        let words = row.words(&dir);
        let args: Vec<&str> = words.iter().map(String::as_str).collect();
        mismatches.extend(row.compare(call(&args), &dir));
        if args[0] == "up" && row.code == 0 {
            let file = std::fs::read_to_string(dir.join("local/cluster.json")).unwrap();
            let cluster: Value = serde_json::from_str(&file).unwrap();
            for process in [&cluster["meta"][0], &cluster["nodes"][0]] {
                for field in ["id", "address", "http", "pid", "data_dir", "log", "argv"] {
                    assert!(!process[field].is_null(), "{field}: {cluster}");
                }
            }
        }
    }
    all_hold(mismatches);
}
