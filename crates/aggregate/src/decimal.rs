//! Exact decimals.

use std::fmt;

/// Digits after the point.
const SCALE: u32 = 18;
const UNIT: i128 = 10_i128.pow(SCALE);

/// A multiple of 10⁻¹⁸ between about −1.7 × 10²⁰ and 1.7 × 10²⁰.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal(pub(crate) i128);

impl Decimal {
    /// Reads sign, digits and up to 18 fraction digits (more, if they are zeros). Anything else, and
    /// what lies outside of the range, is none.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (negative, digits) = sign(text);
        let mut whole: u64 = 0;
        let mut at = 0;
        // Nineteen digits always fit.
        while at < digits.len() && at < 19 && digits[at].is_ascii_digit() {
            whole = whole * 10 + u64::from(digits[at] - b'0');
            at += 1;
        }
        if at == digits.len() && at > 0 {
            return Some(Self::signed(negative, i128::from(whole) * UNIT));
        }
        let mut whole = i128::from(whole);
        while at < digits.len() && digits[at].is_ascii_digit() {
            whole = whole.checked_mul(10)?.checked_add(i128::from(digits[at] - b'0'))?;
            at += 1;
        }
        let has_whole = at > 0;
        let fraction = match digits.get(at) {
            None if has_whole => &[],
            Some(b'.') if has_whole || digits.len() > at + 1 => &digits[at + 1..],
            _ => return None,
        };
        let units = whole.checked_mul(UNIT)?.checked_add(i128::from(fraction_units(fraction)?))?;
        Some(Self::signed(negative, units))
    }

    /// Reads a JSON number, with or without an exponent, if it is exactly a multiple of 10⁻¹⁸
    /// within the range.
    pub fn parse_json(text: &[u8]) -> Option<Self> {
        let Some(e) = text.iter().position(|b| matches!(b, b'e' | b'E')) else {
            return Self::parse(text);
        };
        let exponent: i32 = std::str::from_utf8(&text[e + 1..]).ok()?.parse().ok()?;
        let (negative, digits) = sign(&text[..e]);
        if !digits.iter().any(u8::is_ascii_digit) {
            return None;
        }
        // All digits as one number, and where its point is.
        let mut mantissa: i128 = 0;
        let (mut point, mut zeros) = (0_i32, 0_u32);
        let mut after_point = false;
        for &byte in digits {
            match byte {
                b'.' if !after_point => after_point = true,
                b'0'..=b'9' => {
                    point += i32::from(after_point);
                    // Zeros at the end cost no room.
                    if byte == b'0' {
                        zeros += 1;
                        continue;
                    }
                    let shift = 10_i128.checked_pow(zeros + 1)?;
                    mantissa = mantissa.checked_mul(shift)?.checked_add(i128::from(byte - b'0'))?;
                    zeros = 0;
                }
                _ => return None,
            }
        }
        if mantissa == 0 {
            return Some(Self(0));
        }
        let shift = exponent
            .checked_sub(point)?
            .checked_add(i32::try_from(zeros).ok()?)?
            .checked_add(SCALE as i32)?;
        let power = 10_i128.checked_pow(shift.unsigned_abs());
        let units = if shift >= 0 {
            mantissa.checked_mul(power?)?
        } else {
            let power = power?;
            if mantissa % power != 0 {
                return None;
            }
            mantissa / power
        };
        Some(Self::signed(negative, units))
    }

    /// A whole number.
    pub fn from_i64(whole: i64) -> Self {
        Self(i128::from(whole) * UNIT)
    }

    /// The nearest double.
    pub fn to_f64(self) -> f64 {
        let magnitude = self.0.unsigned_abs();
        if magnitude == 0 {
            return 0.0;
        }
        // A quotient of 67 bits at least, the lowest of which also stands for what is left: what it is
        // rounded to is the nearest double of the whole.
        let (shift, unit) = (magnitude.leading_zeros(), UNIT.unsigned_abs());
        let shifted = magnitude << shift;
        let left = u128::from(!shifted.is_multiple_of(unit));
        let quotient = (shifted / unit) | left;
        // A power of two between 1 and 2⁻¹²⁷: exact.
        let rounded = quotient as f64 / (1_u128 << shift) as f64;
        if self.0 < 0 { -rounded } else { rounded }
    }

    fn signed(negative: bool, units: i128) -> Self {
        Self(if negative { -units } else { units })
    }
}

pub(crate) fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

