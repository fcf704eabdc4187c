//! Decimals of any size.

use crate::Decimal;
use crate::decimal::sign;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// Digits below 10⁻³⁴² are not added up: a double with 17 significant digits has none there.
pub(crate) const LOWEST: i64 = -342;
/// Nor are decimals from 10³⁰⁹ on: no double is as large.
pub(crate) const HIGHEST: i64 = 309;
/// Exponents beyond this count as this.
const EXPONENT_MAX: i64 = 1 << 60;

/// A decimal of any size, exactly. Numbers that fit into a [`Decimal`] are kept as one: this is for
/// the others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub(crate) struct BigDecimal {
    negative: bool,
    /// Digits from 0 to 9, the highest first; neither the first nor the last is 0. Zero has none.
    digits: Box<[u8]>,
    /// Of the last digit.
    exponent: i64,
}

/// As it travels.
type Parts = (bool, Vec<u8>, i64);

impl From<BigDecimal> for Parts {
    fn from(value: BigDecimal) -> Self {
        (value.negative, value.digits.into_vec(), value.exponent)
    }
}

impl TryFrom<Parts> for BigDecimal {
    type Error = String;

    fn try_from((negative, digits, exponent): Parts) -> Result<Self, String> {
        let ends = digits.first().is_none_or(|d| *d != 0) && digits.last().is_none_or(|d| *d != 0);
        let value = Self { negative, digits: digits.into(), exponent };
        if !ends || value.digits.iter().any(|digit| *digit > 9) || !value.is_summable() {
            return Err("a malformed decimal".to_owned());
        }
        Ok(value)
    }
}

impl BigDecimal {
    /// Reads sign, digits with or without a point, and an exponent or none. Anything else is none.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (negative, rest) = sign(text);
        let (mantissa, exponent) = match rest.iter().position(|b| matches!(b, b'e' | b'E')) {
            Some(e) => (&rest[..e], read_exponent(&rest[e + 1..])?),
            None => (rest, 0),
        };
        let mut digits = Vec::new();
        let (mut is_after_point, mut has_digits, mut places) = (false, false, 0);
        for &byte in mantissa {
            match byte {
                b'.' if !is_after_point => is_after_point = true,
                b'0'..=b'9' => {
                    has_digits = true;
                    places += i64::from(is_after_point);
                    if byte != b'0' || !digits.is_empty() {
                        digits.push(byte - b'0');
                    }
                }
                _ => return None,
            }
        }
        has_digits.then(|| Self::new(negative, digits, exponent - places))
    }

    fn new(negative: bool, mut digits: Vec<u8>, exponent: i64) -> Self {
        let kept = digits.iter().rposition(|digit| *digit != 0).map_or(0, |last| last + 1);
        let exponent = if kept == 0 { 0 } else { exponent + (digits.len() - kept) as i64 };
        digits.truncate(kept);
        Self { negative: negative && kept > 0, digits: digits.into(), exponent }
    }

    /// The same as a [`Decimal`], if it is one.
    pub fn to_decimal(&self) -> Option<Decimal> {
        // 39 digits at most, of which 18 stand behind the point.
        if self.exponent < -18 || self.top() > 21 {
            return self.digits.is_empty().then_some(Decimal(0));
        }
        let mut units = 0_i128;
        for digit in &self.digits {
            units = units.checked_mul(10)?.checked_add(i128::from(*digit))?;
        }
        let shift = u32::try_from(self.exponent + 18).ok()?;
        let units = units.checked_mul(10_i128.checked_pow(shift)?)?;
        Some(Decimal(if self.negative { -units } else { units }))
    }

    /// The nearest double.
    pub fn to_f64(&self) -> f64 {
        let digits = self.digits.iter().map(|digit| char::from(digit + b'0'));
        let sign = self.negative.then_some('-');
        let text: String = sign.into_iter().chain(digits).collect();
        if text.is_empty() {
            return 0.0;
        }
        format!("{text}e{}", self.exponent).parse().unwrap_or(f64::NAN)
    }

    /// Whether it is no larger than the largest double and has no digits below 10⁻³⁴².
    pub fn is_summable(&self) -> bool {
        let fits = self.exponent >= LOWEST && self.top() <= HIGHEST;
        fits && (self.top() < HIGHEST || self.to_f64().is_finite())
    }

    pub fn is_negative(&self) -> bool {
        self.negative
    }

    /// From 0 to 9, the highest first.
    pub fn digits(&self) -> &[u8] {
        &self.digits
    }

    /// The power of ten of the last digit.
    pub fn exponent(&self) -> i64 {
        self.exponent
    }

    /// One more than the power of ten of the first digit.
    fn top(&self) -> i64 {
        self.exponent.saturating_add(self.digits.len() as i64)
    }

    fn signum(&self) -> i8 {
        match (self.digits.is_empty(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }
}

impl From<Decimal> for BigDecimal {
    fn from(value: Decimal) -> Self {
        let digits = value.0.unsigned_abs().to_string();
        let digits = digits.bytes().map(|b| b - b'0').skip_while(|digit| *digit == 0);
        Self::new(value.0 < 0, digits.collect(), -18)
    }
}

impl Ord for BigDecimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_sign = self.signum().cmp(&other.signum());
        // Of digits that begin alike the longer ones are more: none end with a zero.
        let by_size = self.top().cmp(&other.top()).then_with(|| self.digits.cmp(&other.digits));
        by_sign.then(if self.negative { by_size.reverse() } else { by_size })
    }
}

