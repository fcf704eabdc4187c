//! Snapshots of numbered inserts over many ranges.
//!
//! * A scan that has an insert has every one that was acknowledged before that insert began, and
//!   every one that was acknowledged before the scan itself did; nothing refused, nothing that was
//!   first tried after the scan ended, nothing twice.
//! * Of any two scans, one has everything that the other has; any two snapshots with as many rows
//!   are the same.
//! * Scans and sums together obey [`super::totals`], with the number of an insert as its amount.
//!
//! The last scan and the last sum must have begun when no insert was open any more.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Verdict;
use super::totals::{self, Addition, Figures, Groups, Snapshot, group_of};
use crate::history::Function;
use crate::operation::{Operation, Outcome};
use crate::runs::Runs;
use crate::workload::COMMENT_GROUP_BYTES;

pub(super) fn check(operations: &[Operation]) -> Verdict {
    match check_all(operations) {
        Ok(()) => Verdict::Valid,
        Err(reason) => Verdict::Invalid(reason),
    }
}

fn check_all(operations: &[Operation]) -> Result<(), String> {
    let inserts = Inserts::of(operations)?;
    let answered =
        |f: Function| operations.iter().filter(move |o| o.f == f && o.outcome == Outcome::Ok);
    let mut snapshots = Vec::new();
    let mut scans = Vec::new();
    for scan in answered(Function::Scan) {
        let at = |reason| format!("scan begun at {} ns: {reason}", scan.invoked);
        let seen = numbers(scan).map_err(at)?;
        inserts.check_scan(scan, &seen).map_err(at)?;
        snapshots.push(inserts.snapshot(scan, &seen));
        scans.push((scan, seen));
    }
    check_scans_in_line(scans)?;
    for sum in answered(Function::Sum) {
        snapshots.push(Snapshot::of_sum(sum)?);
    }
    totals::check(&inserts.additions(), &snapshots, COMMENT_GROUP_BYTES)?;
    check_as_many(&snapshots)?;
    for f in [Function::Scan, Function::Sum] {
        if !answered(f).any(|read| totals::is_final(read, operations)) {
            return Err(format!("no {} after the last insert", f.name()));
        }
    }
    Ok(())
}

/// What a scan gave, which must be rows of this workload, each once.
fn numbers(scan: &Operation) -> Result<Runs, String> {
    #[derive(Deserialize)]
    struct Seen {
        numbers: Runs,
        #[serde(default)]
        others: Map<String, Value>,
    }
    let seen = Seen::deserialize(&scan.output).map_err(|e| format!("it is malformed: {e}"))?;
    if let Some((key, value)) = seen.others.iter().next() {
        return Err(format!("{key:?} with value {value} was never inserted"));
    }
    if !seen.numbers.is_well_formed() {
        return Err("its runs are malformed".to_owned());
    }
    if scan.rows != Some(seen.numbers.len()) {
        return Err(format!("{:?} rows hold {} different keys", scan.rows, seen.numbers.len()));
    }
    Ok(seen.numbers)
}

/// Of any two scans, one has all that the other has.
fn check_scans_in_line(mut scans: Vec<(&Operation, Runs)>) -> Result<(), String> {
    scans.sort_by_key(|(_, seen)| seen.len());
    for pair in scans.windows(2) {
        let [(fewer, less), (more, seen)] = pair else { continue };
        if let Some(number) = less.first_not_in(seen) {
            return Err(format!(
                "the scan begun at {} ns has {number}, which the one begun at {} ns lacks, though \
                 that one has as many or more",
                fewer.invoked, more.invoked
            ));
        }
    }
    Ok(())
}

/// Every insert is one row: snapshots with as many rows, of moments in one line, are the same.
fn check_as_many(snapshots: &[Snapshot]) -> Result<(), String> {
    let mut totals: HashMap<i64, &Snapshot> = HashMap::new();
    for snapshot in snapshots {
        let same = totals.entry(snapshot.all.rows).or_insert(snapshot);
        if same.all != snapshot.all {
            let (a, b) = (same.invoked, snapshot.invoked);
            return Err(format!(
                "snapshots begun at {a} and at {b} ns have as many rows and differ: {:?} and {:?}",
                same.all, snapshot.all
            ));
        }
    }
    Ok(())
}

