//! What a log engine promises, seen through the RocksDB one.
#![allow(clippy::unwrap_used)]

use super::groups::{self, Mark, Secret};
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

/// Flips one bit of the first place in `file` where `text` stands; whether there was one.
fn flip(file: &Path, text: &[u8]) -> bool {
    let mut bytes = std::fs::read(file).unwrap();
    let Some(at) = bytes.windows(text.len()).position(|window| window == text) else {
        return false;
    };
    bytes[at] ^= 1;
    std::fs::write(file, bytes).unwrap();
    true
}

fn is_lost(opened: Result<RocksLog>) -> bool {
    match opened {
        Ok(_) => false,
        Err(error) => {
            assert!(matches!(error, StorageError::LostLog { .. }), "{error}");
            true
        }
    }
}

/// A log with three synced groups, of which the second one says "second", as a crash leaves it.
fn three_groups(tmp: &Path, options: &LogOptions) -> std::path::PathBuf {
    let (dir, copy) = (tmp.join("log"), tmp.join("copy"));
    let log = RocksLog::open(&dir, options.clone()).unwrap();
    for (index, text) in (1..).zip(["first", "second", "third"]) {
        append(&log, replica(1), index, &[text]);
        barrier(&log);
    }
    log.settle().unwrap();
    copy_as_is(&dir, &copy);
    copy
}

#[test]
fn a_flipped_bit_in_what_was_synced_is_no_torn_end() {
    for prepares_files in [false, true] {
        let tmp = tempfile::tempdir().unwrap();
        let write_buffer_bytes = 1 << 20;
        let options = LogOptions { write_buffer_bytes, prepares_files, ..LogOptions::default() };
        let copy = three_groups(tmp.path(), &options);
        assert!(flip(&file_in_use(&copy), b"second"));
        for _ in 0..3 {
            assert!(is_lost(RocksLog::open(&copy, options.clone())), "it opens without a word");
        }
        // Whoever knows may have what is left, and goes on from there.
        let accepting = LogOptions { accepts_loss: true, ..options.clone() };
        let log = RocksLog::open(&copy, accepting).unwrap();
        assert_eq!(texts(&log, replica(1), 0, u64::MAX), ["first"]);
        append(&log, replica(1), 2, &["other"]);
        barrier(&log);
        drop(log);
        let log = RocksLog::open(&copy, options).unwrap();
        assert_eq!(texts(&log, replica(1), 0, u64::MAX), ["first", "other"]);
    }
}

#[test]
fn the_last_group_of_a_log_that_was_idle_or_closed_is_missed_too() {
    let tmp = tempfile::tempdir().unwrap();
    let (dir, copy) = (tmp.path().join("log"), tmp.path().join("copy"));
    let log = open(&dir);
    append(&log, replica(1), 1, &["only"]);
    barrier(&log);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    // Until it has said so.
    loop {
        copy_as_is(&dir, &copy);
        assert!(flip(&file_in_use(&copy), b"only"));
        if is_lost(RocksLog::open(&copy, LogOptions::default())) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "it never says what was synced");
        std::fs::remove_dir_all(&copy).unwrap();
    }
    append(&log, replica(1), 2, &["last"]);
    drop(log);
    assert!(flip(&file_in_use(&dir), b"last"));
    assert!(is_lost(RocksLog::open(&dir, LogOptions::default())));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// A loss of power may leave any part of what was being written, in any order: that is no damage.
    #[test]
    fn a_torn_end_is_no_damage(hole in 0usize..60_000, kept in any::<bool>()) {
        let tmp = tempfile::tempdir().unwrap();
        let (dir, copy) = (tmp.path().join("log"), tmp.path().join("copy"));
        let log = open(&dir);
        append(&log, replica(1), 1, &["synced"]);
        barrier(&log);
        let before = std::fs::metadata(file_in_use(&dir)).unwrap().len() as usize;
        // One group of several blocks, of which the copy lacks a part, or its end.
        let large = "x".repeat(80_000);
        append(&log, replica(1), 2, &[&large, "y"]);
        barrier(&log);
        log.settle().unwrap();
        copy_as_is(&dir, &copy);
        drop(log);
        let file = file_in_use(&copy);
        let mut bytes = std::fs::read(&file).unwrap();
        // What the log says while it is idle is behind it, and was not written yet.
        let end = (before + 80_000).min(bytes.len());
        let at = (before + 200 + hole).min(end);
        if kept {
            bytes.truncate(end);
            let hole_end = (at + 4096).min(end);
            bytes[at..hole_end].fill(0);
        } else {
            bytes.truncate(at);
        }
        std::fs::write(&file, bytes).unwrap();
        let log = RocksLog::open(&copy, LogOptions::default()).unwrap();
        prop_assert_eq!(texts(&log, replica(1), 0, u64::MAX), ["synced"]);
    }
}

