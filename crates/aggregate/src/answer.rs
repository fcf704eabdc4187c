//! The end of an aggregate: numbers to be shown.

use crate::big_decimal::BigDecimal;
use crate::decimal::format_digits;
use crate::function::{Function, Functions};
use crate::numbers::{Kind, Numbers};
use crate::partial::Group;
use crate::{Partial, Query, ratio};
use num_bigint::{BigInt, Sign};

/// What all groups come to.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Rows that the condition accepted.
    pub rows: u64,
    /// Of them, those whose value is no number although a function needed one.
    pub skipped: u64,
    /// Groups, `null` first, then by name. One without a name if nothing was grouped.
    pub groups: Vec<GroupAnswer>,
}

/// What one group comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupAnswer {
    /// None is the group `null`.
    pub name: Option<Vec<u8>>,
    /// Its rows.
    pub rows: u64,
    /// Its rows whose value is no number although a function needed one.
    pub skipped: u64,
    /// What each function gives.
    pub figures: Vec<(Function, Figure)>,
}

/// A number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Figure {
    /// Of no values.
    None,
    /// Its decimal digits, exact unless the function says otherwise; with an exponent where they
    /// would be many zeros.
    Number(String),
    /// `NaN`, `Infinity` or `-Infinity`.
    Special(&'static str),
}

/// An answer whose groups are computed one by one, in order: all of them together would take
/// several times the memory of the partial that they come from.
pub struct Finishing {
    /// As in [`Answer`].
    pub rows: u64,
    /// As in [`Answer`].
    pub skipped: u64,
    functions: Functions,
    groups: std::vec::IntoIter<Group>,
}

impl Iterator for Finishing {
    type Item = GroupAnswer;

    fn next(&mut self) -> Option<GroupAnswer> {
        self.groups.next().map(|group| finish(&group, &self.functions))
    }
}

impl Partial {
    /// The answer that this comes to.
    pub fn finish(self, query: &Query) -> Answer {
        let groups = self.finish_by_group(query);
        Answer { rows: groups.rows, skipped: groups.skipped, groups: groups.collect() }
    }

    /// The same, group by group.
    pub fn finish_by_group(mut self, query: &Query) -> Finishing {
        if query.group_by.is_none() && self.groups() == 0 {
            let needs = crate::numbers::Needs::of(query);
            self.find(None, needs, 1).expect("room for one");
        }
        self.groups.sort_by(|a, b| a.name.cmp(&b.name));
        Finishing {
            rows: self.groups.iter().map(|g| g.rows).sum(),
            skipped: self.groups.iter().map(|g| g.skipped).sum(),
            functions: query.functions.clone(),
            groups: self.groups.into_iter(),
        }
    }
}

fn finish(group: &Group, functions: &Functions) -> GroupAnswer {
    let figure = |function| match (function, &group.numbers, &group.distinct) {
        (Function::Count, ..) => Figure::Number(group.rows.to_string()),
        (Function::Distinct, _, Some(distinct)) => Figure::Number(distinct.estimate().to_string()),
        (_, Some(numbers), _) => number(function, numbers),
        _ => Figure::None,
    };
    GroupAnswer {
        name: group.name.clone(),
        rows: group.rows,
        skipped: group.skipped,
        figures: functions.iter().map(|f| (f, figure(f))).collect(),
    }
}

