//! Exact sums of doubles.

use num_bigint::BigInt;
use serde::{Deserialize, Serialize};

/// Bits between two limbs.
const RADIX: u32 = 32;
/// Additions after which carries must move up: a limb takes 2³¹ times 32 bits.
const ADDITIONS_MAX: u32 = 1 << 30;

/// What a sum must be able to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Width {
    /// Doubles: from 2⁻¹⁰⁷⁴ to 2¹⁰²⁴, and 64 bits for their number.
    Values,
    /// Squares of doubles.
    Squares,
}

impl Width {
    /// The exponent of the lowest bit.
    fn base(self) -> i32 {
        match self {
            Self::Values => -1074,
            Self::Squares => -2148,
        }
    }

    fn limbs(self) -> usize {
        let bits = match self {
            Self::Values => 1074 + 1024 + 64,
            Self::Squares => 2148 + 2048 + 64,
        };
        // One more for the sign and one for what a mantissa overlaps.
        bits / RADIX as usize + 2
    }
}

/// A fixed-point number wide enough for every double (a superaccumulator: Kulisch 1971, Neal 2015):
/// no addition rounds, so that neither order nor grouping matters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Sparse", into = "Sparse")]
pub struct FloatSum {
    width: Width,
    /// Limb `i` counts 2^(base + 32·i); signed, so that carries can wait.
    limbs: Box<[i64]>,
    additions: u32,
}

/// Most sums touch a few limbs only: what travels is those.
#[derive(Serialize, Deserialize)]
struct Sparse {
    width: Width,
    limbs: Vec<(u8, i64)>,
}

impl From<FloatSum> for Sparse {
    fn from(mut sum: FloatSum) -> Self {
        sum.carry();
        let limbs = sum.limbs.iter().enumerate().filter(|(_, limb)| **limb != 0);
        Self { width: sum.width, limbs: limbs.map(|(i, limb)| (i as u8, *limb)).collect() }
    }
}

impl TryFrom<Sparse> for FloatSum {
    type Error = String;

    fn try_from(sparse: Sparse) -> Result<Self, String> {
        let mut sum = Self::new(sparse.width);
        for (i, limb) in sparse.limbs {
            let limb_at = sum.limbs.get_mut(usize::from(i)).ok_or("a limb beyond the last")?;
            let is_last = usize::from(i) + 1 == sparse.width.limbs();
            if limb.unsigned_abs() >> RADIX != 0 && !is_last {
                return Err("a limb with an open carry".to_owned());
            }
            *limb_at = limb;
        }
        Ok(sum)
    }
}

impl FloatSum {
    fn new(width: Width) -> Self {
        Self { width, limbs: vec![0; width.limbs()].into(), additions: 0 }
    }

    /// For values.
    pub fn of_values() -> Self {
        Self::new(Width::Values)
    }

    /// For squares.
    pub fn of_squares() -> Self {
        Self::new(Width::Squares)
    }

    /// Adds a finite value.
    pub fn add(&mut self, value: f64) {
        debug_assert!(value.is_finite());
        let (mantissa, exponent) = parts(value);
        self.add_scaled(mantissa.unsigned_abs().into(), exponent, mantissa < 0);
    }

    /// Adds the square of a finite value, which is exact too.
    pub fn add_square(&mut self, value: f64) {
        let (mantissa, exponent) = parts(value);
        let magnitude = u128::from(mantissa.unsigned_abs());
        self.add_scaled(magnitude * magnitude, exponent * 2, false);
    }

    fn add_scaled(&mut self, magnitude: u128, exponent: i32, negative: bool) {
        let at = (exponent - self.width.base()) as u32;
        let (mut limb, shift) = ((at / RADIX) as usize, at % RADIX);
        // Shifted by less than a limb; the bits that leave 128 are those of the top.
        let mut low = magnitude << shift;
        let high = if shift == 0 { 0 } else { magnitude >> (128 - shift) };
        let mut top = high;
        while low != 0 || top != 0 {
            let digit = (low & u128::from(u32::MAX)) as i64;
            self.limbs[limb] += if negative { -digit } else { digit };
            low = (low >> RADIX) | (top << (128 - RADIX));
            top >>= RADIX;
            limb += 1;
        }
        self.additions += 1;
        if self.additions >= ADDITIONS_MAX {
            self.carry();
        }
    }

