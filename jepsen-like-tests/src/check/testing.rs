//! Histories as text, for the tests of the checkers.
#![allow(clippy::unwrap_used)]

use crate::check::{Verdict, check};
use crate::history::{Event, EventType, Function};
use crate::workload::Workload;
use serde_json::Value;

/// Events from JSON lines.
pub(crate) fn history(lines: &str) -> Vec<Event> {
    lines.lines().map(|line| serde_json::from_str(line.trim()).unwrap()).collect()
}

/// Builds a history out of operations with given times.
#[derive(Default)]
pub(crate) struct Story {
    events: Vec<Event>,
    processes: u64,
}

impl Story {
    /// Adds an operation of a process of its own, from `times.0` to `times.1`.
    pub(crate) fn op(
        mut self,
        f: Function,
        key: impl Into<Value>,
        input: Value,
        times: (u64, u64),
        end: End,
    ) -> Self {
        self.processes += 1;
        let invoke = Event {
            process: self.processes,
            kind: EventType::Invoke,
            f,
            key: key.into(),
            value: input,
            time: times.0,
            result: None,
            current: None,
            rows: None,
            groups: None,
            error: None,
        };
        let mut done = Event { time: times.1, ..invoke.clone() };
        match end {
            End::Ok(value) => (done.kind, done.value) = (EventType::Ok, value),
            End::Result(result) => (done.kind, done.result) = (EventType::Ok, Some(result)),
            End::Refused(current) => {
                done.kind = EventType::Ok;
                (done.result, done.current) = (Some(false.into()), Some(current));
            }
            End::Scan(value, rows) => {
                (done.kind, done.value, done.rows) = (EventType::Ok, value, Some(rows));
            }
            End::Sum(total, rows, groups) => {
                (done.kind, done.value) = (EventType::Ok, total.into());
                (done.rows, done.groups) = (Some(rows), groups);
            }
            End::Fail => done.kind = EventType::Fail,
            End::Info => done.kind = EventType::Info,
        }
        self.events.extend([invoke, done]);
        self
    }

    pub(crate) fn verdict(self, workload: Workload) -> Verdict {
        let mut events = self.events;
        events.sort_by_key(|event| event.time);
        check(workload, &events)
    }
}

/// How an operation of a [`Story`] ends.
pub(crate) enum End {
    Ok(Value),
    Result(Value),
    Refused(Value),
    Scan(Value, u64),
    /// Total, rows, groups.
    Sum(i64, u64, Option<Value>),
    Fail,
    Info,
}
