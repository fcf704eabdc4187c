//! The rules of MVCC rows, against a model.

use super::*;
use crate::LocalKey;
use bytes::Bytes;
use isotherm_types::{Key, KeyRange, RangeId, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

fn open(dir: &std::path::Path) -> DataEngine {
    let options = DataOptions { write_buffer_bytes: 1 << 20, ..DataOptions::default() };
    DataEngine::open(dir, &options).expect("opens")
}

fn apply(engine: &DataEngine, writes: &[(&str, Option<&str>, u64)]) {
    let mut overlay = Overlay::new(engine);
    for (index, (key, value, ts)) in (0..).zip(writes) {
        let value = value.map(|v| Bytes::copy_from_slice(v.as_bytes()));
        let key = Key::copy_from_slice(key.as_bytes());
        overlay.set(&key, value, Timestamp(*ts), index).expect("in memory");
    }
    let mut batch = DataBatch::new();
    overlay.drain_into(&mut batch);
    engine.write(batch).expect("in memory");
}

fn history_rows(engine: &DataEngine) -> usize {
    engine.db.iterator_cf(engine.cf(engine::HISTORY), rocksdb::IteratorMode::Start).count()
}

fn value_at(engine: &DataEngine, key: &str, at: u64) -> Option<String> {
    let row = engine.snapshot().get(key.as_bytes(), Some(Timestamp(at))).expect("readable")?;
    Some(String::from_utf8(row.value.to_vec()).expect("text"))
}

fn scan_at(engine: &DataEngine, span: &KeyRange, at: u64) -> Vec<(Key, Row)> {
    let snapshot = engine.snapshot();
    let rows = snapshot.scan(span, Timestamp(at), false, false);
    rows.map(|row| row.expect("readable")).collect()
}

/// Has everything that may be dropped dropped.
fn collect(engine: &DataEngine, safe_point: u64) {
    engine.flush().expect("on disk");
    engine.raise_safe_point(Timestamp(safe_point));
    engine.collect_history(&KeyRange::all());
    engine.collect_tombstones(&KeyRange::all());
}

/// The ts of every row of a column family whose kind is asked for.
fn stamps(engine: &DataEngine, cf: &str, kind: row::Kind) -> Vec<u64> {
    let rows = engine.db.iterator_cf(engine.cf(cf), rocksdb::IteratorMode::Start);
    let rows = rows.map(|row| row.expect("readable").1);
    rows.filter_map(|bytes| {
        let raw = row::RawRow::decode(&bytes).expect("a row");
        (raw.kind == kind).then_some(raw.ts.get())
    })
    .collect()
}

#[test]
fn nothing_is_dropped_before_a_safe_point_is_known() {
    let tmp = tempfile::tempdir().expect("tempdir");
    let engine = open(tmp.path());
    apply(&engine, &[("k", Some("a"), 5)]);
    apply(&engine, &[("k", None, 7)]);
    collect(&engine, 0);
    assert_eq!(value_at(&engine, "k", 6).as_deref(), Some("a"));
    assert_eq!(stamps(&engine, engine::LIVE, row::Kind::Tombstone), [7]);
    collect(&engine, 6);
    assert_eq!(value_at(&engine, "k", 6).as_deref(), Some("a"), "6 can still be read");
    collect(&engine, 7);
    assert_eq!(history_rows(&engine), 0);
    assert!(stamps(&engine, engine::LIVE, row::Kind::Tombstone).is_empty());
}

#[test]
fn a_dropped_tombstone_does_not_show_what_lies_under_it() {
    let tmp = tempfile::tempdir().expect("tempdir");
    let engine = open(tmp.path());
    // The value reaches the last level, the tombstone a younger file over it.
    apply(&engine, &[("j", Some("x"), 5), ("k", Some("a"), 5)]);
    collect(&engine, 0);
    apply(&engine, &[("k", None, 7)]);
    let old = engine.snapshot();
    collect(&engine, 8);
    assert_eq!(value_at(&engine, "k", 9), None);
    assert!(engine.snapshot().get(b"k", None).expect("readable").is_none());
    assert_eq!(scan_at(&engine, &KeyRange::all(), 9).len(), 1);
    drop(old);
    collect(&engine, 8);
    assert_eq!(value_at(&engine, "k", 9), None);
}

#[test]
fn the_checksum_does_not_see_what_was_collected() {
    let tmp = tempfile::tempdir().expect("tempdir");
    let (a, b) = (open(&tmp.path().join("a")), open(&tmp.path().join("b")));
    for engine in [&a, &b] {
        apply(engine, &[("j", Some("1"), 5), ("k", Some("a"), 5)]);
        apply(engine, &[("j", Some("2"), 6), ("k", None, 7)]);
    }
    collect(&a, 8);
    assert_ne!(history_rows(&a), history_rows(&b));
    let sum = |engine: &DataEngine| engine.snapshot().checksum(&KeyRange::all()).expect("readable");
    assert_eq!(sum(&a), sum(&b));
    assert_eq!(sum(&a).rows, 1);
    apply(&b, &[("j", Some("3"), 9)]);
    assert_ne!(sum(&a), sum(&b));
}

#[test]
fn overwriting_one_key_gives_its_space_back_and_garbage_is_counted() {
    let tmp = tempfile::tempdir().expect("tempdir");
    let engine = open(tmp.path());
    let value = "v".repeat(500);
    let (mut overlay, mut garbage) = (Overlay::new(&engine), Garbage::default());
    for ts in 1..=20_000 {
        let value = Bytes::from(format!("{ts}{value}"));
        overlay.set(&Key::from_static(b"k"), Some(value), Timestamp(ts), 0).expect("in memory");
    }
    overlay
        .set(&Key::from_static(b"gone"), Some(Bytes::new()), Timestamp(1), 0)
        .expect("in memory");
    overlay.set(&Key::from_static(b"gone"), None, Timestamp(2), 0).expect("in memory");
    let mut batch = DataBatch::new();
    overlay.drain_into(&mut batch);
    garbage += batch.garbage();
    engine.write(batch).expect("in memory");
    engine.flush().expect("on disk");
    assert!(garbage.history_bytes > 10_000_000, "{garbage:?}");
    let found = engine.survey(&KeyRange::all()).expect("readable");
    assert_eq!(found.tombstone_bytes, garbage.tombstone_bytes);
    let before = engine.history_size(&KeyRange::all());
    collect(&engine, 20_000);
    let after = engine.history_size(&KeyRange::all());
    assert!(before > 100_000 && after < 1000, "{before} bytes, then {after}");
    assert_eq!(engine.survey(&KeyRange::all()).expect("readable").tombstone_bytes, 0);
    assert!(value_at(&engine, "k", 20_000).expect("there").starts_with("20000"));
}

#[test]
fn overwriting_keeps_the_old_version_and_a_fold_inside_one_entry_does_not() {
    let tmp = tempfile::tempdir().expect("tempdir");
    let engine = open(tmp.path());
    apply(&engine, &[("k", Some("a"), 5)]);
    apply(&engine, &[("k", Some("b"), 10), ("k", Some("c"), 10)]);
    assert_eq!(history_rows(&engine), 1);
    assert_eq!(value_at(&engine, "k", 4), None);
    assert_eq!(value_at(&engine, "k", 9).as_deref(), Some("a"));
    assert_eq!(value_at(&engine, "k", 10).as_deref(), Some("c"));
}

#[test]
fn tombstones_and_absent_keys_write_no_history() {
    let tmp = tempfile::tempdir().expect("tempdir");
    let engine = open(tmp.path());
    apply(&engine, &[("k", None, 3)]);
    assert_eq!(history_rows(&engine), 0);
    apply(&engine, &[("k", Some("a"), 5)]);
    apply(&engine, &[("k", None, 7)]);
    assert_eq!(history_rows(&engine), 1, "the value, with its end");
    apply(&engine, &[("k", None, 8)]);
    apply(&engine, &[("k", Some("b"), 9)]);
    assert_eq!(history_rows(&engine), 1, "the tombstone does not enter history");
    assert_eq!(value_at(&engine, "k", 6).as_deref(), Some("a"));
    assert_eq!(value_at(&engine, "k", 8), None);
    assert_eq!(value_at(&engine, "k", 9).as_deref(), Some("b"));
}

#[test]
fn a_crash_leaves_what_the_last_flush_made_durable() {
    let tmp = tempfile::tempdir().expect("tempdir");
    let key = LocalKey::Applied(RangeId(1));
    {
        let engine = open(tmp.path());
        let mut batch = DataBatch::new();
        batch.put_local(&key, b"first");
        engine.write(batch).expect("in memory");
        assert_eq!(engine.durable_local(&key).expect("readable"), None);
        engine.flush().expect("on disk");
        assert_eq!(engine.durable_local(&key).expect("readable").as_deref(), Some(&b"first"[..]));
        let mut batch = DataBatch::new();
        batch.put_local(&key, b"second");
        engine.write(batch).expect("in memory");
        apply(&engine, &[("k", Some("lost"), 1)]);
        assert_eq!(engine.local(&key).expect("readable").as_deref(), Some(&b"second"[..]));
        assert_eq!(engine.durable_local(&key).expect("readable").as_deref(), Some(&b"first"[..]));
        // A copy of the files as they are is what a crash leaves; closing the engine would flush.
        let copy = tmp.path().join("copy");
        std::fs::create_dir(&copy).expect("tempdir");
        for entry in std::fs::read_dir(tmp.path()).expect("tempdir").flatten() {
            if entry.path().is_file() && entry.file_name() != "LOCK" {
                std::fs::copy(entry.path(), copy.join(entry.file_name())).expect("copies");
            }
        }
    }
    let engine = open(&tmp.path().join("copy"));
    assert_eq!(engine.local(&key).expect("readable").as_deref(), Some(&b"first"[..]));
    assert_eq!(value_at(&engine, "k", 1), None);
}

#[test]
fn an_exported_span_replaces_what_was_there() {
    let tmp = tempfile::tempdir().expect("tempdir");
    let (from, to) = (open(&tmp.path().join("from")), open(&tmp.path().join("to")));
    for ts in 1..50u64 {
        let key = format!("k{:02}", ts % 7);
        apply(&from, &[(&key, Some("value"), ts), ("outside", Some("x"), ts)]);
        apply(&to, &[(&key, Some("older"), ts)]);
    }
    let span = KeyRange::prefix(b"k");
    let files: Vec<_> = {
        let snapshot = from.snapshot();
        let dir = tmp.path().join("files");
        std::fs::create_dir(&dir).expect("tempdir");
        snapshot.export(&span, &dir, 100).map(|f| f.expect("written")).collect()
    };
    assert!(files.len() > 2, "small files");
    to.delete_span(&span).expect("in memory");
    to.flush().expect("on disk");
    to.ingest(&files).expect("files are whole");
    let (a, b) = (from.snapshot().checksum(&span), to.snapshot().checksum(&span));
    assert_eq!(a.expect("readable"), b.expect("readable"));
    for at in 0..51 {
        let rows = |engine: &DataEngine| scan_at(engine, &span, at);
        assert_eq!(rows(&from), rows(&to), "at {at}");
    }
    assert_eq!(value_at(&to, "outside", 100), None);
}

#[test]
fn remembered_results_are_listed_by_origin_and_age() {
    let tmp = tempfile::tempdir().expect("tempdir");
    let engine = open(tmp.path());
    let mut batch = DataBatch::new();
    for (origin, ts) in [(1, 5), (1, 6), (1, 9), (2, 7)] {
        let key = LocalKey::Dedup { origin: RangeId(origin), ts: Timestamp(ts) };
        batch.put_local(&key, &[ts as u8]);
    }
    engine.write(batch).expect("in memory");
    let listed = |above| -> Vec<u64> {
        let snapshot = engine.snapshot();
        let rows = snapshot.dedup_rows(RangeId(1), Timestamp(above));
        rows.map(|r| r.expect("readable").0.get()).collect()
    };
    assert_eq!(listed(0), [5, 6, 9]);
    assert_eq!(listed(5), [6, 9]);
    let mut batch = DataBatch::new();
    batch.delete_dedup_below(RangeId(1), Timestamp(9));
    engine.write(batch).expect("in memory");
    assert_eq!(listed(0), [9]);
}

#[test]
fn a_visit_stops_where_it_is_told_to() {
    let tmp = tempfile::tempdir().expect("tempdir");
    let engine = open(tmp.path());
    let mut overlay = Overlay::new(&engine);
    for key in ["a", "b", "c"] {
        let value = Some(Bytes::from_static(b"1"));
        overlay.set(&Key::from(key), value, Timestamp(1), 0).expect("in memory");
    }
    let mut batch = DataBatch::new();
    overlay.drain_into(&mut batch);
    engine.write(batch).expect("in memory");
    let mut seen = 0;
    let stopped = engine.snapshot().visit(&KeyRange::all(), Timestamp(1), false, |_| {
        seen += 1;
        if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((stopped.expect("readable"), seen), (Some(Key::from("b")), 2));
}

/// Rows that a read does not show cost as much as those that it does: both kinds of reads say what
/// they examined, so that they can be stopped among them, in both directions.
#[test]
fn reads_stop_among_rows_that_are_not_visible() {
    let tmp = tempfile::tempdir().expect("tempdir");
    let engine = open(tmp.path());
    let keys: Vec<_> = (0..100).map(|n| format!("k{n:02}")).collect();
    let later: Vec<_> = keys.iter().map(|key| (&key[..], Some("later"), 9)).collect();
    apply(&engine, &later);
    apply(&engine, &[("k70", None, 10)]);
    let (snapshot, all) = (engine.snapshot(), KeyRange::all());
    let mut seen = 0;
    let stopped = snapshot.visit(&all, Timestamp(5), false, |row| {
        assert!(row.value.is_none() && row.cost > row.key.len() as u64);
        seen += 1;
        if seen == 40 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((stopped.expect("readable"), seen), (Some(Key::from("k39")), 40));
    for (reverse, first, second) in [(false, "k39", "k79"), (true, "k60", "k20")] {
        let (mut scan, mut spent) = (snapshot.scan(&all, Timestamp(5), reverse, false), 0);
        let mut spend = |_: u64| {
            spent += 1;
            if spent % 40 == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        for last in [first, second] {
            let stopped = scan.next_within(&mut spend).expect("readable");
            assert_eq!(stopped, Scanned::Stopped(Key::from(last)));
        }
        assert_eq!(scan.next_within(&mut spend).expect("readable"), Scanned::End);
        assert_eq!(spent, 100, "every row is counted once");
    }
    let mut newest = snapshot.scan(&KeyRange::point(b"k01"), Timestamp(9), false, false);
    let row = newest.next_within(|_| ControlFlow::Break(())).expect("readable");
    assert!(matches!(row, Scanned::Row(key, _) if key == "k01"), "what is visible is shown");
}

#[test]
fn cuts_divide_what_is_on_disk_evenly() {
    let tmp = tempfile::tempdir().expect("tempdir");
    let engine = open(tmp.path());
    assert!(engine.snapshot().cuts(&KeyRange::all(), 4).expect("readable").is_empty());
    let mut overlay = Overlay::new(&engine);
    for number in 0..40_000_u32 {
        // Crowded at the end, and with something in common.
        let number = if number < 1000 { number } else { 3_000_000 + number };
        let (key, value) =
            (format!("prefix/{number:08}"), Some(Bytes::from(vec![number as u8; 100])));
        overlay.set(&Key::from(key), value, Timestamp(1), 0).expect("in memory");
    }
    let mut batch = DataBatch::new();
    overlay.drain_into(&mut batch);
    engine.write(batch).expect("in memory");
    engine.flush().expect("flushed");
    let snapshot = engine.snapshot();
    let cuts = snapshot.cuts(&KeyRange::all(), 4).expect("readable");
    let spans = KeyRange::all().split_at(&cuts).expect("ascending and inside");
    assert_eq!(spans.len(), 4);
    for span in spans {
        let rows = snapshot.scan(&span, Timestamp(1), false, true).count();
        assert!((5_000..15_000).contains(&rows), "{rows} rows in {span:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn reads_at_every_timestamp_agree_with_a_model(
        writes in prop::collection::vec((0u8..6, any::<bool>(), 1u64..4, any::<bool>()), 1..60),
        // How many writes come before the collection, and up to where it goes.
        (collect_after, safe_point) in (0u32..60, 0u64..60),
    ) {
        let tmp = tempfile::tempdir().expect("tempdir");
        let engine = open(tmp.path());
        let mut model: BTreeMap<Vec<u8>, BTreeMap<u64, Option<String>>> = BTreeMap::new();
        let (mut ts, mut overlay) = (0, Overlay::new(&engine));
        for (index, (key, put, step, cut)) in (0..).zip(&writes) {
            // Steps of 0 stay in the same entry.
            ts = (ts + step - 1).max(1);
            let user_key = Key::from(vec![b'k', *key, 0, *key]);
            let value = put.then(|| format!("{index}"));
            overlay.set(&user_key, value.clone().map(Bytes::from), Timestamp(ts), index).expect("in memory");
            model.entry(user_key.to_vec()).or_default().insert(ts, value);
            if *cut {
                let mut batch = DataBatch::new();
                overlay.drain_into(&mut batch);
                engine.write(batch).expect("in memory");
            }
            if index == collect_after {
                // Never above what was issued.
                collect(&engine, safe_point.min(ts.saturating_sub(1)));
            }
        }
        let mut batch = DataBatch::new();
        overlay.drain_into(&mut batch);
        engine.write(batch).expect("in memory");
        let safe_point = engine.safe_point().get();
        if safe_point > 0 {
            collect(&engine, safe_point);
            let kept = stamps(&engine, engine::HISTORY, row::Kind::Value);
            prop_assert!(kept.iter().all(|end| *end > safe_point), "{:?}", kept);
            let kept = stamps(&engine, engine::LIVE, row::Kind::Tombstone);
            prop_assert!(kept.iter().all(|ts| *ts > safe_point), "{:?}", kept);
        }
        let snapshot = engine.snapshot();
        for at in safe_point..ts + 2 {
            let expected: Vec<(Vec<u8>, String)> = model
                .iter()
                .filter_map(|(k, versions)| {
                    let (_, value) = versions.range(..=at).next_back()?;
                    Some((k.clone(), value.clone()?))
                })
                .collect();
            let read = |reverse| -> Vec<(Vec<u8>, String)> {
                let rows = snapshot.scan(&KeyRange::all(), Timestamp(at), reverse, false);
                rows.map(|row| {
                    let (key, row) = row.expect("readable");
                    (key.to_vec(), String::from_utf8(row.value.to_vec()).expect("text"))
                }).collect()
            };
            prop_assert_eq!(&read(false), &expected);
            let mut visited = Vec::new();
            let seen_all = snapshot.visit(&KeyRange::all(), Timestamp(at), at % 2 == 0, |row| {
                if let Some(value) = row.value {
                    let value = String::from_utf8(value.to_vec()).expect("text");
                    visited.push((row.key.to_vec(), value));
                }
                ControlFlow::Continue(())
            });
            prop_assert_eq!(seen_all.expect("readable"), None);
            prop_assert_eq!(&visited, &expected);
            let mut reversed = read(true);
            reversed.reverse();
            prop_assert_eq!(&reversed, &expected);
            for (key, value) in &expected {
                let row = snapshot.get(key, Some(Timestamp(at))).expect("readable").expect("there");
                prop_assert_eq!(&row.value[..], value.as_bytes());
            }
        }
    }
}
