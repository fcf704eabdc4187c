//! A path into a JSON value.
//!
//! `a.b[0].c`, also with a leading `$.`; a name with other characters in brackets: `["a.b"]`. What is
//! found is the text as it stands there, so that numbers keep all of their digits.

use crate::{AggregateError, Result};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
}

/// Where in a JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath(Vec<Step>);

impl JsonPath {
    /// Reads a path.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            AggregateError::query(format!(
                "the JSON path {text:?} {why}: write for example a.b, a.items[0] or [\"a.b\"]"
            ))
        };
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(quoted) = rest.strip_prefix("[\"") {
                let end = quoted.find("\"]").ok_or_else(|| bad("does not close a [\""))?;
                steps.push(Step::Name(quoted[..end].to_owned()));
                rest = &quoted[end + 2..];
            } else if let Some(index) = rest.strip_prefix('[') {
                let end = index.find(']').ok_or_else(|| bad("does not close a ["))?;
                let number = index[..end].parse();
                steps.push(Step::Index(number.map_err(|_| bad("has an index that is no number"))?));
                rest = &index[end + 1..];
            } else {
                let name = match rest.strip_prefix('.') {
                    Some(name) => name,
                    None if steps.is_empty() => rest,
                    None => return Err(bad("lacks a point between two names")),
                };
                let end = name.find(['.', '[']).unwrap_or(name.len());
                if end == 0 {
                    return Err(bad("has an empty name"));
                }
                steps.push(Step::Name(name[..end].to_owned()));
                rest = &name[end..];
            }
        }
        Ok(Self(steps))
    }

    /// What stands there: the JSON text, and none if the value is not JSON or has no such place. A
    /// name that occurs twice counts as it first does.
    pub fn find<'a>(&self, value: &'a [u8]) -> Option<&'a str> {
        let mut deserializer = serde_json::Deserializer::from_slice(value);
        let found = Seek(&self.0).deserialize(&mut deserializer).ok()??;
        deserializer.end().ok()?;
        Some(found.get())
    }
}

/// What a JSON string says; the text itself for what is no string.
pub(crate) fn unquoted(json: &str) -> std::borrow::Cow<'_, str> {
    if !json.starts_with('"') {
        return json.into();
    }
    match serde_json::from_str(json) {
        Ok(text) => std::borrow::Cow::Owned(text),
        Err(_) => json.into(),
    }
}

/// Walks down one step at a time; everything else is passed over without being built.
struct Seek<'p>(&'p [Step]);

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        if self.0.is_empty() {
            return serde::Deserialize::deserialize(deserializer).map(Some);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut map: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match &self.0[0] {
                Step::Name(name) if found.is_none() && *name == key => {
                    found = Some(map.next_value_seed(Seek(&self.0[1..]))?);
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found.flatten())
    }

    fn visit_seq<A: SeqAccess<'de>>(
        self,
        mut seq: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        let mut found = None;
        for at in 0.. {
            let is_it = self.0[0] == Step::Index(at);
            if is_it {
                match seq.next_element_seed(Seek(&self.0[1..]))? {
                    Some(element) => found = element,
                    None => break,
                }
            } else if seq.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
        }
        Ok(found)
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_i64<E>(self, _: i64) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_u64<E>(self, _: u64) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_f64<E>(self, _: f64) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_str<E>(self, _: &str) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn paths_find_what_stands_there() {
        let json = br#" {"a":{"b":[1, {"c": -1.50e2}, null]},"x.y":"p\"q","a":7,"n":0.10000000000000000001} "#;
        let find = |path: &str| JsonPath::parse(path).unwrap().find(json);
        assert_eq!(find("a.b[1].c"), Some("-1.50e2"));
        assert_eq!(find("$.a.b[0]"), Some("1"));
        assert_eq!(find("a.b[2]"), Some("null"));
        assert_eq!(find(r#"["x.y"]"#), Some(r#""p\"q""#));
        assert_eq!(unquoted(find(r#"["x.y"]"#).unwrap()), "p\"q");
        assert_eq!(find("n"), Some("0.10000000000000000001"));
        for missing in ["a.b[3]", "a.c", "z", "a[0]", "n.x", "a.b.c"] {
            assert_eq!(find(missing), None, "{missing}");
        }
        let path = JsonPath::parse("a").unwrap();
        for broken in [&b"{\"a\":1"[..], b"{\"a\":1} x", b"", b"\xff", b"12"] {
            assert_eq!(path.find(broken), None);
        }
        assert_eq!(JsonPath::parse("$").unwrap().find(b"12"), Some("12"));
    }

    #[test]
    fn a_malformed_path_says_what_to_write() {
        for bad in ["a..b", ".", "a[", "a[x]", "a]b[0]c", "[\"a", "a[0]b"] {
            let error = JsonPath::parse(bad).map(|_| ());
            assert!(error.is_err() || bad == "a]b[0]c", "{bad}");
        }
    }
}
