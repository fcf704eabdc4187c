//! What a log engine promises, seen through the RocksDB one.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::{Result, StorageError};
use bytes::Bytes;
use isotherm_types::{RangeId, ReplicaId};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

fn open(dir: &Path) -> RocksLog {
    let options = LogOptions { write_buffer_bytes: 1 << 20, ..LogOptions::default() };
    RocksLog::open(dir, options).unwrap()
}

fn replica(range: u64) -> ReplicaKey {
    ReplicaKey { range: RangeId(range), replica: ReplicaId(1) }
}

fn record(index: u64, text: &str) -> LogRecord {
    LogRecord { index, bytes: Bytes::copy_from_slice(text.as_bytes()) }
}

fn ignore() -> Done {
    Box::new(|result| result.unwrap())
}

fn barrier(log: &RocksLog) {
    let (sender, receiver) = mpsc::channel();
    log.submit(LogOp::Barrier { done: Box::new(move |result| sender.send(result).unwrap()) });
    receiver.recv().unwrap().unwrap();
}

fn append(log: &RocksLog, r: ReplicaKey, from: u64, texts: &[&str]) {
    let records = (from..).zip(texts).map(|(index, text)| record(index, text)).collect();
    log.submit(LogOp::Append { replica: r, records, done: ignore() });
}

fn texts(log: &RocksLog, r: ReplicaKey, from: u64, to: u64) -> Vec<String> {
    let records = log.entries(r, from, to, usize::MAX).unwrap();
    records.iter().map(|r| String::from_utf8(r.bytes.to_vec()).unwrap()).collect()
}

/// The files as they are now: what the kernel would still have if the process were gone.
fn copy_as_is(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        if entry.path().is_file() && entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn entries_are_readable_as_soon_as_they_are_submitted() {
    let tmp = tempfile::tempdir().unwrap();
    let log = open(tmp.path());
    append(&log, replica(1), 6, &["a", "b", "c"]);
    assert_eq!(texts(&log, replica(1), 6, 9), ["a", "b", "c"]);
    log.submit(LogOp::TruncateAfter { replica: replica(1), index: 6, done: ignore() });
    append(&log, replica(1), 7, &["B"]);
    assert_eq!(texts(&log, replica(1), 0, u64::MAX), ["a", "B"]);
    assert_eq!(log.last(replica(1)).unwrap(), Some(record(7, "B")));
    barrier(&log);
    assert_eq!(texts(&log, replica(1), 0, u64::MAX), ["a", "B"]);
    assert_eq!(log.first_index(replica(1)).unwrap(), Some(6));
    assert_eq!(log.last(replica(2)).unwrap(), None);
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash() {
    let tmp = tempfile::tempdir().unwrap();
    let (dir, copy) = (tmp.path().join("log"), tmp.path().join("copy"));
    let log = open(&dir);
    append(&log, replica(1), 1, &["a", "b"]);
    let vote = LogOp::Vote { replica: replica(1), bytes: b"vote".to_vec(), done: ignore() };
    log.submit(vote);
    barrier(&log);
    copy_as_is(&dir, &copy);
    let back = open(&copy);
    assert_eq!(texts(&back, replica(1), 1, 3), ["a", "b"]);
    assert_eq!(back.state(replica(1), StateKind::Vote).unwrap().as_deref(), Some(&b"vote"[..]));
    assert_eq!(back.replicas().unwrap(), [replica(1)]);
}

#[test]
fn a_purge_beyond_the_end_of_an_empty_log_is_taken() {
    let tmp = tempfile::tempdir().unwrap();
    let log = open(tmp.path());
    log.submit(LogOp::Purge { replica: replica(1), upto: 5, purged: b"5".to_vec() });
    append(&log, replica(1), 6, &["first"]);
    barrier(&log);
    assert_eq!(log.first_index(replica(1)).unwrap(), Some(6));
    assert_eq!(log.state(replica(1), StateKind::Purged).unwrap().as_deref(), Some(&b"5"[..]));
    assert_eq!(texts(&log, replica(1), 0, u64::MAX), ["first"]);
}

#[test]
fn callbacks_come_in_the_order_of_submission_over_all_groups() {
    let tmp = tempfile::tempdir().unwrap();
    let log = open(tmp.path());
    let order = Arc::new(Mutex::new(Vec::new()));
    for n in 0..200u64 {
        let order = order.clone();
        let done: Done = Box::new(move |result| {
            result.unwrap();
            order.lock().unwrap().push(n);
        });
        let records = vec![record(n / 7 + 1, "x")];
        log.submit(LogOp::Append { replica: replica(n % 7), records, done });
    }
    barrier(&log);
    assert_eq!(*order.lock().unwrap(), (0..200).collect::<Vec<_>>());
}

#[test]
fn a_removed_replica_leaves_only_what_was_to_stay() {
    let tmp = tempfile::tempdir().unwrap();
    let log = open(tmp.path());
    append(&log, replica(1), 1, &["a"]);
    append(&log, replica(2), 1, &["b"]);
    for kind in [StateKind::Vote, StateKind::Tombstone] {
        let bytes = b"x".to_vec();
        log.submit(LogOp::PutState { replica: replica(1), kind, bytes, done: ignore() });
    }
    let keep = &[StateKind::Tombstone];
    log.submit(LogOp::DeleteReplica { replica: replica(1), keep, done: ignore() });
    barrier(&log);
    assert_eq!(log.last(replica(1)).unwrap(), None);
    assert_eq!(log.state(replica(1), StateKind::Vote).unwrap(), None);
    assert!(log.state(replica(1), StateKind::Tombstone).unwrap().is_some());
    assert_eq!(texts(&log, replica(2), 1, 2), ["b"]);
}

#[test]
fn a_byte_limit_cuts_the_answer_but_never_to_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let log = open(tmp.path());
    append(&log, replica(1), 1, &["aaaa", "bbbb", "cccc"]);
    for _ in 0..2 {
        assert_eq!(log.entries(replica(1), 1, 4, 1).unwrap().len(), 1);
        assert_eq!(log.entries(replica(1), 1, 4, 8).unwrap().len(), 2);
        barrier(&log);
    }
}

#[test]
fn a_closed_log_answers_with_an_error() {
    let tmp = tempfile::tempdir().unwrap();
    let log = open(tmp.path());
    log.close();
    let (sender, receiver) = mpsc::channel();
    log.submit(LogOp::Barrier { done: Box::new(move |result| sender.send(result).unwrap()) });
    assert!(matches!(receiver.recv().unwrap().unwrap_err().as_ref(), StorageError::Closed));
    assert!(matches!(log.put_node_state("k", vec![]), Err(StorageError::Closed)));
}

#[test]
fn a_record_of_the_node_survives_a_reopen() -> Result<()> {
    let tmp = tempfile::tempdir().unwrap();
    let log = open(tmp.path());
    log.put_node_state("safe-point", b"7".to_vec())?;
    drop(log);
    assert_eq!(open(tmp.path()).node_state("safe-point")?.as_deref(), Some(&b"7"[..]));
    Ok(())
}

#[derive(Debug, Clone)]
enum Step {
    Append(u8),
    Truncate(u8),
    Purge(u8),
    Barrier,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u8..5).prop_map(Step::Append),
        1 => (0u8..5).prop_map(Step::Truncate),
        1 => (0u8..5).prop_map(Step::Purge),
        1 => Just(Step::Barrier),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn a_log_reads_as_its_model_at_every_moment(steps in prop::collection::vec(step(), 1..60)) {
        let tmp = tempfile::tempdir().unwrap();
        let log = open(tmp.path());
        let r = replica(3);
        let (mut model, mut next, mut first) = (BTreeMap::new(), 1u64, 1u64);
        for (n, step) in steps.iter().enumerate() {
            match step {
                Step::Append(count) => {
                    let all: Vec<String> = (0..*count).map(|i| format!("{n}.{i}")).collect();
                    append(&log, r, next, &all.iter().map(String::as_str).collect::<Vec<_>>());
                    for text in all {
                        model.insert(next, text);
                        next += 1;
                    }
                }
                Step::Truncate(back) => {
                    let index = next.saturating_sub(1 + u64::from(*back)).max(first - 1);
                    log.submit(LogOp::TruncateAfter { replica: r, index, done: ignore() });
                    model.split_off(&(index + 1));
                    next = index + 1;
                }
                Step::Purge(by) => {
                    let upto = (first - 1 + u64::from(*by)).min(next - 1);
                    log.submit(LogOp::Purge { replica: r, upto, purged: vec![] });
                    model = model.split_off(&(upto + 1));
                    first = upto + 1;
                }
                Step::Barrier => barrier(&log),
            }
            let expected: Vec<String> = model.values().cloned().collect();
            prop_assert_eq!(texts(&log, r, 0, u64::MAX), expected);
            prop_assert_eq!(log.first_index(r).unwrap(), model.keys().next().copied());
            prop_assert_eq!(log.last(r).unwrap().map(|l| l.index), model.keys().last().copied());
        }
    }
}

