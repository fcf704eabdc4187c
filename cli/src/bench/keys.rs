//! Which keys a load meets: 16 printable bytes, spread evenly over the printable key space.
//!
//! The `n`-th key is the same for every distribution and every number of keys: what was loaded for one is
//! there for another.

use crate::args::{Bench, Distribution, Workload};
use isotherm_types::Key;
use rand::Rng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution as _, Zipf};
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const KEY_BYTES: usize = 16;
const FIRST: u8 = 0x21;
const LETTERS: u64 = 0x7f - FIRST as u64;

/// Hot keys are looked for among the first so many: that takes some tenths of a second.
const SEARCHED_MAX: u64 = 4_000_000;

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
        hot: usize,
        shift: Option<Duration>,
        began: Instant,
        /// Those of a turn, by number.
        now: Mutex<(u64, Arc<[u64]>)>,
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

/// What follows the prefix in the `n`-th key.
fn letters(n: u64) -> [u8; KEY_BYTES] {
    let mut rest = scatter(n);
    // The most significant letter first, so that the spread shows in the order of keys.
    std::array::from_fn(|_| {
        let letter = FIRST + (rest % LETTERS) as u8;
        rest = if rest < LETTERS { scatter(rest ^ n) } else { rest / LETTERS };
        letter
    })
}

/// The numbers of as many of the first `count` keys as are hot in a turn: neighbours in order, in the
/// middle of the key space at first, then anywhere.
fn side_by_side(count: u64, turn: u64, hot: usize) -> Arc<[u64]> {
    let place = |n: u64| u128::from_be_bytes(letters(n));
    let middle = u128::from_be_bytes([FIRST + (LETTERS / 2) as u8; KEY_BYTES]);
    let from = if turn == 0 { middle } else { place(scatter(turn)) };
    // The nearest above it, and from the beginning on behind the last.
    let mut nearest = BinaryHeap::with_capacity(hot + 1);
    for n in 0..count.min(SEARCHED_MAX) {
        nearest.push((place(n).wrapping_sub(from), n));
        if nearest.len() > hot {
            nearest.pop();
        }
    }
    nearest.into_iter().map(|(_, n)| n).collect()
}

impl Keys {
    pub fn new(args: &Bench) -> Self {
        let zipf =
            || Zipf::new(args.keys as f64, 0.99).expect("at least one key and a positive exponent");
        let hotspot = |shift| {
            let hot = (args.keys.min(SEARCHED_MAX) / 100).max(1) as usize;
            let now = Mutex::new((0, side_by_side(args.keys, 0, hot)));
            Choice::Hotspot { hot, shift, began: Instant::now(), now }
        };
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

    /// The `n`-th key. Neighbours in number are far apart in order.
    pub fn key(&self, n: u64) -> Key {
        let mut text = self.prefix.clone().into_bytes();
        text.extend(letters(n));
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
            Choice::Hotspot { hot, shift, began, now } if rng.random_ratio(9, 10) => {
                let turn = shift.map_or(0, |shift| {
                    (began.elapsed().as_nanos() / shift.as_nanos().max(1)) as u64
                });
                let hot = {
                    // A shift waits for the first that meets it, as all others do.
                    let mut now = now.lock().unwrap_or_else(PoisonError::into_inner);
                    if now.0 != turn {
                        *now = (turn, side_by_side(self.count, turn, *hot));
                    }
                    now.1.clone()
                };
                hot[rng.random_range(0..hot.len())]
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser;
    use rand::SeedableRng;
    use std::collections::BTreeSet;

    fn keys(args: &[&str]) -> Keys {
        let cli = Args::try_parse_from([&["isotherm", "bench"][..], args].concat()).unwrap();
        let Command::Bench(bench) = cli.command else { panic!("{args:?}") };
        Keys::new(&bench)
    }

    #[test]
    fn every_distribution_meets_the_keys_that_any_other_loads() {
        let loaded: BTreeSet<Key> = {
            let keys = keys(&["get", "--keys", "1000"]);
            (0..1000).map(|n| keys.key(n)).collect()
        };
        assert_eq!(loaded.len(), 1000);
        for dist in ["uniform", "zipfian", "latest", "hotspot"] {
            let mut rng = SmallRng::seed_from_u64(1);
            // Fewer keys are some of them.
            for count in ["1000", "300"] {
                let keys = keys(&["get", "--dist", dist, "--keys", count]);
                assert!((0..2000).all(|_| loaded.contains(&keys.pick(&mut rng))), "{dist} {count}");
            }
        }
        let shifting = keys(&["hotspot-shift", "--keys", "1000", "--shift", "1ms"]);
        let mut rng = SmallRng::seed_from_u64(1);
        assert!((0..2000).all(|_| loaded.contains(&shifting.pick(&mut rng))));
    }

    #[test]
    fn hot_keys_are_neighbours_in_order() {
        let mut order: Vec<u64> = (0..1000).collect();
        order.sort_by_key(|n| letters(*n));
        for turn in 0..20 {
            let hot: BTreeSet<u64> = side_by_side(1000, turn, 10).iter().copied().collect();
            assert_eq!(hot.len(), 10);
            // From one that is not hot to one that is there is one step, around the end as well.
            let is_hot = |at: usize| hot.contains(&order[at % 1000]);
            assert_eq!((0..1000).filter(|at| !is_hot(*at) && is_hot(at + 1)).count(), 1, "{turn}");
        }
        assert_eq!(side_by_side(3, 5, 1).len(), 1);
    }
}
