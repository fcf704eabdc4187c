//! Increments of a few keys by all clients, with reads in between.

use std::time::Instant;

use serde_json::json;

use super::client::{Answer, WorkloadClient};
use super::keys::spread;
use crate::history::Function;
use crate::target::Target;

/// Few, so that clients meet; more than one, so that several ranges take part.
const KEYS: u64 = 5;

/// Largest amount of one increment. Amounts from a span this wide are told apart by their sums; four
/// million of them fit into 64 bits.
const BY_MAX: i64 = 1 << 42;

#[derive(Debug)]
pub(super) struct Counter;

impl Counter {
    pub(super) async fn step<T: Target>(&self, client: &mut WorkloadClient<T>) {
        let key = spread("counter", client.rng.u64(0..KEYS));
        if client.rng.u8(0..5) == 0 {
            client.read(&key).await;
            return;
        }
        let by = client.rng.i64(1..=BY_MAX);
        let target = client.target.clone();
        let work = async {
            let sum = target.incr(&key, by).await?;
            Ok(Answer { result: Some(json!(sum)), ..Answer::default() })
        };
        client.perform(Function::Incr, key.as_str(), json!(by), work).await;
    }

    pub(super) async fn finish<T: Target>(
        &self,
        client: &mut WorkloadClient<T>,
        deadline: Instant,
    ) -> Result<(), String> {
        for n in 0..KEYS {
            client.read_until(&spread("counter", n), deadline).await?;
        }
        Ok(())
    }
}
