//! One long-lived stream to a node; operations of all callers share its messages.

use futures::{Stream, StreamExt};
use isotherm_proto::internal::range_service_client::RangeServiceClient;
use isotherm_proto::internal::{RangeRequest, RangeRequests, range_request, range_response};
use isotherm_transport::{connect, gather};
use isotherm_types::limits;
use parking_lot::Mutex;
use prost::Message;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Operations that wait for the wire; more wait before they are queued.
const QUEUE_MAX: usize = 4096;
const SHARDS: usize = 8;

/// What became of a request that a node did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LinkError {
    /// It certainly never left.
    NotSent(String),
    /// It may have arrived.
    Lost(String),
}

type Answer = oneshot::Sender<Result<range_response::Body, LinkError>>;

/// Requests that wait for their answer, by id.
#[derive(Default)]
struct Waiting([Mutex<HashMap<u64, Answer>>; SHARDS]);

impl Waiting {
    fn shard(&self, id: u64) -> &Mutex<HashMap<u64, Answer>> {
        &self.0[(id % SHARDS as u64) as usize]
    }

    fn fail_all(&self, error: &LinkError) {
        for shard in &self.0 {
            for (_, answer) in shard.lock().drain() {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}

/// A stream to one node.
pub(crate) struct NodeLink {
    pub address: String,
    requests: mpsc::Sender<RangeRequest>,
    waiting: Arc<Waiting>,
    next: AtomicU64,
    is_down: Arc<AtomicBool>,
}

/// Forgets a request when its caller gives up.
struct Forget<'a>(&'a Waiting, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.shard(self.1).lock().remove(&self.1);
    }
}

impl NodeLink {
    /// Starts to connect to `address`.
    pub fn start(address: String) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let (waiting, is_down) = (Arc::<Waiting>::default(), Arc::<AtomicBool>::default());
        let (to, table, down) = (address.clone(), waiting.clone(), is_down.clone());
        tokio::spawn(async move {
            let error = run(&to, queue, &table).await;
            down.store(true, Ordering::Release);
            table.fail_all(&error);
        });
        Self { address, requests, waiting, next: AtomicU64::new(1), is_down }
    }

    /// Whether a new link is needed.
    pub fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Acquire)
    }

    /// Sends one request and waits for its answer.
    pub async fn send(
        &self,
        range_id: u64,
        version: u64,
        timeout: Duration,
        body: range_request::Body,
    ) -> Result<range_response::Body, LinkError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.shard(id).lock().insert(id, answer);
        let _forget = Forget(&self.waiting, id);
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1);
        let request = RangeRequest { id, range_id, version, timeout_ms, body: Some(body) };
        let exchange = async {
            if self.requests.send(request).await.is_err() {
                return Err(LinkError::NotSent("the connection is down".to_owned()));
            }
            if self.is_down() {
                // Queued after the table was failed: nobody will answer.
                return Err(LinkError::Lost("the connection broke".to_owned()));
            }
            answered.await.unwrap_or(Err(LinkError::Lost("the connection broke".to_owned())))
        };
        let late = LinkError::Lost(format!("{} did not answer in time", self.address));
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(late))
    }
}

fn messages(queue: mpsc::Receiver<RangeRequest>) -> impl Stream<Item = RangeRequests> {
    gather(queue, Message::encoded_len).map(|requests| RangeRequests { requests })
}

async fn run(address: &str, queue: mpsc::Receiver<RangeRequest>, waiting: &Waiting) -> LinkError {
    let channel = match connect(address).await {
        Ok(channel) => channel,
        Err(error) => return LinkError::NotSent(error.to_string()),
    };
    let lost = |why: &str| LinkError::Lost(format!("{address}: {why}"));
    let mut client = RangeServiceClient::new(channel)
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
    let mut answers = match client.stream(messages(queue)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return lost(status.message()),
    };
    loop {
        match answers.message().await {
            Ok(Some(message)) => {
                for response in message.responses {
                    let answer = waiting.shard(response.id).lock().remove(&response.id);
                    if let (Some(answer), Some(body)) = (answer, response.body) {
                        let _ = answer.send(Ok(body));
                    }
                }
            }
            Ok(None) => return lost("closed by the node"),
            Err(status) => return lost(status.message()),
        }
    }
}
