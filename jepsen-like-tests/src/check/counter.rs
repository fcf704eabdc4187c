//! Exactly-once increments.
//!
//! Per key, with positive increments only:
//!
//! * the values that acknowledged increments returned are all different, and each is higher than
//!   every value returned before that increment began, by at least its own amount;
//! * each acknowledged increment takes a step of its own: from what it returned less its amount, to
//!   what it returned. Steps do not overlap, and a gap between two of them is the sum of unknown
//!   increments that were begun by then, each used once. Workloads draw amounts at random from a
//!   wide span, so a doubled increment leaves a gap that no unknown ones explain by chance;
//! * a read sees at least what was returned before it began, and at most everything tried before
//!   it ended;
//! * the final value is at least the sum of what was acknowledged and at most that plus what is
//!   unknown, so it is exact when nothing is unknown.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Verdict;
use crate::history::Function;
use crate::operation::{Operation, Outcome};

/// Most unknown increments among which the sum of a gap is looked for (two to half their number
/// is the effort).
const CANDIDATES_MAX: usize = 36;

pub(super) fn check(operations: &[Operation]) -> Verdict {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        keys.entry(&operation.key).or_default().push(operation);
    }
    let acknowledged = |o: &&Operation| o.f == Function::Incr && o.outcome == Outcome::Ok;
    if !operations.iter().any(|o| acknowledged(&o)) {
        return Verdict::Invalid("no increment was acknowledged".to_owned());
    }
    for (key, operations) in keys {
        if let Err(reason) = check_key(&operations) {
            return Verdict::Invalid(format!("key {key:?}: {reason}"));
        }
    }
    Verdict::Valid
}

fn check_key(operations: &[&Operation]) -> Result<(), String> {
    let mut counters = Vec::with_capacity(operations.len());
    for operation in operations {
        counters.extend(Counted::of(operation)?);
    }
    check_unique(&counters)?;
    check_order(&counters)?;
    check_reads(&counters)?;
    let end = check_final(&counters)?;
    check_steps(&counters, end)
}

/// An increment or a read, as numbers.
#[derive(Debug, Clone, Copy)]
struct Counted {
    /// Zero for a read.
    by: i64,
    /// Value that it returned, when that is known.
    value: Option<i64>,
    invoked: u64,
    completed: u64,
}

impl Counted {
    /// `None` for what certainly did nothing.
    fn of(operation: &Operation) -> Result<Option<Self>, String> {
        let malformed = || format!("not an operation on a counter: {operation:?}");
        let is_ok = operation.outcome == Outcome::Ok;
        let Operation { invoked, completed, .. } = *operation;
        if operation.outcome == Outcome::Fail {
            return Ok(None);
        }
        match operation.f {
            Function::Read if is_ok => {
                let value = match &operation.output {
                    serde_json::Value::Null => 0,
                    value => value.as_i64().ok_or_else(malformed)?,
                };
                Ok(Some(Self { by: 0, value: Some(value), invoked, completed }))
            }
            Function::Read => Ok(None),
            Function::Incr => {
                let by = operation.input.as_i64().filter(|by| *by > 0).ok_or_else(malformed)?;
                let result = operation.result.as_ref().and_then(serde_json::Value::as_i64);
                if is_ok && result.is_none() {
                    return Err(malformed());
                }
                let value = result.filter(|_| is_ok);
                Ok(Some(Self { by, value, invoked, completed }))
            }
            _ => Err(malformed()),
        }
    }

    fn is_incr(&self) -> bool {
        self.by > 0
    }
}

fn check_unique(operations: &[Counted]) -> Result<(), String> {
    let mut seen = HashSet::new();
    let mut values = operations.iter().filter(|o| o.is_incr()).filter_map(|o| o.value);
    match values.find(|value| !seen.insert(*value)) {
        Some(value) => Err(format!("two increments returned {value}")),
        None => Ok(()),
    }
}

/// What returned before an operation began is a lower bound of what it returns.
fn check_order(operations: &[Counted]) -> Result<(), String> {
    let mut ends: Vec<(u64, i64)> =
        operations.iter().filter_map(|o| Some((o.completed, o.value?))).collect();
    ends.sort_unstable();
    let mut begun: Vec<&Counted> = operations.iter().filter(|o| o.value.is_some()).collect();
    begun.sort_by_key(|o| o.invoked);
    let mut ends = ends.into_iter().peekable();
    let mut highest = 0;
    for operation in begun {
        while let Some((_, value)) = ends.next_if(|(end, _)| *end < operation.invoked) {
            highest = highest.max(value);
        }
        let value = operation.value.unwrap_or(0);
        if value < highest + operation.by {
            let what = if operation.is_incr() { "an increment" } else { "a read" };
            let by = operation.by;
            return Err(format!("{what} (by {by}) returned {value} when {highest} was reached"));
        }
    }
    Ok(())
}

