//! From exact numbers to doubles, rounded once (to nearest, ties to even).

use num_bigint::{BigInt, BigUint, Sign};

/// `numerator / denominator × 2^exponent` as the nearest double.
pub(crate) fn round(numerator: &BigInt, denominator: &BigInt, exponent: i64) -> f64 {
    let (n, d) = (numerator.magnitude(), denominator.magnitude());
    if n.bits() == 0 {
        return 0.0;
    }
    // A quotient of at least 66 bits; what is lost below it only matters for not being zero.
    let shift = 66 + d.bits() as i64 - n.bits() as i64;
    let (n, d) = if shift >= 0 { (n << shift, d.clone()) } else { (n.clone(), d << -shift) };
    let quotient = &n / &d;
    let is_inexact = &quotient * &d != n;
    let rounded = from_parts(&quotient, is_inexact, exponent - shift);
    if (numerator.sign() == Sign::Minus) != (denominator.sign() == Sign::Minus) {
        -rounded
    } else {
        rounded
    }
}

/// The square root of `numerator / denominator × 2^exponent`, none of which is negative.
pub(crate) fn round_root(numerator: &BigInt, denominator: &BigInt, exponent: i64) -> f64 {
    let (n, d) = (numerator.magnitude(), denominator.magnitude());
    if n.bits() == 0 {
        return 0.0;
    }
    // A radicand of at least 132 bits with an even exponent: a root of at least 66.
    let mut shift = 134 + d.bits() as i64 - n.bits() as i64;
    shift += (exponent - shift) & 1;
    let (n, d) = if shift >= 0 { (n << shift, d.clone()) } else { (n.clone(), d << -shift) };
    let radicand = &n / &d;
    let root = radicand.sqrt();
    let is_inexact = &radicand * &d != n || &root * &root != radicand;
    from_parts(&root, is_inexact, (exponent - shift) / 2)
}

/// `mantissa × 2^exponent` plus, if `is_inexact`, something smaller than 2^exponent. The mantissa has
/// at least 64 bits unless it is exact.
fn from_parts(mantissa: &BigUint, is_inexact: bool, exponent: i64) -> f64 {
    let bits = mantissa.bits() as i64;
    // How many low bits go: all but 53, more below the normal doubles.
    let drop = (bits - 53).max(-1074 - exponent);
    if drop <= 0 {
        let exact = u64::try_from(mantissa).expect("at most 53 bits");
        return scale(exact, exponent);
    }
    let kept = u64::try_from(mantissa >> drop).expect("at most 53 bits");
    let half = BigUint::from(1_u8) << (drop - 1);
    let rest = mantissa - (BigUint::from(kept) << drop);
    let is_above = rest > half || (rest == half && is_inexact);
    let is_tie = rest == half && !is_inexact;
    let rounded = kept + u64::from(is_above || (is_tie && kept & 1 == 1));
    scale(rounded, exponent + drop)
}

/// `mantissa × 2^exponent`, which is a double or too large for one.
fn scale(mantissa: u64, exponent: i64) -> f64 {
    let mut result = mantissa as f64;
    let mut left = exponent;
    // In steps whose factors are doubles; each product is exact.
    while left != 0 && result != 0.0 && result.is_finite() {
        let step = left.clamp(-1000, 1000);
        // Downwards the last step must be the only one that could round, and it does not: the
        // result has no bits below the smallest double.
        result *= 2_f64.powi(step as i32);
        left -= step;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn doubles_survive(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let (mantissa, exponent) = crate::float_sum::parts(value);
            prop_assert_eq!(round(&mantissa.into(), &1.into(), exponent.into()), value);
        }

        #[test]
        fn quotients_of_integers_round_as_the_hardware_does(a in -(1_i64 << 53)..1 << 53, b in 1_i64..1 << 53) {
            prop_assert_eq!(round(&a.into(), &b.into(), 0), a as f64 / b as f64);
        }

        #[test]
        fn roots_round_as_the_hardware_does(a in 0_i64..1 << 53, exponent in -200_i64..200) {
            let expected = (a as f64 * 2_f64.powi(exponent as i32 * 2)).sqrt();
            prop_assert_eq!(round_root(&a.into(), &1.into(), exponent * 2), expected);
            let odd = (a as f64 * 2_f64.powi(exponent as i32 * 2 + 1)).sqrt();
            prop_assert_eq!(round_root(&a.into(), &1.into(), exponent * 2 + 1), odd);
        }
    }

    #[test]
    fn the_ends_of_the_range() {
        let one = BigInt::from(1);
        assert_eq!(round(&one, &one, -1074), f64::from_bits(1));
        assert_eq!(round(&one, &one, -1075), 0.0, "a tie goes to even");
        assert_eq!(round(&3.into(), &one, -1076), f64::from_bits(1), "above the tie");
        assert_eq!(round(&one, &one, 1024), f64::INFINITY);
        let largest = (BigInt::from(1) << 53) - 1;
        assert_eq!(round(&largest, &one, 971), f64::MAX);
    }
}
