//! The one place where structured values become bytes and come back.
//!
//! Layout: one version byte, then the value in bincode's standard configuration. Another codec
//! takes the next version byte; this one stays readable.
//!
//! Only what is listed is encoded: every crate lists its types by [`records!`](crate::records), each with
//! the largest size that it can have, and `docs/sizes.md` has a row for each.

use crate::{Result, StorageError};
use bincode::config::{Configuration, standard};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bincode 2, standard configuration.
const VERSION: u8 = 1;

const fn config() -> Configuration {
    standard()
}

/// A type that is encoded here. Implemented by [`records!`](crate::records) only. `Of` is a type of the
/// crate that lists it, so that a crate can list types that are not its own.
pub trait Record<Of> {
    /// Its name, for errors.
    const NAME: &'static str;
    /// The largest that a value of it can be, encoded.
    const BYTES_MAX: usize;
    /// The largest that is read: larger than [`Record::BYTES_MAX`] for what older software may have
    /// left, and for what was agreed and must be read whatever it is.
    const READ_BYTES_MAX: usize;
}

/// Lists the types that a crate encodes, each with its largest size in bytes and why it is that; `=>`
/// says how large one is taken, if that is more.
///
/// ```
/// struct Mine;
/// isotherm_storage::records! {
///     RECORDS of Mine:
///     u64 = 1 + 9, "a number";
///     Vec<u8> = 100 => 200, "bytes of which older software left more";
/// }
/// assert_eq!(RECORDS[0].1, 10);
/// assert_eq!(isotherm_storage::codec::encode(&7_u64), [1, 7]);
/// ```
#[macro_export]
macro_rules! records {
    ($list:ident of $of:ty:
     $($record:ty = $bytes:expr $(=> $read:expr)?, $why:expr;)*) => {
        $(
            impl $crate::codec::Record<$of> for $record {
                const NAME: &'static str = stringify!($record);
                const BYTES_MAX: usize = $bytes;
                const READ_BYTES_MAX: usize = {
                    let _read = <Self as $crate::codec::Record<$of>>::BYTES_MAX;
                    $(let _read = $read;)?
                    _read
                };
            }
        )*
        /// Name, largest size in bytes and its reason, of every type that this crate encodes.
        pub const $list: &[(&str, usize, &str)] = &[
            $((stringify!($record), <$record as $crate::codec::Record<$of>>::BYTES_MAX, $why),)*
        ];
    };
}

