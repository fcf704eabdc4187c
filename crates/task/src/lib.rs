//! Tasks whose end is the end of the process.
//!
//! A runtime catches the panic of a task, and nothing else happens: the process goes on without what
//! the task did, answers as if it were well, and nobody replaces it. So every long-lived task of a
//! process runs inside one of these functions:
//!
//! | function | the process ends when the task |
//! |---|---|
//! | [`until`] | panics, or returns before its stop token is cancelled |
//! | [`guarded`] | panics; it may return whenever it likes |
//! | [`guarded_thread`] | the same for the body of a thread |
//!
//! The process ends by `abort`, as after a failed write of the log: no destructor runs, and whatever was
//! not synced is as it would be after a power loss. An ERROR with the name of the task comes before it.

use futures::FutureExt;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio_util::sync::CancellationToken;

/// Runs `task`, which lasts until `stop`. When it panics, or returns although `stop` was not
/// cancelled, the process ends. Dropping the future ends nothing.
pub async fn until<T>(name: &'static str, stop: CancellationToken, task: impl Future<Output = T>) {
    guarded(name, task).await;
    if !stop.is_cancelled() {
        end_process(name, "it returned, though nothing had told it to");
    }
}

/// Runs `task`, which may return at any time. When it panics the process ends.
pub async fn guarded<T>(name: &'static str, task: impl Future<Output = T>) -> T {
    match AssertUnwindSafe(task).catch_unwind().await {
        Ok(done) => done,
        Err(panic) => end_process(name, &message(&*panic)),
    }
}

/// Runs the body of a thread. When it panics the process ends.
pub fn guarded_thread<T>(name: &'static str, body: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(done) => done,
        Err(panic) => end_process(name, &message(&*panic)),
    }
}

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("it panicked: {}", text.as_deref().unwrap_or("no message"))
}

fn end_process(task: &'static str, why: &str) -> ! {
    tracing::error!(task, why, "a critical task ended: the process ends");
    std::process::abort();
}

#[cfg(test)]
mod tests;
