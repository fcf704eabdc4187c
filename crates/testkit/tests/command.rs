//! The `isotherm` command as scripts rely on it: what it prints, where, and how it ends.
#![allow(missing_docs, clippy::unwrap_used)]

use isotherm_testkit::{ClusterOptions, Member, ProcessCluster, isotherm_binary};
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How one call ended.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Ended {
    /// What it printed, as JSON.
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// Calls the command with what a script would have as its output: a pipe.
struct Script {
    meta: String,
}

impl Script {
    fn run(&self, args: &[&str]) -> Ended {
        let mut command = Command::new(isotherm_binary().unwrap());
        command.args(args).env("ISOTHERM_META", &self.meta).stdin(Stdio::null());
        for name in ["ISOTHERM_OUTPUT", "ISOTHERM_CONFIG", "ISOTHERM_TIMEOUT"] {
            command.env_remove(name);
        }
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended {
            code: output.status.code().unwrap(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// Calls it until it ends as it should; the last one if that takes too long.
    fn until(&self, args: &[&str], is_right: impl Fn(&Ended) -> bool) -> Ended {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let ended = self.run(args);
            if is_right(&ended) || Instant::now() > deadline {
                return ended;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

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
    });
    cluster.kill(&[Member::Node(2)]).unwrap();
    tokio::task::block_in_place(|| a_node_that_is_down(&script));
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
    assert!(got["key"] == "fruit/apple" && got["value"] == "3" && got["ts"].is_u64(), "{got}");
    let rows = script.run(&["scan", "--prefix", "fruit/", "-o", "json"]).out;
    let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    assert!(rows.len() == 2 && rows[1]["value"] == "-4" && rows[1]["ts"].is_u64(), "{rows:?}");

    let total = script.run(&["aggregate", "--prefix", "fruit/", "--fn", "count,sum"]).json();
    let found = [&total["rows"], &total["skipped"], &total["count"], &total["groups"][0]["count"]];
    assert!(found == [2, 0, 2, 2] && total["sum"] == -1 && total["at"].is_u64(), "{total}");

    script.expect(&["delete", "fruit/apple"], 0, "");
    script.fails(&["get", "fruit/apple"], 4, "fruit/apple");
    let past = got["ts"].to_string();
    script.expect(&["get", "fruit/apple", "--at", &past], 0, "3\n");
}

/// What cannot be done says so, and changes nothing.
fn refusals(script: &Script) {
    let not_met = script.run(&["cas", "n", "11", "12"]);
    assert!(not_met.code == 5 && not_met.out == "10\n", "{not_met:?}");
    script.fails(&["cas", "absent", "1", "2"], 5, "absent");
    script.fails(&["incr", "fruit/nothing", "x"], 2, "x");
    script.fails(&["put", "", "v"], 2, "empty");
    script.fails(&["put", &"k".repeat(4097), "v"], 8, "4096");
    script.fails(&["scan", "--from", "b", "--to", "a"], 2, "b");
    script.fails(&["get", "k", "--at", "yesterday"], 2, "yesterday");
    script.fails(&["put", "k", "v", "--no-such-flag"], 2, "--no-such-flag");
    script.fails(&["no-such-command"], 2, "no-such-command");
    script.fails(&["config", "set", "no.such.name", "1"], 2, "no.such.name");
    script.fails(&["delete", "--prefix", "fruit/"], 2, "--yes");
    script.fails(&["node", "show", "99"], 4, "99");
    script.fails(&["range", "checksum", "r99"], 4, "there is no range r99");
    script.fails(&["range", "transfer-leader", "1", "--to", "99"], 5, "n99");
    let nowhere = Script { meta: "127.0.0.1:1".to_owned() };
    nowhere.fails(&["get", "k", "--timeout", "1s"], 3, "isotherm up");
    script.expect(&["get", "n"], 0, "10\n");
    let removed = script.run(&["delete", "--prefix", "fruit/", "--yes"]);
    assert_eq!((removed.code, removed.out.as_str()), (0, "1 keys removed\n"), "{removed:?}");
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
