//! What is kept of the numbers of one group.

use crate::big_decimal::{BigDecimal, HIGHEST, LOWEST};
use crate::decimal_sum::SquareSum;
use crate::function::Function;
use crate::number::Number;
use crate::sketches::Quantiles;
use crate::wide_sum::WideSum;
use crate::{Decimal, DecimalSum, FloatSum, Query, Rules};
use num_bigint::BigInt;
use serde::{Deserialize, Serialize};

/// What the functions of a query need, decided once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs {
    pub numbers: bool,
    pub squares: bool,
    pub distinct: bool,
    pub quantiles: bool,
    pub float: bool,
    pub rules: Rules,
}

impl Needs {
    pub fn of(query: &Query) -> Self {
        let functions = &query.functions;
        Self {
            numbers: functions.any(Function::is_numeric),
            squares: functions.any(|f| f == Function::Stddev),
            distinct: functions.any(|f| f == Function::Distinct),
            quantiles: functions.any(|f| matches!(f, Function::Quantile(_))),
            float: query.source.is_float(),
            rules: query.rules,
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
    #[serde(skip)]
    rules: Rules,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Kind {
    Decimal {
        sum: DecimalSum,
        squares: Option<Box<SquareSum>>,
        min: i128,
        max: i128,
        /// What is no [`Decimal`]. It travels behind the groups: the first rules do not know it.
        #[serde(skip)]
        wide: Option<Box<Wide>>,
    },
    Float {
        sum: FloatSum,
        squares: Option<FloatSum>,
        min: f64,
        max: f64,
        infinite: [u64; 2],
    },
}

/// Decimals of any size, folded so far; at least one.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Wide {
    count: u64,
    sum: WideSum,
    squares: Option<WideSum>,
    min: BigDecimal,
    max: BigDecimal,
}

impl Wide {
    /// Of one decimal.
    fn new(value: &BigDecimal, squares: bool) -> Self {
        let mut wide = Self {
            count: 0,
            sum: WideSum::of_values(),
            squares: squares.then(WideSum::of_squares),
            min: value.clone(),
            max: value.clone(),
        };
        wide.add(value);
        wide
    }

    fn add(&mut self, value: &BigDecimal) {
        self.count += 1;
        self.sum.add(value);
        if let Some(squares) = &mut self.squares {
            squares.add_square(value);
        }
        if *value < self.min {
            self.min = value.clone();
        }
        if *value > self.max {
            self.max = value.clone();
        }
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum.merge(&other.sum);
        if let (Some(squares), Some(more)) = (&mut self.squares, &other.squares) {
            squares.merge(more);
        }
        if other.min < self.min {
            self.min = other.min.clone();
        }
        if other.max > self.max {
            self.max = other.max.clone();
        }
    }

    fn size_bytes(&self) -> usize {
        // The bounds have as many digits as a summable decimal may have.
        let bounds = 2 * (HIGHEST - LOWEST) as usize;
        let squares = self.squares.as_ref().map_or(0, WideSum::size_bytes);
        size_of::<Self>() + self.sum.size_bytes() + squares + bounds
    }
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
                wide: None,
            }
        };
        let quantiles = needs.quantiles.then(|| Box::new(Quantiles::new(needs.rules)));
        Self { count: 0, kind, quantiles, rules: needs.rules }
    }

    /// Adds a number; returns by how many bytes this has grown. None: it cannot be added up.
    #[inline]
    pub fn add(&mut self, number: &Number) -> Option<usize> {
        let mut grown = 0;
        match (&mut self.kind, number) {
            (Kind::Decimal { sum, squares, min, max, .. }, Number::Decimal(value)) => {
                let value = *value;
                sum.add(value);
                *min = (*min).min(value.0);
                *max = (*max).max(value.0);
                if let Some(squares) = squares {
                    squares.add(value);
                }
                if let Some(quantiles) = &mut self.quantiles {
                    grown = quantiles.add(value.to_f64());
                }
            }
            (Kind::Decimal { squares, wide, .. }, Number::Big(value)) => {
                if self.rules < Rules::Second || !value.is_summable() {
                    return None;
                }
                match wide {
                    Some(wide) => wide.add(value),
                    None => {
                        let first = Box::new(Wide::new(value, squares.is_some()));
                        grown = first.size_bytes();
                        *wide = Some(first);
                    }
                }
                if let Some(quantiles) = &mut self.quantiles {
                    grown += quantiles.add(value.to_f64());
                }
            }
            (Kind::Float { sum, squares, min, max, infinite }, Number::Float(value)) => {
                let value = *value;
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
                    grown = quantiles.add(value);
                }
            }
            _ => unreachable!("one source gives numbers of one kind"),
        }
        self.count += 1;
        Some(grown)
    }

    pub fn merge(&mut self, other: &Self) -> Result<(), String> {
        self.count += other.count;
        match (&mut self.kind, &other.kind) {
            (
                Kind::Decimal { sum, squares, min, max, wide },
                Kind::Decimal { sum: sum2, squares: squares2, min: min2, max: max2, wide: wide2 },
            ) => {
                match (wide, wide2) {
                    (Some(wide), Some(more)) => wide.merge(more),
                    (wide @ None, Some(more)) => *wide = Some(more.clone()),
                    (_, None) => {}
                }
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
            Kind::Decimal { squares, wide, .. } => {
                squares.as_ref().map_or(0, |_| size_of::<SquareSum>())
                    + wide.as_ref().map_or(0, |wide| wide.size_bytes())
            }
            // Limbs of 8 bytes for 32 bits each.
            Kind::Float { squares, .. } => 560 + squares.as_ref().map_or(0, |_| 1_100),
        };
        size_of::<Self>() + kind + self.quantiles.as_ref().map_or(0, |q| q.size_bytes())
    }

    /// What it has of decimals of any size.
    pub fn wide(&self) -> Option<&Wide> {
        match &self.kind {
            Kind::Decimal { wide, .. } => wide.as_deref(),
            Kind::Float { .. } => None,
        }
    }

    /// Takes what came behind the groups.
    pub fn set_wide(&mut self, value: Wide) -> Result<(), String> {
        match &mut self.kind {
            Kind::Decimal { squares, wide, .. }
                if value.squares.is_some() == squares.is_some()
                    && (1..=self.count).contains(&value.count) =>
            {
                *wide = Some(Box::new(value));
                Ok(())
            }
            _ => Err("decimals of another query".to_owned()),
        }
    }

    /// The sum of decimals and that of their squares, and the power of ten of the unit of the former,
    /// whose square is that of the latter.
    pub fn decimal_sums(&self) -> Option<(BigInt, Option<BigInt>, i64)> {
        let Kind::Decimal { sum, squares, wide, .. } = &self.kind else { return None };
        let squares = squares.as_ref().map(|squares| squares.units());
        let Some(wide) = wide else { return Some((sum.units(), squares, -18)) };
        let power = BigInt::from(10).pow((-18 - LOWEST) as u32);
        let squares = squares.zip(wide.squares.as_ref());
        let squares = squares.map(|(units, more)| units * &power * &power + more.units());
        Some((sum.units() * power + wide.sum.units(), squares, LOWEST))
    }

    /// The least and the greatest decimal, if these are decimals and there are any.
    pub fn decimal_bounds(&self) -> Option<(BigDecimal, BigDecimal)> {
        let Kind::Decimal { min, max, wide, .. } = &self.kind else { return None };
        let wide = wide.as_ref();
        // Those that are no wide ones.
        let others = self.count - wide.map_or(0, |wide| wide.count);
        let bounds = (others > 0).then(|| (Decimal(*min).into(), Decimal(*max).into()));
        match (bounds, wide) {
            (Some((min, max)), Some(wide)) => {
                Some((wide.min.clone().min(min), wide.max.clone().max(max)))
            }
            (None, Some(wide)) => Some((wide.min.clone(), wide.max.clone())),
            (bounds, None) => bounds,
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
