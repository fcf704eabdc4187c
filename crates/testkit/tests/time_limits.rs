//! Every command ends soon after its `--timeout`, whatever the cluster does, and says what is the cause.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use isotherm_testkit::{ClusterOptions, Member, ProcessCluster, isotherm_binary};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: &str = "2s";
/// From the call to its end: the limit and a second.
const ENDS_WITHIN: Duration = Duration::from_secs(3);
/// Calls at a time: each should have some processor.
const AT_ONCE: usize = 8;

struct Call {
    args: Vec<String>,
    child: Child,
    begun: Instant,
    took: Option<Duration>,
}

struct Ended {
    args: Vec<String>,
    code: i32,
    err: String,
    took: Duration,
}

fn start(meta: &str, args: &[String]) -> Call {
    let mut command = Command::new(isotherm_binary().unwrap());
    command.args(args).args(["--timeout", LIMIT]).env("ISOTHERM_META", meta);
    for name in ["ISOTHERM_OUTPUT", "ISOTHERM_CONFIG", "ISOTHERM_TIMEOUT"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    Call { args: args.to_vec(), child: command.spawn().unwrap(), begun: Instant::now(), took: None }
}

/// Runs all of them, some at a time; those that do not end are killed after half a minute.
fn run(meta: &str, calls: &[Vec<String>]) -> Vec<Ended> {
    let mut ended = Vec::new();
    for some in calls.chunks(AT_ONCE) {
        let mut running: Vec<_> = some.iter().map(|args| start(meta, args)).collect();
        while running.iter().any(|call| call.took.is_none()) {
            for call in running.iter_mut().filter(|call| call.took.is_none()) {
                if call.begun.elapsed() > Duration::from_secs(30) {
                    call.child.kill().unwrap();
                }
                if call.child.try_wait().unwrap().is_some() {
                    call.took = Some(call.begun.elapsed());
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        for call in running {
            let output = call.child.wait_with_output().unwrap();
            ended.push(Ended {
                args: call.args,
                code: output.status.code().unwrap_or(-1),
                err: String::from_utf8_lossy(&output.stderr).into_owned(),
                took: call.took.unwrap(),
            });
        }
    }
    ended
}

/// Every command that asks a cluster, one line each.
fn commands(file: &Path) -> Vec<Vec<String>> {
    let file = file.to_str().unwrap();
    let lines = [
        "put k v",
        "put z v",
        "get k",
        "get z",
        "get k --at -1ms",
        "cas k v w",
        "incr n",
        "delete k",
        "delete --prefix k --yes",
        "scan",
        "scan --reverse",
        "scan --at -1ms",
        "aggregate --fn count",
        "aggregate --fn count --at -1ms",
        "export",
        "import FILE",
        "import FILE --presplit 4",
        "status",
        "hot --once",
        "config show",
        "config set scheduler.enabled true",
        "range list",
        "range show k",
        "range show r1",
        "range explain r1",
        "range checksum r1",
        "range split q",
        "range transfer-leader r1 --to 2",
        "range merge r1 --wait",
        "range move r1 --from 1 --to 2 --wait",
        "operation list",
        "operation show 1",
        "operation cancel 1",
        "node list",
        "node show 1",
        "node undrain 1",
        "node recommission 1",
        "node decommission 3 --wait",
        "node recommission 3",
        "node drain 3 --wait",
        "node undrain 3",
        "upgrade status",
        "upgrade finalize",
        "bench put --seconds 1 --clients 2",
        "bench get --no-load --seconds 1 --clients 2",
    ];
    let words = |line: &str| line.replace("FILE", file).split(' ').map(str::to_owned).collect();
    lines.iter().map(|line| words(line)).collect()
}

/// What a command may be about that needs no answer of a node.
fn is_bench(args: &[String]) -> bool {
    args[0] == "bench"
}

/// All of them end in time; those that fail for want of an answer name the cause.
fn check(situation: &str, ended: &[Ended], causes: &[&str]) {
    let mut wrong = Vec::new();
    for Ended { args, code, err, took } in ended {
        let (args, err) = (args.join(" "), err.trim());
        println!("{situation}: {args}: {code} after {took:.1?}: {}", err.replace('\n', " | "));
        // A load runs for its seconds too.
        let more = Duration::from_secs(if args.starts_with("bench") { 1 } else { 0 });
        let has_cause = !matches!(code, 3 | 7) || causes.iter().any(|cause| err.contains(cause));
        let is_code = (0..=8).contains(code) && *code != 1;
        let is_clear = !err.contains("http2") && !err.contains("part of the span moved");
        if *took > ENDS_WITHIN + more || !has_cause || !is_code || !is_clear {
            wrong.push(format!("{args}: {code} after {took:?}: {err}"));
        }
    }
    assert!(wrong.is_empty(), "{situation}:\n{}", wrong.join("\n"));
}

async fn cluster(replicas: usize) -> ProcessCluster {
    let options = ClusterOptions { ranges: 4, replicas, ..ClusterOptions::default() };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    cluster
}

fn rows(cluster: &ProcessCluster) -> std::path::PathBuf {
    let file = cluster.dir().join("rows.tsv");
    let rows: Vec<_> = (b'a'..=b'z').map(|c| format!("{}{}\t1\n", c as char, c)).collect();
    std::fs::write(&file, rows.concat()).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_every_command_ends_in_time_and_says_why() {
    let mut cluster = cluster(3).await;
    let (meta, file) = (cluster.meta_addresses().join(","), rows(&cluster));
    cluster.kill(&[Member::Node(1), Member::Node(2)]).unwrap();
    let ended = tokio::task::block_in_place(|| run(&meta, &commands(&file)));
    // An operation says which step does not get on, and what that met last.
    check("no quorum", &ended, &["did not answer", "no quorum", "does not lead", "operation"]);
    let of = |line: &str| ended.iter().find(|e| e.args.join(" ") == line).unwrap();
    for line in ["put k v", "aggregate --fn count", "scan"] {
        assert!(matches!(of(line).code, 3 | 7), "{line}: {}", of(line).err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nodes_that_hang_every_command_ends_in_time_and_says_why() {
    let mut cluster = cluster(3).await;
    let (meta, file) = (cluster.meta_addresses().join(","), rows(&cluster));
    cluster.process_mut(Member::Node(2)).pause().unwrap();
    let causes = ["did not answer", "not answered", "no quorum", "leader", "left", "is down"];
    let ended = tokio::task::block_in_place(|| run(&meta, &commands(&file)));
    check("one hangs", &ended, &[&causes[..], &["operation"]].concat());
    cluster.process_mut(Member::Node(1)).pause().unwrap();
    let ended = tokio::task::block_in_place(|| run(&meta, &commands(&file)));
    check("two hang", &ended, &[&causes[..], &["operation"]].concat());
    cluster.heal().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_meta_every_command_ends_in_time_and_says_why() {
    let mut cluster = cluster(3).await;
    let (meta, file) = (cluster.meta_addresses().join(","), rows(&cluster));
    cluster.process_mut(Member::Meta(0)).pause().unwrap();
    let ended = tokio::task::block_in_place(|| run(&meta, &commands(&file)));
    check("meta hangs", &ended, &["meta service"]);
    cluster.kill(&[Member::Meta(0)]).unwrap();
    let ended = tokio::task::block_in_place(|| run(&meta, &commands(&file)));
    check("meta is gone", &ended, &["meta service"]);
    let status = ended.iter().find(|e| e.args[0] == "status").unwrap();
    assert!(status.code == 3 && status.err.contains("refused"), "{}", status.err);
    // A load of reads or writes is no exception.
    assert!(ended.iter().any(|e| is_bench(&e.args)));
}

/// The last node that may lead is not drained; one that cannot be emptied says why not.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_obeys_its_limit_and_says_what_holds_it_up() {
    let mut cluster = cluster(1).await;
    let (meta, file) = (cluster.meta_addresses().join(","), rows(&cluster));
    let one = |line: &str| {
        let args = vec![line.split(' ').map(str::to_owned).collect::<Vec<_>>()];
        tokio::task::block_in_place(|| run(&meta, &args)).remove(0)
    };
    let fails = |line: &str, code: i32, word: &str| {
        let ended = one(line);
        println!("{line}: {} after {:?}: {}", ended.code, ended.took, ended.err);
        assert!(ended.code == code && ended.err.contains(word), "{line}: {code}: {}", ended.err);
        assert!(ended.took <= ENDS_WITHIN, "{line}: {:?}", ended.took);
    };
    assert_eq!(one(&format!("import {}", file.display())).code, 0);
    // One replica of each range: no other can lead it.
    fails("node drain 1 --wait", 7, "no other voter is live on a node that may lead");
    fails("node drain 1 --wait", 7, "left");
    assert_eq!(one("node drain 2").code, 0);
    fails("node drain 3", 5, "the last that may lead");
    fails("node drain 3 --wait", 5, "the last that may lead");
    let draining = tokio::task::block_in_place(|| run(&meta, &commands(&file)));
    check("the last node drains", &draining, &["left", "no other voter", "operation", "draining"]);
    for node in ["1", "2", "3"] {
        assert_eq!(one(&format!("node undrain {node}")).code, 0);
    }
    // A node that stands still gives nothing away.
    cluster.process_mut(Member::Node(2)).pause().unwrap();
    let deadline = Instant::now() + Duration::from_secs(15);
    while one("status").code != 6 {
        assert!(Instant::now() < deadline, "the node is not seen to be down");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    fails("node decommission 3 --wait", 7, "left");
    cluster.heal().unwrap();
}
