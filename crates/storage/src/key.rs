//! How keys become bytes: hand-written, big-endian, order-preserving.
//!
//! | column family | key |
//! |---|---|
//! | `live`, `lock`, `agg` | enc(user key) |
//! | `history` | enc(user key) ‖ inverted start ts, 8 bytes |
//! | `local` | tag ‖ range id, 8 bytes [‖ ts, 8 bytes] |
//!
//! `enc` is the memcomparable form: 0x00 becomes 0x00 0xFF, and 0x00 0x01 ends the key. No encoded
//! key is a prefix of another, so whatever follows it never changes the order of two keys: without
//! that, the history rows of `a` could sort behind those of `a\0…` and into a neighbour's span.

use crate::{Result, StorageError};
use isotherm_types::limits::KEY_BYTES_MAX;
use isotherm_types::{KeyRange, RangeId, Timestamp};
use std::ops::Range;

const ESCAPE: u8 = 0x00;
const ESCAPED_ZERO: u8 = 0xFF;
const TERMINATOR: u8 = 0x01;

/// After every encoded key: longer than the longest one, and all ones.
static AFTER_ALL: [u8; KEY_BYTES_MAX + 1] = [0xFF; KEY_BYTES_MAX + 1];

/// Appends enc(`key`) to `out`.
pub fn encode_into(key: &[u8], out: &mut Vec<u8>) {
    out.reserve(key.len() + 2);
    for &byte in key {
        out.push(byte);
        if byte == ESCAPE {
            out.push(ESCAPED_ZERO);
        }
    }
    out.extend_from_slice(&[ESCAPE, TERMINATOR]);
}

/// enc(`key`).
pub fn encode(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_into(key, &mut out);
    out
}

/// Runs `f` on enc(`key`) without touching the heap for keys of usual length: point reads are
/// the hot path.
pub(crate) fn with_encoded<T>(key: &[u8], f: impl FnOnce(&[u8]) -> T) -> T {
    const ON_STACK: usize = 256;
    let zeros = key.iter().filter(|&&byte| byte == ESCAPE).count();
    let len = key.len() + zeros + 2;
    if len > ON_STACK {
        return f(&encode(key));
    }
    let mut buffer = [0; ON_STACK];
    let mut at = 0;
    for &byte in key {
        buffer[at] = byte;
        at += 1;
        if byte == ESCAPE {
            buffer[at] = ESCAPED_ZERO;
            at += 1;
        }
    }
    buffer[at..at + 2].copy_from_slice(&[ESCAPE, TERMINATOR]);
    f(&buffer[..len])
}

/// The user key in front of `bytes`, and how many bytes its encoded form takes.
pub fn decode(bytes: &[u8]) -> Result<(Vec<u8>, usize)> {
    let malformed = |why: &str| StorageError::corrupt("key", why);
    let mut key = Vec::with_capacity(bytes.len());
    let mut at = 0;
    loop {
        match (bytes.get(at), bytes.get(at + 1)) {
            (Some(&ESCAPE), Some(&TERMINATOR)) => return Ok((key, at + 2)),
            (Some(&ESCAPE), Some(&ESCAPED_ZERO)) => {
                key.push(0);
                at += 2;
            }
            (Some(&ESCAPE), _) => return Err(malformed("unknown escape")),
            (Some(&byte), _) => {
                key.push(byte);
                at += 1;
            }
            (None, _) => return Err(malformed("it does not end")),
        }
    }
}

/// The user key of a row of `live`: nothing may follow it.
pub fn decode_whole(bytes: &[u8]) -> Result<Vec<u8>> {
    let (key, len) = decode(bytes)?;
    if len != bytes.len() {
        return Err(StorageError::corrupt("key", "bytes follow its end"));
    }
    Ok(key)
}

/// The user key of a row of `live`, in place if nothing in it was escaped, in `unescaped` otherwise.
pub(crate) fn borrow<'a>(bytes: &'a [u8], unescaped: &'a mut Vec<u8>) -> Result<&'a [u8]> {
    if let Some(plain) = bytes.strip_suffix(&[ESCAPE, TERMINATOR])
        && !plain.contains(&ESCAPE)
    {
        return Ok(plain);
    }
    *unescaped = decode_whole(bytes)?;
    Ok(unescaped)
}