/// How many bytes an unsigned number up to `max` takes, as the codec writes it.
pub const fn uint_bytes(max: u64) -> usize {
    match max {
        0..=250 => 1,
        251..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// How many bytes a text, or bytes, of up to `max` bytes take with their length.
pub const fn sized_bytes(max: usize) -> usize {
    uint_bytes(max as u64) + max
}

/// How many bytes a list of up to `count` things of up to `each` bytes takes.
pub const fn list_bytes(count: usize, each: usize) -> usize {
    uint_bytes(count as u64) + count * each
}

/// `value` as bytes.
pub fn encode<Of, T: Record<Of> + Serialize>(value: &T) -> Vec<u8> {
    let mut out = vec![VERSION];
    bincode::serde::encode_into_std_write(value, &mut out, config())
        .expect("plain data with known lengths encodes into memory");
    // What makes a value keeps within its bounds: what is not read again must not be written.
    debug_assert!(
        out.len() <= T::READ_BYTES_MAX,
        "{} has {} bytes and {} at most",
        T::NAME,
        out.len(),
        T::READ_BYTES_MAX
    );
    out
}

/// The value that [`encode`] made `bytes` of. Another version, a malformed value, one that is larger than
/// its type can be, or bytes left over are [`StorageError::Corrupt`].
pub fn decode<T: Record<Of> + DeserializeOwned, Of>(bytes: &[u8]) -> Result<T> {
    let what = std::any::type_name::<T>();
    let (n, max) = (bytes.len(), T::READ_BYTES_MAX);
    if n > max {
        let why = format!("it has {n} bytes, and {} has {max} at most", T::NAME);
        return Err(StorageError::corrupt(what, why));
    }
    let Some((&VERSION, rest)) = bytes.split_first() else {
        let why = match bytes.first() {
            Some(version) => format!("unknown codec version {version}"),
            None => "it is empty".to_owned(),
        };
        return Err(StorageError::corrupt(what, why));
    };
    let (value, used) = bincode::serde::decode_from_slice(rest, config())
        .map_err(|e| StorageError::corrupt(what, e.to_string()))?;
    if used != rest.len() {
        let why = format!("{} bytes are left over", rest.len() - used);
        return Err(StorageError::corrupt(what, why));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use isotherm_types::{KeyRange, NodeId, RangeDescriptor, RangeId};
    use proptest::prelude::*;

    type Mixed = (u64, i64, Vec<u8>, Option<String>);

    struct Tests;
    crate::records! {
        LISTED of Tests:
        RangeDescriptor = 4096, "a test";
        Mixed = 4096, "a test";
        Vec<u8> = 1 + sized_bytes(300), "a test";
        String = 10 => 20, "a test";
    }

    #[test]
    fn one_byte_more_than_a_type_can_have_is_refused() {
        assert_eq!(LISTED[2], ("Vec<u8>", 304, "a test"));
        let largest = encode(&vec![7_u8; 300]);
        assert_eq!(largest.len(), 304);
        assert_eq!(decode::<Vec<u8>, _>(&largest).unwrap(), [7; 300]);
        let mut more = vec![1, 251, 45, 1];
        more.resize(305, 7);
        let refused = decode::<Vec<u8>, Tests>(&more).unwrap_err().to_string();
        assert!(refused.contains("305 bytes") && refused.contains("304 at most"), "{refused}");
        let left = encode(&"x".repeat(18));
        assert_eq!(decode::<String, _>(&left).unwrap().len(), 18, "what older software left");
    }

    /// Builds for tests check it.
    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "String has 21 bytes and 20 at most")]
    fn what_could_not_be_read_is_not_written() {
        encode(&"x".repeat(19));
    }

    #[test]
    fn sizes_of_numbers_are_those_of_the_codec() {
        for n in [0, 250, 251, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
            let written = bincode::serde::encode_to_vec(n, config()).unwrap();
            assert_eq!(written.len(), uint_bytes(n), "{n}");
        }
        let list = bincode::serde::encode_to_vec(vec![u64::MAX; 1000], config()).unwrap();
        assert_eq!(list.len(), list_bytes(1000, 9));
    }

    fn descriptor() -> RangeDescriptor {
        RangeDescriptor::first(RangeId(7), KeyRange::prefix(b"ab"), &[NodeId(1), NodeId(2)])
    }

    #[test]
    fn a_descriptor_survives_the_round_trip() {
        let bytes = encode(&descriptor());
        assert_eq!(decode::<RangeDescriptor, _>(&bytes).unwrap(), descriptor());
    }

    #[test]
    fn an_unknown_version_and_wrong_sizes_are_refused() {
        let mut bytes = encode(&descriptor());
        for len in 0..bytes.len() {
            assert!(decode::<RangeDescriptor, _>(&bytes[..len]).is_err(), "{len} bytes");
        }
        bytes.push(0);
        assert!(decode::<RangeDescriptor, _>(&bytes).is_err());
        bytes.pop();
        bytes[0] = 2;
        assert!(decode::<RangeDescriptor, _>(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode::<RangeDescriptor, _>(&bytes);
        }

        #[test]
        fn numbers_and_bytes_survive(v in any::<(u64, i64, Vec<u8>, Option<String>)>()) {
            let back: Mixed = decode(&encode(&v)).unwrap();
            prop_assert_eq!(back, v);
        }
    }
}