/// Anybody can write bytes that look like a mark; they count for nothing.
#[test]
fn a_mark_of_another_log_says_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let copy = three_groups(tmp.path(), &LogOptions::default());
    let file = file_in_use(&copy);
    let number: u32 = file.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let forged = Mark { secret: Secret::default(), number: u64::MAX, durable: u64::MAX };
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.extend([0xff; 100]);
    bytes.extend(groups::tests::encode(5, number, &groups::tests::batch(forged)));
    std::fs::write(&file, bytes).unwrap();
    let log = RocksLog::open(&copy, LogOptions::default()).unwrap();
    assert_eq!(texts(&log, replica(1), 0, u64::MAX), ["first", "second", "third"]);
}

/// Software without groups opens what was written with them, and the other way round.
#[test]
fn a_log_is_written_by_older_and_newer_software_in_turn() {
    let tmp = tempfile::tempdir().unwrap();
    let options = LogOptions { write_buffer_bytes: 1 << 20, ..LogOptions::default() };
    let write_as_older = |index: u64, text: &str| {
        let db = rocksdb::DB::open(&options.database(), tmp.path()).unwrap();
        let mut synced = rocksdb::WriteOptions::default();
        synced.set_sync(true);
        db.put_opt(keys::entry(replica(1), index), text, &synced).unwrap();
    };
    let mut expected = Vec::new();
    for index in (1..10).step_by(3) {
        write_as_older(index, "older");
        let log = RocksLog::open(tmp.path(), options.clone()).unwrap();
        append(&log, replica(1), index + 1, &["newer"]);
        barrier(&log);
        drop(log);
        write_as_older(index + 2, "older");
        expected.extend(["older", "newer", "older"]);
        let log = RocksLog::open(tmp.path(), options.clone()).unwrap();
        assert_eq!(texts(&log, replica(1), 0, u64::MAX), expected);
    }
}

/// Unsynced data: `bytes` of it.
fn note_committed(log: &RocksLog, bytes: usize) {
    log.submit(LogOp::Committed { replica: replica(2), bytes: vec![b'c'; bytes] });
}

/// As it is after a loss of power between `synced`, after which nothing was synced, and `later`: the tables
/// are there, and of the write-ahead files any pages of what was added since.
fn lose_power(synced: &Path, later: &Path, lost: impl Fn(usize) -> bool) {
    for entry in std::fs::read_dir(later).unwrap().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|e| e != "log") {
            continue;
        }
        let before = std::fs::read(synced.join(entry.file_name())).unwrap_or_default();
        let mut bytes = std::fs::read(&path).unwrap();
        for (page, chunk) in bytes.chunks_mut(4096).enumerate() {
            if lost(page) {
                let at = page * 4096;
                for (i, byte) in chunk.iter_mut().enumerate() {
                    *byte = before.get(at + i).copied().unwrap_or(0);
                }
            }
        }
        std::fs::write(&path, bytes).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Whatever a loss of power leaves of what was not synced, through changes of files and restarts.
    #[test]
    fn a_loss_of_power_is_no_damage(
        rounds in prop::collection::vec(
            (1usize..20, prop::collection::vec(1usize..60_000, 0..6), any::<u64>(), any::<bool>()),
            1..6,
        ),
    ) {
        let tmp = tempfile::tempdir().unwrap();
        let options = LogOptions { write_buffer_bytes: 128 << 10, ..LogOptions::default() };
        let mut dir = tmp.path().join("log");
        let mut next = 1;
        for (n, (synced, unsynced, mask, is_clean)) in rounds.into_iter().enumerate() {
            let log = RocksLog::open(&dir, options.clone()).unwrap();
            prop_assert_eq!(log.last(replica(1)).unwrap().map_or(0, |r| r.index) + 1, next);
            for _ in 0..synced {
                append(&log, replica(1), next, &[&"s".repeat(5000)]);
                barrier(&log);
                next += 1;
            }
            log.settle().unwrap();
            if is_clean {
                drop(log);
                continue;
            }
            let before = tmp.path().join(format!("before-{n}"));
            copy_as_is(&dir, &before);
            for bytes in unsynced {
                note_committed(&log, bytes);
            }
            // The mark of an idle log is not synced either.
            std::thread::sleep(std::time::Duration::from_millis(mask % 200));
            log.settle().unwrap();
            let after = tmp.path().join(format!("after-{n}"));
            copy_as_is(&dir, &after);
            drop(log);
            lose_power(&before, &after, |page| mask & (1 << (page % 64)) != 0);
            dir = after;
        }
        let log = RocksLog::open(&dir, options).unwrap();
        prop_assert_eq!(log.last(replica(1)).unwrap().map_or(0, |r| r.index) + 1, next);
    }
}
