//! Errors of the public API: a gRPC status, and what a program needs to decide what to do
//! (google/rpc/error_details.proto).

use isotherm_client::{ClientError, ErrorKind};
use isotherm_proto::v1::Reason;
use isotherm_types::limits;
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Whose reasons these are.
const DOMAIN: &str = "isotherm.v1";
/// When it makes sense to repeat what was refused for overload, if nothing better is known.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// An error of an operation, as a call ends with it.
pub(super) fn status(error: ClientError) -> Status {
    let ClientError { kind, message, retry_after, safe_point } = error;
    let retry_after = match kind {
        ErrorKind::Busy => Some(retry_after.unwrap_or(BUSY_PAUSE)),
        _ => retry_after,
    };
    let point = safe_point.map(|ts| ("safe_point".to_owned(), ts.get().to_string()));
    build(reason(kind), message, retry_after, point)
}

/// A request that is refused before anything was done for it.
pub(super) fn refused(reason: Reason, why: impl Into<String>) -> Status {
    let retry_after = (reason == Reason::Busy).then_some(BUSY_PAUSE);
    build(reason, why.into(), retry_after, None)
}

/// A request that is malformed.
pub(super) fn invalid(why: impl Into<String>) -> Status {
    refused(Reason::Invalid, why)
}

fn build(
    reason: Reason,
    mut message: String,
    retry_after: Option<Duration>,
    more: Option<(String, String)>,
) -> Status {
    let code = match reason {
        Reason::Invalid | Reason::TooLarge => Code::InvalidArgument,
        Reason::Condition => Code::FailedPrecondition,
        Reason::Busy | Reason::DiskFull => Code::ResourceExhausted,
        Reason::NoQuorum | Reason::Unreachable => Code::Unavailable,
        Reason::OutcomeUnknown => Code::Unknown,
        Reason::SnapshotTooOld | Reason::TimestampTooNew => Code::OutOfRange,
        Reason::RequestExpired | Reason::NotRead => Code::Aborted,
        Reason::NotFound => Code::NotFound,
        Reason::Internal | Reason::Unspecified => Code::Internal,
    };
    // It can repeat what the client sent, and travels in headers.
    limits::cut_text(&mut message);
    let is_unknown = matches!(reason, Reason::OutcomeUnknown | Reason::RequestExpired);
    let applied = if is_unknown { "unknown" } else { "no" };
    let metadata: HashMap<_, _> =
        [("applied".to_owned(), applied.to_owned())].into_iter().chain(more).collect();
    let name = reason.as_str_name().trim_start_matches("REASON_");
    let mut details = ErrorDetails::with_error_info(name, DOMAIN, metadata);
    if retry_after.is_some() {
        details.set_retry_info(retry_after);
    }
    Status::with_error_details(code, message, details)
}

/// The reason of a kind of error.
pub(super) fn reason(kind: ErrorKind) -> Reason {
    match kind {
        ErrorKind::Unreachable => Reason::Unreachable,
        ErrorKind::NotFound => Reason::NotFound,
        ErrorKind::Condition => Reason::Condition,
        ErrorKind::Indeterminate => Reason::OutcomeUnknown,
        ErrorKind::Unavailable => Reason::NoQuorum,
        ErrorKind::TooLarge => Reason::TooLarge,
        ErrorKind::Busy => Reason::Busy,
        ErrorKind::DiskFull => Reason::DiskFull,
        ErrorKind::Invalid => Reason::Invalid,
        ErrorKind::SnapshotTooOld => Reason::SnapshotTooOld,
        ErrorKind::TsTooNew => Reason::TimestampTooNew,
        ErrorKind::Expired => Reason::RequestExpired,
        ErrorKind::Internal => Reason::Internal,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use isotherm_types::Timestamp;
    use isotherm_types::limits::TEXT_BYTES_MAX;

    #[test]
    fn an_error_says_its_reason_and_whether_it_was_applied() {
        let said = |error: ClientError| {
            let status = status(error);
            let details = status.get_error_details();
            let info = details.error_info().unwrap().clone();
            assert_eq!(info.domain, "isotherm.v1");
            let pause = details.retry_info().and_then(|retry| retry.retry_delay);
            (status.code(), info.reason, info.metadata, pause)
        };
        let (code, reason, metadata, pause) = said(ClientError::new(ErrorKind::Busy, "much"));
        assert_eq!((code, reason.as_str()), (Code::ResourceExhausted, "BUSY"));
        assert_eq!((metadata["applied"].as_str(), pause), ("no", Some(BUSY_PAUSE)));
        let (code, reason, metadata, pause) =
            said(ClientError::new(ErrorKind::Indeterminate, "who knows"));
        assert_eq!((code, reason.as_str()), (Code::Unknown, "OUTCOME_UNKNOWN"));
        assert_eq!((metadata["applied"].as_str(), pause), ("unknown", None));
        let (code, reason, metadata, _) = said(ClientError::new(ErrorKind::Expired, "late"));
        assert_eq!((code, reason.as_str()), (Code::Aborted, "REQUEST_EXPIRED"));
        assert_eq!(metadata["applied"], "unknown", "an earlier attempt may have been");
        let old = ClientError {
            safe_point: Some(Timestamp(77)),
            ..ClientError::new(ErrorKind::SnapshotTooOld, "gone")
        };
        let (code, _, metadata, _) = said(old);
        assert_eq!((code, metadata["safe_point"].as_str()), (Code::OutOfRange, "77"));
    }

    #[test]
    fn what_an_error_says_fits_into_headers() {
        let error = ClientError::new(ErrorKind::Invalid, "x".repeat(TEXT_BYTES_MAX + 1));
        let status = status(error);
        assert!(status.message().len() <= TEXT_BYTES_MAX && status.message().ends_with('…'));
        // The details repeat the message; 16 KiB are what clients take at most.
        assert!(status.details().len() < TEXT_BYTES_MAX + 512, "{}", status.details().len());
    }
}
