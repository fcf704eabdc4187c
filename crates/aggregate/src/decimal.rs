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
        crate::ratio::round(&self.0.into(), &UNIT.into(), 0)
    }

    fn signed(negative: bool, units: i128) -> Self {
        Self(if negative { -units } else { units })
    }
}

fn sign(text: &[u8]) -> (bool, &[u8]) {
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
        f.write_str(&format_units(&self.0.unsigned_abs().to_string(), self.0 < 0))
    }
}

/// The shortest decimal text of a number of units, given as its digits.
pub(crate) fn format_units(digits: &str, negative: bool) -> String {
    let scale = SCALE as usize;
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    let fraction = fraction.trim_end_matches('0');
    let is_zero = fraction.is_empty() && whole == "0";
    let sign = if negative && !is_zero { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}")
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
        ] {
            assert_eq!(json(typed).as_deref(), shown, "{typed}");
        }
    }
}
