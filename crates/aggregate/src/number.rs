//! A number, in one of the two models.

use crate::Decimal;
use crate::big_decimal::BigDecimal;
use std::borrow::Cow;
use std::cmp::Ordering;

/// A decimal or a double.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Number {
    Decimal(Decimal),
    /// A decimal that is no [`Decimal`].
    Big(Box<BigDecimal>),
    Float(f64),
}

impl Number {
    /// Reads a decimal of any size, with or without an exponent.
    #[inline]
    pub fn decimal(text: &[u8]) -> Option<Self> {
        match Decimal::parse(text) {
            Some(decimal) => Some(Self::Decimal(decimal)),
            None => Self::unusual(text),
        }
    }

    #[cold]
    fn unusual(text: &[u8]) -> Option<Self> {
        if let Some(decimal) = Decimal::parse_json(text) {
            return Some(Self::Decimal(decimal));
        }
        let big = BigDecimal::parse(text)?;
        Some(match big.to_decimal() {
            Some(decimal) => Self::Decimal(decimal),
            None => Self::Big(Box::new(big)),
        })
    }

    /// Reads a number as it is typed in a condition: a decimal, or `inf`.
    pub fn literal(text: &str) -> Option<Self> {
        let float = || text.parse().ok().filter(|v: &f64| v.is_infinite()).map(Self::Float);
        Self::decimal(text.as_bytes()).or_else(float)
    }

    pub fn to_f64(&self) -> f64 {
        match self {
            Self::Decimal(decimal) => decimal.to_f64(),
            Self::Big(big) => big.to_f64(),
            Self::Float(float) => *float,
        }
    }

    fn to_big(&self) -> Option<Cow<'_, BigDecimal>> {
        match self {
            Self::Decimal(decimal) => Some(Cow::Owned((*decimal).into())),
            Self::Big(big) => Some(Cow::Borrowed(big)),
            Self::Float(_) => None,
        }
    }

    /// The order of two decimals; none if one of them is a double.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Decimal(a), Self::Decimal(b)) => Some(a.cmp(b)),
            _ => Some(self.to_big()?.cmp(&other.to_big()?)),
        }
    }
}
