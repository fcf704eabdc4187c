//! One client of a workload: performs operations and takes them down.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use isotherm_types::KeyRange;
use serde_json::{Map, Value, json};

use crate::history::{Event, EventType, Function, Recorder};
use crate::target::{OpError, Target};

/// Longest pause between two operations of a client. A pause keeps histories at a size that
/// checkers finish with; eight clients still give thousands of operations a second.
const THINK_MICROS_MAX: u64 = 3000;
/// Pause between attempts at a final read.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What goes into the completion of an operation.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) value: Value,
    pub(super) result: Option<Value>,
    pub(super) current: Option<Value>,
    pub(super) rows: Option<u64>,
    pub(super) groups: Option<Value>,
}

impl Answer {
    pub(super) fn value(value: Value) -> Self {
        Self { value, ..Self::default() }
    }
}

#[derive(Debug)]
pub(super) struct WorkloadClient<T> {
    pub(super) number: usize,
    pub(super) target: T,
    pub(super) rng: Rng,
    recorder: Arc<Recorder>,
    process: u64,
    processes: Arc<AtomicU64>,
}

impl<T> WorkloadClient<T> {
    /// Whether this client only looks, in workloads that tell clients apart: three of eight, some
    /// of them patient.
    pub(super) fn is_reader(&self) -> bool {
        matches!(self.number % 8, 1 | 4 | 6)
    }
}

impl<T: Target> WorkloadClient<T> {
    pub(super) fn new(
        number: usize,
        target: T,
        recorder: Arc<Recorder>,
        processes: Arc<AtomicU64>,
        rng: Rng,
    ) -> Self {
        let process = processes.fetch_add(1, Ordering::Relaxed);
        Self { number, target, rng, recorder, process, processes }
    }

    /// Performs `work` as an operation of the history. `None` if it did not end `ok`.
    pub(super) async fn perform(
        &mut self,
        f: Function,
        key: impl Into<Value>,
        input: Value,
        work: impl Future<Output = Result<Answer, OpError>> + Send,
    ) -> Option<Answer> {
        let event = Event {
            process: self.process,
            kind: EventType::Invoke,
            f,
            key: key.into(),
            value: input,
            time: 0,
            result: None,
            current: None,
            rows: None,
            groups: None,
            error: None,
        };
        self.recorder.record(event.clone());
        match work.await {
            Ok(answer) => {
                let value = if f.is_read() { &answer.value } else { &event.value }.clone();
                self.recorder.record(Event {
                    kind: EventType::Ok,
                    value,
                    result: answer.result.clone(),
                    current: answer.current.clone(),
                    rows: answer.rows,
                    groups: answer.groups.clone(),
                    ..event
                });
                Some(answer)
            }
            Err(error) => {
                self.failed(event, &error);
                None
            }
        }
    }

    fn failed(&mut self, event: Event, error: &OpError) {
        // A read changes nothing, so one without an answer is known not to be applied.
        let kind = match error {
            OpError::Unknown(_) if !event.f.is_read() => EventType::Info,
            _ => EventType::Fail,
        };
        if kind == EventType::Info {
            // The operation stays open for ever; whoever goes on is a new process.
            self.process = self.processes.fetch_add(1, Ordering::Relaxed);
        }
        self.recorder.record(Event { kind, error: Some(error.to_string()), ..event });
    }

    pub(super) async fn think(&mut self) {
        tokio::time::sleep(Duration::from_micros(self.rng.u64(0..THINK_MICROS_MAX))).await;
    }

    /// Pause between attempts at what must succeed in the end.
    pub(super) async fn pause_before_retry(&self) {
        tokio::time::sleep(RETRY_PAUSE).await;
    }

    /// Reads a number at `key`; an absent key is `null`.
    pub(super) async fn read(&mut self, key: &str) -> Option<Answer> {
        let target = self.target.clone();
        let work = async { target.get(key).await.map(|value| Answer::value(number(value))) };
        self.perform(Function::Read, key, Value::Null, work).await
    }

    /// Scans everything.
    pub(super) async fn scan(&mut self) -> Option<Answer> {
        let target = self.target.clone();
        let work = async {
            let rows = target.scan_all().await?;
            let count = rows.len() as u64;
            let map: Map<String, Value> =
                rows.into_iter().map(|(key, value)| (key, number(Some(value)))).collect();
            Ok(Answer { value: map.into(), rows: Some(count), ..Answer::default() })
        };
        self.perform(Function::Scan, "", Value::Null, work).await
    }

    /// Counts and sums the rows of `span`; by that many first bytes of their keys too, if given.
    pub(super) async fn sum(
        &mut self,
        span: &KeyRange,
        group_bytes: Option<usize>,
    ) -> Option<Answer> {
        let target = self.target.clone();
        let work = async {
            let totals = target.totals(span, group_bytes).await?;
            Ok(Answer {
                value: json!(totals.total),
                rows: Some(totals.rows),
                groups: totals.groups.map(|groups| json!(groups)),
                ..Answer::default()
            })
        };
        self.perform(Function::Sum, span_key(span), Value::Null, work).await
    }

    /// Reads `key` until that succeeds.
    pub(super) async fn read_until(&mut self, key: &str, deadline: Instant) -> Result<(), String> {
        while self.read(key).await.is_none() {
            if Instant::now() >= deadline {
                return Err(format!("final read of {key:?} does not succeed"));
            }
            self.pause_before_retry().await;
        }
        Ok(())
    }

    /// Counts and sums everything, by groups too, until that succeeds.
    pub(super) async fn sum_until(
        &mut self,
        group_bytes: usize,
        deadline: Instant,
    ) -> Result<(), String> {
        while self.sum(&KeyRange::all(), Some(group_bytes)).await.is_none() {
            if Instant::now() >= deadline {
                return Err("the final sum does not succeed".to_owned());
            }
            self.pause_before_retry().await;
        }
        Ok(())
    }

    /// Scans everything until that succeeds.
    pub(super) async fn scan_until(&mut self, deadline: Instant) -> Result<(), String> {
        while self.scan().await.is_none() {
            if Instant::now() >= deadline {
                return Err("the final scan does not succeed".to_owned());
            }
            self.pause_before_retry().await;
        }
        Ok(())
    }
}

/// How a history names a span of text keys.
fn span_key(span: &KeyRange) -> Value {
    if *span == KeyRange::all() {
        return Value::from("");
    }
    let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
    json!({"from": text(span.start()), "to": text(span.end())})
}

/// Values are decimal numbers in the store and numbers in the history.
fn number(value: Option<String>) -> Value {
    value.map_or(Value::Null, |text| text.parse::<i64>().map_or(Value::String(text), Value::from))
}

/// The value that a refused compare and set met, for the history.
pub(super) fn met(current: Option<String>) -> Value {
    number(current)
}
