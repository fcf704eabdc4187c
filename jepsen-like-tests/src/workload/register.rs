//! Reads, writes and compare-and-sets on a few keys at a time.
//!
//! A key is given up after some hundred operations and a fresh one takes its place: the time to
//! check a key grows faster than its history.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::client::{Answer, WorkloadClient, met};
use super::keys::spread;
use crate::history::Function;
use crate::target::Target;

/// Keys in use at one time: few, so that clients meet.
const KEYS: usize = 6;
/// Operations on a key before it is given up.
const OPERATIONS_PER_KEY: u32 = 500;

#[derive(Debug)]
struct Active {
    key: String,
    operations: u32,
    /// What somebody lately saw or wrote, as a guess for compare and set.
    last: Option<i64>,
}

#[derive(Debug)]
struct Keys {
    active: Vec<Active>,
    all: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Register {
    keys: Mutex<Keys>,
    /// Every value is written once.
    next_value: AtomicU64,
}

impl Default for Register {
    fn default() -> Self {
        let mut keys = Keys { active: Vec::new(), all: Vec::new() };
        for _ in 0..KEYS {
            let active = keys.fresh();
            keys.active.push(active);
        }
        Self { keys: Mutex::new(keys), next_value: AtomicU64::new(1) }
    }
}

impl Keys {
    fn fresh(&mut self) -> Active {
        let key = spread("register", self.all.len() as u64);
        self.all.push(key.clone());
        Active { key, operations: 0, last: None }
    }
}

impl Register {
    pub(super) async fn step<T: Target>(&self, client: &mut WorkloadClient<T>) {
        let (key, last) = self.pick(client.rng.usize(0..KEYS));
        let seen = match client.rng.u8(0..10) {
            0..4 => client.read(&key).await.map(|answer| answer.value),
            4..7 => self.write(client, &key).await,
            _ => self.cas(client, &key, last).await,
        };
        if let Some(seen) = seen {
            self.note(&key, seen.as_i64());
        }
    }

    pub(super) async fn finish<T: Target>(
        &self,
        client: &mut WorkloadClient<T>,
        deadline: Instant,
    ) -> Result<(), String> {
        let keys = self.keys.lock().all.clone();
        for key in keys {
            client.read_until(&key, deadline).await?;
        }
        Ok(())
    }

    /// A key to work on, and a guess at its value.
    fn pick(&self, index: usize) -> (String, Option<i64>) {
        let mut keys = self.keys.lock();
        if keys.active[index].operations >= OPERATIONS_PER_KEY {
            keys.active[index] = keys.fresh();
        }
        let active = &mut keys.active[index];
        active.operations += 1;
        (active.key.clone(), active.last)
    }

    fn note(&self, key: &str, seen: Option<i64>) {
        let mut keys = self.keys.lock();
        if let Some(active) = keys.active.iter_mut().find(|active| active.key == key) {
            active.last = seen;
        }
    }

    fn next_value(&self) -> u64 {
        self.next_value.fetch_add(1, Ordering::Relaxed)
    }

    async fn write<T: Target>(&self, client: &mut WorkloadClient<T>, key: &str) -> Option<Value> {
        let value = self.next_value();
        let (target, text) = (client.target.clone(), value.to_string());
        let work = async { target.put(key, &text).await.map(|()| Answer::default()) };
        client.perform(Function::Write, key, json!(value), work).await?;
        Some(json!(value))
    }

    async fn cas<T: Target>(
        &self,
        client: &mut WorkloadClient<T>,
        key: &str,
        expected: Option<i64>,
    ) -> Option<Value> {
        let new = self.next_value();
        let (target, text) = (client.target.clone(), new.to_string());
        let expected_text = expected.map(|value| value.to_string());
        let work = async {
            let answer = target.cas(key, expected_text.as_deref(), &text).await?;
            let current = (!answer.applied && answer.is_current_known).then(|| met(answer.current));
            Ok(Answer { result: Some(answer.applied.into()), current, ..Answer::default() })
        };
        let answer = client.perform(Function::Cas, key, json!([expected, new]), work).await?;
        let applied = answer.result == Some(true.into());
        answer.current.or_else(|| applied.then(|| json!(new)))
    }
}
