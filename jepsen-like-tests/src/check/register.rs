//! Linearizability of single keys under `read`, `write` and `cas`, by porcupine.
//!
//! Every value is written at most once, which lets unknown operations be treated exactly instead
//! of leaving each open until the end (the search would grow with two to their number):
//!
//! * An unknown write whose value somebody saw must have taken effect before the first that saw it
//!   returned, so it ends there.
//! * An unknown write whose value nobody saw can be left out: in any explanation of the history,
//!   only operations that see no value stand between it and the next write.
//!
//! "Seeing" is what a read returns, what a successful `cas` expected, and what a refused one met;
//! the unknown `cas` that was itself seen has seen what it expected.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use porcupine_rs::{CheckResult, Model, check_operations_timeout};
use serde_json::Value;

use super::Verdict;
use crate::history::Function;
use crate::operation::{Operation, Outcome};

/// Longest search for one key.
const SEARCH_MAX: Duration = Duration::from_secs(60);

/// A value of the register, numbered; `None` is the absent key.
type Seen = Option<u32>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Read(Seen),
    Write(u32),
    Cas {
        expected: Seen,
        new: u32,
    },
    /// Refused; what it met, if that was taken down.
    Refused {
        expected: Seen,
        met: Option<Seen>,
    },
}

impl Action {
    fn writes(self) -> Option<u32> {
        match self {
            Action::Write(new) | Action::Cas { new, .. } => Some(new),
            Action::Read(_) | Action::Refused { .. } => None,
        }
    }

    /// The value that this action proves to have been there.
    fn sees(self) -> Seen {
        match self {
            Action::Read(seen) | Action::Cas { expected: seen, .. } => seen,
            Action::Refused { met, .. } => met.flatten(),
            Action::Write(_) => None,
        }
    }
}

#[derive(Debug, Clone)]
struct Register;

impl Model for Register {
    type State = Seen;
    type Op = Action;
    type Metadata = ();

    fn init() -> Seen {
        None
    }

    fn step(state: &Seen, op: &Action) -> (bool, Seen) {
        match *op {
            Action::Read(seen) => (seen == *state, *state),
            Action::Write(new) => (true, Some(new)),
            Action::Cas { expected, new } => (expected == *state, Some(new)),
            Action::Refused { expected, met } => {
                (expected != *state && met.is_none_or(|met| met == *state), *state)
            }
        }
    }
}

/// One operation on one key.
#[derive(Debug, Clone, Copy)]
struct Step {
    client: u32,
    invoked: u64,
    /// `u64::MAX` while it is not known when it ended.
    completed: u64,
    known: bool,
    action: Action,
}

pub(super) fn check(operations: &[Operation]) -> Verdict {
    let mut numbers = Numbers::default();
    let mut keys: BTreeMap<&str, Vec<Step>> = BTreeMap::new();
    for operation in operations {
        match step(operation, &mut numbers) {
            Ok(Some(step)) => keys.entry(&operation.key).or_default().push(step),
            Ok(None) => {}
            Err(reason) => return Verdict::Invalid(reason),
        }
    }
    if !keys.values().flatten().any(|s| s.known && matches!(s.action, Action::Read(Some(_)))) {
        return Verdict::Invalid("no read ever saw a value".to_owned());
    }
    for (key, steps) in keys {
        let verdict = check_key(key, steps, &numbers);
        if !verdict.is_valid() {
            return verdict;
        }
    }
    Verdict::Valid
}

fn check_key(key: &str, mut steps: Vec<Step>, numbers: &Numbers) -> Verdict {
    if let Some(value) = written_twice(&steps) {
        let value = numbers.name(value);
        return Verdict::Invalid(format!("key {key:?}: {value} is written twice: not a history"));
    }
    let written: HashMap<u32, u64> =
        steps.iter().filter_map(|s| s.action.writes().map(|value| (value, s.invoked))).collect();
    for step in steps.iter().filter(|s| s.known) {
        let Some(seen) = step.action.sees() else { continue };
        let name = || numbers.name(seen);
        match written.get(&seen) {
            None => return Verdict::Invalid(format!("key {key:?}: {} came from nowhere", name())),
            Some(begun) if *begun > step.completed => {
                let reason = format!("key {key:?}: {} was seen before it was written", name());
                return Verdict::Invalid(reason);
            }
            Some(_) => {}
        }
    }
    bound_unknown(&mut steps);
    let history: Vec<porcupine_rs::Operation<Register>> = steps.iter().map(for_porcupine).collect();
    match check_operations_timeout(&history, SEARCH_MAX) {
        CheckResult::Ok => Verdict::Valid,
        CheckResult::Illegal => Verdict::Invalid(format!(
            "key {key:?}: no order of its {} operations explains what was seen",
            history.len()
        )),
        CheckResult::Unknown => Verdict::Undecided(format!("key {key:?}: search took too long")),
    }
}