struct Inserts<'a> {
    by_number: HashMap<u64, &'a Operation>,
    /// Those that were acknowledged: when, and their numbers.
    acknowledged: Vec<(u64, u64)>,
}

impl<'a> Inserts<'a> {
    fn of(operations: &'a [Operation]) -> Result<Self, String> {
        let mut by_number = HashMap::new();
        for insert in operations.iter().filter(|o| o.f == Function::Write) {
            let number = insert.input.as_u64().ok_or("an insert has no number: not a history")?;
            if by_number.insert(number, insert).is_some() {
                return Err(format!("{number} is inserted twice: not a history"));
            }
        }
        let is_ok = |(_, insert): &(&u64, &&Operation)| insert.outcome == Outcome::Ok;
        let ok = by_number.iter().filter(is_ok);
        let mut acknowledged: Vec<(u64, u64)> = ok.map(|(n, o)| (o.completed, *n)).collect();
        acknowledged.sort_unstable();
        if acknowledged.is_empty() {
            return Err("no insert was acknowledged".to_owned());
        }
        Ok(Self { by_number, acknowledged })
    }

    fn check_scan(&self, scan: &Operation, seen: &Runs) -> Result<(), String> {
        // The one that began last of all that it has: what it implies, the others do too.
        let mut newest: Option<(u64, u64)> = None;
        for number in seen.iter() {
            let Some(insert) = self.by_number.get(&number) else {
                return Err(format!("{number} was never inserted"));
            };
            if insert.outcome == Outcome::Fail {
                return Err(format!("{number} is there, though its insert was refused"));
            }
            if insert.invoked > scan.completed {
                return Err(format!("{number} is there before it was inserted"));
            }
            newest = newest.max(Some((insert.invoked, number)));
        }
        for (completed, number) in &self.acknowledged {
            if seen.contains(*number) {
                continue;
            }
            if *completed < scan.invoked {
                return Err(format!("{number} is missing, acknowledged before the scan began"));
            }
            if let Some((invoked, newer)) = newest.filter(|(invoked, _)| completed < invoked) {
                return Err(format!(
                    "it has {newer}, begun at {invoked} ns, but lacks {number}, acknowledged before \
                     that at {completed} ns"
                ));
            }
        }
        Ok(())
    }

    /// What a scan comes to, whose numbers were all inserted.
    fn snapshot(&self, scan: &Operation, seen: &Runs) -> Snapshot {
        let (mut all, mut groups) = (Figures::default(), Groups::new());
        for number in seen.iter() {
            let one = Figures { rows: 1, total: amount(number) };
            let group = group_of(&self.by_number[&number].key, COMMENT_GROUP_BYTES);
            all.add(one);
            match groups.get_mut(group) {
                Some(figures) => figures.add(one),
                None => drop(groups.insert(group.to_owned(), one)),
            }
        }
        let Operation { invoked, completed, .. } = *scan;
        Snapshot { invoked, completed, all, groups: Some(groups) }
    }

    fn additions(&self) -> Vec<Addition<'a>> {
        let possible = self.by_number.iter().filter(|(_, o)| o.outcome != Outcome::Fail);
        let addition = |(number, insert): (&u64, &&'a Operation)| {
            let Operation { key, invoked, completed, .. } = *insert;
            let (invoked, completed) = (*invoked, *completed);
            Addition { key, amount: amount(*number), invoked, completed }
        };
        possible.map(addition).collect()
    }
}

