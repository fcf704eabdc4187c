//! Work that many callers wait for and one of them does.

use crate::ClientError;
use parking_lot::Mutex;

/// Lets one caller at a time look something up; the others find what it found, or share its
/// error. Without the latter, callers that queued behind a lookup which times out would each wait
/// for a time-out of their own, one after the other.
#[derive(Default)]
pub(crate) struct Flight {
    running: tokio::sync::Mutex<()>,
    /// How many lookups failed, and the last error.
    failed: Mutex<(u64, Option<ClientError>)>,
}

impl Flight {
    /// What `known` returns, after `work` if it returns nothing before.
    pub async fn share<T>(
        &self,
        known: impl Fn() -> Option<T>,
        work: impl Future<Output = Result<(), ClientError>>,
    ) -> Result<Option<T>, ClientError> {
        let failures = self.failed.lock().0;
        let _one = self.running.lock().await;
        if let Some(found) = known() {
            return Ok(Some(found));
        }
        if let (count, Some(error)) = &*self.failed.lock()
            && *count != failures
        {
            return Err(error.clone());
        }
        let done = work.await;
        if let Err(error) = &done {
            let mut failed = self.failed.lock();
            *failed = (failed.0 + 1, Some(error.clone()));
        }
        done.map(|()| known())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn callers_that_wait_for_a_lookup_share_its_error() {
        let (flight, lookups) = (Flight::default(), AtomicU32::new(0));
        let look_up = || {
            flight.share(|| None::<()>, async {
                lookups.fetch_add(1, Ordering::Relaxed);
                // Now the others queue.
                tokio::task::yield_now().await;
                Err(ClientError::new(ErrorKind::Unreachable, "nobody answers"))
            })
        };
        let all = futures::future::join_all((0..10).map(|_| look_up())).await;
        assert!(all.iter().all(Result::is_err));
        assert_eq!(lookups.load(Ordering::Relaxed), 1);
        assert!(look_up().await.is_err());
        assert_eq!(lookups.load(Ordering::Relaxed), 2, "a later caller tries again");
    }
}