/// Nothing sees more than what was tried before it ended.
fn check_reads(operations: &[Counted]) -> Result<(), String> {
    let mut begins: Vec<(u64, i64)> =
        operations.iter().filter(|o| o.is_incr()).map(|o| (o.invoked, o.by)).collect();
    begins.sort_unstable();
    let mut ended: Vec<&Counted> = operations.iter().filter(|o| o.value.is_some()).collect();
    ended.sort_by_key(|o| o.completed);
    let mut begins = begins.into_iter().peekable();
    let mut tried = 0;
    for operation in ended {
        while let Some((_, by)) = begins.next_if(|(begin, _)| *begin <= operation.completed) {
            tried += by;
        }
        let value = operation.value.unwrap_or(0);
        if value > tried {
            return Err(format!("{value} was returned when at most {tried} had been added"));
        }
    }
    Ok(())
}

/// Returns the final value.
fn check_final(operations: &[Counted]) -> Result<i64, String> {
    let increments = || operations.iter().filter(|o| o.is_incr());
    let acknowledged: i64 = increments().filter(|o| o.value.is_some()).map(|o| o.by).sum();
    let unknown: i64 = increments().filter(|o| o.value.is_none()).map(|o| o.by).sum();
    // An unknown increment has no end, but it was given up before the next began; what counts is
    // that the read began after everything else was invoked and every acknowledgement was out.
    let last = increments()
        .map(|o| if o.value.is_some() { o.completed } else { o.invoked })
        .max()
        .unwrap_or(0);
    let read = operations.iter().rfind(|o| !o.is_incr() && o.invoked > last);
    let Some(value) = read.and_then(|o| o.value) else {
        return Err("no read after the last increment".to_owned());
    };
    if value < acknowledged {
        return Err(format!("final value {value} is below the acknowledged sum {acknowledged}"));
    }
    if value > acknowledged + unknown {
        return Err(format!(
            "final value {value} is above {acknowledged} acknowledged and {unknown} unknown"
        ));
    }
    Ok(value)
}

/// Every step between zero and the final value belongs to one increment.
fn check_steps(operations: &[Counted], end: i64) -> Result<(), String> {
    let increments = || operations.iter().filter(|o| o.is_incr());
    let mut steps: Vec<(i64, i64, u64)> =
        increments().filter_map(|o| Some((o.value?, o.by, o.completed))).collect();
    steps.sort_unstable();
    // The final value closes the last gap.
    steps.push((end, 0, u64::MAX));
    let mut unknown: Vec<Counted> = increments().filter(|o| o.value.is_none()).copied().collect();
    let mut reached = 0;
    for (value, by, completed) in steps {
        let gap = value - by - reached;
        if gap < 0 {
            return Err(format!("the increment by {by} to {value} begins below {reached}"));
        }
        if gap > 0 && !explain(gap, &mut unknown, completed) {
            return Err(format!(
                "the gap of {gap} from {reached} is no sum of unknown increments: something \
                 refused or acknowledged was applied once more"
            ));
        }
        reached = value;
    }
    Ok(())
}

/// Finds unknown increments, begun before `before`, that sum up to `gap`, and takes them out.
///
/// With more candidates than can be searched it lets the gap pass: the bounds still hold it.
fn explain(gap: i64, unknown: &mut Vec<Counted>, before: u64) -> bool {
    let candidates: Vec<usize> = (0..unknown.len())
        .filter(|i| unknown[*i].invoked <= before && unknown[*i].by <= gap)
        .collect();
    if candidates.len() > CANDIDATES_MAX {
        return true;
    }
    let (left, right) = candidates.split_at(candidates.len() / 2);
    let sum_of = |half: &[usize], mask: u32| -> i64 {
        chosen(half, mask).map(|index| unknown[index].by).sum()
    };
    let lefts: HashMap<i64, u32> = (0..1 << left.len()).map(|m| (sum_of(left, m), m)).collect();
    let found = (0..1 << right.len())
        .find_map(|m| Some((*lefts.get(&(gap - sum_of(right, m)))?, m)))
        .map(|(l, r)| chosen(left, l).chain(chosen(right, r)).collect::<Vec<usize>>());
    let Some(mut taken) = found else { return false };
    taken.sort_unstable();
    for index in taken.into_iter().rev() {
        unknown.remove(index);
    }
    true
}