fn amount(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::testing::{End, Story};
    use crate::workload::Workload::Comments;
    use serde_json::json;

    /// Keys of the numbers lie in groups "a" to "j", by the last digit.
    fn insert(story: Story, number: u64, times: (u64, u64), end: End) -> Story {
        let first = char::from(b'a' + u8::try_from(number % 10).unwrap_or(0));
        story.op(Function::Write, format!("{first}x-{number}"), json!(number), times, end)
    }

    fn ok() -> End {
        End::Ok(Value::Null)
    }

    fn scan(story: Story, runs: &Value, rows: u64, times: (u64, u64)) -> Story {
        let seen = json!({ "numbers": runs });
        story.op(Function::Scan, "", Value::Null, times, End::Scan(seen, rows))
    }

    fn sum(story: Story, figures: (u64, i64), groups: Option<Value>, times: (u64, u64)) -> Story {
        let (rows, total) = figures;
        story.op(Function::Sum, "", Value::Null, times, End::Sum(total, rows, groups))
    }

    /// 0 before 1 before 3; 2 is unknown, 4 refused, 5 beside 3.
    fn five() -> Story {
        let story = insert(Story::default(), 0, (10, 20), ok());
        let story = insert(story, 1, (30, 40), ok());
        let story = insert(story, 2, (42, 44), End::Info);
        let story = insert(story, 3, (50, 60), ok());
        let story = insert(story, 4, (52, 54), End::Fail);
        insert(story, 5, (50, 65), ok())
    }

    /// The reads with which every run ends; `has_2`: whether the unknown insert came to be.
    fn finished(story: Story, has_2: bool) -> Story {
        let (runs, figures) = if has_2 {
            (json!([[0, 3], [5, 5]]), (5, 11))
        } else {
            (json!([[0, 1], [3, 3], [5, 5]]), (4, 9))
        };
        let story = scan(story, &runs, figures.0, (900, 910));
        sum(story, figures, None, (920, 930))
    }

    #[track_caller]
    fn valid(story: Story) {
        assert_eq!(story.verdict(Comments), Verdict::Valid);
    }

    #[track_caller]
    fn invalid(story: Story, because: &str) {
        let verdict = story.verdict(Comments);
        assert!(matches!(&verdict, Verdict::Invalid(r) if r.contains(because)), "{verdict:?}");
    }

    #[test]
    fn an_unknown_insert_may_be_there_or_not_or_come_late() {
        valid(finished(five(), true));
        valid(finished(five(), false));
        let late = scan(five(), &json!([[0, 1], [3, 3], [5, 5]]), 4, (100, 110));
        valid(finished(late, true));
        // It may also be seen while later ones that are still open are not.
        valid(finished(scan(five(), &json!([[0, 2]]), 3, (45, 55)), true));
        // Having been seen it does not go away.
        let gone = scan(five(), &json!([[0, 3], [5, 5]]), 5, (100, 110));
        invalid(finished(gone, false), "goes back");
    }

    #[test]
    fn an_insert_without_one_acknowledged_before_it_began_is_rejected() {
        let torn = scan(five(), &json!([[0, 0], [3, 3]]), 2, (25, 70));
        invalid(finished(torn, true), "it has 3, begun at 50 ns, but lacks 1");
        // An unknown insert that was seen began after others too.
        let torn = scan(five(), &json!([[0, 0], [2, 2]]), 2, (25, 70));
        invalid(finished(torn, true), "it has 2, begun at 42 ns, but lacks 1");
        // Inserts side by side are in no order.
        valid(finished(scan(five(), &json!([[0, 1], [5, 5]]), 3, (55, 70)), false));
        valid(finished(scan(five(), &json!([[0, 1], [3, 3]]), 3, (55, 58)), false));
    }

    #[test]
    fn two_scans_that_each_miss_something_of_the_other_are_rejected() {
        let story = scan(five(), &json!([[0, 1], [5, 5]]), 3, (51, 58));
        let story = scan(story, &json!([[0, 1], [3, 3]]), 3, (52, 59));
        invalid(finished(story, false), "has as many or more");
    }

    #[test]
    fn a_scan_that_misses_what_was_acknowledged_before_it_is_rejected() {
        invalid(finished(scan(five(), &json!([]), 0, (25, 28)), true), "0 is missing");
    }

    #[test]
    fn rows_that_cannot_be_there_are_rejected() {
        let see = |runs: Value, rows| finished(scan(five(), &runs, rows, (100, 110)), true);
        invalid(see(json!([[0, 5]]), 6), "was refused");
        invalid(see(json!([[0, 3], [5, 6]]), 6), "6 was never inserted");
        invalid(see(json!([[0, 3], [5, 5]]), 6), "different keys");
        invalid(see(json!([[3, 2]]), 0), "malformed");
        invalid(see(json!("?"), 0), "malformed");
        invalid(finished(scan(five(), &json!([[0, 1]]), 2, (25, 28)), true), "before it was");
        let others = json!({"numbers": [[0, 3], [5, 5]], "others": {"x": "y"}});
        let story = five().op(Function::Scan, "", Value::Null, (99, 100), End::Scan(others, 6));
        invalid(finished(story, true), "\"x\" with value \"y\"");
    }

    #[test]
    fn a_count_outside_of_what_was_acknowledged_and_tried_is_rejected() {
        let count = |rows, total, times| finished(sum(five(), (rows, total), None, times), true);
        valid(count(1, 0, (25, 28)));
        valid(count(1, 0, (35, 38)));
        valid(count(2, 1, (35, 38)));
        invalid(count(0, 0, (25, 28)), "less than the acknowledged");
        invalid(count(2, 1, (25, 28)), "more than");
        // Within all bounds, with the refused 4 in place of 5.
        invalid(count(5, 10, (100, 110)), "as many rows and differ");
    }

    #[test]
    fn counts_that_go_back_are_rejected() {
        let story = sum(five(), (4, 9), None, (55, 56));
        invalid(finished(sum(story, (3, 4), None, (57, 58)), false), "goes back");
        // Side by side either may come first.
        let story = sum(five(), (4, 9), None, (55, 57));
        valid(finished(sum(story, (3, 4), None, (57, 58)), false));
    }

    #[test]
    fn counts_and_scans_stand_in_one_line() {
        // 0, 1 and 5 or 3, of which two reads side by side have seen one each.
        let story = scan(five(), &json!([[0, 1], [5, 5]]), 3, (51, 58));
        let groups = |three| json!({"a": [1, 0], "b": [1, 1], "d": [three, 3 * three]});
        invalid(finished(sum(story, (3, 4), Some(groups(1)), (52, 59)), false), "group \"d\"");
        let story = scan(five(), &json!([[0, 1], [3, 3], [5, 5]]), 4, (51, 58));
        valid(finished(sum(story, (3, 4), Some(groups(1)), (52, 59)), false));
        let story = sum(five(), (4, 5), Some(groups(1)), (52, 59));
        invalid(finished(story, true), "add up to");
        // A fork that counts alone show: more rows and a lower total.
        let story = sum(five(), (3, 6), None, (51, 58));
        invalid(finished(sum(story, (4, 5), None, (51, 58)), true), "each have what the other");
    }

    #[test]
    fn the_bounds_hold_for_every_group() {
        let groups = json!({"a": [1, 0], "d": [1, 3], "f": [1, 5], "c": [1, 2]});
        invalid(finished(sum(five(), (4, 10), Some(groups), (56, 59)), true), "group \"b\"");
        let groups = json!({"a": [1, 0], "b": [1, 1], "z": [1, 3]});
        invalid(finished(sum(five(), (3, 4), Some(groups), (56, 59)), true), "group \"z\"");
    }

    #[test]
    fn a_run_without_final_reads_or_inserts_does_not_pass() {
        invalid(five(), "no scan after");
        invalid(scan(five(), &json!([[0, 3], [5, 5]]), 5, (900, 910)), "no sum after");
        invalid(finished(insert(five(), 7, (950, 960), End::Info), true), "no scan after");
        invalid(scan(Story::default(), &json!([]), 0, (1, 2)), "no insert");
        invalid(insert(five(), 3, (70, 80), ok()), "inserted twice");
    }
}
