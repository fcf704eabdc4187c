//! The error that travels in internal messages, and what its receiver may do about it.

use crate::internal as pb;
use pb::error::Code;
use thiserror::Error;

/// An error answer of a node or meta member, with its stable code.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{} ({})", .0.message, self.code().as_str_name())]
pub struct WireError(pub Box<pb::Error>);

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
    /// An error with a code and a message for people.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(pb::Error {
            code: code.into(),
            message: message.into(),
            ..Default::default()
        }))
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
    fn from(e: pb::Error) -> Self {
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
