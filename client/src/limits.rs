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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_is_taken_and_one_more_is_not() {
        let too_large = |checked: Result<(), ClientError>| {
            checked.is_err_and(|refused| refused.kind == ErrorKind::TooLarge)
        };
        assert!(check_key(&[0; KEY_BYTES_MAX]).is_ok());
        assert!(too_large(check_key(&[0; KEY_BYTES_MAX + 1])));
        assert!(check_value(&vec![0; VALUE_BYTES_MAX]).is_ok());
        assert!(too_large(check_value(&vec![0; VALUE_BYTES_MAX + 1])));
        assert!(check_batch(BATCH_OPS_MAX, REQUEST_BYTES_MAX).is_ok());
        assert!(too_large(check_batch(BATCH_OPS_MAX + 1, 1)));
        assert!(too_large(check_batch(1, REQUEST_BYTES_MAX + 1)));
    }
}
