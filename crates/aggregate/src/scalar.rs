//! What a comparison compares.

use crate::ValueSource;
use crate::number::Number;
use crate::value::{is_json_number, json_text};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::OnceLock;

/// One side of a comparison, in one row.
#[derive(Debug, Clone)]
pub(crate) enum Scalar<'a> {
    /// With the double that is nearest, once it was looked at.
    Number(Number, OnceLock<f64>),
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
            text if is_json_number(text.as_bytes()) => {
                Self::of_number(Number::decimal(text.as_bytes())?)
            }
            text if text.starts_with('"') => Self::Text(json_text(text.as_bytes())),
            _ => return None,
        })
    }

    /// What the part of a value stands for that `source` looks at.
    pub fn of_value(part: &'a [u8], source: &ValueSource) -> Self {
        Self::Value(source.compared(part), source.text(part))
    }

    pub fn of_number(number: Number) -> Self {
        Self::Number(number, OnceLock::new())
    }

    fn number(&self) -> Option<&Number> {
        match self {
            Self::Number(number, _) | Self::Value(Some(number), _) => Some(number),
            _ => None,
        }
    }

    fn float(&self) -> Option<f64> {
        match self {
            Self::Number(number, float) => Some(*float.get_or_init(|| number.to_f64())),
            _ => self.number().map(Number::to_f64),
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
                // With a double on one side, both as doubles.
                (Number::Float(_), _) | (_, Number::Float(_)) => {
                    self.float()?.partial_cmp(&other.float()?)
                }
                (a, b) => a.compare(b),
            },
        }
    }
}