    /// Adds another sum of the same kind.
    pub fn merge(&mut self, other: &Self) {
        debug_assert_eq!(self.width, other.width);
        self.carry();
        let mut other = other.clone();
        other.carry();
        for (limb, other) in self.limbs.iter_mut().zip(other.limbs) {
            *limb += other;
        }
        self.carry();
    }

    /// Moves what exceeds 32 bits up. Canonical: equal sums have equal limbs (all of them between 0
    /// and 2³² but the last, which carries the sign).
    fn carry(&mut self) {
        let mut carry = 0;
        let last = self.limbs.len() - 1;
        for limb in &mut self.limbs[..last] {
            let value = *limb + carry;
            *limb = value & i64::from(u32::MAX);
            carry = value >> RADIX;
        }
        self.limbs[last] += carry;
        self.additions = 0;
    }

    /// The sum as an integer and the exponent of 2 that goes with it.
    pub fn exact(&self) -> (BigInt, i64) {
        let mut sum = BigInt::ZERO;
        for limb in self.limbs.iter().rev() {
            sum = (sum << RADIX) + *limb;
        }
        (sum, self.width.base().into())
    }

    /// The sum as the nearest double.
    pub fn to_f64(&self) -> f64 {
        let (sum, exponent) = self.exact();
        crate::ratio::round(&sum, &1.into(), exponent)
    }
}

/// A finite double as `mantissa × 2^exponent`.
pub(crate) fn parts(value: f64) -> (i64, i32) {
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32;
    let fraction = (bits & ((1 << 52) - 1)) as i64;
    let (mantissa, exponent) =
        if exponent == 0 { (fraction, -1074) } else { (fraction | 1 << 52, exponent - 1075) };
    (if value.is_sign_negative() { -mantissa } else { mantissa }, exponent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn finite() -> impl Strategy<Value = f64> {
        let any = any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |v| v.is_finite());
        let extreme =
            prop_oneof![Just(f64::MAX), Just(f64::MIN), Just(f64::from_bits(1)), Just(-0.0)];
        prop_oneof![any, -1e6..1e6, extreme]
    }

    fn exactly(mut sum: BigInt, value: f64, square: bool) -> BigInt {
        let (m, e) = parts(value);
        if square {
            sum += (BigInt::from(m) * m) << (2 * e + 2148);
        } else {
            sum += BigInt::from(m) << (e + 1074);
        }
        sum
    }

    proptest! {
        #[test]
        fn sums_are_exact_however_they_are_cut(values in prop::collection::vec(finite(), 0..40), cut in 0usize..40) {
            let mut sums = [FloatSum::of_values(), FloatSum::of_values()];
            let mut squares = [FloatSum::of_squares(), FloatSum::of_squares()];
            let (mut model, mut model_squares) = (BigInt::ZERO, BigInt::ZERO);
            for (i, v) in values.iter().enumerate() {
                sums[usize::from(i < cut)].add(*v);
                squares[usize::from(i < cut)].add_square(*v);
                model = exactly(model, *v, false);
                model_squares = exactly(model_squares, *v, true);
            }
            let [mut sum, rest] = sums;
            sum.merge(&rest);
            prop_assert_eq!(sum.exact(), (model, -1074));
            let [mut sum, rest] = squares;
            let travelled = Sparse::from(rest);
            sum.merge(&FloatSum::try_from(travelled).expect("well-formed"));
            prop_assert_eq!(sum.exact(), (model_squares, -2148));
        }
    }

    #[test]
    fn what_rounding_would_lose_is_kept() {
        let mut sum = FloatSum::of_values();
        for value in [1e308, 1e308, 1.0, -1e308, -1e308, 1e-300] {
            sum.add(value);
        }
        assert_eq!(sum.to_f64(), 1.0);
        sum.add(-1.0);
        assert_eq!(sum.to_f64(), 1e-300);
    }

    #[test]
    fn a_malformed_sum_is_refused() {
        let sparse = |limbs| Sparse { width: Width::Values, limbs };
        assert!(FloatSum::try_from(sparse(vec![(200, 1)])).is_err());
        assert!(FloatSum::try_from(sparse(vec![(0, i64::MAX)])).is_err());
    }
}
