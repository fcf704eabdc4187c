//! What processes say at `/metrics`, by the rules of `promtool check metrics`: every metric has a help text
//! and the type that its name says, and units are base units. Where promtool itself is at hand (Debian's
//! package `prometheus`) it is asked as well.
#![allow(missing_docs, clippy::unwrap_used)]

#[expect(dead_code, reason = "each test uses a part of what is common")]
mod common;

use isotherm_testkit::{ClusterOptions, Member, ProcessCluster, http};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// One metric as it was scraped.
#[derive(Debug, Default)]
struct Family {
    help: Option<String>,
    kind: Option<String>,
    /// Names and labels of its samples.
    samples: Vec<String>,
}

/// The families of a scrape in text form, by name, and what is wrong with the form itself.
fn families(text: &str) -> (BTreeMap<String, Family>, Vec<String>) {
    let (mut families, mut problems) = (BTreeMap::<String, Family>::new(), Vec::new());
    for line in text.lines().filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", what @ ("HELP" | "TYPE"), name, rest] => {
                let family = families.entry(name.to_owned()).or_default();
                let place = if what == "HELP" { &mut family.help } else { &mut family.kind };
                if place.replace(rest.to_owned()).is_some() {
                    problems.push(format!("{name}: a second {what}"));
                }
            }
            _ => {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                if value.parse::<f64>().is_err() {
                    problems.push(format!("{line}: no number"));
                }
                let name = sample.split('{').next().unwrap();
                let parts = ["_bucket", "_sum", "_count"];
                let of_histogram = parts.iter().find_map(|part| {
                    let whole = name.strip_suffix(part)?;
                    let kind = families.get(whole)?.kind.as_deref()?;
                    matches!(kind, "histogram" | "summary").then(|| whole.to_owned())
                });
                let name = of_histogram.unwrap_or_else(|| name.to_owned());
                families.entry(name).or_default().samples.push(sample.to_owned());
            }
        }
    }
    (families, problems)
}

/// A unit and its base unit, if a word of a name is one.
fn unit(word: &str) -> Option<(String, &'static str)> {
    const UNITS: &[(&str, &str)] = &[
        ("amperes", "amperes"),
        ("bytes", "bytes"),
        ("celsius", "celsius"),
        ("grams", "grams"),
        ("joules", "joules"),
        ("kelvin", "kelvin"),
        ("meters", "meters"),
        ("metres", "metres"),
        ("seconds", "seconds"),
        ("volts", "volts"),
        ("minutes", "seconds"),
        ("hours", "seconds"),
        ("days", "seconds"),
        ("weeks", "seconds"),
        ("kelvins", "kelvin"),
        ("fahrenheit", "celsius"),
        ("rankine", "celsius"),
        ("inches", "meters"),
        ("yards", "meters"),
        ("miles", "meters"),
        ("bits", "bytes"),
        ("calories", "joules"),
        ("pounds", "grams"),
        ("ounces", "grams"),
    ];
    const PREFIXES: &[&str] = &[
        "", "pico", "nano", "micro", "milli", "centi", "deci", "deca", "hecto", "kilo", "kibi",
        "mega", "mibi", "giga", "gibi", "tera", "tebi", "peta", "pebi",
    ];
    PREFIXES.iter().find_map(|prefix| {
        let rest = word.strip_prefix(prefix)?;
        let (_, base) = UNITS.iter().find(|(unit, _)| *unit == rest)?;
        Some((word.to_owned(), *base))
    })
}

/// What is wrong with a name, whatever was recorded under it.
fn name_problems(name: &str, kind: &str) -> Vec<String> {
    const ABBREVIATIONS: &[&str] =
        &["s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"];
    let mut problems = Vec::new();
    let has_word =
        |word: &str| name.contains(&format!("_{word}_")) || name.ends_with(&format!("_{word}"));
    if let Some((unit, base)) = name.split('_').find_map(unit)
        && unit != base
    {
        problems.push(format!("use base unit {base} instead of {unit}"));
    }
    if (kind == "counter") != name.ends_with("_total") {
        problems.push(format!("a {kind} whose name says something else of _total"));
    }
    if kind != "gauge" && name.ends_with("_timestamp_seconds") {
        problems.push("a timestamp is a gauge".to_owned());
    }
    for suffix in ["_bucket", "_count", "_sum"] {
        if name.ends_with(suffix) {
            problems.push(format!("{suffix} belongs to histograms"));
        }
    }
    for kind in ["counter", "gauge", "summary", "histogram"] {
        if has_word(kind) {
            problems.push(format!("the name includes the type {kind}"));
        }
    }
    if name.contains(':') || name.chars().any(char::is_uppercase) {
        problems.push("not snake_case".to_owned());
    }
    if ABBREVIATIONS.iter().any(|short| has_word(short)) {
        problems.push("an abbreviated unit".to_owned());
    }
    problems
}

/// What `promtool check metrics` would say.
fn lint(text: &str) -> Vec<String> {
    let (families, mut problems) = families(text);
    for (name, family) in &families {
        let mut found = Vec::new();
        if family.help.as_ref().is_none_or(|help| help.trim().is_empty()) {
            found.push("no help text".to_owned());
        }
        let kind = family.kind.as_deref().unwrap_or("untyped");
        if !matches!(kind, "counter" | "gauge" | "histogram" | "summary") {
            found.push(format!("the type {kind}"));
        }
        found.extend(name_problems(name, kind));
        for label in [("le", "histogram"), ("quantile", "summary")] {
            if kind != label.1
                && family.samples.iter().any(|s| s.contains(&format!("{}=\"", label.0)))
            {
                found.push(format!("a label {} on a {kind}", label.0));
            }
        }
        let different: BTreeSet<_> = family.samples.iter().collect();
        if different.len() != family.samples.len() {
            found.push("the same sample twice".to_owned());
        }
        problems.extend(found.into_iter().map(|problem| format!("{name}: {problem}")));
    }
    problems
}

