//! The history: one JSON line per event, so that any checker can read it.
//!
//! `{"process":1,"type":"invoke","f":"write","key":"k","value":7,"time":12}`, times in nanoseconds
//! since the start. The first line has type `meta` and says what the run was. Beyond the common
//! fields a completion may have `result` (of `cas` and `incr`), `current` (the value that a refused
//! `cas` met), `rows` (how many rows a `scan` or a `sum` saw, doubles counted), `groups` (of a `sum`
//! by the first bytes of the key: `{"a":[rows,total]}`) and `error`.
//!
//! The key of a `sum` is `""` for everything or `{"from":a,"to":b}`, its value the total. A `txn` is
//! a list of `["incr",key,by]` that take effect together. In the workload `comments` the value at
//! key number n is n, and a `scan` lists the numbers as runs, `{"numbers":[[0,41],[43,50]]}`, beside
//! `"others":{key:value}` for rows that are not of this form: written out, its many scans of
//! everything would fill the memory.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Place of an event in the life of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventType {
    /// The operation begins.
    Invoke,
    /// It was applied, and the answer is known.
    Ok,
    /// It was certainly not applied.
    Fail,
    /// Nobody knows whether it was applied, or ever will be.
    Info,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Function {
    /// Reads a key.
    Read,
    /// Writes a key.
    Write,
    /// Compare and set; the value is `[expected, new]`.
    Cas,
    /// Adds the value to a number.
    Incr,
    /// Reads all keys of a span at one moment.
    Scan,
    /// Counts and sums the rows of a span at one moment.
    Sum,
    /// Several increments that take effect together.
    Txn,
}

impl Function {
    /// Its name in histories.
    pub fn name(self) -> &'static str {
        match self {
            Function::Read => "read",
            Function::Write => "write",
            Function::Cas => "cas",
            Function::Incr => "incr",
            Function::Scan => "scan",
            Function::Sum => "sum",
            Function::Txn => "txn",
        }
    }

    /// Whether it changes nothing.
    pub fn is_read(self) -> bool {
        matches!(self, Function::Read | Function::Scan | Function::Sum)
    }
}

/// One line of a history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The client; it has at most one open operation, and none after an `info`.
    pub process: u64,
    /// Invocation or completion.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// What the operation does.
    pub f: Function,
    /// On which key (or keys).
    pub key: Value,
    /// Argument of the invocation, answer of the completion.
    #[serde(default)]
    pub value: Value,
    /// Nanoseconds since the start of the run.
    pub time: u64,
    /// Outcome of a `cas` (bool) or value after an `incr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Value that a refused `cas` met; `null` for an absent key.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub current: Option<Value>,
    /// Rows of a `scan`, before doubled keys fall together in its map; rows of a `sum`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Groups of a `sum`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Value>,
    /// Why it did not end `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A field that is there with `null` differs from one that is not there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// What a run was: the first line of its history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The workload.
    pub workload: String,
    /// The faults.
    pub nemesis: String,
    /// The seed.
    pub seed: u64,
    /// Length of the run under faults.
    pub seconds: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename = "meta")]
struct MetaLine {
    #[serde(flatten)]
    meta: Meta,
}

/// Takes down events; shared by all clients of a run.
#[derive(Debug)]
pub struct Recorder {
    start: Instant,
    events: Mutex<Vec<Event>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { start: Instant::now(), events: Mutex::new(Vec::new()) }
    }
}

impl Recorder {
    /// Takes down `event`, whose time is set to now.
    pub fn record(&self, mut event: Event) {
        let mut events = self.events.lock();
        // Read under the lock, so that the order of lines is the order of times.
        event.time = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        events.push(event);
    }

    /// Everything taken down so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().clone()
    }
}

/// Writes a history to `path`.
pub fn save(path: &Path, meta: &Meta, events: &[Event]) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut out = BufWriter::new(file);
    write_line(&mut out, &MetaLine { meta: meta.clone() })?;
    for event in events {
        write_line(&mut out, event)?;
    }
    out.flush().with_context(|| format!("write {}", path.display()))
}

/// Reads the events of a history; meta lines are passed over.
pub fn load(path: &Path) -> anyhow::Result<Vec<Event>> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut events = Vec::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let at = || format!("{}:{}", path.display(), number + 1);
        let value: Value = serde_json::from_str(&line).with_context(at)?;
        if value.get("type").and_then(Value::as_str) == Some("meta") {
            continue;
        }
        events.push(serde_json::from_value(value).with_context(at)?);
    }
    if events.is_empty() {
        bail!("{} has no events", path.display());
    }
    Ok(events)
}

fn write_line(out: &mut impl Write, line: &impl Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    Ok(out.write_all(b"\n")?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn event(line: &Value) -> Event {
        serde_json::from_value(line.clone()).unwrap()
    }

    #[test]
    fn lines_have_the_documented_form() {
        let line = json!({"process":3,"type":"ok","f":"cas","key":"k","value":[1,2],
            "time":9,"result":false,"current":null});
        let parsed = event(&line);
        assert_eq!(parsed.current, Some(Value::Null));
        assert_eq!(serde_json::to_value(&parsed).unwrap(), line);
        let bare = json!({"process":0,"type":"invoke","f":"read","key":"k","value":null,"time":1});
        assert_eq!(event(&bare).current, None);
        assert_eq!(serde_json::to_value(event(&bare)).unwrap(), bare);
    }

    #[test]
    fn a_saved_history_is_read_back() {
        let recorder = Recorder::default();
        let line = json!({"process":0,"type":"invoke","f":"write","key":"k","value":7,"time":0});
        recorder.record(event(&line));
        recorder.record(event(&line));
        let events = recorder.events();
        assert!(events[0].time <= events[1].time);
        let file = tempfile::NamedTempFile::new().unwrap();
        let meta = Meta { workload: "set".into(), nemesis: "kill".into(), seed: 1, seconds: 2 };
        save(file.path(), &meta, &events).unwrap();
        assert_eq!(load(file.path()).unwrap(), events);
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert!(text.starts_with(r#"{"type":"meta","workload":"set""#), "{text}");
    }

    #[test]
    fn an_empty_history_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(load(file.path()).is_err());
    }
}
