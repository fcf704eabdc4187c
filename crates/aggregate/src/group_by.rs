//! What rows are grouped by.

use crate::error::excerpt;
use crate::value::json_text;
use crate::{AggregateError, JsonPath, Result, Rules};
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Bytes of a separator at most: it is looked for at every place of a key.
const SEPARATOR_MAX: usize = 256;

/// The part of a row that names its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupBy {
    /// The first bytes of the key (the whole key if it is shorter).
    Prefix(usize),
    /// A field of the key, counted from 1.
    Split {
        /// What separates fields.
        separator: String,
        /// Which field.
        field: usize,
    },
    /// A place in a JSON value.
    Json(JsonPath, String),
}

impl GroupBy {
    /// The group of a row, of which `json` is what stands at the path; none is the group `null`.
    ///
    /// What stands in JSON names a group as it is written there. A string names one by what it says,
    /// unless that would be the name of something else: "5" keeps its quotes, since 5 has none.
    pub(crate) fn group<'a>(
        &self,
        key: &'a [u8],
        rules: Rules,
        json: impl FnOnce() -> Option<&'a str>,
    ) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Prefix(bytes) => Some(key[..key.len().min(*bytes)].into()),
            Self::Split { separator, field } => {
                let mut rest = key;
                for _ in 1..*field {
                    rest = &rest[find(rest, separator.as_bytes())? + separator.len()..];
                }
                let end = find(rest, separator.as_bytes()).unwrap_or(rest.len());
                Some(rest[..end].into())
            }
            Self::Json(..) => match json()? {
                "null" => None,
                text => {
                    let name = json_text(text.as_bytes());
                    if rules >= Rules::Second && text.starts_with('"') && is_json(&name) {
                        let quoted = std::str::from_utf8(&name).ok().map(serde_json::to_string);
                        return Some(quoted?.ok()?.into_bytes().into());
                    }
                    Some(name)
                }
            },
        }
    }
}

/// Whether this is JSON as it would stand in a value: without space around it.
fn is_json(text: &[u8]) -> bool {
    let may_begin =
        |b: &u8| matches!(b, b'"' | b'[' | b'{' | b'-' | b't' | b'f' | b'n') || b.is_ascii_digit();
    text.first().is_some_and(may_begin)
        && text.last().is_some_and(|b| !b.is_ascii_whitespace())
        && serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

impl FromStr for GroupBy {
    type Err = AggregateError;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            let text = excerpt(text);
            AggregateError::query(format!(
                "cannot group by {text:?}: {why}; use prefix:BYTES, split:SEPARATOR:FIELD (the first \
                 field is 1) or json:PATH"
            ))
        };
        if let Some(bytes) = text.strip_prefix("prefix:") {
            let bytes = bytes.parse().map_err(|_| bad("the length is no number"))?;
            return Ok(Self::Prefix(bytes));
        }
        if let Some(path) = text.strip_prefix("json:") {
            return Ok(Self::Json(JsonPath::parse(path)?, path.to_owned()));
        }
        let Some(rest) = text.strip_prefix("split:") else {
            return Err(bad("it is of no known kind"));
        };
        // The separator may be a colon.
        let (separator, field) =
            rest.rsplit_once(':').ok_or_else(|| bad("the field is missing"))?;
        if separator.is_empty() {
            return Err(bad("the separator is empty"));
        }
        if separator.len() > SEPARATOR_MAX {
            return Err(bad("the separator is longer than 256 bytes"));
        }
        match field.parse() {
            Ok(0) => Err(bad("fields are counted from 1")),
            Ok(field) => Ok(Self::Split { separator: separator.to_owned(), field }),
            Err(_) => Err(bad("the field is no number")),
        }
    }
}

impl fmt::Display for GroupBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(bytes) => write!(f, "prefix:{bytes}"),
            Self::Split { separator, field } => write!(f, "split:{separator}:{field}"),
            Self::Json(_, path) => write!(f, "json:{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn rows_find_their_group() {
        let group = |by: &str, key: &str, value: &str| {
            let by: GroupBy = by.parse().unwrap();
            assert_eq!(by.to_string().parse::<GroupBy>().unwrap(), by);
            let json = || match &by {
                GroupBy::Json(path, _) => path.find(value.as_bytes()),
                _ => None,
            };
            let group = by.group(key.as_bytes(), Rules::default(), json);
            group.map(|g| String::from_utf8(g.into_owned()).unwrap())
        };
        assert_eq!(group("prefix:3", "abcdef", "").as_deref(), Some("abc"));
        assert_eq!(group("prefix:9", "abc", "").as_deref(), Some("abc"));
        assert_eq!(group("prefix:0", "abc", "").as_deref(), Some(""));
        assert_eq!(group("split:/:1", "user/42/x", "").as_deref(), Some("user"));
        assert_eq!(group("split:/:3", "user/42/x", "").as_deref(), Some("x"));
        assert_eq!(group("split:/:4", "user/42/x", ""), None);
        assert_eq!(group("split::::2", "a::b", "").as_deref(), Some("b"));
        assert_eq!(group("json:a", "k", r#"{"a":"x\ny"}"#).as_deref(), Some("x\ny"));
        assert_eq!(group("json:a", "k", r#"{"a":1.0}"#).as_deref(), Some("1.0"));
        assert_eq!(group("json:a", "k", r#"{"a":null}"#), None);
        assert_eq!(group("json:a", "k", "7"), None);
        // What differs in type differs in name.
        for (value, name) in [
            (r#"5"#, "5"),
            (r#""5""#, r#""5""#),
            (r#""\"5\"""#, r#""\"5\"""#),
            (r#""null""#, r#""null""#),
            (r#""true""#, r#""true""#),
            (r#""[1]""#, r#""[1]""#),
            (r#"[1]"#, "[1]"),
            (r#"" 5""#, " 5"),
            (r#""5 ""#, "5 "),
            (r#""5a""#, "5a"),
            (r#""""#, ""),
        ] {
            let row = format!(r#"{{"a":{value}}}"#);
            assert_eq!(group("json:a", "k", &row).as_deref(), Some(name), "{value}");
        }
    }

    #[test]
    fn what_makes_no_group_is_refused() {
        for bad in [
            "",
            "prefix:",
            "prefix:-1",
            "split:/",
            "split::1",
            "split:/:0",
            "split:/:x",
            "json:a..b",
            "key",
        ] {
            assert!(bad.parse::<GroupBy>().is_err(), "{bad}");
        }
    }
}
