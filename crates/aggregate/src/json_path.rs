//! A path into a JSON value.
//!
//! `a.b[0].c`, also with a leading `$.` (`$id` is a name); a name with other characters in brackets: `["a.b"]`. What is
//! found is the text as it stands there, so that numbers keep all of their digits.

use crate::error::excerpt;
use crate::json_paths::JsonPaths;
use crate::{AggregateError, Result};

/// Steps of a path at most: finding what stands there recurses.
const STEPS_MAX: usize = 128;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
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
            let text = excerpt(text);
            AggregateError::query(format!(
                "the JSON path {text:?} {why}: write for example a.b, a.items[0] or [\"a.b\"]"
            ))
        };
        // A `$` stands for the whole value, unless it begins a name.
        let whole =
            text.strip_prefix('$').filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        let mut rest = whole.unwrap_or(text);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if steps.len() == STEPS_MAX {
                return Err(bad("has more than 128 steps"));
            }
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

    pub(crate) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// What stands there: the JSON text, and none if the value is not JSON or has no such place. A
    /// name that occurs twice counts as it first does.
    pub fn find<'a>(&self, value: &'a [u8]) -> Option<&'a str> {
        let (mut paths, mut found) = (JsonPaths::default(), None);
        paths.add(self);
        paths.find(value, |_, text| found = Some(text));
        found
    }
}

/// What a JSON string says; the text itself for what is no string.
pub(crate) fn unquoted(json: &str) -> std::borrow::Cow<'_, str> {
    if !json.starts_with('"') {
        return json.into();
    }
    if !json.contains('\\') {
        return json.strip_prefix('"').and_then(|s| s.strip_suffix('"')).unwrap_or(json).into();
    }
    match serde_json::from_str(json) {
        Ok(text) => std::borrow::Cow::Owned(text),
        Err(_) => json.into(),
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
        let both = br#"{"id":1,"$id":2,"a":{"$b":3},"$":4}"#;
        let find = |path: &str| JsonPath::parse(path).unwrap().find(both);
        for (path, found) in [
            ("$id", "2"),
            ("$.id", "1"),
            ("$.$id", "2"),
            ("a.$b", "3"),
            (r#"["$"]"#, "4"),
            (r#"$["id"]"#, "1"),
        ] {
            assert_eq!(find(path), Some(found), "{path}");
        }
    }

    #[test]
    fn a_malformed_path_says_what_to_write() {
        for bad in ["a..b", ".", "a[", "a[x]", "a]b[0]c", "[\"a", "a[0]b"] {
            let error = JsonPath::parse(bad).map(|_| ());
            assert!(error.is_err() || bad == "a]b[0]c", "{bad}");
        }
    }
}
