//! Errors and the exit codes that scripts rely on.

use isotherm_client::{ClientError, ErrorKind};
use std::fmt::Display;

/// Something unexpected.
pub const UNEXPECTED: u8 = 1;
/// Wrong usage.
pub const USAGE: u8 = 2;
/// The cluster cannot be reached.
pub const UNREACHABLE: u8 = 3;
/// The thing named does not exist.
pub const NOT_FOUND: u8 = 4;
/// A condition does not hold.
pub const CONDITION: u8 = 5;
/// The cluster is not healthy.
pub const UNHEALTHY: u8 = 6;
/// No answer in time: the outcome is not known.
pub const UNKNOWN: u8 = 7;
/// Refused: too large, overloaded, a full disk.
pub const REFUSED: u8 = 8;

/// Ended by Ctrl-C, as shells say it.
pub const INTERRUPTED: u8 = 130;

/// What a command ends with if not well.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// For stderr; empty if everything was said already.
    pub message: String,
}

impl Failure {
    /// With a message.
    pub fn new(code: u8, message: impl Display) -> Self {
        Self { code, message: message.to_string() }
    }

    /// Everything was said already.
    pub fn silent(code: u8) -> Self {
        Self { code, message: String::new() }
    }

    /// Wrong usage.
    pub fn usage(message: impl Display) -> Self {
        Self::new(USAGE, message)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match error.kind {
            ErrorKind::Unreachable | ErrorKind::Unavailable => UNREACHABLE,
            ErrorKind::NotFound => NOT_FOUND,
            ErrorKind::Condition => CONDITION,
            ErrorKind::Indeterminate => UNKNOWN,
            ErrorKind::TooLarge
            | ErrorKind::Busy
            | ErrorKind::DiskFull
            | ErrorKind::SnapshotTooOld
            | ErrorKind::TsTooNew
            | ErrorKind::Expired => REFUSED,
            ErrorKind::Invalid => USAGE,
            ErrorKind::Internal => UNEXPECTED,
        };
        let hint = match error.kind {
            ErrorKind::Unreachable => {
                "\nIs the cluster running? Try `isotherm up`, or name its meta service with --meta."
            }
            ErrorKind::Indeterminate => "\nThe write may or may not have been applied.",
            _ => "",
        };
        Self::new(code, format!("{}{hint}", error.message))
    }
}

impl From<csv::Error> for Failure {
    fn from(error: csv::Error) -> Self {
        match error.into_kind() {
            csv::ErrorKind::Io(error) => error.into(),
            other => Self::new(UNEXPECTED, format!("{other:?}")),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        // A reader that has seen enough, such as `head`, is no failure.
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::silent(0);
        }
        Self::new(UNEXPECTED, error)
    }
}
