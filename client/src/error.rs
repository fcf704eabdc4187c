//! What an operation ends with if not with its result.

use isotherm_proto::WireError;
use isotherm_proto::internal::error::Code;
use isotherm_types::Timestamp;
use std::fmt;
use std::time::Duration;

/// What kind of error it is: what a caller can decide by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No member of the meta service, or no node, could be reached.
    Unreachable,
    /// The thing named does not exist.
    NotFound,
    /// A condition of the request does not hold.
    Condition,
    /// The write may or may not have been applied, and may still be.
    Indeterminate,
    /// No quorum answered in time; certainly not applied.
    Unavailable,
    /// A key, a value or a request is over its limit.
    TooLarge,
    /// Overloaded; certainly not applied.
    Busy,
    /// The disk of a node is nearly full; certainly not applied.
    DiskFull,
    /// Bad input; nothing changed.
    Invalid,
    /// The snapshot is older than what is kept.
    SnapshotTooOld,
    /// The timestamp was not issued yet.
    TsTooNew,
    /// The results of writes as old as this one are not remembered any more: this attempt changed nothing,
    /// an earlier one may have been applied.
    Expired,
    /// A fault of the cluster or of this client.
    Internal,
}

/// An error with a message for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientError {
    /// What kind.
    pub kind: ErrorKind,
    /// What happened and what to do about it.
    pub message: String,
    /// When another attempt makes sense, if that is known.
    pub retry_after: Option<Duration>,
    /// Of [`ErrorKind::SnapshotTooOld`]: the oldest timestamp that can be read, if that is known.
    pub safe_point: Option<Timestamp>,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ClientError {}

impl ClientError {
    /// An error of `kind`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, safe_point: None }
    }

    /// Whether nothing was, or will be, applied.
    pub fn is_definite(&self) -> bool {
        self.kind != ErrorKind::Indeterminate
    }
}

impl From<WireError> for ClientError {
    fn from(error: WireError) -> Self {
        let kind = match error.code() {
            Code::Busy => ErrorKind::Busy,
            Code::DiskFull => ErrorKind::DiskFull,
            Code::Invalid => ErrorKind::Invalid,
            Code::TooLarge => ErrorKind::TooLarge,
            Code::Indeterminate | Code::Stale => ErrorKind::Indeterminate,
            Code::SnapshotTooOld => ErrorKind::SnapshotTooOld,
            Code::TsTooNew => ErrorKind::TsTooNew,
            Code::NotFound | Code::RangeNotFound => ErrorKind::NotFound,
            Code::Condition | Code::EpochMismatch => ErrorKind::Condition,
            Code::NotLeader | Code::Unavailable | Code::Expired | Code::Locked => {
                ErrorKind::Unavailable
            }
            Code::Incompatible | Code::Internal | Code::Unspecified => ErrorKind::Internal,
        };
        let number = |n: u64| (n > 0).then_some(n);
        Self {
            retry_after: number(error.0.retry_after_ms).map(Duration::from_millis),
            safe_point: number(error.0.safe_point).map(Timestamp),
            ..Self::new(kind, error.0.message.clone())
        }
    }
}

impl From<tonic::Status> for ClientError {
    fn from(status: tonic::Status) -> Self {
        use tonic::Code as Status;
        let kind = match status.code() {
            Status::InvalidArgument => ErrorKind::Invalid,
            Status::NotFound => ErrorKind::NotFound,
            Status::FailedPrecondition => ErrorKind::Condition,
            Status::ResourceExhausted => ErrorKind::Busy,
            Status::Unavailable => ErrorKind::Unavailable,
            Status::Unknown | Status::Cancelled | Status::DeadlineExceeded => {
                ErrorKind::Indeterminate
            }
            _ => ErrorKind::Internal,
        };
        Self::new(kind, isotherm_transport::status_text(&status))
    }
}