/// Gives every unknown operation that was seen its latest end, and drops those that were not (see
/// the head of this module).
fn bound_unknown(steps: &mut Vec<Step>) {
    loop {
        // When each value was first proved to be there.
        let mut seen_by: HashMap<u32, u64> = HashMap::new();
        for step in steps.iter().filter(|s| s.known || s.completed != u64::MAX) {
            if let Some(seen) = step.action.sees() {
                let end = seen_by.entry(seen).or_insert(u64::MAX);
                *end = step.completed.min(*end);
            }
        }
        let mut changed = false;
        for step in steps.iter_mut().filter(|s| !s.known) {
            let end = step.action.writes().and_then(|value| seen_by.get(&value).copied());
            if let Some(end) = end.filter(|end| *end < step.completed) {
                step.completed = end;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    // A refused cas whose meeting was not taken down may have met the unseen value.
    let blind = steps.iter().any(|s| matches!(s.action, Action::Refused { met: None, .. }));
    if !blind {
        steps.retain(|step| step.known || step.completed != u64::MAX);
    }
}

fn for_porcupine(step: &Step) -> porcupine_rs::Operation<Register> {
    let time = |ns: u64| i64::try_from(ns).unwrap_or(i64::MAX);
    porcupine_rs::Operation {
        client_id: Some(step.client),
        call_time: time(step.invoked),
        return_time: time(step.completed.max(step.invoked)),
        op: step.action,
        metadata: None,
    }
}

fn written_twice(steps: &[Step]) -> Option<u32> {
    let mut seen = std::collections::HashSet::new();
    steps.iter().filter_map(|s| s.action.writes()).find(|value| !seen.insert(*value))
}

/// The step of an operation; `None` if it says nothing about the register.
fn step(operation: &Operation, numbers: &mut Numbers) -> Result<Option<Step>, String> {
    let known = match operation.outcome {
        Outcome::Fail => return Ok(None),
        Outcome::Info if operation.f == Function::Read => return Ok(None),
        Outcome::Info => false,
        Outcome::Ok => true,
    };
    let action = action(operation, known, numbers)
        .ok_or_else(|| format!("not an operation on a register: {operation:?}"))?;
    let client = u32::try_from(operation.process).unwrap_or(u32::MAX);
    let Operation { invoked, completed, .. } = *operation;
    Ok(Some(Step { client, invoked, completed, known, action }))
}

fn action(operation: &Operation, known: bool, numbers: &mut Numbers) -> Option<Action> {
    Some(match operation.f {
        Function::Read => Action::Read(numbers.seen(&operation.output)),
        Function::Write => Action::Write(numbers.seen(&operation.input)?),
        Function::Cas => {
            let [expected, new] = operation.input.as_array()?.as_slice() else { return None };
            let (expected, new) = (numbers.seen(expected), numbers.seen(new)?);
            if !known || operation.result.as_ref()?.as_bool()? {
                Action::Cas { expected, new }
            } else {
                let met = operation.current.as_ref().map(|current| numbers.seen(current));
                Action::Refused { expected, met }
            }
        }
        Function::Incr | Function::Scan | Function::Sum | Function::Txn => return None,
    })
}

/// Numbers the values, so that states are small.
#[derive(Debug, Default)]
struct Numbers {
    numbers: HashMap<String, u32>,
    names: Vec<String>,
}

impl Numbers {
    fn seen(&mut self, value: &Value) -> Seen {
        if value.is_null() {
            return None;
        }
        let name = value.to_string();
        if let Some(number) = self.numbers.get(&name) {
            return Some(*number);
        }
        let number = u32::try_from(self.names.len()).expect("a history has fewer than 2^32 values");
        self.names.push(name.clone());
        self.numbers.insert(name, number);
        Some(number)
    }

    fn name(&self, number: u32) -> &str {
        self.names.get(number as usize).map_or("?", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::testing::{End, Story};
    use crate::workload::Workload::Register;
    use serde_json::json;

    trait Steps {
        fn write(self, value: u64, times: (u64, u64)) -> Self;
        fn lost_write(self, value: u64, invoked: u64) -> Self;
        fn read(self, value: Value, times: (u64, u64)) -> Self;
        fn cas(self, values: (u64, u64), times: (u64, u64), end: End) -> Self;
    }

    impl Steps for Story {
        fn write(self, value: u64, times: (u64, u64)) -> Self {
            self.op(Function::Write, "k", json!(value), times, End::Ok(json!(value)))
        }
        fn lost_write(self, value: u64, invoked: u64) -> Self {
            self.op(Function::Write, "k", json!(value), (invoked, invoked + 1), End::Info)
        }
        fn read(self, value: Value, times: (u64, u64)) -> Self {
            self.op(Function::Read, "k", Value::Null, times, End::Ok(value))
        }
        fn cas(self, (expected, new): (u64, u64), times: (u64, u64), end: End) -> Self {
            self.op(Function::Cas, "k", json!([expected, new]), times, end)
        }
    }

    #[track_caller]
    fn valid(story: Story) {
        assert_eq!(story.verdict(Register), Verdict::Valid);
    }

    #[track_caller]
    fn invalid(story: Story, because: &str) {
        let verdict = story.verdict(Register);
        assert!(matches!(&verdict, Verdict::Invalid(r) if r.contains(because)), "{verdict:?}");
    }

    #[test]
    fn a_sequential_history_is_valid() {
        valid(
            Story::default()
                .read(Value::Null, (1, 2))
                .write(1, (3, 4))
                .read(json!(1), (5, 6))
                .cas((1, 2), (7, 8), End::Result(json!(true)))
                .cas((1, 3), (9, 10), End::Refused(json!(2)))
                .read(json!(2), (11, 12)),
        );
    }

    #[test]
    fn a_read_beside_a_write_may_see_either_value() {
        for seen in [1, 2] {
            valid(Story::default().write(1, (1, 2)).write(2, (3, 9)).read(json!(seen), (4, 5)));
        }
    }

    #[test]
    fn a_lost_write_is_rejected() {
        invalid(
            Story::default().write(1, (1, 2)).write(2, (3, 4)).read(json!(1), (5, 6)),
            "no order",
        );
    }

    #[test]
    fn a_stale_read_after_a_fresh_one_is_rejected() {
        let story = Story::default()
            .write(1, (1, 2))
            .write(2, (3, 20))
            .read(json!(2), (4, 6))
            .read(json!(1), (7, 9));
        invalid(story, "no order");
    }

    #[test]
    fn a_value_that_was_never_written_is_rejected() {
        let story = Story::default().write(1, (1, 2)).read(json!(7), (3, 4));
        invalid(story, "came from nowhere");
    }

    #[test]
    fn a_refused_write_that_shows_up_is_rejected() {
        let story = Story::default()
            .write(1, (1, 2))
            .op(Function::Write, "k", json!(2), (3, 4), End::Fail)
            .read(json!(2), (5, 6));
        invalid(story, "came from nowhere");
    }

    #[test]
    fn two_compare_and_sets_of_the_same_value_are_rejected() {
        let story = Story::default()
            .write(1, (1, 2))
            .cas((1, 2), (3, 9), End::Result(json!(true)))
            .cas((1, 3), (4, 9), End::Result(json!(true)))
            .read(json!(3), (10, 11));
        invalid(story, "no order");
    }

    #[test]
    fn a_refused_compare_and_set_is_a_read() {
        let story = Story::default().write(1, (1, 2)).write(2, (3, 4)).read(json!(2), (5, 6)).cas(
            (9, 3),
            (7, 8),
            End::Refused(json!(1)),
        );
        invalid(story, "no order");
    }

    #[test]
    fn an_unknown_write_may_be_seen_late_or_never() {
        let base = || Story::default().write(1, (1, 2)).lost_write(2, 3).read(json!(1), (5, 6));
        valid(base().read(json!(2), (100, 101)));
        valid(base().read(json!(1), (100, 101)));
    }

    #[test]
    fn an_unknown_write_cannot_come_back_after_it_was_overwritten() {
        let story = Story::default()
            .lost_write(1, 1)
            .read(json!(1), (5, 6))
            .write(2, (7, 8))
            .read(json!(2), (9, 10))
            .read(json!(1), (11, 12));
        invalid(story, "no order");
    }

    #[test]
    fn an_unknown_compare_and_set_that_was_seen_has_seen_its_expectation() {
        let story = |last: u64| {
            Story::default()
                .write(1, (1, 2))
                .lost_write(2, 3)
                .cas((2, 3), (5, 6), End::Info)
                .read(json!(last), (7, 8))
        };
        valid(story(3));
        valid(story(1));
        // Value 2 was proved to be there only by the cas, and it cannot come back.
        invalid(story(3).read(json!(2), (9, 10)), "no order");
    }

    #[test]
    fn many_unknown_writes_are_decided_quickly() {
        let mut story = Story::default().write(1, (1, 2));
        for i in 0..300 {
            story =
                story.lost_write(1000 + i, 10 + i).write(2000 + i, (400 + 10 * i, 405 + 10 * i));
        }
        invalid(story.read(json!(1), (10_000, 10_001)), "no order");
    }

    #[test]
    fn a_run_in_which_nothing_was_read_does_not_pass() {
        invalid(Story::default().write(1, (1, 2)).read(Value::Null, (1, 3)), "no read");
    }
}
