//! `up` and `down` as people type them: twice at once, killed on the way, with other flags than the first
//! time, on ports that another cluster has.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use fastrand::Rng;
use isotherm_testkit::{PortBlock, isotherm_binary};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Set to how many rounds of the random test there are to be.
const ROUNDS_ENV: &str = "ISOTHERM_UP_DOWN_ROUNDS";
/// Set to repeat a run.
const SEED_ENV: &str = "ISOTHERM_UP_DOWN_SEED";

/// Directories for local clusters, all on the same ports. What runs in them ends with it.
struct Place {
    root: TempDir,
    base_port: u16,
    _ports: PortBlock,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.processes(self.root.path()).iter().for_each(|pid| kill(*pid, Signal::KILL));
    }
}

fn kill(pid: u32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal);
}

/// How one call ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
    took: Duration,
}

/// A call that is under way.
struct Call {
    child: Child,
    begun: Instant,
}

impl Call {
    fn wait(self) -> Ended {
        let output = self.child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ended {
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
            took: self.begun.elapsed(),
        }
    }
}

impl Place {
    fn new() -> Self {
        let mut ports = PortBlock::take().unwrap();
        let base_port = ports.next_address().unwrap().port();
        let root = tempfile::Builder::new().prefix("isotherm-up-").tempdir().unwrap();
        Self { root, base_port, _ports: ports }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.root.path().canonicalize().unwrap().join(name)
    }

