//! A set of unique inserts: what was acknowledged is there, what was refused is not, and nothing
//! is there twice.
//!
//! Each `write` inserts a key of its own; a `scan` reads them all at one moment. Every scan, not
//! only the last, must hold what was acknowledged before it began and nothing that was first tried
//! after it ended. The last one must have begun when no insert was open any more.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::Verdict;
use crate::history::Function;
use crate::operation::{Operation, Outcome};

/// How many keys a message lists.
const LISTED_MAX: usize = 5;

pub(super) fn check(operations: &[Operation]) -> Verdict {
    let mut inserts: HashMap<&str, &Operation> = HashMap::new();
    for insert in operations.iter().filter(|o| o.f == Function::Write) {
        if inserts.insert(&insert.key, insert).is_some() {
            return Verdict::Invalid(format!("{:?} is inserted twice: not a history", insert.key));
        }
    }
    let acknowledged = || inserts.values().filter(|o| o.outcome == Outcome::Ok);
    if acknowledged().next().is_none() {
        return Verdict::Invalid("no insert was acknowledged".to_owned());
    }
    let last_ack = acknowledged().map(|o| o.completed).max().unwrap_or(0);
    let mut final_scan = false;
    for scan in operations.iter().filter(|o| o.f == Function::Scan && o.outcome == Outcome::Ok) {
        let Some(rows) = scan.output.as_object() else {
            return Verdict::Invalid("a scan gave no rows".to_owned());
        };
        if let Err(reason) = check_scan(scan, rows, &inserts) {
            return Verdict::Invalid(format!("scan begun at {} ns: {reason}", scan.invoked));
        }
        final_scan |= scan.invoked > last_ack;
    }
    if final_scan {
        Verdict::Valid
    } else {
        Verdict::Invalid("no scan after the last insert".to_owned())
    }
}

fn check_scan(
    scan: &Operation,
    rows: &Map<String, Value>,
    inserts: &HashMap<&str, &Operation>,
) -> Result<(), String> {
    if scan.rows.is_some_and(|count| count != rows.len() as u64) {
        return Err(format!("{:?} rows hold {} different keys", scan.rows, rows.len()));
    }
    for (key, value) in rows {
        let Some(insert) = inserts.get(key.as_str()) else {
            return Err(format!("{key:?} was never inserted"));
        };
        if insert.outcome == Outcome::Fail {
            return Err(format!("{key:?} is there, though its insert was refused"));
        }
        if insert.invoked > scan.completed {
            return Err(format!("{key:?} is there before it was inserted"));
        }
        if *value != insert.input {
            return Err(format!("{key:?} has value {value} instead of {}", insert.input));
        }
    }
    let mut missing: Vec<&str> = inserts
        .values()
        .filter(|o| o.outcome == Outcome::Ok && o.completed < scan.invoked)
        .filter(|o| !rows.contains_key(&o.key))
        .map(|o| o.key.as_str())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    missing.sort_unstable();
    let listed = &missing[..missing.len().min(LISTED_MAX)];
    Err(format!("{} acknowledged inserts are missing, such as {listed:?}", missing.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::testing::{End, Story};
    use crate::workload::Workload::Set;
    use serde_json::json;

    fn insert(story: Story, key: &str, times: (u64, u64), end: End) -> Story {
        story.op(Function::Write, key, json!(key), times, end)
    }

    /// a is acknowledged, b unknown, c refused.
    fn three() -> Story {
        let story = insert(Story::default(), "a", (1, 2), End::Ok(Value::Null));
        let story = insert(story, "b", (3, 4), End::Info);
        insert(story, "c", (5, 6), End::Fail)
    }

    fn scan(story: Story, keys: &[&str], times: (u64, u64)) -> Story {
        let rows: Map<String, Value> = keys.iter().map(|k| ((*k).to_owned(), json!(k))).collect();
        story.op(Function::Scan, "", Value::Null, times, End::Scan(rows.into(), keys.len() as u64))
    }

    #[track_caller]
    fn invalid(story: Story, because: &str) {
        let verdict = story.verdict(Set);
        assert!(matches!(&verdict, Verdict::Invalid(r) if r.contains(because)), "{verdict:?}");
    }

    #[test]
    fn an_unknown_insert_may_be_there_or_not() {
        assert_eq!(scan(three(), &["a"], (7, 8)).verdict(Set), Verdict::Valid);
        assert_eq!(scan(three(), &["a", "b"], (7, 8)).verdict(Set), Verdict::Valid);
    }

    #[test]
    fn a_lost_insert_is_rejected() {
        invalid(scan(three(), &["b"], (7, 8)), "missing");
    }

    #[test]
    fn a_refused_insert_that_is_there_is_rejected() {
        invalid(scan(three(), &["a", "c"], (7, 8)), "was refused");
    }

    #[test]
    fn a_doubled_row_is_rejected() {
        invalid(scan(three(), &["a", "a"], (7, 8)), "different keys");
    }

    #[test]
    fn a_row_from_nowhere_is_rejected() {
        invalid(scan(three(), &["a", "x"], (7, 8)), "never inserted");
    }

    #[test]
    fn a_wrong_value_is_rejected() {
        let rows = json!({"a": "other"});
        let story = three().op(Function::Scan, "", Value::Null, (7, 8), End::Scan(rows, 1));
        invalid(story, "instead of");
    }

    #[test]
    fn a_scan_on_the_way_may_not_miss_what_was_acknowledged() {
        let story = insert(three(), "d", (20, 21), End::Ok(Value::Null));
        invalid(scan(scan(story, &[], (10, 11)), &["a", "d"], (30, 31)), "missing");
    }

    #[test]
    fn a_scan_on_the_way_may_not_see_the_future() {
        let story = insert(three(), "d", (20, 21), End::Ok(Value::Null));
        invalid(scan(scan(story, &["a", "d"], (10, 11)), &["a", "d"], (30, 31)), "before");
    }

    #[test]
    fn a_run_without_a_final_scan_does_not_pass() {
        let story = scan(three(), &["a"], (7, 8));
        invalid(insert(story, "d", (9, 10), End::Ok(Value::Null)), "no scan");
        invalid(three(), "no scan");
    }
}
