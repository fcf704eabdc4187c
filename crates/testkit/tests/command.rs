//! The `isotherm` command as scripts rely on it: what it prints, where, and how it ends.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "common/script.rs"]
mod script;

use isotherm_testkit::{ClusterOptions, Member, ProcessCluster};
use script::{Ended, Script};
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;

impl Script {
    /// Calls it, and expects this exit code and this on stdout.
    #[track_caller]
    fn expect(&self, args: &[&str], code: i32, out: &str) {
        let ended = self.run(args);
        assert!(ended.code == code && ended.out == out, "{args:?}: {ended:?}");
    }

    /// Calls it, and expects it to end with `code`, nothing on stdout and `word` on stderr.
    #[track_caller]
    fn fails(&self, args: &[&str], code: i32, word: &str) {
        let ended = self.run(args);
        let is_right = ended.code == code && ended.out.is_empty() && ended.err.contains(word);
        assert!(is_right, "{args:?} should end with {code} and say {word:?}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_output_are_what_scripts_rely_on() {
    let options = ClusterOptions { ranges: 2, ..ClusterOptions::default() };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let script = Script { meta: cluster.meta_addresses().join(",") };
    tokio::task::block_in_place(|| {
        data(&script);
        refusals(&script);
        administration(&script);
        imports(&script, &cluster);
        values(&script, cluster.dir());
        pipes(&script);
        variables(&script);
    });
    cluster.kill(&[Member::Node(2)]).unwrap();
    tokio::task::block_in_place(|| a_node_that_is_down(&script));
}

/// A timestamp or an id: no number, which parsers may round.
fn is_digits(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.parse::<u64>().is_ok_and(|number| number > 0))
}

/// Keys and values come out as they are, whoever reads them.
fn data(script: &Script) {
    script.expect(&["put", "fruit/apple", "3"], 0, "");
    script.expect(&["put", "fruit/pear", "-4"], 0, "");
    script.expect(&["get", "fruit/apple"], 0, "3\n");
    script.fails(&["get", "fruit/apple", "--hex"], 2, "hexadecimal");
    script.expect(&["get", "66727569742f6170706c65", "--hex"], 0, "33\n");
    script.expect(&["incr", "n", "5"], 0, "5\n");
    script.expect(&["incr", "n", "-7"], 0, "-2\n");
    script.expect(&["cas", "n", "-2", "10"], 0, "");
    script.expect(&["scan", "--prefix", "fruit/"], 0, "fruit/apple\t3\nfruit/pear\t-4\n");
    let reversed = ["scan", "--from", "a", "--to", "o", "--reverse", "--limit", "2", "--keys-only"];
    script.expect(&reversed, 0, "n\nfruit/pear\n");
    let exported = ["export", "--prefix", "fruit/", "--format", "tsv"];
    script.expect(&exported, 0, "fruit/apple\t3\nfruit/pear\t-4\n");

    let got = script.run(&["get", "fruit/apple", "-o", "json"]).json();
    assert!(got["key"] == "fruit/apple" && got["value"] == "3" && is_digits(&got["ts"]), "{got}");
    let rows = script.run(&["scan", "--prefix", "fruit/", "-o", "json"]).out;
    let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    assert!(rows.len() == 2 && rows[1]["value"] == "-4" && is_digits(&rows[1]["ts"]), "{rows:?}");

    let total = script.run(&["aggregate", "--prefix", "fruit/", "--fn", "count,sum"]).json();
    let found = [&total["rows"], &total["skipped"], &total["count"], &total["groups"][0]["count"]];
    assert!(found == [2, 0, 2, 2] && total["sum"] == -1 && is_digits(&total["at"]), "{total}");

    script.expect(&["delete", "fruit/apple"], 0, "");
    script.fails(&["get", "fruit/apple"], 4, "fruit/apple");
    // As a string, and as a number.
    for past in [got["ts"].to_string(), got["ts"].as_str().unwrap().to_owned()] {
        script.expect(&["get", "fruit/apple", "--at", &past], 0, "3\n");
    }
    script.expect(&["put", "large/a", "9007199254740993"], 0, "");
    let large = ["aggregate", "--prefix", "large/", "--fn", "sum"];
    let number = script.run(&large);
    assert!(number.out.contains("\"sum\":9007199254740993"), "{number:?}");
    let string = script.run(&[&large[..], &["--number-strings"]].concat()).json();
    let group = &string["groups"][0]["sum"];
    assert!(string["sum"] == "9007199254740993" && *group == string["sum"], "{string}");
}

/// What cannot be done says so, and changes nothing.
fn refusals(script: &Script) {
    let not_met = script.run(&["cas", "n", "11", "12"]);
    assert!(not_met.code == 5 && not_met.out == "10\n", "{not_met:?}");
    script.fails(&["cas", "absent", "1", "2"], 5, "absent");
    script.fails(&["incr", "fruit/nothing", "x"], 2, "x");
    script.fails(&["put", "", "v"], 2, "empty");
    script.fails(&["put", &"k".repeat(4097), "v"], 8, "4096");
    script.fails(&["scan", "--from", "b", "--to", "a"], 2, "swap");
    script.expect(&["scan", "--from", "a", "--to", "a"], 0, "");
    let none = script.run(&["aggregate", "--from", "a", "--to", "a"]);
    assert!(none.code == 0 && none.json()["rows"] == 0, "{none:?}");
    for read in [&["get", "n"][..], &["scan"], &["aggregate"], &["export"]] {
        script.fails(&[read, &["--at", "0"]].concat(), 8, "timestamp 0");
    }
    script.fails(&["get", "k", "--meta", "foo"], 2, "HOST:PORT");
    script.fails(&["delete", "--prefix", "", "--yes"], 2, "--all");
    script.fails(&["get", "k", "--at", "yesterday"], 2, "yesterday");
    script.fails(&["put", "k", "v", "--no-such-flag"], 2, "--no-such-flag");
    script.fails(&["no-such-command"], 2, "no-such-command");
    script.fails(&["config", "set", "no.such.name", "1"], 2, "no.such.name");
    script.fails(&["delete", "--prefix", "fruit/"], 2, "--yes");
    script.fails(&["node", "show", "99"], 4, "99");
    for id in ["r99", "99"] {
        for command in ["checksum", "show", "explain"] {
            script.fails(&["range", command, id], 4, &format!("there is no range {id}"));
        }
    }
    assert_eq!(script.run(&["range", "show", "--key", "99"]).code, 0);
    script.fails(&["range", "move", "r999", "--from", "1", "--to", "2"], 4, "r999");
    script.fails(&["range", "transfer-leader", "1", "--to", "99"], 5, "n99");
    let nowhere = Script { meta: "127.0.0.1:1".to_owned() };
    nowhere.fails(&["get", "k", "--timeout", "1s"], 3, "isotherm up");
    let load = ["bench", "put", "--seconds", "1", "--clients", "2", "--timeout", "1s"];
    nowhere.fails(&load, 3, "Unreachable");
    let empty = ["bench", "get", "--no-load", "--prefix", "nothing/", "--seconds", "1"];
    script.fails(&empty, 4, "not there");
    script.expect(&["get", "n"], 0, "10\n");
    let removed = script.run(&["delete", "--prefix", "fruit/", "--yes"]);
    assert_eq!((removed.code, removed.out.as_str()), (0, "1 keys removed\n"), "{removed:?}");
}

/// Values of any bytes and any size that fits, from stdin and files, and back.
fn values(script: &Script, dir: &std::path::Path) {
    let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let (from, to) = (dir.join("value"), dir.join("value-back"));
    std::fs::write(&from, &bytes).unwrap();
    script.expect(&["put", "any", "--file", from.to_str().unwrap()], 0, "");
    script.expect(&["get", "any", "--out", to.to_str().unwrap()], 0, "");
    assert!(std::fs::read(&to).unwrap() == bytes, "other bytes came back");
    let mut long = bytes.clone();
    long.push(0);
    std::fs::write(&from, &long).unwrap();
    script.fails(&["put", "any", "--file", from.to_str().unwrap()], 8, "1048576");
    std::fs::write(&from, b"from a pipe\n").unwrap();
    let piped =
        script.command(&["put", "any", "-"]).stdin(std::fs::File::open(&from).unwrap()).output();
    assert!(piped.unwrap().status.success());
    script.expect(&["get", "any"], 0, "from a pipe\n\n");
    // Bytes and the text that describes them are told apart.
    script.expect(&["put", "ff", "--hex", "ff"], 0, "");
    script.expect(&["put", "6666", "--hex", "ff"], 0, "");
    script.expect(&["get", "ff"], 0, "b\"\\xff\"\n");
    script.expect(&["put", "ff", "\\xff"], 0, "");
    script.expect(&["get", "ff"], 0, "\\xff\n");
    script.fails(&["put", "k"], 2, "file");
    script.fails(&["put", "k", "v", "--file", "f"], 2, "--file");
}

/// A reader that has seen enough is no failure, and nobody talks of it.
fn pipes(script: &Script) {
    for n in 0..3 {
        let put: Vec<String> =
            (0..2000).map(|i| format!("pipe/{n}/{i:05}\t{}\n", "x".repeat(200))).collect();
        let mut child = script
            .command(&["import", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut pipe, put.concat().as_bytes()).unwrap();
        drop(pipe);
        assert!(child.wait().unwrap().success());
    }
    for args in [
        &["export", "--prefix", "pipe/"][..],
        &["export", "--prefix", "pipe/", "--format", "csv"],
        &["scan", "--prefix", "pipe/"],
    ] {
        let mut child =
            script.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut some = [0; 10];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut some).unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.code() == Some(0) && !said.contains("roken"), "{args:?}: {ended:?}");
    }
}

