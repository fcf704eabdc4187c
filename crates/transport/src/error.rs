//! What can go wrong between two processes.

use thiserror::Error;

/// Why a message was not answered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
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
