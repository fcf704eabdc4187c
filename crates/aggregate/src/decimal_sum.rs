//! Exact sums of decimals and of their squares.

use crate::Decimal;
use num_bigint::{BigInt, Sign};
use serde::{Deserialize, Serialize};

/// A sum of [`Decimal`]s in 192 bits: 2⁶³ of the largest fit, so that it cannot overflow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecimalSum {
    low: u128,
    high: i64,
}

impl DecimalSum {
    /// Adds one.
    #[inline]
    pub fn add(&mut self, value: Decimal) {
        let (low, carry) = self.low.overflowing_add(value.0 as u128);
        self.low = low;
        self.high = self.high.wrapping_add((value.0 >> 127) as i64 + i64::from(carry));
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        let (low, carry) = self.low.overflowing_add(other.low);
        self.low = low;
        self.high = self.high.wrapping_add(other.high).wrapping_add(i64::from(carry));
    }

    /// In units of 10⁻¹⁸.
    pub fn units(&self) -> BigInt {
        (BigInt::from(self.high) << 128) + BigInt::from(self.low)
    }
}

/// A sum of squares of [`Decimal`]s in units of 10⁻³⁶; 2⁶⁴ of the largest fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SquareSum([u64; 5]);

impl SquareSum {
    pub fn add(&mut self, value: Decimal) {
        let magnitude = value.0.unsigned_abs();
        let (low, high) = (magnitude as u64, (magnitude >> 64) as u64);
        let multiply = |a: u64, b: u64| u128::from(a) * u128::from(b);
        // (high·2⁶⁴ + low)²; the magnitude is at most 2¹²⁷, so that twice the middle fits.
        let (lowest, middle, highest) =
            (multiply(low, low), multiply(low, high), multiply(high, high));
        self.add_limbs([lowest as u64, (lowest >> 64) as u64, 0, 0, 0]);
        self.add_limbs([0, (middle << 1) as u64, (middle >> 63) as u64, (middle >> 127) as u64, 0]);
        self.add_limbs([0, 0, highest as u64, (highest >> 64) as u64, 0]);
    }

    pub fn merge(&mut self, other: &Self) {
        self.add_limbs(other.0);
    }

    fn add_limbs(&mut self, other: [u64; 5]) {
        let mut carry = false;
        for (limb, other) in self.0.iter_mut().zip(other) {
            let (sum, first) = limb.overflowing_add(other);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = first || second;
        }
    }

    pub fn units(&self) -> BigInt {
        let bytes: Vec<u8> = self.0.iter().flat_map(|limb| limb.to_le_bytes()).collect();
        BigInt::from_bytes_le(Sign::Plus, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = i128> {
        let extreme = prop_oneof![Just(i128::MAX), Just(-i128::MAX), Just(0), Just(1), Just(-1)];
        prop_oneof![
            any::<i128>().prop_map(|v| v.max(-i128::MAX)),
            any::<i64>().prop_map(i128::from),
            extreme
        ]
    }

    proptest! {
        #[test]
        fn sums_agree_with_big_integers(values in prop::collection::vec(value(), 0..50), cut in 0usize..50) {
            let (mut sum, mut squares) = (DecimalSum::default(), SquareSum::default());
            let (mut rest, mut rest_squares) = (sum, squares);
            let (mut model, mut model_squares) = (BigInt::ZERO, BigInt::ZERO);
            for (i, v) in values.iter().enumerate() {
                let (s, q) = if i < cut { (&mut sum, &mut squares) } else { (&mut rest, &mut rest_squares) };
                s.add(Decimal(*v));
                q.add(Decimal(*v));
                model += *v;
                model_squares += BigInt::from(*v) * *v;
            }
            sum.merge(&rest);
            squares.merge(&rest_squares);
            prop_assert_eq!(sum.units(), model);
            prop_assert_eq!(squares.units(), model_squares);
        }
    }
}