/// Tables on a terminal are JSON in a pipe.
fn administration(script: &Script) {
    let status = script.run(&["status"]);
    let found = status.json();
    assert_eq!((status.code, &found["healthy"]), (0, &Value::Bool(true)), "{found}");
    let has = |at: &str| found.pointer(at).is_some();
    for at in ["/problems", "/meta/leader", "/meta/members", "/nodes/2/address", "/nodes/0/load"] {
        assert!(has(at), "{at}: {found}");
    }
    for at in ["total", "unavailable", "under_replicated"] {
        assert!(found["ranges"][at].is_u64(), "{at}: {found}");
    }
    assert!(is_digits(&found["cluster_id"]), "{found}");
    let table = script.run(&["status", "-o", "table"]);
    assert!(table.code == 0 && serde_json::from_str::<Value>(&table.out).is_err(), "{table:?}");

    let set = script.run(&["config", "set", "scheduler.enabled", "false"]);
    assert_eq!(set.code, 0, "{set:?}");
    let split = script.run(&["range", "split", "m"]);
    assert_eq!(split.code, 0, "{split:?}");
    let ranges = script.run(&["range", "list"]).json();
    assert_eq!(ranges.as_array().unwrap().len(), 3, "{ranges}");
    // Its leader says so with the next heartbeat.
    let is_led = |shown: &Ended| !shown.out.contains("\"leader\":null");
    let at = script.until(&["range", "show", "m"], is_led).json();
    assert!(at["start"] == "m" && at["epoch"]["version"].is_u64(), "{at}");
    let replicas = at["replicas"].as_array().unwrap();
    let leader = at["leader"].as_u64().unwrap();
    let other = replicas.iter().map(|r| r["node"].as_u64().unwrap()).find(|&n| n != leader);
    let (id, other) = (at["id"].to_string(), other.unwrap().to_string());
    // A follower that is a little behind is not handed anything.
    let hand_over = ["range", "transfer-leader", &id, "--to", &other];
    let handed = script.until(&hand_over, |handed| handed.code == 0);
    assert_eq!(handed.code, 0, "{handed:?}");
    assert_eq!(script.run(&["range", "checksum", &id]).code, 0);
}

