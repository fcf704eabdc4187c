//! What is kept of the numbers of one group.

use crate::decimal_sum::SquareSum;
use crate::function::{Function, Functions};
use crate::sketches::Quantiles;
use crate::value::Number;
use crate::{Decimal, DecimalSum, FloatSum};
use serde::{Deserialize, Serialize};

/// What the functions of a query need, decided once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs {
    pub numbers: bool,
    pub squares: bool,
    pub distinct: bool,
    pub quantiles: bool,
    pub float: bool,
}

impl Needs {
    pub fn of(functions: &Functions, float: bool) -> Self {
        Self {
            numbers: functions.any(Function::is_numeric),
            squares: functions.any(|f| f == Function::Stddev),
            distinct: functions.any(|f| f == Function::Distinct),
            quantiles: functions.any(|f| matches!(f, Function::Quantile(_))),
            float,
        }
    }
}

/// Numbers folded so far.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Numbers {
    /// How many.
    pub count: u64,
    pub kind: Kind,
    pub quantiles: Option<Box<Quantiles>>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Kind {
    Decimal { sum: DecimalSum, squares: Option<Box<SquareSum>>, min: i128, max: i128 },
    Float { sum: FloatSum, squares: Option<FloatSum>, min: f64, max: f64, infinite: [u64; 2] },
}

impl Numbers {
    pub fn new(needs: Needs) -> Self {
        let kind = if needs.float {
            Kind::Float {
                sum: FloatSum::of_values(),
                squares: needs.squares.then(FloatSum::of_squares),
                min: f64::INFINITY,
                max: f64::NEG_INFINITY,
                infinite: [0; 2],
            }
        } else {
            Kind::Decimal {
                sum: DecimalSum::default(),
                squares: needs.squares.then(Box::default),
                min: i128::MAX,
                max: i128::MIN,
            }
        };
        Self { count: 0, kind, quantiles: needs.quantiles.then(Box::default) }
    }

    #[inline]
    pub fn add(&mut self, number: Number) {
        self.count += 1;
        match (&mut self.kind, number) {
            (Kind::Decimal { sum, squares, min, max }, Number::Decimal(value)) => {
                sum.add(value);
                *min = (*min).min(value.0);
                *max = (*max).max(value.0);
                if let Some(squares) = squares {
                    squares.add(value);
                }
                if let Some(quantiles) = &mut self.quantiles {
                    quantiles.add(value.to_f64());
                }
            }
            (Kind::Float { sum, squares, min, max, infinite }, Number::Float(value)) => {
                if value.is_finite() {
                    sum.add(value);
                    if let Some(squares) = squares {
                        squares.add_square(value);
                    }
                } else {
                    infinite[usize::from(value > 0.0)] += 1;
                }
                *min = least(*min, value);
                *max = greatest(*max, value);
                if let Some(quantiles) = &mut self.quantiles {
                    quantiles.add(value);
                }
            }
            _ => unreachable!("one source gives numbers of one kind"),
        }
    }

    pub fn merge(&mut self, other: &Self) -> Result<(), String> {
        self.count += other.count;
        match (&mut self.kind, &other.kind) {
            (
                Kind::Decimal { sum, squares, min, max },
                Kind::Decimal { sum: sum2, squares: squares2, min: min2, max: max2 },
            ) => {
                sum.merge(sum2);
                *min = (*min).min(*min2);
                *max = (*max).max(*max2);
                if let (Some(squares), Some(more)) = (squares, squares2) {
                    squares.merge(more);
                }
            }
            (
                Kind::Float { sum, squares, min, max, infinite },
                Kind::Float {
                    sum: sum2,
                    squares: squares2,
                    min: min2,
                    max: max2,
                    infinite: infinite2,
                },
            ) => {
                sum.merge(sum2);
                *min = least(*min, *min2);
                *max = greatest(*max, *max2);
                for (count, more) in infinite.iter_mut().zip(infinite2) {
                    *count += more;
                }
                if let (Some(squares), Some(more)) = (squares, squares2) {
                    squares.merge(more);
                }
            }
            _ => return Err("numbers of another kind".to_owned()),
        }
        match (&mut self.quantiles, &other.quantiles) {
            (Some(mine), Some(other)) => mine.merge(other),
            (None, None) => Ok(()),
            _ => Err("quantiles are missing".to_owned()),
        }
    }

    /// Whether this is what a query needs.
    pub fn fits(&self, needs: Needs) -> bool {
        let (is_float, squares) = match &self.kind {
            Kind::Decimal { squares, .. } => (false, squares.is_some()),
            Kind::Float { squares, .. } => (true, squares.is_some()),
        };
        is_float == needs.float
            && squares == needs.squares
            && self.quantiles.is_some() == needs.quantiles
    }

    pub fn size_bytes(&self) -> usize {
        let kind = match &self.kind {
            Kind::Decimal { squares, .. } => squares.as_ref().map_or(0, |_| size_of::<SquareSum>()),
            // Limbs of 8 bytes for 32 bits each.
            Kind::Float { squares, .. } => 560 + squares.as_ref().map_or(0, |_| 1_100),
        };
        size_of::<Self>() + kind + self.quantiles.as_ref().map_or(0, |q| q.size_bytes())
    }

    /// The least and the greatest decimal, if these are decimals and there are any.
    pub fn decimal_bounds(&self) -> Option<(Decimal, Decimal)> {
        match self.kind {
            Kind::Decimal { min, max, .. } if self.count > 0 => Some((Decimal(min), Decimal(max))),
            _ => None,
        }
    }
}

/// In the total order of doubles, so that −0 and 0 do not depend on who came first.
fn least(a: f64, b: f64) -> f64 {
    if b.total_cmp(&a).is_lt() { b } else { a }
}

fn greatest(a: f64, b: f64) -> f64 {
    if b.total_cmp(&a).is_gt() { b } else { a }
}
