//! The one place where structured values become bytes and come back.
//!
//! Layout: one version byte, then the value in bincode's standard configuration. Another codec
//! takes the next version byte; this one stays readable.

use crate::{Result, StorageError};
use bincode::config::{Configuration, standard};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bincode 2, standard configuration.
const VERSION: u8 = 1;

const fn config() -> Configuration {
    standard()
}

/// `value` as bytes.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut out = vec![VERSION];
    bincode::serde::encode_into_std_write(value, &mut out, config())
        .expect("plain data with known lengths encodes into memory");
    out
}

/// The value that [`encode`] made `bytes` of. Another version, a malformed value or bytes left
/// over are [`StorageError::Corrupt`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let what = std::any::type_name::<T>();
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

    fn descriptor() -> RangeDescriptor {
        RangeDescriptor::first(RangeId(7), KeyRange::prefix(b"ab"), &[NodeId(1), NodeId(2)])
    }

    #[test]
    fn a_descriptor_survives_the_round_trip() {
        let bytes = encode(&descriptor());
        assert_eq!(decode::<RangeDescriptor>(&bytes).unwrap(), descriptor());
    }

    #[test]
    fn an_unknown_version_and_wrong_sizes_are_refused() {
        let mut bytes = encode(&descriptor());
        for len in 0..bytes.len() {
            assert!(decode::<RangeDescriptor>(&bytes[..len]).is_err(), "{len} bytes");
        }
        bytes.push(0);
        assert!(decode::<RangeDescriptor>(&bytes).is_err());
        bytes.pop();
        bytes[0] = 2;
        assert!(decode::<RangeDescriptor>(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode::<RangeDescriptor>(&bytes);
        }

        #[test]
        fn numbers_and_bytes_survive(v in any::<(u64, i64, Vec<u8>, Option<String>)>()) {
            let back: (u64, i64, Vec<u8>, Option<String>) = decode(&encode(&v)).unwrap();
            prop_assert_eq!(back, v);
        }
    }
}