fn number(function: Function, numbers: &Numbers) -> Figure {
    let n = BigInt::from(numbers.count);
    if numbers.count == 0 {
        // Nothing adds up to nothing.
        return if function == Function::Sum {
            Figure::Number("0".to_owned())
        } else {
            Figure::None
        };
    }
    if let Function::Quantile(millionths) = function {
        let quantile = numbers.quantiles.as_ref().and_then(|q| q.quantile(millionths));
        return quantile.map_or(Figure::None, float);
    }
    let is_sample = numbers.count > 1;
    match &numbers.kind {
        Kind::Decimal { .. } => {
            let bounds = || numbers.decimal_bounds().expect("there are numbers");
            let sums = || numbers.decimal_sums().expect("these are decimals");
            Figure::Number(match function {
                Function::Sum => {
                    let (sum, _, exponent) = sums();
                    format(&sum, exponent)
                }
                Function::Min => shown(&bounds().0),
                Function::Max => shown(&bounds().1),
                Function::Avg => {
                    let (sum, _, exponent) = sums();
                    let near = magnitude(&sum, &n) + exponent;
                    rounded(near, |place| scaled(&sum, &n, exponent - place))
                }
                _ => {
                    let (sum, Some(squares), exponent) = sums() else { return Figure::None };
                    if !is_sample {
                        return Figure::None;
                    }
                    let (numerator, denominator) = variance(&n, &sum, squares);
                    let near = magnitude(&numerator, &denominator).div_euclid(2) + exponent;
                    // In units whose root is one of the place; one more bit decides the rounding.
                    let numerator: BigInt = numerator << 2;
                    rounded(near, |place| {
                        let (above, below) = powers(2 * (exponent - place));
                        let radicand: BigInt = &numerator * above / (&denominator * below);
                        (radicand.sqrt() + 1_u8) >> 1
                    })
                }
            })
        }
        Kind::Float { sum, squares, min, max, infinite } => match function {
            Function::Min => float(*min),
            Function::Max => float(*max),
            Function::Stddev if !is_sample => Figure::None,
            Function::Sum | Function::Avg if *infinite != [0, 0] => match infinite {
                [_, 0] => float(f64::NEG_INFINITY),
                [0, _] => float(f64::INFINITY),
                _ => float(f64::NAN),
            },
            Function::Sum => float(sum.to_f64()),
            Function::Avg => {
                let (sum, exponent) = sum.exact();
                float(ratio::round(&sum, &n, exponent))
            }
            _ if *infinite != [0, 0] => float(f64::NAN),
            _ => {
                let Some(squares) = squares else { return Figure::None };
                // Both counted in the unit of the squares, which is that of the sums squared.
                let ((sum, _), (squares, exponent)) = (sum.exact(), squares.exact());
                let (numerator, denominator) = variance(&n, &sum, squares);
                float(ratio::round_root(&numerator, &denominator, exponent))
            }
        },
    }
}

/// (n·Σx² − (Σx)²) / (n·(n − 1)), as numerator and denominator.
fn variance(n: &BigInt, sum: &BigInt, squares: BigInt) -> (BigInt, BigInt) {
    (n * squares - sum * sum, n * (n - 1))
}

/// Places behind the point of a quotient or a root.
const PLACES: i64 = 18;
/// Its significant digits, if those places are fewer.
const SIGNIFICANT: i64 = 18;

/// What a quotient or a root comes to, of which `at` gives the multiple of 10^place that is nearest,
/// and whose first digit has about the place `near`.
fn rounded(near: i64, at: impl Fn(i64) -> BigInt) -> String {
    let mut place = (near - SIGNIFICANT).min(-PLACES);
    let mut digits = at(place);
    let found = digits.magnitude().to_string().len() as i64;
    let more = (found - SIGNIFICANT).min(-PLACES - place);
    if more > 0 {
        // Again, and not from the digits found: nothing is rounded twice.
        place += more;
        digits = at(place);
    }
    format(&digits, place)
}

/// The place of the first digit of a quotient, or one or two lower.
fn magnitude(numerator: &BigInt, denominator: &BigInt) -> i64 {
    let bits = numerator.bits() as f64 - denominator.bits() as f64 - 1.0;
    (bits * std::f64::consts::LOG10_2).floor() as i64
}

/// 10^exponent as a quotient.
fn powers(exponent: i64) -> (BigInt, BigInt) {
    let power = BigInt::from(10).pow(exponent.unsigned_abs() as u32);
    if exponent < 0 { (1.into(), power) } else { (power, 1.into()) }
}

/// `numerator / denominator × 10^exponent` to the nearest integer, halves away from zero (as
/// PostgreSQL rounds decimals).
fn scaled(numerator: &BigInt, denominator: &BigInt, exponent: i64) -> BigInt {
    let (above, below) = powers(exponent);
    let sign = if numerator.sign() == Sign::Minus { -1 } else { 1 };
    let magnitude = BigInt::from(numerator.magnitude().clone()) * above;
    let denominator = denominator * below;
    ((magnitude * 2 + &denominator) / (denominator * 2_u8)) * sign
}

fn format(units: &BigInt, exponent: i64) -> String {
    format_digits(&units.magnitude().to_string(), exponent, units.sign() == Sign::Minus)
}

fn shown(value: &BigDecimal) -> String {
    let digits: String = value.digits().iter().map(|digit| char::from(digit + b'0')).collect();
    format_digits(&digits, value.exponent(), value.is_negative())
}

fn float(value: f64) -> Figure {
    if value.is_nan() {
        Figure::Special("NaN")
    } else if value.is_infinite() {
        Figure::Special(if value > 0.0 { "Infinity" } else { "-Infinity" })
    } else if value != 0.0 && !(1e-7..1e21).contains(&value.abs()) {
        // The shortest digits that read back as the same double.
        Figure::Number(format!("{value:e}"))
    } else {
        Figure::Number(format!("{value}"))
    }
}
