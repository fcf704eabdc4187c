//! Limits, checked before anything is sent.

use crate::{ClientError, ErrorKind};
use isotherm_types::limits::{BATCH_OPS_MAX, KEY_BYTES_MAX, REQUEST_BYTES_MAX, VALUE_BYTES_MAX};

pub(crate) fn check_key(key: &[u8]) -> Result<(), ClientError> {
    match key.len() {
        0 => Err(ClientError::new(ErrorKind::Invalid, "the key is empty: give at least 1 byte")),
        n if n > KEY_BYTES_MAX => Err(ClientError::new(
            ErrorKind::TooLarge,
            format!("the key has {n} bytes, the limit is {KEY_BYTES_MAX}"),
        )),
        _ => Ok(()),
    }
}

pub(crate) fn check_value(value: &[u8]) -> Result<(), ClientError> {
    let n = value.len();
    if n > VALUE_BYTES_MAX {
        let message = format!("the value has {n} bytes, the limit is {VALUE_BYTES_MAX}");
        return Err(ClientError::new(ErrorKind::TooLarge, message));
    }
    Ok(())
}

pub(crate) fn check_batch(ops: usize, bytes: usize) -> Result<(), ClientError> {
    if ops == 0 {
        return Err(ClientError::new(ErrorKind::Invalid, "the batch is empty"));
    }
    if ops > BATCH_OPS_MAX {
        let message = format!("the batch has {ops} operations, the limit is {BATCH_OPS_MAX}");
        return Err(ClientError::new(ErrorKind::TooLarge, message));
    }
    if bytes > REQUEST_BYTES_MAX {
        let message = format!("the batch has {bytes} bytes, the limit is {REQUEST_BYTES_MAX}");
        return Err(ClientError::new(ErrorKind::TooLarge, message));
    }
    Ok(())
}
