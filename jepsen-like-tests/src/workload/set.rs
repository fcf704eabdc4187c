//! Inserts of keys that nobody else inserts, and now and then a scan of everything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;

use super::client::{Answer, WorkloadClient};
use super::keys::spread;
use crate::history::Function;
use crate::target::Target;

/// Time between scans on the way.
const SCAN_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Set {
    next: AtomicU64,
    scanned: Mutex<Instant>,
}

impl Default for Set {
    fn default() -> Self {
        Self { next: AtomicU64::new(0), scanned: Mutex::new(Instant::now()) }
    }
}

impl Set {
    pub(super) async fn step<T: Target>(&self, client: &mut WorkloadClient<T>) {
        if client.number == 0 && self.scan_is_due() {
            client.scan().await;
            *self.scanned.lock() = Instant::now();
            return;
        }
        let element = self.next.fetch_add(1, Ordering::Relaxed);
        let (key, text) = (spread("set", element), element.to_string());
        let target = client.target.clone();
        let work = async { target.put(&key, &text).await.map(|()| Answer::default()) };
        client.perform(Function::Write, key.as_str(), json!(element), work).await;
    }

    fn scan_is_due(&self) -> bool {
        self.scanned.lock().elapsed() >= SCAN_EVERY
    }
}
