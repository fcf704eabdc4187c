//! What a load does.

use super::keys::Keys;
use crate::args::Workload;
use crate::command::client_presplit;
use crate::failure::{Failure, INTERRUPTED};
use bytes::Bytes;
use futures::StreamExt;
use isotherm_client::aggregate::QueryText;
use isotherm_client::{AggregateOptions, Client, ClientError, ScanOptions, Write};
use isotherm_types::{Key, KeyRange};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore};
use tokio_util::sync::CancellationToken;

const FILL_BATCH: usize = 500;
const FILL_BYTES: usize = 1 << 20;
const FILLS_AT_ONCE: usize = 16;

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Put,
    /// A put of a key that is not there yet.
    Insert,
    Get,
    Incr,
    /// An increment by hand.
    Cas,
    /// A get, and a put of the same key.
    Modify,
    Scan,
    Aggregate,
}

impl Kind {
    /// Whether it writes a value of its own.
    pub fn needs_value(self) -> bool {
        matches!(self, Self::Put | Self::Insert | Self::Modify)
    }
}

pub fn pick(workload: Workload, read_percent: u8, rng: &mut SmallRng) -> Kind {
    let mut either = |percent: u8, first: Kind, second: Kind| {
        if rng.random_range(0..100) < percent { first } else { second }
    };
    match workload {
        Workload::Put | Workload::Append => Kind::Put,
        Workload::Scan => Kind::Scan,
        Workload::Aggregate => Kind::Aggregate,
        Workload::Get | Workload::YcsbC => Kind::Get,
        Workload::Incr => Kind::Incr,
        Workload::Cas => Kind::Cas,
        Workload::Mixed | Workload::HotspotShift => either(read_percent, Kind::Get, Kind::Put),
        Workload::YcsbA => either(50, Kind::Get, Kind::Put),
        Workload::YcsbB => either(95, Kind::Get, Kind::Put),
        Workload::YcsbD => either(95, Kind::Get, Kind::Insert),
        Workload::YcsbE => either(95, Kind::Scan, Kind::Insert),
        Workload::YcsbF => either(50, Kind::Get, Kind::Modify),
    }
}

/// A value of random bytes: nothing on the way can compress it.
pub fn value(size: usize, rng: &mut SmallRng) -> Bytes {
    let mut value = vec![0; size];
    rng.fill_bytes(&mut value);
    value.into()
}

/// Whether an operation met what it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    Something,
    /// A read of a key that is not there.
    Nothing,
}

/// Does one operation. Scans and aggregates stay below `prefix`.
pub async fn operate(
    client: &Client,
    kind: Kind,
    key: Key,
    value: Bytes,
    prefix: &str,
    scan_rows: u64,
) -> Result<Met, ClientError> {
    let met = |found: bool| if found { Met::Something } else { Met::Nothing };
    match kind {
        Kind::Put | Kind::Insert => client.put(key, value).await.map(|_| Met::Something),
        Kind::Modify => {
            let found = client.get(key.clone()).await?.is_some();
            client.put(key, value).await.map(|_| met(found))
        }
        Kind::Cas => increment_by_hand(client, key).await.map(|()| Met::Something),
        Kind::Get => client.get(key).await.map(|row| met(row.is_some())),
        Kind::Incr => client.incr(key, 1).await.map(|_| Met::Something),
        Kind::Scan => {
            let all = KeyRange::prefix(prefix.as_bytes());
            let span = KeyRange::new(key, all.end().clone()).unwrap_or(all);
            let options = ScanOptions { span, limit: Some(scan_rows), ..ScanOptions::default() };
            client.scan(options).collect().await.map(|rows| met(!rows.is_empty()))
        }
        Kind::Aggregate => {
            let query =
                QueryText { functions: "count,sum,avg,min,max".to_owned(), ..QueryText::default() };
            let span = KeyRange::prefix(prefix.as_bytes());
            let options = AggregateOptions { span, query, at: None };
            client.aggregate(options).await.map(|done| met(done.answer.rows > 0))
        }
    }
}

/// What `incr` saves: everybody but one has to begin again.
async fn increment_by_hand(client: &Client, key: Key) -> Result<(), ClientError> {
    let mut current = client.get(key.clone()).await?.map(|row| row.value);
    loop {
        let text = current.as_deref().map_or("0".into(), String::from_utf8_lossy);
        let next = (text.parse::<i64>().unwrap_or(0) + 1).to_string();
        let outcome = client.cas(key.clone(), current, next).await?;
        if outcome.applied {
            return Ok(());
        }
        current = match outcome.current_forgotten {
            false => outcome.current,
            true => client.get(key.clone()).await?.map(|row| row.value),
        };
    }
}

/// Splits the keys into `pieces` ranges.
pub async fn presplit(client: &Client, keys: &Keys, pieces: usize) -> Result<(), Failure> {
    let sample = (0..keys.count().min(20_000)).map(|n| keys.key(n)).collect();
    client_presplit(client, sample, pieces).await
}

/// Writes every key once; with decimal numbers if they are to be summed.
pub async fn fill(
    client: &Client,
    keys: &Keys,
    workload: Workload,
    value_size: usize,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let value = |n: u64| match workload {
        Workload::Aggregate => format!("{}.{:02}", n % 1_000_003, n % 97).into_bytes(),
        _ => vec![b'.'; value_size],
    };
    // As many rows as a request takes bytes of, at most.
    let rows = (FILL_BYTES / (value_size + 64)).clamp(1, FILL_BATCH) as u64;
    let starts = (0..keys.count()).step_by(rows as usize);
    let batches = starts.map(|start| {
        let end = (start + rows).min(keys.count());
        let writes: Vec<_> = (start..end).map(|n| Write::put(keys.key(n), value(n))).collect();
        async move { client.write_all(writes).await.map(|_| end - start) }
    });
    let mut running = futures::stream::iter(batches).buffer_unordered(FILLS_AT_ONCE);
    let mut done = 0;
    loop {
        match stop.run_until_cancelled(running.next()).await {
            Some(Some(written)) => done += written?,
            Some(None) => return Ok(()),
            None => {
                let all = keys.count();
                let why = format!("interrupted while keys were written first: {done} of {all}");
                return Err(Failure::new(INTERRUPTED, why));
            }
        }
    }
}
