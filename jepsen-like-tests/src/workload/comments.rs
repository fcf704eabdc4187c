//! Inserts numbered in the order in which they are tried, all over the key space, while others look
//! at everything.
//!
//! The name is Jepsen's: a comment that answers another one must not be seen without it. Numbers
//! come from one counter and are taken before the insert begins.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use isotherm_types::KeyRange;
use serde_json::{Map, Value, json};

use super::client::{Answer, WorkloadClient};
use super::keys::spread;
use crate::history::Function;
use crate::runs::Runs;
use crate::target::Target;

/// First bytes of a key that name its group: as many groups as a history can hold of every sum.
pub(crate) const COMMENT_GROUP_BYTES: usize = 1;

#[derive(Debug, Default)]
pub(super) struct Comments {
    next: AtomicU64,
}

impl Comments {
    pub(super) async fn step<T: Target>(&self, client: &mut WorkloadClient<T>) {
        if client.is_reader() {
            match client.rng.u8(0..4) {
                0 => drop(client.sum(&KeyRange::all(), None).await),
                1 => drop(client.sum(&KeyRange::all(), Some(COMMENT_GROUP_BYTES)).await),
                // Only a scan says which inserts it saw.
                _ => drop(scan(client).await),
            }
            return;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (key, text) = (key(number), number.to_string());
        let target = client.target.clone();
        let work = async { target.put(&key, &text).await.map(|()| Answer::default()) };
        client.perform(Function::Write, key.as_str(), json!(number), work).await;
    }

    pub(super) async fn finish<T: Target>(
        &self,
        client: &mut WorkloadClient<T>,
        deadline: Instant,
    ) -> Result<(), String> {
        while scan(client).await.is_none() {
            if Instant::now() >= deadline {
                return Err("the final scan does not succeed".to_owned());
            }
            client.pause_before_retry().await;
        }
        client.sum_until(COMMENT_GROUP_BYTES, deadline).await
    }
}

fn key(number: u64) -> String {
    spread("comment", number)
}

/// Scans everything and takes down the numbers.
async fn scan<T: Target>(client: &mut WorkloadClient<T>) -> Option<Answer> {
    let target = client.target.clone();
    let work = async {
        let rows = target.scan_all().await?;
        let count = rows.len() as u64;
        let mut others = Map::new();
        let number = |(row, value): (String, String)| match value.parse() {
            Ok(number) if key(number) == row => Some(number),
            _ => {
                others.insert(row, value.into());
                None
            }
        };
        let numbers: Runs = rows.into_iter().filter_map(number).collect();
        let mut seen = json!({ "numbers": numbers });
        if !others.is_empty() {
            seen["others"] = others.into();
        }
        Ok(Answer { value: seen, rows: Some(count), ..Answer::default() })
    };
    client.perform(Function::Scan, "", Value::Null, work).await
}
