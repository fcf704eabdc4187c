//! Sketches: answers that are near, from little memory, and that do not depend on how the rows
//! were divided.

use crate::number::Number;
use crate::{Rules, ValueSource};
use datasketches::hll::{HllSketch, HllType, HllUnion};
use serde::{Deserialize, Serialize};
use sketches_ddsketch::{Config, DDSketch};
use std::borrow::Cow;

/// 2¹² registers of a byte: a standard error of 1.04 / √4096 = 1.6 %.
const LG_REGISTERS: u8 = 12;

/// How many different values there are. Exact enough to be called exact below some hundreds,
/// which are kept one by one.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub(crate) struct Distinct(HllSketch);

impl Default for Distinct {
    fn default() -> Self {
        Self(HllSketch::new(LG_REGISTERS, HllType::Hll8).expect("a valid precision"))
    }
}

impl Distinct {
    /// Adds a part of a value: numbers by what they are, everything else by how it is written.
    pub fn add(
        &mut self,
        number: Option<&Number>,
        source: &ValueSource,
        part: &[u8],
        rules: Rules,
    ) {
        if rules < Rules::Second {
            return match number {
                Some(Number::Decimal(decimal)) => self.0.update(&decimal.0.to_le_bytes()[..]),
                Some(Number::Float(float)) => self.0.update(&(float + 0.0).to_le_bytes()[..]),
                _ => self.0.update(&*padded(&source.text(part))),
            };
        }
        // Of each kind under its own tag.
        match number {
            Some(Number::Decimal(decimal)) => self.0.update((0_u8, decimal.0)),
            Some(Number::Float(float)) => self.0.update((1_u8, (float + 0.0).to_bits())),
            Some(Number::Big(big)) => {
                self.0.update((2_u8, big.is_negative(), big.digits(), big.exponent()));
            }
            None if source.path().is_none() || part.starts_with(b"\"") => {
                self.0.update((3_u8, &*source.text(part)));
            }
            // null, true, arrays, objects: the texts that say so are strings.
            None => self.0.update((4_u8, part)),
        }
    }

    pub fn merge(&mut self, other: &Self) {
        let mut union = HllUnion::new(LG_REGISTERS).expect("a valid precision");
        union.update(&self.0);
        union.update(&other.0);
        self.0 = union.to_sketch(HllType::Hll8);
    }

    /// The estimate that does not depend on the order in which values came.
    pub fn estimate(&self) -> u64 {
        // Through a union also when there was only one part, so that both count alike.
        let mut union = HllUnion::new(LG_REGISTERS).expect("a valid precision");
        union.update(&self.0);
        union.composite_estimate().round() as u64
    }

    pub fn size_bytes(&self) -> usize {
        self.0.estimated_size()
    }
}

impl From<Distinct> for Vec<u8> {
    fn from(distinct: Distinct) -> Self {
        distinct.0.serialize()
    }
}

impl TryFrom<Vec<u8>> for Distinct {
    type Error = String;

    fn try_from(bytes: Vec<u8>) -> Result<Self, String> {
        let sketch = HllSketch::deserialize(&bytes).map_err(|e| e.to_string())?;
        if sketch.lg_config_k() != LG_REGISTERS {
            return Err("a sketch of another precision".to_owned());
        }
        Ok(Self(sketch))
    }
}

/// Text in a form that no number of the first rules has, which are 8 or 16 bytes.
fn padded(text: &[u8]) -> Cow<'_, [u8]> {
    if matches!(text.len(), 8 | 16) {
        Cow::Owned([text, &[0]].concat())
    } else {
        Cow::Borrowed(text)
    }
}

/// Relative error of a quantile.
const ERROR: f64 = 0.01;
/// Buckets on each side of zero, of which there are as many as lie between the least and the greatest
/// number: with 1 % error all doubles fall into 72,711 of them.
const BUCKETS: u32 = 576 * 128;
/// Up to this a number counts as zero.
const SMALLEST: f64 = 5e-324;
/// Both by the first rules: a factor of 10³⁵; what lies lower falls into the lowest.
const FIRST_BUCKETS: u32 = 4096;
const FIRST_SMALLEST: f64 = 1e-300;

/// The distribution of numbers.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    sketch: DDSketch,
    below: u64,
    above: u64,
}

impl Quantiles {
    pub fn new(rules: Rules) -> Self {
        let config = match rules {
            Rules::First => Config::new(ERROR, FIRST_BUCKETS, FIRST_SMALLEST),
            Rules::Second => Config::new(ERROR, BUCKETS, SMALLEST),
        };
        Self { sketch: DDSketch::new(config), below: 0, above: 0 }
    }

    /// Adds a number; returns by how many bytes it has grown.
    pub fn add(&mut self, value: f64) -> usize {
        let before = self.sketch.length();
        if value == f64::INFINITY {
            self.above += 1;
        } else if value == f64::NEG_INFINITY {
            self.below += 1;
        } else {
            // Minus zero is zero: which of the two came first must not show.
            self.sketch.add(value + 0.0);
        }
        (self.sketch.length() - before) * size_of::<u64>()
    }

    pub fn merge(&mut self, other: &Self) -> Result<(), String> {
        self.below += other.below;
        self.above += other.above;
        self.sketch.merge(&other.sketch).map_err(|e| e.to_string())
    }

    /// The value below which `millionths` of all lie; none of no values.
    pub fn quantile(&self, millionths: u32) -> Option<f64> {
        let finite = self.sketch.count() as u64;
        let count = self.below + finite + self.above;
        // Rank among all, in integers: no rounding can move it.
        let rank =
            u64::try_from(u128::from(count.checked_sub(1)?) * u128::from(millionths) / 1_000_000)
                .ok()?;
        if rank < self.below {
            return Some(f64::NEG_INFINITY);
        }
        let rank = rank - self.below;
        if rank >= finite {
            return Some(f64::INFINITY);
        }
        // The middle of what rounds down to this rank.
        let q = if finite > 1 { (rank as f64 + 0.5) / (finite - 1) as f64 } else { 0.0 };
        let q = if rank == 0 && self.below == 0 && millionths == 0 { 0.0 } else { q.min(1.0) };
        let near = self.sketch.quantile(q).ok()??;
        // The middle of a bucket can lie outside of what was seen.
        Some(near.clamp(self.sketch.min()?, self.sketch.max()?))
    }

    pub fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.sketch.length() * size_of::<u64>()
    }
}
