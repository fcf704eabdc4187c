//! Key spans `[start, end)` over the user's key space, compared byte by byte.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// A user key. Any bytes; length limits are enforced at the edge (see [`crate::limits`]).
pub type Key = Bytes;

/// A half-open span of keys: `start` is inside, `end` is not; an empty `end` means "to the end of
/// the key space". The empty key is never a user key, so `start` empty means "from the first".
///
/// Invariant (checked by [`KeyRange::new`]): `end` is empty or `start < end`.
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct KeyRange {
    start: Key,
    end: Key,
}

/// A span whose bounds are reversed or equal.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the span starts at {start:?} but ends before it, at {end:?}: swap the bounds")]
pub struct KeyRangeError {
    /// The start that was given.
    pub start: Key,
    /// The end that was given.
    pub end: Key,
}

impl KeyRange {
    /// The span `[start, end)`; an empty `end` is unbounded.
    pub fn new(start: impl Into<Key>, end: impl Into<Key>) -> Result<Self, KeyRangeError> {
        let (start, end) = (start.into(), end.into());
        if !end.is_empty() && start >= end {
            return Err(KeyRangeError { start, end });
        }
        Ok(Self { start, end })
    }

    /// The whole key space.
    pub fn all() -> Self {
        Self::default()
    }

    /// All keys that start with `prefix`; an empty prefix is the whole key space.
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        while let Some(last) = end.pop() {
            if last < 0xff {
                end.push(last + 1);
                break;
            }
        }
        Self { start: Key::copy_from_slice(prefix), end: end.into() }
    }

    /// The one key `key`.
    pub fn point(key: &[u8]) -> Self {
        let mut end = Vec::with_capacity(key.len() + 1);
        end.extend_from_slice(key);
        end.push(0);
        Self { start: Key::copy_from_slice(key), end: end.into() }
    }

    /// First key inside.
    pub fn start(&self) -> &Key {
        &self.start
    }

    /// First key after the span; empty: unbounded.
    pub fn end(&self) -> &Key {
        &self.end
    }

    /// Whether `key` lies inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start[..] <= *key && self.is_before_end(key)
    }

    /// Whether `key` lies before the end of the span.
    pub fn is_before_end(&self, key: &[u8]) -> bool {
        self.end.is_empty() || *key < self.end[..]
    }

    /// Whether all of `other` lies inside.
    pub fn covers(&self, other: &KeyRange) -> bool {
        self.start <= other.start
            && (self.end.is_empty() || (!other.end.is_empty() && other.end <= self.end))
    }

    /// Whether at least one key lies in both.
    pub fn overlaps(&self, other: &KeyRange) -> bool {
        self.is_before_end(&other.start) && other.is_before_end(&self.start)
    }

    /// The keys that lie in both, if any.
    pub fn intersect(&self, other: &KeyRange) -> Option<KeyRange> {
        if !self.overlaps(other) {
            return None;
        }
        let start = self.start.clone().max(other.start.clone());
        let end = match (self.end.is_empty(), other.end.is_empty()) {
            (true, _) => other.end.clone(),
            (_, true) => self.end.clone(),
            _ => self.end.clone().min(other.end.clone()),
        };
        Some(KeyRange { start, end })
    }

    /// Cuts the span at `keys` (each strictly inside, ascending) into `keys.len() + 1` spans.
    pub fn split_at(&self, keys: &[Key]) -> Option<Vec<KeyRange>> {
        let mut start = self.start.clone();
        let mut out = Vec::with_capacity(keys.len() + 1);
        for key in keys {
            if *key <= start || !self.is_before_end(key) {
                return None;
            }
            out.push(KeyRange { start, end: key.clone() });
            start = key.clone();
        }
        out.push(KeyRange { start, end: self.end.clone() });
        Some(out)
    }
}

impl fmt::Debug for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, ", self.start.escape_ascii())?;
        if self.end.is_empty() {
            write!(f, "+inf)")
        } else {
            write!(f, "{})", self.end.escape_ascii())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span(a: &str, b: &str) -> KeyRange {
        KeyRange::new(a.to_owned(), b.to_owned()).expect("ordered")
    }

    #[test]
    fn reversed_and_empty_spans_are_rejected() {
        assert!(KeyRange::new("b", "a").is_err());
        assert!(KeyRange::new("a", "a").is_err());
        assert!(KeyRange::new("a", "").is_ok());
    }

    #[test]
    fn a_prefix_of_all_ones_reaches_the_end_of_the_key_space() {
        assert_eq!(KeyRange::prefix(&[0xff, 0xff]).end(), &Key::new());
        assert_eq!(KeyRange::prefix(&[b'a', 0xff]).end(), &Key::from_static(b"b"));
        assert_eq!(KeyRange::prefix(b""), KeyRange::all());
    }

    #[test]
    fn a_cut_outside_the_span_or_out_of_order_is_rejected() {
        let s = span("b", "y");
        assert!(s.split_at(&["b".into()]).is_none());
        assert!(s.split_at(&["y".into()]).is_none());
        assert!(s.split_at(&["k".into(), "c".into()]).is_none());
        let cut = s.split_at(&["c".into(), "k".into()]).expect("inside");
        assert_eq!(cut, vec![span("b", "c"), span("c", "k"), span("k", "y")]);
    }

    proptest! {
        #[test]
        fn intersection_holds_exactly_the_common_keys(
            a in prop::collection::vec(any::<u8>(), 0..3), b in prop::collection::vec(any::<u8>(), 0..3),
            c in prop::collection::vec(any::<u8>(), 0..3), d in prop::collection::vec(any::<u8>(), 0..3),
            k in prop::collection::vec(any::<u8>(), 1..4),
        ) {
            let (Ok(x), Ok(y)) = (KeyRange::new(a, b), KeyRange::new(c, d)) else { return Ok(()) };
            let both = x.contains(&k) && y.contains(&k);
            prop_assert_eq!(x.intersect(&y).is_some_and(|i| i.contains(&k)), both);
            if both { prop_assert!(x.overlaps(&y)); }
            if x.covers(&y) && y.contains(&k) { prop_assert!(x.contains(&k)); }
        }
    }
}