impl PartialOrd for BigDecimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn read_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = sign(text);
    if digits.is_empty() {
        return None;
    }
    let mut exponent = 0_i64;
    for byte in digits {
        let digit = byte.is_ascii_digit().then(|| i64::from(byte - b'0'))?;
        exponent = (exponent * 10 + digit).min(EXPONENT_MAX / 10);
    }
    Some(if negative { -exponent } else { exponent })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use num_bigint::BigInt;
    use proptest::prelude::*;

    fn big(text: &str) -> BigDecimal {
        BigDecimal::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn decimals_of_any_size_are_read_and_compared() {
        let rising = [
            "-1e400",
            "-123456789012345678901234567890.5",
            "-2",
            "-1.000000000000000000001",
            "-1e-400",
            "0e999",
            "4e-400",
            "5e-324",
            "0.5",
            "200000000000000000001",
            "200000000000000000002",
            "1.7976931348623157e308",
            "1e309",
            "1e99999999999999999999",
        ];
        for pair in rising.windows(2) {
            assert!(big(pair[0]) < big(pair[1]), "{pair:?}");
        }
        assert_eq!(big("1.50e2"), big("150"));
        assert_eq!(big("-0.0"), big("0e5"));
        assert_eq!(big("00012e+1").to_decimal(), Decimal::parse(b"120"));
        for bad in ["", "e5", ".", "-", ".e5", "1e", "1e+", "1e5.0", "1.2.3", "0x1", "inf", "1 "] {
            assert_eq!(BigDecimal::parse(bad.as_bytes()), None, "{bad:?}");
        }
        for (text, fits) in [
            ("1e-342", true),
            ("1e-343", false),
            ("1.7976931348623157e308", true),
            ("1.8e308", false),
            ("4.9406564584124654e-324", true),
            ("1e309", false),
            ("1e999999999999", false),
        ] {
            assert_eq!(big(text).is_summable(), fits, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_integers(a in "-?[0-9]{1,50}", b in "-?[0-9]{1,50}") {
            let whole = |text: &str| text.parse::<BigInt>().unwrap();
            prop_assert_eq!(big(&a).cmp(&big(&b)), whole(&a).cmp(&whole(&b)));
        }

        #[test]
        fn a_decimal_is_the_same_as_a_big_one(units in any::<i128>()) {
            let decimal = Decimal(units.max(-i128::MAX));
            prop_assert_eq!(BigDecimal::from(decimal).to_decimal(), Some(decimal));
            prop_assert_eq!(big(&decimal.to_string()).to_decimal(), Some(decimal));
        }

        #[test]
        fn doubles_come_back(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let read = big(&format!("{value:e}"));
            prop_assert!(read.is_summable());
            prop_assert_eq!(read.to_f64(), value);
        }
    }
}
