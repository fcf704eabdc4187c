//! Totals on the real binary: every number that people store counts, or is counted as left out; what differs
//! is told apart; and what scans cost is not that of one key.
#![allow(missing_docs, clippy::unwrap_used)]

#[expect(dead_code, reason = "each test uses a part of what is common")]
mod common;

use isotherm_client::{AggregateOptions, Client, Write, aggregate::QueryText};
use isotherm_testkit::{ClusterOptions, ProcessCluster, isotherm_binary};
use isotherm_types::KeyRange;
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How one call ended.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    err: String,
}

/// A text without its numbers.
fn shape(text: &str) -> String {
    text.split(|c: char| c.is_ascii_digit())
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("#")
}

/// Calls the command, and notes what is not as it should be: one fault must not hide the next.
struct Script {
    meta: String,
    wrong: RefCell<Vec<String>>,
}

impl Script {
    fn new(cluster: &ProcessCluster) -> Self {
        Self { meta: cluster.meta_addresses().join(","), wrong: RefCell::default() }
    }

    fn check(&self, is_right: bool, what: String) {
        if !is_right {
            self.wrong.borrow_mut().push(what);
        }
    }

    fn finish(self) {
        let wrong = self.wrong.into_inner();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    fn run(&self, args: &[&str]) -> Ended {
        let mut command = Command::new(isotherm_binary().unwrap());
        command.args(args).env("ISOTHERM_META", &self.meta).stdin(Stdio::null());
        for name in ["ISOTHERM_OUTPUT", "ISOTHERM_CONFIG", "ISOTHERM_TIMEOUT"] {
            command.env_remove(name);
        }
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap();
        Ended { code, out: text(output.stdout), err: text(output.stderr) }
    }

    /// What an aggregate over `prefix` prints, with these arguments, in JSON: as text, whose digits a
    /// parser would change.
    fn total(&self, prefix: &str, args: &[&str]) -> String {
        let ended = self.run(&[&["aggregate", "-o", "json", "--prefix", prefix], args].concat());
        self.check(ended.code == 0, format!("{args:?}: {ended:?}"));
        ended.out
    }

    /// The same, parsed.
    fn json(&self, prefix: &str, args: &[&str]) -> Value {
        serde_json::from_str(&self.total(prefix, args)).unwrap_or_default()
    }

    fn says(&self, prefix: &str, args: &[&str], expected: &[&str]) {
        let total = self.total(prefix, args);
        for part in expected {
            let is_there = total.contains(part);
            self.check(is_there, format!("{prefix} {args:?} lacks {part}: {total}"));
        }
    }
}

async fn load(client: &Client, prefix: &str, values: &[&str]) {
    let writes = values.iter().enumerate();
    let writes =
        writes.map(|(n, value)| Write::put(format!("{prefix}{n:05}"), (*value).to_owned()));
    client.write_all(writes.collect()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_are_exact_and_tell_what_differs_apart() {
    let options = ClusterOptions { ranges: 2, ..ClusterOptions::default() };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let client = common::client(&cluster);
    // Doubles as languages print them, small ones with exponents or many places.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut doubles = Vec::new();
    for _ in 0..2_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        doubles.push(format!("{:e}", (state >> 11) as f64 / (1_u64 << 53) as f64));
    }
    let texts: Vec<&str> = doubles.iter().map(String::as_str).collect();
    load(&client, "d/", &texts).await;
    load(&client, "far/", &["1.7976931348623157e308", "5e-324", "-1.7976931348623157e308"]).await;
    load(&client, "tiny/", &["1e-18", "0", "0"]).await;
    load(&client, "q/", &["1e-18", "2e-18", "3e-18", "1e20"]).await;
    load(&client, "odd/", &["1e400", "abc", "6", "7"]).await;
    load(&client, "inf/", &["1e999", "6", "-inf"]).await;
    let ids = [r#"{"id":200000000000000000001}"#, r#"{"id":200000000000000000002}"#];
    load(&client, "id/", &ids).await;
    load(&client, "path/", &[r#"{"id":1,"$id":2,"a]b":3}"#]).await;
    load(&client, "same/", &["abcdefgh", "abcdefgh\0"]).await;
    load(&client, "type/", &[r#"{"n":null}"#, r#"{"n":"null"}"#, r#"{"n":5}"#, r#"{"n":"5"}"#])
        .await;
    let script = Script::new(&cluster);
    tokio::task::block_in_place(|| {
        let exact: f64 = {
            // Of the doubles, which differ by less than the test looks at.
            let query =
                QueryText { functions: "sum".into(), value: "f64".into(), ..Default::default() };
            let query = isotherm_client::aggregate::Query::parse(&query).unwrap();
            let mut fold = isotherm_client::aggregate::Fold::new(&query);
            doubles.iter().for_each(|text| fold.add(b"k", text.as_bytes()).unwrap());
            let answer = fold.finish().finish(&query);
            let isotherm_client::aggregate::Figure::Number(digits) = &answer.groups[0].figures[0].1
            else {
                panic!("{answer:?}")
            };
            digits.parse().unwrap()
        };
        let total = script.json("d/", &["--fn", "count,sum"]);
        let is_exact = total["sum"].as_f64().is_some_and(|sum| (sum - exact).abs() < 1e-9);
        script.check(total["skipped"] == 0 && is_exact, format!("{total}, not {exact}"));
        script.says(
            "far/",
            &["--fn", "sum,max"],
            &["\"sum\":5e-324", "\"max\":1.7976931348623157e308", "\"skipped\":0"],
        );
        script.says("tiny/", &["--fn", "avg"], &["\"avg\":3.33333333333333333e-19"]);
        // Beyond all doubles, or no number at all: counted, under a condition too.
        script.says("odd/", &["--fn", "sum"], &["\"rows\":4", "\"skipped\":2", "\"sum\":13"]);
        script.says(
            "odd/",
            &["--fn", "sum", "--where", "value > 5"],
            &["\"rows\":3", "\"skipped\":1", "\"sum\":13"],
        );
        let f64s = ["--fn", "sum,max", "--value", "f64"];
        script.says("inf/", &f64s, &["\"max\":6", "\"sum\":\"-Infinity\"", "\"skipped\":1"]);
        let filtered = [&f64s[..], &["--where", "value > 5"]].concat();
        script.says("inf/", &filtered, &["\"rows\":2", "\"skipped\":1", "\"sum\":6"]);
        let table = script.run(&["aggregate", "-o", "table", "--prefix", "odd/", "--fn", "sum"]);
        let is_shown = table.out.lines().any(|line| line.split_whitespace().eq(["skipped", "2"]));
        script.check(is_shown, format!("{table:?}"));
        let grouped = "aggregate -o table --prefix odd/ --fn sum --group-by prefix:4";
        let table = script.run(&grouped.split(' ').collect::<Vec<_>>());
        script.check(table.out.contains("SKIPPED"), format!("{table:?}"));
        // Comparisons and paths.
        let one = ["--fn", "count", "--where", "json:id = 200000000000000000001"];
        script.says("id/", &one, &["\"rows\":1"]);
        script.says("path/", &["--fn", "sum", "--value", "json:$id"], &["\"sum\":2"]);
        script.says("path/", &["--fn", "sum", "--value", "json:$.id"], &["\"sum\":1"]);
        script.says("path/", &["--fn", "count", "--where", "json:[\"a]b\"] = 3"], &["\"rows\":1"]);
        // What differs.
        script.says("same/", &["--fn", "distinct"], &["\"distinct\":2"]);
        script.says("type/", &["--fn", "distinct", "--value", "json:n"], &["\"distinct\":4"]);
        let groups = script.json("type/", &["--fn", "count", "--group-by", "json:n"]);
        script.check(groups["groups"].as_array().is_some_and(|g| g.len() == 4), groups.to_string());
        // Quantiles over 38 powers of ten.
        let total = script.json("q/", &["--fn", "p50"]);
        let is_near = |p50: f64| (p50 - 2e-18).abs() <= 0.0101 * 2e-18;
        script.check(total["p50"].as_f64().is_some_and(is_near), total.to_string());
        bad_times(&script);
        loads(&script);
    });
    script.finish();
}

/// Every kind of read answers the same for the same time that is none, and for a span without keys.
fn bad_times(script: &Script) {
    for at in [
        "0",
        "18446744073709551615",
        "18446744073709551616",
        "-1",
        "-100years",
        "2900-01-01T00:00:00Z",
        "yesterday",
    ] {
        let at = format!("--at={at}");
        let reads = [
            &["get", "d/00001"][..],
            &["scan", "--prefix", "d/"],
            &["aggregate", "--prefix", "d/"],
            &["export", "--prefix", "d/"],
        ];
        let ended: Vec<_> =
            reads.iter().map(|read| script.run(&[*read, &[at.as_str()][..]].concat())).collect();
        for other in &ended {
            // But for the time: an error says what time it is now.
            let is_same = (other.code, shape(&other.err)) == (ended[0].code, shape(&ended[0].err));
            let is_refused = other.code != 0 && other.out.is_empty();
            script.check(is_same && is_refused, format!("{at}: {other:?}, not as {:?}", ended[0]));
        }
    }
    for read in ["scan", "export", "aggregate"] {
        let ended = script.run(&[read, "--from", "d/00001", "--to", "d/00001"]);
        script.check(ended.code == 0, format!("{read} of an empty span: {ended:?}"));
    }
    script.says("d/", &["--fn", "count", "--where", "key < ''"], &["\"rows\":0"]);
}

/// What was loaded for one distribution of keys is there for every other.
fn loads(script: &Script) {
    let common = "bench get --prefix bench/ --keys 300 --seconds 1 --clients 2 -o json";
    let bench = |args: &[&str]| {
        let args = [&common.split(' ').collect::<Vec<_>>()[..], args].concat();
        let ended = script.run(&args);
        script.check(ended.code == 0, format!("{args:?}: {ended:?}"));
        serde_json::from_str::<Value>(&ended.out).unwrap_or_default()
    };
    bench(&["--dist", "hotspot"]);
    for dist in ["uniform", "zipfian", "latest", "hotspot"] {
        let found = bench(&["--no-load", "--dist", dist]);
        script.check(found["misses"] == 0, format!("{dist}: {found}"));
    }
}

/// Totals over a few rows, without a pause: no row is cut out of them, and no key is named that is not there.
#[tokio::test(flavor = "multi_thread")]
async fn the_load_of_totals_belongs_to_the_rows_that_they_read() {
    let options = ClusterOptions { ranges: 1, ..ClusterOptions::default() };
    let mut cluster = ProcessCluster::start(&options).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let client = common::client(&cluster);
    let rows: Vec<String> = (0..3_000).map(|n: u32| (n % 977).to_string()).collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    load(&client, "ds/", &rows).await;
    load(&client, "other/", &["1"; 100]).await;
    let script = Script::new(&cluster);
    let until = Instant::now() + Duration::from_secs(12);
    let loops: Vec<_> = (0..6)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                while Instant::now() < until {
                    let query = QueryText { functions: "count,sum".into(), ..Default::default() };
                    let span = KeyRange::prefix(b"ds/");
                    let options = AggregateOptions { span, query, ..Default::default() };
                    assert_eq!(client.aggregate(options).await.unwrap().answer.rows, 3_000);
                }
            })
        })
        .collect();
    let mut named = BTreeSet::new();
    while Instant::now() < until {
        let hot = tokio::task::block_in_place(|| script.run(&["hot", "--once", "-o", "json"]));
        for line in hot.out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let ranges = line.as_array().cloned().unwrap_or_else(|| vec![line]);
            for range in ranges {
                assert_eq!(range["one_key"], false, "{range}");
                for key in range["keys"].as_array().into_iter().flatten() {
                    named.insert(key["key"].as_str().unwrap().to_owned());
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for task in loops {
        task.await.unwrap();
    }
    for key in named {
        assert!(
            client.get(key.clone()).await.unwrap().is_some(),
            "{key} is named as hot and is not there"
        );
    }
}
