//! What a comparison compares.

use crate::value::{Number, is_json_number, json_text};
use crate::{Decimal, ValueSource};
use std::borrow::Cow;
use std::cmp::Ordering;

/// One side of a comparison, in one row.
#[derive(Debug, Clone)]
pub(crate) enum Scalar<'a> {
    Number {
        exact: Option<Decimal>,
        float: f64,
    },
    Text(Cow<'a, [u8]>),
    Bool(bool),
    Null,
    /// The value of a row: a number if it is compared with one, its text otherwise.
    Value(Option<Number>, Cow<'a, [u8]>),
}

impl<'a> Scalar<'a> {
    /// What JSON text stands for. Arrays and objects compare with nothing.
    pub fn of_json(text: &'a str) -> Option<Self> {
        Some(match text {
            "true" => Self::Bool(true),
            "false" => Self::Bool(false),
            "null" => Self::Null,
            text if is_json_number(text.as_bytes()) => Self::Number {
                exact: Decimal::parse_json(text.as_bytes()),
                float: text.parse().ok()?,
            },
            text if text.starts_with('"') => Self::Text(json_text(text.as_bytes())),
            _ => return None,
        })
    }

    /// What the part of a value stands for that `source` looks at.
    pub fn of_value(part: &'a [u8], source: &ValueSource) -> Self {
        Self::Value(source.number(part), source.text(part))
    }

    fn number(&self) -> Option<(Option<Decimal>, f64)> {
        match self {
            Self::Number { exact, float } => Some((*exact, *float)),
            Self::Value(Some(Number::Decimal(exact)), _) => Some((Some(*exact), exact.to_f64())),
            Self::Value(Some(Number::Float(float)), _) => Some((None, *float)),
            _ => None,
        }
    }

    fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) | Self::Value(_, text) => Some(text),
            _ => None,
        }
    }

    /// Their order; none of things of different types.
    pub fn compare(&self, other: &Scalar<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Scalar::Bool(b)) => Some(a.cmp(b)),
            (Self::Null, Scalar::Null) => Some(Ordering::Equal),
            (Self::Text(_), _) | (_, Scalar::Text(_)) => Some(self.text()?.cmp(other.text()?)),
            _ => match (self.number()?, other.number()?) {
                ((Some(a), _), (Some(b), _)) => Some(a.cmp(&b)),
                ((_, a), (_, b)) => a.partial_cmp(&b),
            },
        }
    }
}
