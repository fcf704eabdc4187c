//! What can go wrong between two processes.

use std::error::Error;
use tonic::Status;

/// Why a message was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// There is no link, or it broke. A message that was on its way may have arrived.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The other side answered that it will not do it.
    #[error("refused: {0}")]
    Refused(String),
    /// No answer in time: it may have been done.
    #[error("no answer in time")]
    TimedOut,
    /// Frames of a stream are missing, or its receiver was too slow.
    #[error("the stream broke: {0}")]
    Broken(String),
    /// An address that is none.
    #[error("{address:?} is not an address: {why}")]
    Address {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The innermost cause of an error.
pub(crate) fn innermost(error: &dyn Error) -> Option<String> {
    let mut innermost = None;
    let mut cause = error.source();
    while let Some(error) = cause {
        innermost = Some(error.to_string());
        cause = error.source();
    }
    innermost
}

/// What a status says, for people. Of a connection that broke the libraries say "http2 error" or "transport
/// error", and why only in the causes.
pub fn status_text(status: &Status) -> String {
    let said = status.message();
    let says_nothing =
        |text: &str| text.is_empty() || text.contains("http2 error") || text == "transport error";
    match innermost(status).filter(|cause| !says_nothing(cause) && !said.contains(cause.as_str())) {
        Some(cause) if says_nothing(said) => format!("the connection broke: {cause}"),
        Some(cause) => format!("{said}: {cause}"),
        None if says_nothing(said) => {
            "the connection broke, or nothing came over it for seconds".to_owned()
        }
        None => said.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::Arc;

    #[test]
    fn a_broken_connection_is_named_in_words() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let mut status = Status::unavailable("transport error");
        status.set_source(Arc::new(refused));
        assert_eq!(status_text(&status), "the connection broke: connection refused");
        let said = status_text(&Status::unavailable("h2 protocol error: http2 error"));
        assert!(!said.contains("http2"), "{said}");
        assert_eq!(status_text(&Status::not_found("no range r7")), "no range r7");
    }
}
