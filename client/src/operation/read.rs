//! Reading one key: route → ask the leader → answer; everything can be repeated.

use super::hold::check_at;
use super::types::Row;
use crate::client::{Client, Failed};
use crate::limits::check_key;
use crate::retry::Next;
use crate::{ClientError, ErrorKind};
use isotherm_proto::internal::error::Code;
use isotherm_proto::internal::{PointResult, ReadPoint, range_request, range_response};
use isotherm_proto::{Retry, WireError};
use isotherm_types::{Key, Timestamp};

impl Client {
    /// The newest value of `key`.
    pub async fn get(&self, key: impl Into<Key>) -> Result<Option<Row>, ClientError> {
        self.read(key.into(), None).await
    }

    /// The value of `key` as of `at`.
    pub async fn get_at(
        &self,
        key: impl Into<Key>,
        at: Timestamp,
    ) -> Result<Option<Row>, ClientError> {
        self.read(key.into(), Some(at)).await
    }

    async fn read(&self, key: Key, at: Option<Timestamp>) -> Result<Option<Row>, ClientError> {
        check_key(&key)?;
        check_at(at)?;
        let inner = &self.inner;
        let mut attempts = inner.attempts();
        loop {
            let (error, next) = match inner.locate(&attempts, &key).await {
                Ok(route) => {
                    let read = ReadPoint {
                        key: key.clone(),
                        at: at.map(Timestamp::get),
                        ..ReadPoint::default()
                    };
                    let body = range_request::Body::Read(read);
                    match inner.attempt(&route, attempts.left(), body).await {
                        Ok(range_response::Body::Read(found)) => return Ok(row(inner, found)),
                        Ok(_) => return Err(unexpected_answer()),
                        Err(failed) => retry_read(failed)?,
                    }
                }
                Err(error) => retry_routing(error)?,
            };
            if !attempts.again(next).await {
                return Err(error);
            }
        }
    }
}

fn row(inner: &crate::client::Inner, found: PointResult) -> Option<Row> {
    let ts = Timestamp(found.ts);
    inner.saw(ts);
    found.found.then_some(Row { value: found.value, ts })
}

pub(super) fn unexpected_answer() -> ClientError {
    ClientError::new(ErrorKind::Internal, "a node gave an answer of another kind")
}

/// An error of routing: whether to try on.
pub(super) fn retry_routing(error: ClientError) -> Result<(ClientError, Next), ClientError> {
    match error.kind {
        ErrorKind::Unreachable | ErrorKind::Unavailable => Ok((error, Next::PAUSE)),
        _ => Err(error),
    }
}

/// What to do after an attempt at a read failed: an error that is final, or one to keep in case
/// there is no time for another attempt, with when that is due.
pub(super) fn retry_read(failed: Failed) -> Result<(ClientError, Next), ClientError> {
    match failed {
        Failed::Definite { error, next } => match error.retry() {
            Retry::Reroute | Retry::Later => Ok((not_applied(&error), next)),
            Retry::SameWriteOnly | Retry::NewBirth | Retry::Never => Err(error.into()),
        },
        // A read changes nothing: it can always be repeated.
        Failed::Unknown(why) => Ok((ClientError::new(ErrorKind::Unavailable, why), Next::PAUSE)),
    }
}

/// What to report if a refusal after which one can try again was the last.
pub(super) fn not_applied(error: &WireError) -> ClientError {
    let kind = match error.code() {
        Code::Busy => ErrorKind::Busy,
        _ => ErrorKind::Unavailable,
    };
    ClientError { kind, ..ClientError::from(WireError(error.0.clone())) }
}