/// What is typed wins over variables; off is off; and no variable destroys anything.
fn variables(script: &Script) {
    let run = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = script.command(args);
        let done = command.envs(variables.iter().copied()).output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code().unwrap(), text(&done.stdout), text(&done.stderr))
    };
    for off in ["0", "false", ""] {
        let got = run(&["get", "6e"], &[("ISOTHERM_HEX", off)]);
        assert_eq!(got.0, 4, "{off:?} is off: {got:?}");
        let got = run(&["get", "bg==", "--base64"], &[("ISOTHERM_HEX", off)]);
        assert_eq!(got.0, 0, "{got:?}");
    }
    assert_eq!(run(&["get", "6e"], &[("ISOTHERM_HEX", "1")]).1, "3130\n");
    assert_eq!(run(&["get", "bg==", "--base64"], &[("ISOTHERM_HEX", "1")]).1, "MTA=\n");
    let empty = [("ISOTHERM_TIMEOUT", ""), ("ISOTHERM_OUTPUT", ""), ("ISOTHERM_LOG", "")];
    assert_eq!(run(&["get", "n"], &empty).1, "10\n");
    let scan = run(&["scan", "--from", "n", "--to", "o"], &[("ISOTHERM_PREFIX", "rows/")]);
    assert_eq!((scan.0, scan.1.as_str()), (0, "n\t10\n"), "{scan:?}");
    let all = [("ISOTHERM_PREFIX", "rows/"), ("ISOTHERM_YES", "1"), ("ISOTHERM_ALL", "1")];
    assert_eq!(run(&["delete"], &all).0, 2);
    script.expect(&["get", "rows/a"], 0, "1\n");
}

/// Bad lines are named, the rest goes on.
fn imports(script: &Script, cluster: &ProcessCluster) {
    let file = cluster.dir().join("rows.tsv");
    std::fs::write(&file, "a\t1\nno value\nb\t2\n").unwrap();
    let imported = script.run(&["import", file.to_str().unwrap(), "--prefix", "rows/"]);
    assert!(imported.code == 1 && imported.err.contains("line 2"), "{imported:?}");
    let summary: Value = imported.json();
    assert!(summary["rows"] == 2 && summary["bad_lines"] == 1, "{summary}");
    script.expect(&["scan", "--prefix", "rows/"], 0, "rows/a\t1\nrows/b\t2\n");
}

/// The cluster goes on, and says that it is not well.
fn a_node_that_is_down(script: &Script) {
    let unhealthy = script.until(&["status"], |status| status.code == 6);
    let found = unhealthy.json();
    assert_eq!((unhealthy.code, &found["healthy"]), (6, &Value::Bool(false)), "{found}");
    assert!(found["problems"].as_array().is_some_and(|p| !p.is_empty()), "{found}");
    script.expect(&["put", "still", "here", "--timeout", "20s"], 0, "");
    script.expect(&["get", "still"], 0, "here\n");
}
