//! Exact sums of decimals of any size.

use crate::big_decimal::{BigDecimal, HIGHEST, LOWEST};
use num_bigint::{BigInt, BigUint};
use serde::{Deserialize, Serialize};

/// Digits of one limb.
const DIGITS: usize = 9;
const RADIX: i64 = 1_000_000_000;
const POWERS: [i64; DIGITS] =
    [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];
/// Additions after which carries must move up: a limb takes 9 × 10⁹ of them.
const ADDITIONS_MAX: u32 = 1 << 30;
/// Digits that 2⁶⁴ of the largest need on top of those of one.
const COUNT_DIGITS: usize = 20;

/// What a sum must be able to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Width {
    Values,
    Squares,
}

impl Width {
    fn factor(self) -> i64 {
        match self {
            Self::Values => 1,
            Self::Squares => 2,
        }
    }

    /// The power of ten of the lowest digit.
    fn base(self) -> i64 {
        LOWEST * self.factor()
    }

    fn limbs(self) -> usize {
        let digits = ((HIGHEST - LOWEST) * self.factor()) as usize + COUNT_DIGITS;
        // One more for the sign.
        digits.div_ceil(DIGITS) + 1
    }
}

/// A fixed-point number of decimal limbs, wide enough for every summable decimal: no addition rounds,
/// so that neither order nor grouping matters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Sparse", into = "Sparse")]
pub(crate) struct WideSum {
    width: Width,
    /// Limb `i` counts 10^(base + 9·i); signed, so that carries can wait.
    limbs: Box<[i64]>,
    additions: u32,
}

/// Most sums touch a few limbs only: what travels is those.
#[derive(Serialize, Deserialize)]
struct Sparse {
    width: Width,
    limbs: Vec<(u8, i64)>,
}

impl From<WideSum> for Sparse {
    fn from(mut sum: WideSum) -> Self {
        sum.carry();
        let limbs = sum.limbs.iter().enumerate().filter(|(_, limb)| **limb != 0);
        Self { width: sum.width, limbs: limbs.map(|(i, limb)| (i as u8, *limb)).collect() }
    }
}

impl TryFrom<Sparse> for WideSum {
    type Error = String;

    fn try_from(sparse: Sparse) -> Result<Self, String> {
        let mut sum = Self::new(sparse.width);
        let last = sum.limbs.len() - 1;
        for (i, limb) in sparse.limbs {
            let i = usize::from(i);
            if !(0..RADIX).contains(&limb) && (i != last || limb.unsigned_abs() >> 32 != 0) {
                return Err("a limb with an open carry".to_owned());
            }
            *sum.limbs.get_mut(i).ok_or("a limb beyond the last")? = limb;
        }
        Ok(sum)
    }
}

impl WideSum {
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

    /// Adds a summable decimal.
    pub fn add(&mut self, value: &BigDecimal) {
        let digits = value.digits().iter().rev().copied();
        self.add_digits(digits, value.exponent(), value.is_negative());
    }

    /// Adds the square of a summable decimal.
    pub fn add_square(&mut self, value: &BigDecimal) {
        let root = BigUint::from_radix_be(value.digits(), 10).unwrap_or_default();
        let square = (&root * &root).to_radix_le(10);
        self.add_digits(square.into_iter(), value.exponent() * 2, false);
    }

    /// Adds digits of which the lowest, which comes first, has this power of ten.
    fn add_digits(&mut self, digits: impl Iterator<Item = u8>, exponent: i64, negative: bool) {
        let lowest = (exponent - self.width.base()) as usize;
        let (mut limb, mut place, mut part) = (lowest / DIGITS, lowest % DIGITS, 0);
        let signed = |part: i64| if negative { -part } else { part };
        for digit in digits {
            part += i64::from(digit) * POWERS[place];
            place += 1;
            if place == DIGITS {
                self.limbs[limb] += signed(part);
                (limb, place, part) = (limb + 1, 0, 0);
            }
        }
        if part != 0 {
            self.limbs[limb] += signed(part);
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

    /// Moves what exceeds nine digits up. Canonical: equal sums have equal limbs (all of them between
    /// 0 and 10⁹ but the last, which carries the sign).
    fn carry(&mut self) {
        let mut carry = 0;
        let last = self.limbs.len() - 1;
        for limb in &mut self.limbs[..last] {
            let value = *limb + carry;
            *limb = value.rem_euclid(RADIX);
            carry = value.div_euclid(RADIX);
        }
        self.limbs[last] += carry;
        self.additions = 0;
    }

    /// In units of the lowest digit: 10⁻³⁴² of values, 10⁻⁶⁸⁴ of squares.
    pub fn units(&self) -> BigInt {
        let mut units = BigInt::ZERO;
        for limb in self.limbs.iter().rev() {
            units = units * RADIX + *limb;
        }
        units
    }

    pub fn size_bytes(&self) -> usize {
        size_of_val(&self.limbs[..])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn exactly(value: &BigDecimal) -> BigInt {
        let digits: String = value.digits().iter().map(|d| char::from(d + b'0')).collect();
        let magnitude = digits.parse::<BigInt>().unwrap_or_default();
        let power = BigInt::from(10).pow((value.exponent() - LOWEST) as u32);
        magnitude * power * if value.is_negative() { -1 } else { 1 }
    }

    proptest! {
        #[test]
        fn sums_are_exact_however_they_are_cut(
            values in prop::collection::vec(("-?[0-9]{1,40}", -342_i64..268), 0..40), cut in 0usize..40,
        ) {
            let mut sums = [WideSum::of_values(), WideSum::of_values()];
            let mut squares = [WideSum::of_squares(), WideSum::of_squares()];
            let (mut model, mut model_squares) = (BigInt::ZERO, BigInt::ZERO);
            for (i, (digits, exponent)) in values.iter().enumerate() {
                let value = BigDecimal::parse(format!("{digits}e{exponent}").as_bytes()).unwrap();
                prop_assert!(value.is_summable());
                sums[usize::from(i < cut)].add(&value);
                squares[usize::from(i < cut)].add_square(&value);
                model += exactly(&value);
                model_squares += exactly(&value) * exactly(&value);
            }
            let [mut sum, rest] = sums;
            sum.merge(&rest);
            prop_assert_eq!(sum.units(), model);
            let [mut sum, rest] = squares;
            sum.merge(&WideSum::try_from(Sparse::from(rest)).unwrap());
            prop_assert_eq!(sum.units(), model_squares);
        }
    }

    #[test]
    fn a_malformed_sum_is_refused() {
        let sparse = |limbs| Sparse { width: Width::Values, limbs };
        assert!(WideSum::try_from(sparse(vec![(200, 1)])).is_err());
        assert!(WideSum::try_from(sparse(vec![(0, RADIX)])).is_err());
        assert!(WideSum::try_from(sparse(vec![(0, -1)])).is_err());
    }
}
