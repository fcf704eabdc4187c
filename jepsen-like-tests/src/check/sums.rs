//! Totals under transfers inside ranges and increments across them.
//!
//! * Transfers are never seen in part: what a total leaves when it is divided by [`TALLY_UNIT`] is
//!   zero, for every span and every group. (Transfers lie inside each span that is asked for, and
//!   inside one group.)
//! * The rest is of increments, and obeys [`super::totals`]; what a transfer adds is its two rows.
//! * Groups hold one tally each, and say by [`super::tallies`] which increments a snapshot has: with
//!   one, every one that was acknowledged before that began.
//!
//! Some read of everything must have begun when no write was open any more.

use std::collections::BTreeMap;

use isotherm_types::KeyRange;
use serde::Deserialize;
use serde_json::Value;

use super::Verdict;
use super::tallies::Tallies;
use super::totals::{self, Addition, Snapshot};
use crate::history::Function;
use crate::operation::{Operation, Outcome};
use crate::workload::{SUM_GROUP_BYTES, TALLY_UNIT};

/// How a history names everything.
const EVERYTHING: &str = "";

pub(super) fn check(operations: &[Operation]) -> Verdict {
    match check_all(operations) {
        Ok(()) => Verdict::Valid,
        Err(reason) => Verdict::Invalid(reason),
    }
}

fn check_all(operations: &[Operation]) -> Result<(), String> {
    let mut additions = Vec::new();
    for write in operations.iter().filter(|o| o.outcome != Outcome::Fail) {
        match write.f {
            Function::Incr => additions.push(increment(write)?),
            Function::Txn => additions.extend(transfer(write)?),
            _ => {}
        }
    }
    for f in [Function::Incr, Function::Txn] {
        if !operations.iter().any(|o| o.f == f && o.outcome == Outcome::Ok) {
            return Err(format!("no {} was acknowledged", f.name()));
        }
    }
    let tallies = Tallies::of(operations, SUM_GROUP_BYTES)?;
    let mut spans: BTreeMap<&str, Vec<Snapshot>> = BTreeMap::new();
    let sums = operations.iter().filter(|o| o.f == Function::Sum && o.outcome == Outcome::Ok);
    let mut is_finished = false;
    for sum in sums {
        let snapshot = Snapshot::of_sum(sum)?;
        check_whole(&snapshot).map_err(|reason| {
            format!("sum of [{}] begun at {} ns: {reason}", sum.key, sum.invoked)
        })?;
        spans.entry(&sum.key).or_default().push(snapshot);
        is_finished |= sum.key == EVERYTHING && totals::is_final(sum, operations);
    }
    for (name, snapshots) in spans {
        let span = span(name).ok_or_else(|| format!("{name:?} is no span: not a history"))?;
        let inside = additions.iter().filter(|a| span.contains(a.key.as_bytes()));
        let inside: Vec<Addition<'_>> = inside.copied().collect();
        let at = |reason| format!("span [{name}]: {reason}");
        for snapshot in &snapshots {
            let checked = snapshot.groups.as_ref().map(|groups| tallies.check(&span, groups));
            checked.unwrap_or(Ok(())).map_err(|reason| at(snapshot.at(&reason)))?;
        }
        totals::check(&inside, &snapshots, SUM_GROUP_BYTES).map_err(at)?;
    }
    if is_finished { Ok(()) } else { Err("no sum of everything after the last write".to_owned()) }
}

fn increment(write: &Operation) -> Result<Addition<'_>, String> {
    let Operation { key, invoked, completed, .. } = write;
    let amount = write.input.as_i64().filter(|by| *by > 0 && by % TALLY_UNIT == 0);
    let amount = amount.ok_or_else(|| format!("not an increment of a tally: {write:?}"))?;
    Ok(Addition { key, amount, invoked: *invoked, completed: *completed })
}

/// The two rows of a transfer; together they add nothing.
fn transfer(write: &Operation) -> Result<[Addition<'_>; 2], String> {
    let malformed = || format!("not a transfer: {write:?}");
    let part = |at: usize| -> Option<(&str, i64)> {
        let [incr, key, by] = write.input.get(at)?.as_array()?.as_slice() else { return None };
        (incr == "incr").then_some((key.as_str()?, by.as_i64()?))
    };
    let ((from, less), (to, more)) = part(0).zip(part(1)).ok_or_else(malformed)?;
    if from == to || less != -more || !(1..TALLY_UNIT).contains(&more) {
        return Err(malformed());
    }
    let Operation { invoked, completed, .. } = *write;
    Ok([from, to].map(|key| Addition { key, amount: 0, invoked, completed }))
}