/// What `promtool check metrics` says; nothing, after a line on standard error, where it is not installed.
fn promtool(text: &str) -> Option<String> {
    let begun = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match begun {
        Ok(promtool) => promtool,
        Err(error) => {
            eprintln!("SKIPPED: promtool cannot be run, only the rules of this test are: {error}");
            return None;
        }
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    if said.is_empty() && !output.status.success() {
        said = output.status.to_string();
    }
    Some(said)
}

#[test]
fn the_rules_find_what_is_wrong() {
    let good = "# HELP a_bytes_total Bytes\n# TYPE a_bytes_total counter\na_bytes_total 1\n\n\
                # HELP a_seconds Time\n# TYPE a_seconds histogram\na_seconds_bucket{le=\"+Inf\"} 1\n\
                a_seconds_sum 0.5\na_seconds_count 1\n";
    assert_eq!(lint(good), [""; 0]);
    assert_eq!(promtool(good).unwrap_or_default(), "");
    for bad in [
        "# TYPE a gauge\na 1\n",
        "# HELP a A\n# TYPE a counter\na 1\n",
        "# HELP a_total A\n# TYPE a_total gauge\na_total 1\n",
        "# HELP a_ms A\n# TYPE a_ms gauge\na_ms 1\n",
        "# HELP a_milliseconds A\n# TYPE a_milliseconds gauge\na_milliseconds 1\n",
        "# HELP a A\n# TYPE a gauge\na 1\na 2\n",
        "# HELP a_count A\n# TYPE a_count gauge\na_count 1\n",
        "# HELP a_gauge A\n# TYPE a_gauge gauge\na_gauge 1\n",
        "# HELP aB A\n# TYPE aB gauge\naB 1\n",
        "a 1\n",
    ] {
        assert_eq!(lint(bad).len(), if bad == "a 1\n" { 2 } else { 1 }, "{bad:?}: {:?}", lint(bad));
        // Of a sample that is there twice only we say something.
        let is_twice = bad.ends_with("a 1\na 2\n");
        if let Some(said) = promtool(bad) {
            assert_eq!(said.is_empty(), is_twice, "{bad:?}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_has_nothing_to_say_about_any_process() {
    let mut cluster = ProcessCluster::start(&ClusterOptions::default()).unwrap();
    cluster.wait_ready(Duration::from_secs(60)).await.unwrap();
    let client = common::client(&cluster);
    client.put("k", "1").await.unwrap();
    client.get("k").await.unwrap();
    client.delete("k").await.unwrap();
    client
        .aggregate(isotherm_client::AggregateOptions {
            query: isotherm_client::aggregate::QueryText {
                functions: "sum".into(),
                ..Default::default()
            },
            ..Default::default()
        })
        .await
        .unwrap();
    for member in [Member::Meta(0), Member::Node(0), Member::Node(1), Member::Node(2)] {
        let address = cluster.process(member).http();
        let (status, text) = http::get(address, "/metrics", Duration::from_secs(5)).await.unwrap();
        assert_eq!(status, 200);
        assert_eq!(lint(&text), [""; 0], "{member:?}");
        assert_eq!(promtool(&text).unwrap_or_default(), "", "{member:?}");
        assert!(families(&text).0.len() > 15, "{member:?}: {text}");
    }
}

/// What is recorded only now and then has to be described as well.
#[test]
fn every_metric_that_is_recorded_is_described() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut recorded = BTreeMap::new();
    for folder in ["crates", "node/src", "meta/src"] {
        let mut folders = vec![root.join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path: PathBuf = entry.unwrap().path();
                if path.is_dir() {
                    if !path.ends_with("tests") && !path.ends_with("testkit") {
                        folders.push(path);
                    }
                } else if path.extension().is_some_and(|e| e == "rs")
                    && !path.ends_with("catalogue.rs")
                {
                    names(&std::fs::read_to_string(&path).unwrap(), &mut recorded, &path);
                }
            }
        }
    }
    let catalogue = root.join("crates/telemetry/src/catalogue.rs");
    let text = std::fs::read_to_string(&catalogue).unwrap();
    let mut described = BTreeMap::new();
    names(&text, &mut described, &catalogue);
    assert!(recorded.len() > 50, "{recorded:?}");
    for (name, path) in &recorded {
        assert!(described.contains_key(name), "{name} of {path:?} is not described");
    }
    for name in described.keys() {
        assert!(recorded.contains_key(name), "{name} is described and not recorded");
        let line = text.lines().position(|line| line.contains(&format!("\"{name}\""))).unwrap();
        let entry: String = text.lines().skip(line.saturating_sub(1)).take(2).collect();
        let kind = ["Counter", "Gauge", "Histogram"].iter().rfind(|kind| {
            let before = entry.split(&format!("\"{name}\"")).next().unwrap();
            let last = ["Counter", "Gauge", "Histogram"].iter().max_by_key(|k| before.rfind(*k));
            last == Some(kind)
        });
        assert_eq!(name_problems(name, &kind.unwrap().to_lowercase()), [""; 0], "{name}");
    }
}

/// Strings of a source text that are names of metrics.
fn names(text: &str, found: &mut BTreeMap<String, PathBuf>, path: &Path) {
    for part in text.split("\"isotherm_").skip(1) {
        let rest = part.split('"').next().unwrap();
        if rest.chars().all(|c| c.is_ascii_lowercase() || c == '_') && rest.len() > 3 {
            found.insert(format!("isotherm_{rest}"), path.to_owned());
        }
    }
}
