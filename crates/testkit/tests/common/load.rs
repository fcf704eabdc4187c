//! Clients that work on a cluster while something happens to it.

use isotherm_client::Client;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Clients that write (or read) until they are stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Result<u64, String>>>,
}

impl Load {
    /// Each client increments counters of its own, below `prefix`.
    pub fn increments(client: &Client, clients: u64, keys: u64) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let task = |n: u64| {
            let (client, stop, done) = (client.clone(), stop.clone(), done.clone());
            tokio::spawn(async move {
                let mut count = 0;
                while !stop.load(Ordering::SeqCst) {
                    // Spread over the printable keys, as the ranges are.
                    let first = char::from(b'!' + (n * 37 % 94) as u8);
                    let key = format!("{first}/{n}/{}", count % keys);
                    client.incr(key, 1).await.map_err(|e| e.to_string())?;
                    count += 1;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(count)
            })
        };
        let tasks = (0..clients).map(task).collect();
        Self { stop, done, tasks }
    }

    /// How many were acknowledged so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// How many were acknowledged; no client met an error.
    pub async fn finish(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        let mut sum = 0;
        for task in self.tasks {
            sum += task.await.unwrap().expect("a client met an error");
        }
        sum
    }
}

/// The sum over all keys.
pub async fn counted(client: &Client) -> u64 {
    let mut scan = client.scan(isotherm_client::ScanOptions::default());
    let mut sum = 0;
    while let Some(page) = scan.next_page().await.unwrap() {
        let value = |row: &isotherm_client::Row| {
            std::str::from_utf8(&row.value).unwrap().parse::<u64>().unwrap()
        };
        sum += page.rows.iter().map(|(_, row)| value(row)).sum::<u64>();
    }
    sum
}
