//! A fingerprint of a span, to compare replicas.

use super::db::Cf;
use super::scan::within;
use super::snapshot::DataSnapshot;
use crate::{Result, key};
use isotherm_types::KeyRange;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

/// Fingerprint of all rows of a span, older versions included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Checksum {
    /// xxh3 over keys and values with their lengths, `live` first, in key order.
    pub hash: u64,
    /// How many rows went in.
    pub rows: u64,
}

impl DataSnapshot {
    /// The fingerprint of `span`: equal on two replicas that applied the same entries.
    pub fn checksum(&self, span: &KeyRange) -> Result<Checksum> {
        let bounds = key::bounds(span);
        let mut hasher = Xxh3::new();
        let mut rows = 0;
        for cf in [Cf::Live, Cf::History] {
            let mut options = within(&bounds);
            options.fill_cache(false);
            options.set_readahead_size(1 << 20);
            let mut iter = self.at.iter(cf, options);
            iter.seek_to_first();
            while let Some((key, value)) = iter.item()? {
                hasher.update(&(key.len() as u64).to_be_bytes());
                hasher.update(key);
                hasher.update(&(value.len() as u64).to_be_bytes());
                hasher.update(value);
                rows += 1;
                iter.next();
            }
            // Where one family ends and the next begins.
            hasher.update(&rows.to_be_bytes());
        }
        Ok(Checksum { hash: hasher.digest(), rows })
    }
}
