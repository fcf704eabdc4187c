//! Which keys a load meets: 16 printable bytes, spread evenly over the printable key space.

use crate::args::{Bench, Distribution, Workload};
use isotherm_types::Key;
use rand::Rng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution as _, Zipf};
use std::sync::atomic::{AtomicU64, Ordering};

const KEY_BYTES: usize = 16;
const FIRST: u8 = 0x21;
const LETTERS: u64 = 0x7f - FIRST as u64;

/// The keys of one load.
pub struct Keys {
    count: u64,
    prefix: String,
    /// Keeps counters apart from keys that hold other values.
    suffix: &'static str,
    choice: Choice,
    /// Keys that were appended.
    appended: AtomicU64,
}

enum Choice {
    Uniform,
    Zipfian(Zipf<f64>),
    Latest(Zipf<f64>),
    /// Share of the keys that is hot.
    Hotspot(u64),
    /// Always a new one, behind all others.
    Append,
}

/// Spreads numbers so that neighbours are far apart (splitmix64, Steele et al. 2014).
fn scatter(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Keys {
    pub fn new(args: &Bench) -> Self {
        let zipf =
            || Zipf::new(args.keys as f64, 0.99).expect("at least one key and a positive exponent");
        let choice = match args.dist {
            Distribution::Uniform => Choice::Uniform,
            Distribution::Zipfian => Choice::Zipfian(zipf()),
            Distribution::Latest => Choice::Latest(zipf()),
            Distribution::Hotspot => Choice::Hotspot((args.keys / 100).max(1)),
        };
        let choice = if args.workload == Workload::Append { Choice::Append } else { choice };
        let suffix = if args.workload == Workload::Incr { "#" } else { "" };
        Self {
            count: args.keys,
            prefix: args.prefix.clone(),
            suffix,
            choice,
            appended: AtomicU64::new(0),
        }
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// The `n`-th key.
    pub fn key(&self, n: u64) -> Key {
        let mut text = self.prefix.clone().into_bytes();
        let mut rest = scatter(n);
        // The most significant letter first, so that the spread shows in the order of keys.
        for _ in 0..KEY_BYTES {
            text.push(FIRST + (rest % LETTERS) as u8);
            rest = if rest < LETTERS { scatter(rest ^ n) } else { rest / LETTERS };
        }
        text.extend_from_slice(self.suffix.as_bytes());
        text.into()
    }

    /// A key by the load's distribution.
    pub fn pick(&self, rng: &mut SmallRng) -> Key {
        let last = self.count - 1;
        let n = match &self.choice {
            Choice::Append => {
                let n = self.appended.fetch_add(1, Ordering::Relaxed);
                return format!("{}{:020}", self.prefix, n).into();
            }
            Choice::Uniform => rng.random_range(0..self.count),
            Choice::Zipfian(zipf) => (zipf.sample(rng) as u64 - 1).min(last),
            Choice::Latest(zipf) => last - (zipf.sample(rng) as u64 - 1).min(last),
            Choice::Hotspot(hot) if rng.random_ratio(9, 10) => rng.random_range(0..*hot),
            Choice::Hotspot(_) => rng.random_range(0..self.count),
        };
        self.key(n)
    }
}