fn check_whole(snapshot: &Snapshot) -> Result<(), String> {
    let torn = |total: i64| total.rem_euclid(TALLY_UNIT) != 0;
    if torn(snapshot.all.total) {
        return Err(format!("{} shows a part of a transfer", snapshot.all.total));
    }
    let mut groups = snapshot.groups.iter().flatten();
    match groups.find(|(_, figures)| torn(figures.total)) {
        Some((name, f)) => {
            Err(format!("{} in the group {name:?} shows a part of a transfer", f.total))
        }
        None => Ok(()),
    }
}

fn span(name: &str) -> Option<KeyRange> {
    #[derive(Deserialize)]
    struct Span {
        from: String,
        to: String,
    }
    if name == EVERYTHING {
        return Some(KeyRange::all());
    }
    let Span { from, to } =
        serde_json::from_str::<Value>(name).ok().and_then(|value| Span::deserialize(value).ok())?;
    KeyRange::new(from, to).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::testing::{End, Story};
    use crate::workload::Workload::Sums;
    use serde_json::json;

    const UNIT: i64 = TALLY_UNIT;

    /// The first increment of a key makes it what it adds.
    fn incr(story: Story, key: &str, by: i64, times: (u64, u64), end: End) -> Story {
        story.op(Function::Incr, key, json!(by), times, end)
    }

    fn moved(story: Story, by: i64, times: (u64, u64), end: End) -> Story {
        let parts = json!([["incr", "ma-1", -by], ["incr", "ma-2", by]]);
        story.op(Function::Txn, "ma", parts, times, end)
    }

    fn sum(story: Story, figures: (u64, i64), times: (u64, u64)) -> Story {
        grouped(story, "".into(), figures, None, times)
    }

    fn grouped(
        story: Story,
        key: Value,
        (rows, total): (u64, i64),
        groups: Option<Value>,
        times: (u64, u64),
    ) -> Story {
        story.op(Function::Sum, key, Value::Null, times, End::Sum(total, rows, groups))
    }

    fn ok() -> End {
        End::Ok(Value::Null)
    }

    /// A transfer, increments of b, then c by 1, then an unknown one of d by 4 and a refused one.
    fn some() -> Story {
        let story = moved(Story::default(), 7, (10, 20), ok());
        let story = incr(story, "bb-1", UNIT, (30, 40), End::Result(json!(UNIT)));
        let story = incr(story, "cc-1", UNIT, (50, 60), End::Result(json!(UNIT)));
        let story = incr(story, "dd-1", 4 * UNIT, (62, 64), End::Info);
        incr(story, "ee-1", 8 * UNIT, (66, 68), End::Fail)
    }

    fn finished(story: Story, has_unknown: bool) -> Story {
        let figures = if has_unknown { (5, 6 * UNIT) } else { (4, 2 * UNIT) };
        sum(story, figures, (900, 910))
    }

    #[track_caller]
    fn valid(story: Story) {
        assert_eq!(story.verdict(Sums), Verdict::Valid);
    }

    #[track_caller]
    fn invalid(story: Story, because: &str) {
        let verdict = story.verdict(Sums);
        assert!(matches!(&verdict, Verdict::Invalid(r) if r.contains(because)), "{verdict:?}");
    }

    #[test]
    fn an_unknown_increment_counts_once_or_not_or_late() {
        valid(finished(some(), true));
        valid(finished(some(), false));
        valid(finished(sum(some(), (4, 2 * UNIT), (100, 110)), true));
        invalid(finished(sum(some(), (5, 6 * UNIT), (100, 110)), false), "goes back");
        invalid(sum(some(), (5, 10 * UNIT), (900, 910)), "more than");
    }

    #[test]
    fn half_a_transfer_is_rejected_wherever_it_shows() {
        invalid(finished(sum(some(), (4, 2 * UNIT + 7), (100, 110)), true), "part of a transfer");
        invalid(finished(sum(some(), (4, 2 * UNIT - 7), (100, 110)), true), "part of a transfer");
        // Even while it is on its way, and in a group whose other half another one makes up for.
        invalid(finished(sum(some(), (1, -7), (12, 14)), true), "part of a transfer");
        let groups = json!({"bb": [1, UNIT - 7], "cc": [1, UNIT], "ma": [2, 7]});
        let story = grouped(some(), "".into(), (4, 2 * UNIT), Some(groups), (100, 110));
        invalid(finished(story, true), "in the group \"bb\"");
        let story = grouped(some(), json!({"from": "ma", "to": "mb"}), (2, 7), None, (100, 110));
        invalid(finished(story, true), "part of a transfer");
    }

    #[test]
    fn totals_outside_of_what_was_acknowledged_and_tried_are_rejected() {
        invalid(finished(sum(some(), (4, UNIT), (100, 110)), true), "less than");
        invalid(finished(sum(some(), (3, 2 * UNIT), (100, 110)), true), "less than");
        invalid(finished(sum(some(), (4, 2 * UNIT), (42, 45)), true), "more than");
        // What was refused explains nothing.
        invalid(sum(some(), (5, 10 * UNIT), (900, 910)), "more than");
    }

    #[test]
    fn every_span_is_held_to_what_lies_in_it() {
        let part = |from: &str, to: &str, figures| {
            let key = json!({"from": from, "to": to});
            finished(grouped(some(), key, figures, None, (100, 110)), true)
        };
        valid(part("ma", "mb", (2, 0)));
        valid(part("bb", "cc", (1, UNIT)));
        valid(part("bb", "", (4, 2 * UNIT)));
        invalid(part("ma", "mb", (1, 0)), "less than");
        invalid(part("bb", "cc", (1, 2 * UNIT)), "more than");
        invalid(part("cc", "bb", (0, 0)), "no span");
    }

    #[test]
    fn an_increment_without_one_acknowledged_before_it_began_is_rejected() {
        // The read begins before b is acknowledged, and ends when c is.
        let see = |b: i64, c: i64| {
            let groups = json!({"bb": [1, b], "cc": [1, c], "ma": [2, 0]});
            let mut story = incr(some(), "bb-1", UNIT, (200, 210), End::Result(json!(2 * UNIT)));
            story = incr(story, "cc-1", UNIT, (220, 230), End::Result(json!(2 * UNIT)));
            let figures = (4, b + c);
            story = grouped(story, "".into(), figures, Some(groups), (205, 240));
            sum(story, (4, 4 * UNIT), (900, 910))
        };
        valid(see(UNIT, UNIT));
        valid(see(2 * UNIT, UNIT));
        valid(see(2 * UNIT, 2 * UNIT));
        invalid(see(UNIT, 2 * UNIT), "but lacks one of \"bb-1\"");
    }

    #[test]
    fn snapshots_that_each_have_what_the_other_lacks_are_rejected() {
        // Increments of b and c at the same time; each of two reads has one of them.
        let both = |first: Value, second: Value| {
            let story = moved(Story::default(), 7, (10, 20), ok());
            let story = incr(story, "bb-1", UNIT, (30, 60), End::Result(json!(UNIT)));
            let story = incr(story, "cc-1", UNIT, (30, 60), End::Result(json!(UNIT)));
            let story = grouped(story, "".into(), (3, UNIT), Some(first), (40, 50));
            let story = grouped(story, "".into(), (3, UNIT), Some(second), (40, 50));
            sum(story, (4, 2 * UNIT), (900, 910))
        };
        let b = json!({"bb": [1, UNIT], "ma": [2, 0]});
        let c = json!({"cc": [1, UNIT], "ma": [2, 0]});
        valid(both(b.clone(), b.clone()));
        invalid(both(b, c), "each have what the other lacks");
    }

    #[test]
    fn a_run_without_a_final_sum_or_without_writes_does_not_pass() {
        invalid(some(), "no sum of everything");
        invalid(sum(some(), (4, 2 * UNIT), (65, 67)), "no sum of everything");
        let part = json!({"from": "bb", "to": ""});
        invalid(grouped(some(), part, (4, 2 * UNIT), None, (900, 910)), "no sum of everything");
        invalid(sum(Story::default(), (0, 0), (1, 2)), "no incr");
        let story = incr(Story::default(), "bb-1", UNIT, (1, 2), End::Result(json!(UNIT)));
        invalid(sum(story, (1, UNIT), (5, 6)), "no txn");
        let odd = incr(some(), "bb-1", 3, (70, 80), ok());
        invalid(finished(odd, true), "not an increment");
        let odd = incr(some(), "bb-1", UNIT, (70, 80), ok());
        invalid(finished(odd, true), "to nothing");
        let odd = incr(some(), "bb-2", UNIT, (70, 80), End::Result(json!(UNIT)));
        invalid(finished(odd, true), "share a group");
    }
}
