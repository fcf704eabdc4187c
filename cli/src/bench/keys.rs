//! Which keys a load meets: 16 printable bytes, spread evenly over the printable key space.

use crate::args::{Bench, Distribution, Workload};
use isotherm_types::Key;
use rand::Rng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution as _, Zipf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
    /// So many keys side by side are hot; which ones changes every so often.
    Hotspot {
        hot: u64,
        shift: Option<Duration>,
        began: Instant,
    },
    /// Always a new one, behind all others, those of earlier loads too: they begin at the time.
    Append {
        first: u64,
    },
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
        let hotspot =
            |shift| Choice::Hotspot { hot: (args.keys / 100).max(1), shift, began: Instant::now() };
        let dist = match args.workload {
            Workload::YcsbD => Distribution::Latest,
            Workload::YcsbA
            | Workload::YcsbB
            | Workload::YcsbC
            | Workload::YcsbE
            | Workload::YcsbF => Distribution::Zipfian,
            _ => args.dist,
        };
        let choice = match dist {
            Distribution::Uniform => Choice::Uniform,
            Distribution::Zipfian => Choice::Zipfian(zipf()),
            Distribution::Latest => Choice::Latest(zipf()),
            Distribution::Hotspot => hotspot(None),
        };
        let choice = match args.workload {
            Workload::Append => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Choice::Append { first: since.as_micros() as u64 }
            }
            Workload::HotspotShift => hotspot(Some(args.shift)),
            _ => choice,
        };
        let counts = matches!(args.workload, Workload::Incr | Workload::Cas);
        let suffix = if counts { "#" } else { "" };
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

    /// The `n`-th key. Where some are hot together, neighbours in number are neighbours in order;
    /// else they are far apart.
    pub fn key(&self, n: u64) -> Key {
        let mut text = self.prefix.clone().into_bytes();
        if let Choice::Hotspot { .. } = self.choice {
            // Evenly over the key space: the digits of n / count.
            let count = u128::from(self.count);
            let mut rest = u128::from(n % self.count);
            for _ in 0..KEY_BYTES {
                rest *= u128::from(LETTERS);
                text.push(FIRST + (rest / count) as u8);
                rest %= count;
            }
            text.extend_from_slice(self.suffix.as_bytes());
            return text.into();
        }
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
            Choice::Append { first } => {
                let n = first + self.appended.fetch_add(1, Ordering::Relaxed);
                return format!("{}{:020}", self.prefix, n).into();
            }
            Choice::Uniform => rng.random_range(0..self.count),
            Choice::Zipfian(zipf) => (zipf.sample(rng) as u64 - 1).min(last),
            Choice::Latest(zipf) => {
                let last = last + self.appended.load(Ordering::Relaxed);
                last - (zipf.sample(rng) as u64 - 1).min(last)
            }
            Choice::Hotspot { hot, shift, began } if rng.random_ratio(9, 10) => {
                let turn = shift.map_or(0, |shift| {
                    (began.elapsed().as_nanos() / shift.as_nanos().max(1)) as u64
                });
                // In the middle at first, then anywhere.
                let first = if turn == 0 { self.count / 2 } else { scatter(turn) % self.count };
                (first + rng.random_range(0..*hot)) % self.count
            }
            Choice::Hotspot { .. } => rng.random_range(0..self.count),
        };
        self.key(n)
    }

    /// A key that is not there yet.
    pub fn insert(&self) -> Key {
        self.key(self.count + self.appended.fetch_add(1, Ordering::Relaxed))
    }
}
