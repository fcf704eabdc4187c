//! Pairs the events of a history into operations.

use std::collections::HashMap;

use serde_json::Value;

use crate::history::{Event, EventType, Function};

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Applied, answer known.
    Ok,
    /// Certainly not applied.
    Fail,
    /// Unknown, and it may still be applied at any later time.
    Info,
}

/// An operation from invocation to completion.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// The client.
    pub process: u64,
    /// What it does.
    pub f: Function,
    /// On which key.
    pub key: String,
    /// Argument.
    pub input: Value,
    /// Answer; only of use when `outcome` is `Ok`.
    pub output: Value,
    /// Outcome of a `cas`, value after an `incr`.
    pub result: Option<Value>,
    /// Value that a refused `cas` met, if it was taken down.
    pub current: Option<Value>,
    /// Rows of a `scan` or a `sum`.
    pub rows: Option<u64>,
    /// Groups of a `sum`.
    pub groups: Option<Value>,
    /// How it ended.
    pub outcome: Outcome,
    /// When it began, in nanoseconds.
    pub invoked: u64,
    /// When it ended; `u64::MAX` if the outcome is unknown.
    pub completed: u64,
}

/// Counts of operations by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All operations.
    pub ops: usize,
    /// Applied.
    pub ok: usize,
    /// Certainly not applied.
    pub fail: usize,
    /// Unknown.
    pub info: usize,
}

impl Counts {
    /// Counts `operations`.
    pub fn of(operations: &[Operation]) -> Self {
        let mut counts = Self { ops: operations.len(), ..Self::default() };
        for operation in operations {
            match operation.outcome {
                Outcome::Ok => counts.ok += 1,
                Outcome::Fail => counts.fail += 1,
                Outcome::Info => counts.info += 1,
            }
        }
        counts
    }
}

/// The operations of `events`, by time of invocation. An operation without a completion is
/// unknown. The error says what is wrong with the history itself.
pub fn pair(events: &[Event]) -> Result<Vec<Operation>, String> {
    let mut operations: Vec<Operation> = Vec::with_capacity(events.len() / 2);
    let mut open: HashMap<u64, usize> = HashMap::new();
    for event in events {
        let process = event.process;
        if event.kind == EventType::Invoke {
            if open.insert(process, operations.len()).is_some() {
                return Err(format!("process {process} invokes while an operation is open"));
            }
            operations.push(begun(event));
            continue;
        }
        let index = open
            .remove(&process)
            .ok_or_else(|| format!("process {process} completes what it did not invoke"))?;
        complete(&mut operations[index], event)?;
    }
    operations.sort_by_key(|operation| operation.invoked);
    Ok(operations)
}

fn begun(event: &Event) -> Operation {
    Operation {
        process: event.process,
        f: event.f,
        key: key_text(&event.key),
        input: event.value.clone(),
        output: Value::Null,
        result: None,
        current: None,
        rows: None,
        groups: None,
        outcome: Outcome::Info,
        invoked: event.time,
        completed: u64::MAX,
    }
}

fn complete(operation: &mut Operation, event: &Event) -> Result<(), String> {
    if event.f != operation.f || event.time < operation.invoked {
        return Err(format!("process {}: completion does not fit", event.process));
    }
    operation.outcome = match event.kind {
        EventType::Ok => Outcome::Ok,
        EventType::Fail => Outcome::Fail,
        EventType::Info | EventType::Invoke => Outcome::Info,
    };
    if operation.outcome != Outcome::Info {
        operation.completed = event.time;
    }
    operation.output = event.value.clone();
    operation.result = event.result.clone();
    operation.current = event.current.clone();
    operation.rows = event.rows;
    operation.groups = event.groups.clone();
    Ok(())
}

fn key_text(key: &Value) -> String {
    key.as_str().map_or_else(|| key.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::check::testing::history;

    #[test]
    fn events_pair_by_process_and_open_ones_are_unknown() {
        let events = history(
            r#"{"process":0,"type":"invoke","f":"write","key":"k","value":1,"time":1}
               {"process":1,"type":"invoke","f":"read","key":"k","value":null,"time":2}
               {"process":1,"type":"ok","f":"read","key":"k","value":1,"time":3}
               {"process":2,"type":"invoke","f":"write","key":"k","value":2,"time":4}
               {"process":2,"type":"info","f":"write","key":"k","value":2,"time":5}
               {"process":3,"type":"invoke","f":"write","key":"k","value":3,"time":6}
               {"process":3,"type":"fail","f":"write","key":"k","value":3,"time":7}"#,
        );
        let operations = pair(&events).unwrap();
        assert_eq!(Counts::of(&operations), Counts { ops: 4, ok: 1, fail: 1, info: 2 });
        assert_eq!((operations[0].outcome, operations[0].completed), (Outcome::Info, u64::MAX));
        assert_eq!((operations[1].outcome, operations[1].completed), (Outcome::Ok, 3));
        assert_eq!(operations[2].completed, u64::MAX);
    }

    #[test]
    fn a_malformed_history_is_refused() {
        let twice = history(
            r#"{"process":0,"type":"invoke","f":"read","key":"k","time":1}
               {"process":0,"type":"invoke","f":"read","key":"k","time":2}"#,
        );
        assert!(pair(&twice).is_err());
        let lone = history(r#"{"process":0,"type":"ok","f":"read","key":"k","time":1}"#);
        assert!(pair(&lone).is_err());
    }
}