fn fraction_units(digits: &[u8]) -> Option<u64> {
    let mut units: u64 = 0;
    for (place, &digit) in digits.iter().enumerate() {
        match digit {
            b'0'..=b'9' if place < SCALE as usize => units = units * 10 + u64::from(digit - b'0'),
            b'0' => {}
            _ => return None,
        }
    }
    let missing = SCALE.saturating_sub(u32::try_from(digits.len()).unwrap_or(SCALE));
    Some(units * 10_u64.pow(missing))
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.unsigned_abs().to_string();
        f.write_str(&format_digits(&digits, -i64::from(SCALE), self.0 < 0))
    }
}

/// Integer digits of a sum of any number of [`Decimal`]s, at most: they are written out.
const WHOLE_MAX: i64 = 40;
/// An exponent must save so many characters.
const EXPONENT_SAVES: usize = 10;

/// The shortest decimal text of `digits × 10^exponent`. With an exponent only if there are digits below
/// 10⁻¹⁸ or far above a sum of [`Decimal`]s, and if that is much shorter.
pub(crate) fn format_digits(digits: &str, exponent: i64, negative: bool) -> String {
    let digits = digits.trim_start_matches('0');
    let kept = digits.trim_end_matches('0');
    if kept.is_empty() {
        return "0".to_owned();
    }
    let exponent = exponent + (digits.len() - kept.len()) as i64;
    let top = exponent + kept.len() as i64;
    let plain = match (exponent, top) {
        (0.., _) => format!("{kept}{}", "0".repeat(exponent as usize)),
        (_, 1..) => format!("{}.{}", &kept[..top as usize], &kept[top as usize..]),
        _ => format!("0.{}{kept}", "0".repeat(top.unsigned_abs() as usize)),
    };
    let sign = if negative { "-" } else { "" };
    if exponent < -i64::from(SCALE) || top > WHOLE_MAX {
        let (first, rest) = kept.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let short = format!("{first}{point}{rest}e{}", top - 1);
        if short.len() + EXPONENT_SAVES < plain.len() {
            return format!("{sign}{short}");
        }
    }
    format!("{sign}{plain}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(typed: &str) -> Option<String> {
        Decimal::parse(typed.as_bytes()).map(|d| d.to_string())
    }

    #[test]
    fn decimals_are_read_exactly() {
        for (typed, shown) in [
            ("0", "0"),
            ("-0", "0"),
            ("+7", "7"),
            ("007", "7"),
            ("-12.50", "-12.5"),
            (".5", "0.5"),
            ("5.", "5"),
            ("0.000000000000000001", "0.000000000000000001"),
            ("-0.000000000000000001", "-0.000000000000000001"),
            ("1.0000000000000000010000", "1.000000000000000001"),
            ("9223372036854775807", "9223372036854775807"),
            ("-9223372036854775808", "-9223372036854775808"),
            (
                "170141183460469231731.687303715884105727",
                "170141183460469231731.687303715884105727",
            ),
            ("00000000000000000000000000000000000000000000001.5", "1.5"),
        ] {
            assert_eq!(text(typed).as_deref(), Some(shown), "{typed}");
        }
    }

    #[test]
    fn the_nearest_double_is_that_of_the_text() {
        let mut units = 1_i128;
        for step in 0..2_000_i128 {
            units = units.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step) >> (step % 19);
            for value in [units, -units, units % UNIT, units / UNIT * UNIT, step] {
                let decimal = Decimal(value.max(-i128::MAX));
                assert_eq!(Ok(decimal.to_f64()), decimal.to_string().parse::<f64>(), "{decimal}");
            }
        }
    }

    #[test]
    fn what_is_no_decimal_is_none() {
        for typed in [
            "",
            "-",
            "+",
            ".",
            "-.",
            "1e5",
            "1,5",
            " 1",
            "1 ",
            "--1",
            "1.2.3",
            "0x10",
            "NaN",
            "1.-2",
            "0.0000000000000000001",
            "170141183460469231731.687303715884105728",
            "1e",
            "٣",
            "99999999999999999999999999999999999999999999999",
        ] {
            assert_eq!(text(typed), None, "{typed:?}");
        }
    }

    #[test]
    fn json_numbers_are_read_if_they_are_exact() {
        let json = |typed: &str| Decimal::parse_json(typed.as_bytes()).map(|d| d.to_string());
        for (typed, shown) in [
            ("1.5e3", Some("1500")),
            ("-15E-1", Some("-1.5")),
            ("100e-20", Some("0.000000000000000001")),
            ("1e-19", None),
            ("1e20", Some("100000000000000000000")),
            ("1e21", None),
            ("0e999", Some("0")),
            ("1e999999999999", None),
            ("120.50e+1", Some("1205")),
            ("12", Some("12")),
            ("e5", None),
            ("-.e5", None),
        ] {
            assert_eq!(json(typed).as_deref(), shown, "{typed}");
        }
    }
}
