//! The error that travels in internal messages, and what its receiver may do about it.

use crate::internal as pb;
use isotherm_types::limits::{self, ERROR_DESCRIPTORS_MAX};
use pb::error::Code;
use prost::Message;
use thiserror::Error;

/// An error answer of a node or meta member, with its stable code.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{} ({})", .0.message, self.code().as_str_name())]
pub struct WireError(pub Box<pb::Error>);

/// Details of an error in the headers of an answer, in bytes. HTTP/2 clients take 16 KiB of headers, some
/// 8 KiB; in text the details are a third longer, and the message is there once more.
const DETAILS_BYTES_MAX: usize = 3 << 10;

/// What a caller may do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Certainly not applied: ask again elsewhere or after refreshing the route.
    Reroute,
    /// Certainly not applied: ask the same place again after a pause.
    Later,
    /// Perhaps applied: only a retry under the same write id is safe.
    SameWriteOnly,
    /// Certainly not applied: safe to send again with a newer birth, if it was the first attempt.
    NewBirth,
    /// A retry cannot help.
    Never,
}

impl WireError {
    /// An error with a code and a message for people. A message that is longer than
    /// [`limits::TEXT_BYTES_MAX`] is cut: it can repeat what a client sent.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let mut message = message.into();
        limits::cut_text(&mut message);
        Self(Box::new(pb::Error { code: code.into(), message, ..Default::default() }))
    }

    /// As the error that ends an RPC, with the details in their binary form. They travel in headers,
    /// which clients bound: descriptors that do not fit are left out.
    pub fn into_detailed_status(self) -> tonic::Status {
        let mut details = (*self.0).clone();
        while details.encoded_len() > DETAILS_BYTES_MAX && details.descriptors.pop().is_some() {}
        let details = details.encode_to_vec();
        let status = tonic::Status::from(self);
        tonic::Status::with_details(status.code(), status.message(), details.into())
    }

    /// The code; one that this version does not know is `Internal`.
    pub fn code(&self) -> Code {
        self.0.code()
    }

    /// What the caller may do.
    pub fn retry(&self) -> Retry {
        match self.code() {
            Code::NotLeader | Code::EpochMismatch | Code::RangeNotFound => Retry::Reroute,
            Code::Busy | Code::Unavailable | Code::Locked => Retry::Later,
            Code::Indeterminate => Retry::SameWriteOnly,
            Code::Expired => Retry::NewBirth,
            Code::DiskFull
            | Code::Invalid
            | Code::TooLarge
            | Code::Stale
            | Code::SnapshotTooOld
            | Code::TsTooNew
            | Code::Incompatible
            | Code::NotFound
            | Code::Condition
            | Code::Internal
            | Code::Unspecified => Retry::Never,
        }
    }
}

impl From<pb::Error> for WireError {
    fn from(mut e: pb::Error) -> Self {
        limits::cut_text(&mut e.message);
        e.descriptors.truncate(ERROR_DESCRIPTORS_MAX);
        Self(Box::new(e))
    }
}

impl From<WireError> for pb::Error {
    fn from(e: WireError) -> Self {
        *e.0
    }
}

impl From<WireError> for tonic::Status {
    fn from(e: WireError) -> Self {
        let code = match e.code() {
            Code::Invalid | Code::TooLarge => tonic::Code::InvalidArgument,
            Code::NotFound | Code::RangeNotFound => tonic::Code::NotFound,
            Code::Condition | Code::EpochMismatch | Code::Incompatible => {
                tonic::Code::FailedPrecondition
            }
            Code::SnapshotTooOld | Code::TsTooNew => tonic::Code::OutOfRange,
            Code::Busy | Code::DiskFull => tonic::Code::ResourceExhausted,
            Code::NotLeader | Code::Unavailable | Code::Expired => tonic::Code::Unavailable,
            Code::Locked => tonic::Code::Aborted,
            Code::Indeterminate | Code::Stale => tonic::Code::Unknown,
            Code::Internal | Code::Unspecified => tonic::Code::Internal,
        };
        tonic::Status::new(code, e.0.message.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use isotherm_types::limits::TEXT_BYTES_MAX;

    #[test]
    fn a_message_is_cut_one_byte_above_the_limit() {
        let fits = WireError::new(Code::Invalid, "x".repeat(TEXT_BYTES_MAX));
        assert_eq!(fits.0.message.len(), TEXT_BYTES_MAX);
        assert!(!fits.0.message.ends_with('…'));
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        let cut = WireError::new(Code::Invalid, long.clone());
        assert!(cut.0.message.ends_with('…') && cut.0.message.len() <= TEXT_BYTES_MAX);
        let heard = WireError::from(pb::Error { message: long, ..pb::Error::default() });
        assert!(heard.0.message.len() <= TEXT_BYTES_MAX, "what others say too");
    }

    #[test]
    fn an_error_names_as_many_ranges_as_it_may() {
        let heard = |count: usize| {
            let descriptors = vec![pb::Descriptor::default(); count];
            WireError::from(pb::Error { descriptors, ..pb::Error::default() }).0.descriptors.len()
        };
        assert_eq!(heard(ERROR_DESCRIPTORS_MAX), ERROR_DESCRIPTORS_MAX);
        assert_eq!(heard(ERROR_DESCRIPTORS_MAX + 1), ERROR_DESCRIPTORS_MAX);
    }

    #[test]
    fn details_fit_into_the_headers_of_an_answer() {
        let key = bytes::Bytes::from(vec![b'k'; limits::KEY_BYTES_MAX]);
        let descriptor = |key: bytes::Bytes| pb::Descriptor {
            span: Some(pb::KeyRange { start: key.clone(), end: key }),
            ..pb::Descriptor::default()
        };
        let mut error = WireError::new(Code::EpochMismatch, "the range has changed");
        error.0.descriptors = vec![descriptor(key); 8];
        error.0.leader_node = 3;
        let status = error.clone().into_detailed_status();
        assert!(status.details().len() <= DETAILS_BYTES_MAX, "{}", status.details().len());
        let heard = pb::Error::decode(status.details()).unwrap();
        assert_eq!((heard.code(), heard.leader_node), (Code::EpochMismatch, 3));
        error.0.descriptors = vec![descriptor("k".into()); 8];
        let heard = pb::Error::decode(error.into_detailed_status().details()).unwrap();
        assert_eq!(heard.descriptors.len(), 8, "small ones fit");
    }
}