    fn call(&self, name: &str, args: &[&str]) -> Call {
        let mut command = Command::new(isotherm_binary().unwrap());
        let meta = format!("127.0.0.1:{}", self.base_port);
        command.args(args).env("ISOTHERM_META", meta).env("ISOTHERM_DIR", self.dir(name));
        for name in ["ISOTHERM_OUTPUT", "ISOTHERM_CONFIG", "ISOTHERM_TIMEOUT"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Call { child: command.spawn().unwrap(), begun: Instant::now() }
    }

    fn run(&self, name: &str, args: &[&str]) -> Ended {
        self.call(name, args).wait()
    }

    /// The flags of a small cluster.
    fn up(&self, more: &[&str]) -> Vec<String> {
        let port = self.base_port.to_string();
        let mut all = vec!["up", "-o", "json", "--base-port", &port, "--nodes", "1"];
        all.extend(["--replicas", "1", "--ranges", "2"]);
        all.extend(more);
        all.into_iter().map(str::to_owned).collect()
    }

    fn start_up(&self, name: &str, more: &[&str]) -> Call {
        let args = self.up(more);
        self.call(name, &args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn run_up(&self, name: &str, more: &[&str]) -> Ended {
        self.start_up(name, more).wait()
    }

    #[track_caller]
    fn is_up(&self, name: &str, started: u64) -> Value {
        let ended = self.run_up(name, &["--detach"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let ready: Value = serde_json::from_str(&ended.out).unwrap();
        assert_eq!((&ready["ready"], ready["started"].as_u64()), (&true.into(), Some(started)));
        ready
    }

    #[track_caller]
    fn is_down(&self, name: &str) {
        let ended = self.run(name, &["down"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let left = self.processes(&self.dir(name));
        assert!(left.is_empty(), "{left:?} are left by {ended:?}");
    }

    /// The processes whose data are in `dir`.
    fn processes(&self, dir: &Path) -> Vec<u32> {
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let is_of = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut args = line.split(|b| *b == 0).map(String::from_utf8_lossy);
            let data = args.position(|arg| arg == "--data-dir").and_then(|_| args.next());
            data.is_some_and(|data| Path::new(data.as_ref()).starts_with(&dir))
        };
        pids.filter(is_of).collect()
    }
}

#[track_caller]
fn fails(ended: &Ended, code: i32, word: &str) {
    let is_right = ended.code == Some(code) && ended.out.is_empty() && ended.err.contains(word);
    assert!(is_right, "should end with {code} and say {word:?}: {ended:?}");
}

#[test]
fn a_directory_is_served_as_it_was_made_or_not_at_all() {
    let place = Place::new();
    // Nothing is begun that cannot be.
    fails(&place.run("a", &["up", "--detach", "--base-port", "0"]), 2, "--base-port");
    fails(&place.run("a", &["up", "--detach", "--replicas", "16"]), 2, "--replicas");
    fails(&place.run("a", &["up", "--detach", "--ranges", "0"]), 2, "--ranges");
    fails(&place.run("a", &["down"]), 4, "cluster.json");
    // A first `up` that fails leaves nothing that the next one would have to follow.
    let hasty = place.run_up("a", &["--detach", "--timeout", "1ms", "--ranges", "5"]);
    fails(&hasty, 3, "not ready");
    assert!(
        !place.dir("a").join("cluster.json").exists() && !place.dir("a").join("meta-1").exists()
    );
    assert!(place.processes(&place.dir("a")).is_empty());
    let made = place.is_up("a", 2);
    assert_eq!(place.run("a", &["put", "who", "a"]).code, Some(0));
    // Other flags than those that it was made with.
    let other = place.run_up("a", &["--detach", "--ranges", "4"]);
    fails(&other, 2, "--ranges 2, not 4");
    assert_eq!(place.is_up("a", 0)["cluster_id"], made["cluster_id"]);
    let unsaid = place.run("a", &["up", "--detach", "-o", "json"]);
    assert_eq!(unsaid.code, Some(0), "what is not said is as it was: {unsaid:?}");

    // Another directory on the same ports.
    let second = place.run_up("b", &["--detach"]);
    fails(&second, 5, "is in use by process");
    assert!(second.took < Duration::from_secs(5) && !place.dir("b").join("cluster.json").exists());
    place.is_down("a");
    let other = place.is_up("b", 2);
    assert_ne!(other["cluster_id"], made["cluster_id"]);
    assert_eq!(place.run("b", &["get", "who"]).code, Some(4));
    fails(&place.run_up("a", &["--detach"]), 5, "is in use by process");
    assert!(place.processes(&place.dir("a")).is_empty(), "what cannot serve is not started");
    place.is_down("b");

    // A directory that was copied is another place.
    let copy = Command::new("cp").arg("-r").args([place.dir("a"), place.dir("c")]).status();
    assert!(copy.unwrap().success());
    fails(&place.run_up("c", &["--detach"]), 5, "copied or moved");
    fails(&place.run("c", &["down"]), 5, "copied or moved");

    // Another command holds the directory.
    let lock = File::create(place.dir("a").join("cluster.lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    for command in [&["down", "--timeout", "1s"][..], &["up", "--detach", "--timeout", "1s"]] {
        let held = place.run("a", command);
        fails(&held, 5, "is being changed by");
        assert!(held.took < Duration::from_secs(3), "{held:?}");
    }
    drop(lock);
    assert_eq!(place.is_up("a", 2)["cluster_id"], made["cluster_id"]);
    assert_eq!(place.run("a", &["get", "who"]).out, "a\n");
    place.is_down("a");
}

#[test]
fn what_a_killed_command_leaves_is_handled_by_the_next() {
    let place = Place::new();
    // Killed as soon as it has started something: it is found without its number.
    let mut killed = place.start_up("a", &["--detach"]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while place.processes(&place.dir("a")).is_empty() {
        assert!(Instant::now() < deadline, "nothing was started");
        std::thread::sleep(Duration::from_millis(1));
    }
    killed.child.kill().unwrap();
    killed.wait();
    place.is_down("a");
    // A foreground `up` ends with the terminal, in order.
    for signal in [Signal::HUP, Signal::TERM] {
        let mut call = place.start_up("a", &[]);
        let mut line = String::new();
        BufReader::new(call.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("\"ready\":true"), "{line} {:?}", call.wait());
        kill(call.child.id(), signal);
        assert_eq!(call.wait().code, Some(0), "{signal:?}");
        let left = place.processes(&place.dir("a"));
        assert!(left.is_empty(), "{left:?} are left after {signal:?}");
    }
    // One that was killed is served on, and stopped by the next command.
    let mut call = place.start_up("a", &[]);
    BufReader::new(call.child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    call.child.kill().unwrap();
    call.wait();
    place.is_up("a", 0);
    // A process that stands still is stopped too.
    let node = place.processes(&place.dir("a"))[0];
    kill(node, Signal::STOP);
    let begun = Instant::now();
    place.is_down("a");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    // A foreground `up` whose cluster another command stops is done.
    let mut call = place.start_up("a", &[]);
    BufReader::new(call.child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    place.is_down("a");
    let ended = call.wait();
    assert!(ended.code == Some(0) && ended.err.contains("another command"), "{ended:?}");
}

/// What the random test knows of a directory.
#[derive(Default)]
struct Known {
    /// Keys that were acknowledged.
    keys: Vec<String>,
}

/// Looks at a cluster that said it was ready: it is that of its directory, and has all that it had.
fn check(place: &Place, name: &str, known: &mut Known, round: usize) {
    let named = place.run(name, &["cas", "name", name, "--absent"]);
    assert!(matches!(named.code, Some(0 | 5)), "{named:?}");
    assert_eq!(place.run(name, &["get", "name"]).out.trim(), name, "another directory is served");
    let rows = place.run(name, &["scan", "--prefix", "round/", "--keys-only"]);
    let rows: Vec<_> = rows.out.lines().map(str::to_owned).collect();
    let lost: Vec<_> = known.keys.iter().filter(|key| !rows.contains(key)).collect();
    assert!(lost.is_empty(), "{name} lost {lost:?} and has {rows:?}");
    let key = format!("round/{round:04}");
    assert_eq!(place.run(name, &["put", &key, name]).code, Some(0));
    known.keys.push(key);
}

/// `up` and `down` of two directories on the same ports, one or two at a time, some of them killed.
#[test]
fn any_order_of_ups_and_downs_ends_with_clear_results() {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let seed = number(SEED_ENV).unwrap_or(7);
    let rounds = number(ROUNDS_ENV).unwrap_or(20) as usize;
    println!("{SEED_ENV}={seed} {ROUNDS_ENV}={rounds}");
    let mut rng = Rng::with_seed(seed);
    let place = Place::new();
    let mut known = BTreeMap::from([("a", Known::default()), ("b", Known::default())]);
    for round in 0..rounds {
        let count = if rng.u8(..3) == 0 { 1 } else { 2 };
        let mut calls = Vec::new();
        for _ in 0..count {
            let name = if rng.bool() { "a" } else { "b" };
            let is_up = rng.u8(..3) != 0;
            let mut call = match is_up {
                true => place.start_up(name, &["--detach"]),
                false => place.call(name, &["down"]),
            };
            let kill_after = (rng.u8(..3) == 0).then(|| Duration::from_millis(rng.u64(..1200)));
            if let Some(after) = kill_after.filter(|_| count == 1 || !calls.is_empty()) {
                std::thread::sleep(after);
                call.child.kill().unwrap();
            }
            calls.push((name, is_up, call));
        }
        let ended: Vec<_> = calls.into_iter().map(|(n, up, call)| (n, up, call.wait())).collect();
        for (name, is_up, ended) in &ended {
            println!("round {round}: {name} up={is_up} {:?} {:?}", ended.code, ended.took);
            let said = format!("round {round}, {name}, up={is_up}: {ended:?}");
            assert!(ended.took < Duration::from_secs(45), "{said}");
            match ended.code {
                // Killed by us, or done.
                None => {}
                Some(0) => assert!(!ended.out.is_empty(), "{said}"),
                Some(1 | 3 | 4 | 5) => assert!(!ended.err.trim().is_empty(), "{said}"),
                Some(_) => panic!("{said}"),
            }
        }
        let ready = |name| ended.iter().any(|(n, up, e)| *n == name && *up && e.code == Some(0));
        let downed = |name| ended.iter().any(|(n, up, _)| *n == name && !up);
        for name in ["a", "b"] {
            let stopped = |(n, up, e): &(&str, bool, Ended)| *n == name && !up && e.code == Some(0);
            if ended.iter().any(stopped) && !ended.iter().any(|(n, up, _)| *n == name && *up) {
                let left = place.processes(&place.dir(name));
                assert!(left.is_empty(), "round {round}: down left {left:?}");
            }
            if ready(name) && !downed(name) {
                check(&place, name, known.get_mut(name).unwrap(), round);
            }
        }
        let serving = ["a", "b"].map(|name| ready(name) && !downed(name));
        assert_ne!(serving, [true, true], "round {round}: both say that they have the ports");
    }
    for name in ["a", "b"] {
        if place.dir(name).join("cluster.json").exists() {
            place.is_down(name);
        }
    }
    for (name, known) in &mut known {
        let up = place.run_up(name, &["--detach"]);
        assert_eq!(up.code, Some(0), "{up:?}");
        check(&place, name, known, rounds);
        println!("{name}: {} acknowledged keys are there", known.keys.len());
        place.is_down(name);
    }
}