/// The write-ahead file in use: the one with the highest number.
fn file_in_use(dir: &Path) -> std::path::PathBuf {
    let files = std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    files.filter(|path| path.extension().is_some_and(|e| e == "log")).max().unwrap()
}

#[test]
fn the_first_entry_overwrites_a_file_that_is_there_already() {
    let tmp = tempfile::tempdir().unwrap();
    let (dir, copy) = (tmp.path().join("log"), tmp.path().join("copy"));
    let options =
        LogOptions { write_buffer_bytes: 1 << 20, prepares_files: true, ..LogOptions::default() };
    for life in 0..3 {
        let log = RocksLog::open(&dir, options.clone()).unwrap();
        let file = file_in_use(&dir);
        let before = std::fs::metadata(&file).unwrap().len();
        assert!(before >= 1 << 20, "{} has {before} bytes", file.display());
        append(&log, replica(1), life * 2 + 1, &["a", "b"]);
        barrier(&log);
        assert_eq!(file_in_use(&dir), file);
        assert_eq!(std::fs::metadata(&file).unwrap().len(), before);
        // What the file held before is not taken for entries. A copy takes longer than a crash: what
        // preparing left to compact would change the files under it.
        log.settle().unwrap();
        copy_as_is(&dir, &copy);
        let reopened = RocksLog::open(&copy, LogOptions::default()).unwrap();
        let expected = ["a", "b"].repeat(life as usize + 1);
        assert_eq!(texts(&reopened, replica(1), 0, u64::MAX), expected);
        drop(reopened);
        std::fs::remove_dir_all(&copy).unwrap();
    }
}