/// The members of `half` whose bit is set in `mask`.
fn chosen(half: &[usize], mask: u32) -> impl Iterator<Item = usize> + '_ {
    half.iter().enumerate().filter(move |(bit, _)| mask & (1 << bit) != 0).map(|(_, index)| *index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::testing::{End, Story};
    use crate::workload::Workload::Counter;
    use serde_json::{Value, json};

    fn incr(story: Story, result: i64, times: (u64, u64)) -> Story {
        story.op(Function::Incr, "c", json!(1), times, End::Result(json!(result)))
    }

    fn unknown(story: Story, invoked: u64) -> Story {
        story.op(Function::Incr, "c", json!(1), (invoked, invoked + 1), End::Info)
    }

    fn read(story: Story, value: Value, times: (u64, u64)) -> Story {
        story.op(Function::Read, "c", Value::Null, times, End::Ok(value))
    }

    fn two() -> Story {
        incr(incr(Story::default(), 1, (1, 2)), 2, (3, 4))
    }

    #[track_caller]
    fn invalid(story: Story, because: &str) {
        let verdict = story.verdict(Counter);
        assert!(matches!(&verdict, Verdict::Invalid(r) if r.contains(because)), "{verdict:?}");
    }

    #[test]
    fn a_sum_that_adds_up_is_valid() {
        assert_eq!(read(two(), json!(2), (10, 11)).verdict(Counter), Verdict::Valid);
    }

    #[test]
    fn an_unknown_increment_counts_at_most_once() {
        for value in [2, 3] {
            let story = read(unknown(two(), 5), json!(value), (10, 11));
            assert_eq!(story.verdict(Counter), Verdict::Valid);
        }
        // The value that it alone explains was returned to nobody, yet one more is too many.
        invalid(read(unknown(two(), 5), json!(4), (10, 11)), "at most 3");
    }

    #[test]
    fn a_lost_increment_is_rejected() {
        invalid(read(two(), json!(1), (10, 11)), "returned 1 when 2");
        // Lost without a trace in the returned values.
        let story = incr(incr(Story::default(), 1, (1, 5)), 1, (2, 6));
        invalid(read(story, json!(1), (10, 11)), "two increments returned 1");
    }

    #[test]
    fn a_doubled_increment_is_rejected() {
        invalid(read(two(), json!(3), (10, 11)), "at most 2");
        let jump = incr(incr(Story::default(), 1, (1, 2)), 3, (3, 4));
        invalid(read(jump, json!(3), (10, 11)), "at most 2");
        // Hidden behind a refused increment: what failed explains nothing.
        let story = two().op(Function::Incr, "c", json!(1), (5, 6), End::Fail);
        invalid(read(story, json!(3), (10, 11)), "at most 2");
    }

    fn incr_by(story: Story, by: i64, result: i64, times: (u64, u64)) -> Story {
        story.op(Function::Incr, "c", json!(by), times, End::Result(json!(result)))
    }

    /// An increment by 5, two unknown ones by 100 and 30, one by 7 that returned `result`.
    fn with_unknown(result: i64, last: i64) -> Story {
        let story = incr_by(Story::default(), 5, 5, (1, 2));
        let story = story.op(Function::Incr, "c", json!(100), (3, 4), End::Info);
        let story = story.op(Function::Incr, "c", json!(30), (3, 4), End::Info);
        read(incr_by(story, 7, result, (5, 6)), json!(last), (10, 11))
    }

    #[test]
    fn a_gap_must_be_a_sum_of_unknown_increments() {
        for (result, last) in [(12, 12), (112, 112), (42, 142), (142, 142), (12, 142)] {
            assert_eq!(with_unknown(result, last).verdict(Counter), Verdict::Valid, "{result}");
        }
        // Doubled, within the bounds that the unknown ones leave.
        invalid(with_unknown(19, 19), "gap of 7 from 5");
        invalid(with_unknown(12, 19), "gap of 7 from 12");
        // Each counts once.
        invalid(with_unknown(42, 72), "gap of 30 from 42");
    }

    #[test]
    fn steps_that_overlap_are_rejected() {
        let story = incr_by(Story::default(), 10, 10, (1, 9));
        let story = incr_by(story, 3, 11, (2, 8));
        invalid(read(story, json!(13), (10, 11)), "begins below 10");
    }

    #[test]
    fn an_increment_that_goes_back_is_rejected() {
        let story = unknown(incr(Story::default(), 2, (2, 3)), 1);
        invalid(read(incr(story, 1, (5, 6)), json!(2), (10, 11)), "returned 1 when 2");
    }

    #[test]
    fn a_stale_read_is_rejected() {
        invalid(read(read(two(), json!(1), (5, 6)), json!(2), (10, 11)), "a read");
    }

    #[test]
    fn a_final_value_below_the_sum_is_rejected_even_if_the_returned_values_hide_it() {
        let story = incr(Story::default(), 1, (1, 4));
        let story = incr(story, 5, (2, 5));
        invalid(read(story, json!(5), (10, 11)), "at most 2");
    }

    #[test]
    fn a_run_without_a_final_read_does_not_pass() {
        invalid(two(), "no read");
        invalid(read(two(), json!(2), (1, 9)), "no read");
        invalid(read(Story::default(), json!(0), (1, 2)), "no increment");
    }
}
