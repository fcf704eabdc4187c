//! What the value of a row means.

use crate::error::excerpt;
use crate::number::Number;
use crate::{AggregateError, Decimal, JsonPath, Result};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// How a value becomes a number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ValueSource {
    /// Decimal text: sign, digits with or without a point, an exponent or none.
    #[default]
    Text,
    /// A whole number of 64 bits as decimal text.
    I64,
    /// The same as 8 bytes, the lowest first.
    I64Le,
    /// The same as 8 bytes, the highest first.
    I64Be,
    /// A double as text: `1.5`, `2e10`, `inf`. What is beyond the largest double is none.
    F64,
    /// A double as 8 bytes, the lowest first.
    F64Le,
    /// A double as 8 bytes, the highest first.
    F64Be,
    /// A number inside a JSON value, taken as a decimal.
    Json(JsonPath, String),
    /// A number inside a JSON value, taken as a double.
    JsonF64(JsonPath, String),
}

impl ValueSource {
    /// Whether its numbers are doubles.
    pub fn is_float(&self) -> bool {
        matches!(self, Self::F64 | Self::F64Le | Self::F64Be | Self::JsonF64(..))
    }

    /// Where in a JSON value it looks, if it does.
    pub(crate) fn path(&self) -> Option<&JsonPath> {
        match self {
            Self::Json(path, _) | Self::JsonF64(path, _) => Some(path),
            _ => None,
        }
    }

    /// The number that a part of a value stands for. NaN is none: it has no place in any order or sum.
    #[inline]
    pub(crate) fn number(&self, part: &[u8]) -> Option<Number> {
        let integer = |bytes: [u8; 8], le: bool| {
            let value = if le { i64::from_le_bytes(bytes) } else { i64::from_be_bytes(bytes) };
            Number::Decimal(Decimal::from_i64(value))
        };
        let text = |part| std::str::from_utf8(part).ok();
        let float = |value: f64| (!value.is_nan()).then_some(Number::Float(value));
        match self {
            Self::Text => Number::decimal(part),
            Self::I64 => text(part)?.parse().ok().map(|v| Number::Decimal(Decimal::from_i64(v))),
            Self::I64Le => part.try_into().ok().map(|bytes| integer(bytes, true)),
            Self::I64Be => part.try_into().ok().map(|bytes| integer(bytes, false)),
            Self::F64 => parse_double(part).and_then(float),
            Self::F64Le => part.try_into().ok().map(f64::from_le_bytes).and_then(float),
            Self::F64Be => part.try_into().ok().map(f64::from_be_bytes).and_then(float),
            Self::Json(..) => is_json_number(part).then(|| Number::decimal(part))?,
            Self::JsonF64(..) => is_json_number(part).then(|| parse_double(part))?.and_then(float),
        }
    }

    /// What a part of a value is compared as: also the number that it is if it is one that cannot be
    /// added up. A row must not be left out of everything without being counted.
    pub(crate) fn compared(&self, part: &[u8]) -> Option<Number> {
        let number = self.number(part);
        match self {
            Self::I64 | Self::F64 => number.or_else(|| Number::decimal(part)),
            Self::JsonF64(..) if is_json_number(part) => number.or_else(|| Number::decimal(part)),
            _ => number,
        }
    }

    /// The part as text: what a JSON string says, everything else as it is.
    pub(crate) fn text<'a>(&self, part: &'a [u8]) -> Cow<'a, [u8]> {
        match self {
            Self::Json(..) | Self::JsonF64(..) => json_text(part),
            _ => Cow::Borrowed(part),
        }
    }
}

/// A double as text. Digits that come to more than the largest double are not infinity, which has a
/// name of its own.
fn parse_double(text: &[u8]) -> Option<f64> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (value.is_finite() || !text.iter().any(u8::is_ascii_digit)).then_some(value)
}

/// What a JSON string says; the text itself for what is no string.
pub(crate) fn json_text(part: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(part).map(crate::json_path::unquoted) {
        Ok(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
        Ok(Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
        Err(_) => Cow::Borrowed(part),
    }
}

pub(crate) fn is_json_number(part: &[u8]) -> bool {
    part.first().is_some_and(|b| *b == b'-' || b.is_ascii_digit())
}

impl FromStr for ValueSource {
    type Err = AggregateError;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix("json:") {
            return Ok(Self::Json(JsonPath::parse(path)?, path.to_owned()));
        }
        if let Some(path) = text.strip_prefix("json-f64:") {
            return Ok(Self::JsonF64(JsonPath::parse(path)?, path.to_owned()));
        }
        Ok(match text {
            "text" => Self::Text,
            "i64" => Self::I64,
            "i64le" => Self::I64Le,
            "i64be" => Self::I64Be,
            "f64" => Self::F64,
            "f64le" => Self::F64Le,
            "f64be" => Self::F64Be,
            _ => {
                let text = excerpt(text);
                return Err(AggregateError::query(format!(
                    "{text:?} is no kind of value: use text, i64, f64 (numbers as text), i64le, \
                     i64be, f64le, f64be (8 bytes), json:PATH or json-f64:PATH"
                )));
            }
        })
    }
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::I64 => "i64",
            Self::I64Le => "i64le",
            Self::I64Be => "i64be",
            Self::F64 => "f64",
            Self::F64Le => "f64le",
            Self::F64Be => "f64be",
            Self::Json(_, path) => return write!(f, "json:{path}"),
            Self::JsonF64(_, path) => return write!(f, "json-f64:{path}"),
        })
    }
}
