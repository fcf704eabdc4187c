//! What a load does.

use super::keys::Keys;
use crate::args::Workload;
use crate::command::client_presplit;
use crate::failure::Failure;
use bytes::Bytes;
use futures::StreamExt;
use isotherm_client::{Client, ClientError, Write};
use isotherm_types::Key;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore};

const FILL_BATCH: u64 = 500;
const FILLS_AT_ONCE: usize = 16;

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Put,
    Get,
    Incr,
}

pub fn pick(workload: Workload, read_percent: u8, rng: &mut SmallRng) -> Kind {
    match workload {
        Workload::Put => Kind::Put,
        Workload::Get => Kind::Get,
        Workload::Incr => Kind::Incr,
        Workload::Mixed if rng.random_range(0..100) < read_percent => Kind::Get,
        Workload::Mixed => Kind::Put,
    }
}

/// A value of random bytes: nothing on the way can compress it.
pub fn value(size: usize, rng: &mut SmallRng) -> Bytes {
    let mut value = vec![0; size];
    rng.fill_bytes(&mut value);
    value.into()
}

pub async fn operate(
    client: &Client,
    kind: Kind,
    key: Key,
    value: Bytes,
) -> Result<(), ClientError> {
    match kind {
        Kind::Put => client.put(key, value).await.map(|_| ()),
        Kind::Get => client.get(key).await.map(|_| ()),
        Kind::Incr => client.incr(key, 1).await.map(|_| ()),
    }
}

/// Splits the keys into `pieces` ranges.
pub async fn presplit(client: &Client, keys: &Keys, pieces: usize) -> Result<(), Failure> {
    let sample = (0..keys.count().min(20_000)).map(|n| keys.key(n)).collect();
    client_presplit(client, sample, pieces).await
}

/// Writes every key once.
pub async fn fill(client: &Client, keys: &Keys, value_size: usize) -> Result<(), Failure> {
    let starts = (0..keys.count()).step_by(FILL_BATCH as usize);
    let batches = starts.map(|start| {
        let end = (start + FILL_BATCH).min(keys.count());
        let writes: Vec<_> =
            (start..end).map(|n| Write::put(keys.key(n), vec![b'.'; value_size])).collect();
        client.batch(writes)
    });
    let mut running = futures::stream::iter(batches).buffer_unordered(FILLS_AT_ONCE);
    while let Some(written) = running.next().await {
        written?;
    }
    Ok(())
}
