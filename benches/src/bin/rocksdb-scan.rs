//! `rocksdb-scan DIR [ROUNDS]`: what a bare RocksDB iterator needs for every row of a node's data
//! directory, which may be in use. The best that any aggregate over the same rows could do.

use anyhow::Context;
use rocksdb::{BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, Options, ReadOptions};
use std::io::Write;
use std::path::PathBuf;

/// What nodes have by default.
const CACHE_BYTES: usize = 256 << 20;

/// Of this thread: what others do on the machine does not count.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args_os().skip(1);
    let dir = PathBuf::from(args.next().context("usage: rocksdb-scan DIR [ROUNDS]")?);
    let rounds: u32 = match args.next() {
        Some(rounds) => rounds.to_string_lossy().parse().context("ROUNDS is a number")?,
        None => 5,
    };
    let options = Options::default();
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
    let names = DB::list_cf(&options, &dir).with_context(|| format!("open {}", dir.display()))?;
    let families = names.iter().map(|name| {
        let mut family = Options::default();
        family.set_block_based_table_factory(&table);
        ColumnFamilyDescriptor::new(name, family)
    });
    let db = DB::open_cf_descriptors_read_only(&options, &dir, families, false)?;
    let live = db.cf_handle("live").context("no column family `live`: is it a node's data?")?;
    let (mut best, mut rows, mut bytes) = (f64::MAX, 0_u64, 0_u64);
    for _ in 0..rounds {
        let begun = cpu_seconds();
        (rows, bytes) = (0, 0);
        let mut it = db.raw_iterator_cf_opt(live, ReadOptions::default());
        it.seek_to_first();
        while let Some((key, value)) = it.item() {
            rows += 1;
            bytes += (key.len() + value.len()) as u64;
            it.next();
        }
        it.status()?;
        best = best.min(cpu_seconds() - begun);
    }
    let line = serde_json::json!({
        "rows": rows,
        "bytes": bytes,
        "cpu_seconds": best,
        "rows_per_s": rows as f64 / best,
    });
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