/// The encoded bounds `[start, end)` of `span`, good in every column family that is keyed by
/// enc(user key).
pub fn bounds(span: &KeyRange) -> Range<Vec<u8>> {
    let start = encode(span.start());
    let end = if span.end().is_empty() { AFTER_ALL.to_vec() } else { encode(span.end()) };
    start..end
}

/// Key of the version of `encoded` (an encoded user key) that starts at `start`. Newer versions
/// sort first.
pub(crate) fn history(encoded: &[u8], start: Timestamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded.len() + 8);
    out.extend_from_slice(encoded);
    out.extend_from_slice(&(!start.get()).to_be_bytes());
    out
}

/// The start of the version under `row_key`, if that is a history row of `encoded`.
pub(crate) fn history_start(row_key: &[u8], encoded: &[u8]) -> Option<Timestamp> {
    let inverted: [u8; 8] = row_key.strip_prefix(encoded)?.try_into().ok()?;
    Some(Timestamp(!u64::from_be_bytes(inverted)))
}

/// After the last history row of `encoded`, and before anything of another key.
pub(crate) fn history_end(encoded: &[u8]) -> Vec<u8> {
    let mut end = encoded.to_vec();
    *end.last_mut().expect("an encoded key ends with its terminator") = TERMINATOR + 1;
    end
}

/// Key of a row of `local`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LocalKey {
    /// The descriptor of a range.
    Descriptor(RangeId),
    /// The applied state of a range.
    Applied(RangeId),
    /// What the entry with this ts did in the range that proposed it: remembered results.
    Dedup {
        /// The range whose log held the entry. A child still consults its parent's rows.
        origin: RangeId,
        /// The entry's.
        ts: Timestamp,
    },
}

impl LocalKey {
    const DESCRIPTOR: u8 = 1;
    const APPLIED: u8 = 2;
    const DEDUP: u8 = 3;

