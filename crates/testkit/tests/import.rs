//! `isotherm import`: what stands in a file last is what the cluster holds, whatever happens meanwhile.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

#[expect(dead_code, reason = "each test uses a part of what is common")]
mod common;

use common::{client, ranges};
use isotherm_client::Client;
use isotherm_testkit::{ClusterOptions, ProcessCluster, isotherm_binary};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const KEYS: usize = 50;
/// How often a file sets each key, unless `ISOTHERM_IMPORT_TIMES` says otherwise.
const TIMES: usize = 1000;

async fn started() -> (ProcessCluster, Client) {
    let options = ClusterOptions { ranges: 4, ..ClusterOptions::default() };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let client = client(&cluster);
    (cluster, client)
}

/// Moves leaderships until it is told to stop; says how many it moved.
async fn move_leaders(client: Client, stop: Arc<AtomicBool>) -> u64 {
    let mut moved = 0;
    while !stop.load(Ordering::Relaxed) {
        for range in ranges(&client).await {
            let replicas = &range.descriptor.replicas;
            let to = replicas[fastrand::usize(..replicas.len())].node;
            // One that leads already, or whose replica is behind, refuses.
            let done = client.admin().transfer_leader(range.descriptor.id, to).await;
            moved += u64::from(done.is_ok());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    moved
}

fn spawn(cluster: &ProcessCluster, args: &[&str], stdin: Option<Vec<u8>>) -> Child {
    let mut command = Command::new(isotherm_binary().unwrap());
    command.args(args).env("ISOTHERM_META", cluster.meta_addresses().join(","));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().unwrap();
    if let Some(bytes) = stdin {
        let mut pipe = child.stdin.take().unwrap();
        // It ends early if the command does.
        std::thread::spawn(move || pipe.write_all(&bytes));
    }
    child
}

async fn ended(child: Child) -> Output {
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
}

fn key(n: usize) -> String {
    // Spread over the printable keys, as the ranges are.
    format!(
        "{}{n:02}",
        char::from(b'!' + (n * 37 % 94) as u8).to_string().replace(['"', '\\', ','], "x")
    )
}

fn value(round: usize, time: usize) -> String {
    format!("round {round} time {time}")
}

/// Each key `times` times, in turn.
fn lines(round: usize, times: usize, line: impl Fn(&str, &str) -> String) -> String {
    let at = |time| (0..KEYS).map(move |n| (n, time));
    (0..times).flat_map(at).map(|(n, time)| line(&key(n), &value(round, time))).collect()
}

async fn holds_the_last(client: &Client, round: usize, times: usize) {
    let mut wrong = Vec::new();
    for n in 0..KEYS {
        let row = client.get(key(n)).await.unwrap().unwrap();
        if row.value != value(round, times - 1) {
            wrong.push((key(n), row.value));
        }
    }
    assert!(wrong.is_empty(), "round {round}: {} of {KEYS}: {wrong:?}", wrong.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_line_of_a_key_wins_while_leaderships_move() {
    let times = std::env::var("ISOTHERM_IMPORT_TIMES").map_or(TIMES, |t| t.parse().unwrap());
    let (cluster, client) = started().await;
    let stop = Arc::new(AtomicBool::new(false));
    let moving = tokio::spawn(move_leaders(client.clone(), stop.clone()));
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let tsv = |key: &str, value: &str| format!("{key}\t{value}\n");
    let csv = |key: &str, value: &str| format!("{key},\"{value}\"\n");
    let jsonl = |key: &str, value: &str| format!("{{\"key\":\"{key}\",\"value\":\"{value}\"}}\n");

    let begun = Instant::now();
    for round in 0..3 {
        let path = file("rows.tsv", lines(round, times, tsv));
        let done = ended(spawn(&cluster, &["import", &path], None)).await;
        assert!(done.status.success(), "{done:?}");
        holds_the_last(&client, round, times).await;
    }
    println!("3 imports of {} lines took {:?}", KEYS * times, begun.elapsed());
    let text = format!("key,value\n{}", lines(3, times, csv)).into_bytes();
    let done = ended(spawn(&cluster, &["import", "-", "--format", "csv"], Some(text))).await;
    assert!(done.status.success(), "{done:?}");
    holds_the_last(&client, 3, times).await;
    let text = lines(4, times, jsonl).into_bytes();
    let done = ended(spawn(&cluster, &["import", "-", "--format", "jsonl"], Some(text))).await;
    assert!(done.status.success(), "{done:?}");
    holds_the_last(&client, 4, times).await;

    // Interrupted, it says how far it came; repeated, it ends as if nothing had been.
    let path = file("rows.jsonl", lines(5, times, jsonl));
    let mut interrupted = 0;
    for after in [50, 150, 300] {
        let child = spawn(&cluster, &["import", &path], None);
        tokio::time::sleep(Duration::from_millis(after)).await;
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let done = ended(child).await;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        let early = done.status.code() == Some(130) && said.contains("up to line");
        interrupted += u64::from(early);
        assert!(early || done.status.success() || done.status.code().is_none(), "{done:?}");
    }
    assert!(interrupted > 0, "it was never interrupted");
    let done = ended(spawn(&cluster, &["import", &path], None)).await;
    assert!(done.status.success(), "{done:?}");
    holds_the_last(&client, 5, times).await;
    stop.store(true, Ordering::Relaxed);
    let moved = moving.await.unwrap();
    println!("{moved} leaderships moved");
    assert!(moved > 10, "{moved}");
}

/// What is fed into a pipe slowly arrives, and a row that a later one follows is not held back.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_slow_pipe_arrive_while_it_is_open() {
    let (cluster, client) = started().await;
    let mut child = Command::new(isotherm_binary().unwrap())
        .args(["import", "-"])
        .env("ISOTHERM_META", cluster.meta_addresses().join(","))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    for n in 0..3 {
        writeln!(pipe, "slow\t{n}").unwrap();
        common::eventually(Duration::from_secs(10), async || {
            let row = client.get("slow").await.unwrap();
            if row.is_some_and(|row| row.value == n.to_string()) {
                Ok(())
            } else {
                Err("not yet".into())
            }
        })
        .await;
    }
    drop(pipe);
    assert!(child.wait().unwrap().success());
}

fn import_of(cluster: &ProcessCluster, dir: &Path, name: &str, text: &[u8], prefix: &str) -> Child {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    spawn(cluster, &["import", path.to_str().unwrap(), "--prefix", prefix], None)
}

/// Name, text, rows that lie in the cluster then, numbers of the bad lines.
type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static [u64]);

/// Files that peers' users stumbled over: the same bytes come out again, or a line is reported.
#[tokio::test(flavor = "multi_thread")]
async fn odd_files_come_out_as_they_went_in_or_their_lines_are_reported() {
    let (cluster, client) = started().await;
    let dir = tempfile::tempdir().unwrap();
    let numbers = "{\"key\": \"n1\", \"value\": 12345678901234567890123}\n\
                   {\"key\": \"n2\", \"value\": 1.10}\n{\"key\": \"n3\", \"value\": 1e2}\n\
                   {\"key\": \"n4\", \"value\": -0}\n\
                   {\"key\": \"n6\", \"value\": {\"b\": 1.10, \"a\": [1e400]}}\n";
    let cases: [Case; 8] = [
        (
            "numbers.jsonl",
            numbers,
            &[
                ("n1", "12345678901234567890123"),
                ("n2", "1.10"),
                ("n3", "1e2"),
                ("n4", "-0"),
                ("n6", "{\"b\": 1.10, \"a\": [1e400]}"),
            ],
            &[],
        ),
        (
            "quotes.csv",
            "key,value\n1a,plain\n2a,\"two b\" is the string\n3a,\"open quote\n4a,found\n",
            &[("1a", "plain"), ("4a", "found")],
            &[3, 4],
        ),
        ("swapped.CSV", "value,key\n1,a\n", &[("a", "1")], &[]),
        (
            "bom.jsonl",
            "\u{feff}{\"key\": \"bom\", \"value\": \"1\"}\n{\"key\": \"next\", \"value\": \"2\"}\n",
            &[("bom", "1"), ("next", "2")],
            &[],
        ),
        ("blank.tsv", "a\t1\n\n\nbad\nc\t3\n", &[("a", "1"), ("c", "3")], &[4]),
        ("crlf.tsv", "a\t1\r\nb\t2\r\nbad\r\n", &[("a", "1"), ("b", "2")], &[3]),
        ("extra.tsv", "a\tx\ty\nb\tz\n", &[("b", "z")], &[1]),
        (
            "multi.csv",
            "key,value\r\nk,\"two\nlines, \"\"quoted\"\"\"\r\n",
            &[("k", "two\nlines, \"quoted\"")],
            &[],
        ),
    ];
    for (name, text, rows, bad) in cases {
        let prefix = format!("{name}/");
        let done = ended(import_of(&cluster, dir.path(), name, text.as_bytes(), &prefix)).await;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(i32::from(!bad.is_empty())), "{name}: {said}");
        let reported: Vec<u64> = said
            .lines()
            .filter_map(|line| line.strip_prefix("line ")?.split(':').next()?.parse().ok())
            .collect();
        assert_eq!(reported, bad, "{name}: {said}");
        let span = isotherm_types::KeyRange::prefix(prefix.as_bytes());
        let options = isotherm_client::ScanOptions { span, ..Default::default() };
        let found = client.scan(options).collect().await.unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|(key, row)| (key[prefix.len()..].to_vec(), row.value.to_vec()))
            .collect();
        let bytes = |(k, v): &(&str, &str)| (k.as_bytes().to_vec(), v.as_bytes().to_vec());
        let expected: Vec<_> = rows.iter().map(bytes).collect();
        assert_eq!(found, expected, "{name}");
        // And back: every format that holds it gives the same rows again.
        for format in ["csv", "jsonl"] {
            let args = ["export", "--prefix", &prefix, "--format", format];
            let text = ended(spawn(&cluster, &args, None)).await.stdout;
            let args = ["import", "-", "--format", format, "--prefix", "back/"];
            let done = ended(spawn(&cluster, &args, Some(text))).await;
            assert!(done.status.success(), "{done:?}");
            for (key, value) in rows {
                let row = client.get(format!("back/{prefix}{key}")).await.unwrap().unwrap();
                assert_eq!(row.value, *value, "{name} {format}");
            }
        }
    }
}
