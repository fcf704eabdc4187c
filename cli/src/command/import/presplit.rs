//! Splitting before the rows come, so that they meet several ranges from the first on.

use super::lines::{Columns, Line, read};
use crate::failure::{Failure, UNEXPECTED};
use isotherm_client::Client;
use isotherm_types::Key;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Keys that are looked at.
pub const SAMPLE_ROWS: usize = 20_000;

/// Keys from all over a file, each as likely as any other (algorithm R, Vitter 1985): files are
/// often sorted, and their beginning says nothing about their end.
pub async fn sample(file: &Path, columns: &Arc<Columns>) -> Result<Vec<Key>, Failure> {
    let input = Box::new(File::open(file)?);
    let (lines, mut queue) = mpsc::channel(4096);
    let columns = columns.clone();
    let reader = std::thread::spawn(move || read(input, &columns, &lines));
    let mut rng = SmallRng::seed_from_u64(1);
    let mut keys = Vec::new();
    let mut seen = 0;
    while let Some(line) = queue.recv().await {
        let Line::Row(_, key, _) = line else { continue };
        seen += 1;
        if keys.len() < SAMPLE_ROWS {
            keys.push(key);
        } else {
            let at = rng.random_range(0..seen);
            if let Some(place) = keys.get_mut(at) {
                *place = key;
            }
        }
    }
    let read = reader.join().map_err(|_| Failure::new(UNEXPECTED, "reading the file failed"))?;
    read.map_err(|e| Failure::new(UNEXPECTED, format!("reading the file failed: {e}")))?;
    Ok(keys)
}

/// Splits so that about as many of `keys` lie in each of `pieces`.
pub async fn presplit(client: &Client, mut keys: Vec<Key>, pieces: usize) -> Result<(), Failure> {
    keys.sort_unstable();
    keys.dedup();
    let mut cuts: Vec<Key> =
        (1..pieces).filter_map(|i| keys.get(i * keys.len() / pieces.max(1)).cloned()).collect();
    cuts.dedup();
    for cut in cuts {
        match client.admin().split(cut).await {
            Ok(_) => {}
            // A range begins there already.
            Err(error) if error.kind == isotherm_client::ErrorKind::Condition => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