    /// Order-preserving bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (tag, range) = match self {
            Self::Descriptor(range) => (Self::DESCRIPTOR, range),
            Self::Applied(range) => (Self::APPLIED, range),
            Self::Dedup { origin, .. } => (Self::DEDUP, origin),
        };
        let mut out = Vec::with_capacity(17);
        out.push(tag);
        out.extend_from_slice(&range.get().to_be_bytes());
        if let Self::Dedup { ts, .. } = self {
            out.extend_from_slice(&ts.get().to_be_bytes());
        }
        out
    }

    /// The key that [`LocalKey::encode`] made `bytes` of; anything else is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let refuse = || StorageError::corrupt("local key", format!("{}", bytes.escape_ascii()));
        let (&tag, rest) = bytes.split_first().ok_or_else(refuse)?;
        let (range, rest) = rest.split_first_chunk::<8>().ok_or_else(refuse)?;
        let range = RangeId(u64::from_be_bytes(*range));
        match (tag, rest) {
            (Self::DESCRIPTOR, []) => Ok(Self::Descriptor(range)),
            (Self::APPLIED, []) => Ok(Self::Applied(range)),
            (Self::DEDUP, rest) => {
                let ts: [u8; 8] = rest.try_into().map_err(|_| refuse())?;
                Ok(Self::Dedup { origin: range, ts: Timestamp(u64::from_be_bytes(ts)) })
            }
            _ => Err(refuse()),
        }
    }

    /// The bounds of all descriptor rows.
    pub(crate) fn descriptors() -> Range<Vec<u8>> {
        vec![Self::DESCRIPTOR]..vec![Self::APPLIED]
    }

    /// The bounds of the de-duplication rows of `origin` from `first` on.
    pub(crate) fn dedup_from(origin: RangeId, first: Timestamp) -> Range<Vec<u8>> {
        let start = Self::Dedup { origin, ts: first }.encode();
        let mut end = Self::Dedup { origin, ts: Timestamp::MAX }.encode();
        end.push(0);
        start..end
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// Few distinct bytes, and the ones that matter, so that prefixes and escapes meet often.
    fn user_key() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(0), Just(1), Just(2), Just(0xFE), Just(0xFF), any::<u8>()];
        prop::collection::vec(byte, 0..8)
    }

    #[test]
    fn a_malformed_key_is_refused() {
        for bad in [&b""[..], b"a", b"a\0", b"a\0\x02", b"\0\0"] {
            assert!(decode(bad).is_err(), "{}", bad.escape_ascii());
        }
        assert!(decode_whole(b"a\0\x01b").is_err());
    }

    #[test]
    fn every_key_sorts_before_the_unbounded_end() {
        let longest = encode(&[0xFF; KEY_BYTES_MAX]);
        assert!(longest < bounds(&KeyRange::all()).end);
        assert!(history(&longest, Timestamp::ZERO) < bounds(&KeyRange::all()).end);
    }

    #[test]
    fn local_keys_of_wrong_size_or_tag_are_refused() {
        let key = LocalKey::Dedup { origin: RangeId(3), ts: Timestamp(9) }.encode();
        for len in 0..key.len() {
            assert!(LocalKey::decode(&key[..len]).is_err(), "{len} bytes");
        }
        assert!(LocalKey::decode(&[&key[..], &[0]].concat()).is_err());
        let mut key = LocalKey::Applied(RangeId(3)).encode();
        key[0] = 9;
        assert!(LocalKey::decode(&key).is_err());
    }

    proptest! {
        #[test]
        fn encoding_keeps_the_order(a in user_key(), b in user_key()) {
            prop_assert_eq!(encode(&a).cmp(&encode(&b)), a.cmp(&b));
        }

        #[test]
        fn a_key_survives_the_round_trip(key in user_key(), tail in user_key()) {
            let encoded = encode(&key);
            prop_assert_eq!(&decode_whole(&encoded).unwrap(), &key);
            let mut unescaped = Vec::new();
            prop_assert_eq!(borrow(&encoded, &mut unescaped).unwrap(), &key[..]);
            let followed = [&encoded[..], &tail].concat();
            prop_assert_eq!(decode(&followed).unwrap(), (key.clone(), encoded.len()));
            with_encoded(&key, |on_stack| assert_eq!(on_stack, encoded));
        }

        #[test]
        fn history_rows_sort_by_key_then_newest_first(
            a in user_key(), s in any::<u64>(), b in user_key(), t in any::<u64>(),
        ) {
            let left = history(&encode(&a), Timestamp(s));
            let right = history(&encode(&b), Timestamp(t));
            prop_assert_eq!(left.cmp(&right), a.cmp(&b).then(t.cmp(&s)));
            prop_assert_eq!(history_start(&left, &encode(&a)), Some(Timestamp(s)));
            prop_assert!(left < history_end(&encode(&a)));
            if a < b { prop_assert!(history_end(&encode(&a)) <= encode(&b)); }
        }

        #[test]
        fn history_rows_stay_inside_the_span_of_their_key(
            key in user_key(), start in user_key(), end in user_key(), ts in any::<u64>(),
        ) {
            let Ok(span) = KeyRange::new(start, end) else { return Ok(()) };
            let row = history(&encode(&key), Timestamp(ts));
            prop_assert_eq!(bounds(&span).contains(&row), span.contains(&key));
            prop_assert_eq!(bounds(&span).contains(&encode(&key)), span.contains(&key));
        }

        #[test]
        fn local_keys_keep_their_order(
            a in any::<(u8, u64, u64)>(), b in any::<(u8, u64, u64)>(),
        ) {
            let make = |(kind, range, ts): (u8, u64, u64)| match kind % 3 {
                0 => LocalKey::Descriptor(RangeId(range)),
                1 => LocalKey::Applied(RangeId(range)),
                _ => LocalKey::Dedup { origin: RangeId(range), ts: Timestamp(ts) },
            };
            let (a, b) = (make(a), make(b));
            prop_assert_eq!(a.encode().cmp(&b.encode()), a.cmp(&b));
            prop_assert_eq!(LocalKey::decode(&a.encode()).unwrap(), a);
        }
    }
}
