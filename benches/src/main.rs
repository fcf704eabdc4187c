//! `disk-sync DIR`: what one sync costs on the disk of a directory.
//!
//! Every acknowledged write waits for two of these, so figures of two machines mean little without
//! them. A file that grows and one that is overwritten differ: the second needs no new blocks and
//! no new length on disk, which is why the log recycles its files.

use anyhow::{Context, ensure};
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

const SYNCS: u64 = 500;
const RECORD_BYTES: usize = 512;

/// Microseconds.
#[derive(Debug, Serialize)]
struct Quantiles {
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
}

fn quantiles(mut micros: Vec<u64>) -> Quantiles {
    micros.sort_unstable();
    let at = |percent: usize| micros[(micros.len() * percent / 100).min(micros.len() - 1)];
    Quantiles { p50_us: at(50), p90_us: at(90), p99_us: at(99) }
}

/// Writes a record and syncs, again and again.
fn measure(file: &File) -> anyhow::Result<Quantiles> {
    let record = [7; RECORD_BYTES];
    let mut micros = Vec::new();
    for n in 0..SYNCS {
        file.write_all_at(&record, n * RECORD_BYTES as u64)?;
        let begun = Instant::now();
        file.sync_data()?;
        micros.push(begun.elapsed().as_micros() as u64);
    }
    Ok(quantiles(micros))
}

fn run(dir: &Path) -> anyhow::Result<()> {
    ensure!(dir.is_dir(), "{} is not a directory", dir.display());
    let path = dir.join("disk-sync.tmp");
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    let measured = measure(&file).and_then(|growing| Ok((growing, measure(&file)?)));
    std::fs::remove_file(&path)?;
    let (growing, overwriting) = measured?;
    let line = serde_json::json!({"growing": growing, "overwriting": overwriting});
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let dir = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    run(&dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_taken_from_the_sorted_list() {
        let q = quantiles((1..=100).rev().collect());
        assert_eq!((q.p50_us, q.p90_us, q.p99_us), (51, 91, 100));
    }
}
