//! Who may import whom: the architecture as a test.
#![allow(missing_docs, clippy::unwrap_used)]

use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// Every crate of the workspace with what it may import of the others (tests aside).
const ALLOWED: &[(&str, &[&str])] = &[
    ("isotherm-types", &[]),
    // What every process runs its tasks in.
    ("isotherm-task", &[]),
    // What every server of a process takes its connections from.
    ("isotherm-listen", &[]),
    // Needs nothing of ours: what an aggregate is does not depend on where rows come from.
    ("isotherm-aggregate", &[]),
    // Pure: no clock, no thread, no network.
    ("isotherm-scheduler", &["types"]),
    ("isotherm-proto", &["types"]),
    ("isotherm-storage", &["task", "types"]),
    ("isotherm-telemetry", &["listen", "task"]),
    ("isotherm-transport", &["listen", "proto", "task", "types"]),
    ("isotherm-raftstore", &["storage", "task", "types"]),
    // The one place where consensus and transport meet.
    ("isotherm-links", &["raftstore", "transport", "types"]),
    ("isotherm-client", &["aggregate", "transport", "proto", "types"]),
    // The gateway of a node is a client of its own cluster.
    (
        "isotherm-node",
        &[
            "aggregate",
            "client",
            "links",
            "raftstore",
            "storage",
            "task",
            "transport",
            "telemetry",
            "proto",
            "types",
        ],
    ),
    (
        "isotherm-meta",
        &[
            "links",
            "raftstore",
            "scheduler",
            "storage",
            "task",
            "transport",
            "telemetry",
            "proto",
            "types",
        ],
    ),
    ("isotherm", &["client", "node", "meta", "telemetry", "types"]),
    ("isotherm-testkit", &["client", "node", "meta", "types"]),
    ("isotherm-jepsen", &["client", "testkit", "types"]),
    ("isotherm-benches", &["client", "types"]),
];

/// Libraries that only these of ours may use.
const EXCLUSIVE: &[(&str, &[&str])] = &[
    // A bench reads a node's rows without us, to compare.
    ("rocksdb", &["isotherm-storage", "isotherm-benches"]),
    ("openraft", &["isotherm-raftstore"]),
    // What is persisted, and partial aggregates on the wire: both behind a format byte.
    ("bincode", &["isotherm-storage", "isotherm-aggregate"]),
];

fn dependencies() -> BTreeMap<String, Vec<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    // As of the run: several checkouts can share what was built.
    let package = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(format!("{package}/../.."))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let named = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap();
        // `kind` is null for what ends up in the crate itself.
        let normal = all.iter().filter(|d| d["kind"].is_null());
        let names = normal.map(|d| d["name"].as_str().unwrap().to_owned()).collect();
        (package["name"].as_str().unwrap().to_owned(), names)
    };
    packages.iter().map(named).collect()
}

#[test]
fn imports_run_one_way() {
    let found = dependencies();
    assert_eq!(found.len(), ALLOWED.len(), "every crate has its line in ALLOWED");
    for (name, dependencies) in &found {
        let (_, allowed) = ALLOWED.iter().find(|(n, _)| n == name).unwrap();
        for dependency in dependencies.iter().filter(|d| d.starts_with("isotherm")) {
            let short = dependency.trim_start_matches("isotherm-");
            assert!(allowed.contains(&short), "{name} must not import {dependency}");
        }
    }
}

#[test]
fn rocksdb_openraft_and_the_codec_have_their_users() {
    for (name, dependencies) in dependencies() {
        for (library, users) in EXCLUSIVE {
            let uses = dependencies.iter().any(|d| d == library);
            let may = users.contains(&name.as_str());
            assert!(!uses || may, "{name} must not use {library}: {users:?} do");
        }
    }
}
