//! What a load does.

use super::keys::Keys;
use crate::args::Workload;
use crate::command::client_presplit;
use crate::failure::Failure;
use bytes::Bytes;
use futures::StreamExt;
use isotherm_client::aggregate::QueryText;
use isotherm_client::{AggregateOptions, Client, ClientError, ScanOptions, Write};
use isotherm_types::{Key, KeyRange};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore};

const FILL_BATCH: u64 = 500;
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

/// Does one operation. Scans and aggregates stay below `prefix`.
pub async fn operate(
    client: &Client,
    kind: Kind,
    key: Key,
    value: Bytes,
    prefix: &str,
    scan_rows: u64,
) -> Result<(), ClientError> {
    match kind {
        Kind::Put | Kind::Insert => client.put(key, value).await.map(|_| ()),
        Kind::Modify => {
            client.get(key.clone()).await?;
            client.put(key, value).await.map(|_| ())
        }
        Kind::Cas => increment_by_hand(client, key).await,
        Kind::Get => client.get(key).await.map(|_| ()),
        Kind::Incr => client.incr(key, 1).await.map(|_| ()),
        Kind::Scan => {
            let all = KeyRange::prefix(prefix.as_bytes());
            let span = KeyRange::new(key, all.end().clone()).unwrap_or(all);
            let options = ScanOptions { span, limit: Some(scan_rows), ..ScanOptions::default() };
            client.scan(options).collect().await.map(|_| ())
        }
        Kind::Aggregate => {
            let query =
                QueryText { functions: "count,sum,avg,min,max".to_owned(), ..QueryText::default() };
            let span = KeyRange::prefix(prefix.as_bytes());
            let options = AggregateOptions { span, query, at: None };
            client.aggregate(options).await.map(|_| ())
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
) -> Result<(), Failure> {
    let value = |n: u64| match workload {
        Workload::Aggregate => format!("{}.{:02}", n % 1_000_003, n % 97).into_bytes(),
        _ => vec![b'.'; value_size],
    };
    let starts = (0..keys.count()).step_by(FILL_BATCH as usize);
    let batches = starts.map(|start| {
        let end = (start + FILL_BATCH).min(keys.count());
        let writes: Vec<_> = (start..end).map(|n| Write::put(keys.key(n), value(n))).collect();
        client.batch(writes)
    });
    let mut running = futures::stream::iter(batches).buffer_unordered(FILLS_AT_ONCE);
    while let Some(written) = running.next().await {
        written?;
    }
    Ok(())
}
