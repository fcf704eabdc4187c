//! One long-lived stream to a node; operations of all callers share its messages.
//!
//! A request is sent only once the node has accepted the stream, and only if its caller still
//! waits for it. What was not put into a message before the link broke, or before the caller gave
//! up, was certainly not applied; the table of waiting requests decides, so that caller and
//! stream cannot see it differently.

use futures::{Stream, StreamExt, stream};
use isotherm_proto::internal::range_service_client::RangeServiceClient;
use isotherm_proto::internal::{RangeRequest, RangeRequests, range_request, range_response};
use isotherm_transport::{
    ByteBudget, QueueError, QueueReceiver, QueueSender, connect, gather, queue, status_text,
};
use isotherm_types::limits;
use parking_lot::Mutex;
use prost::Message;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// Bytes of operations that wait for the wire; more wait before they are queued.
const QUEUE_BYTES_MAX: usize = 32 << 20;
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

struct Entry {
    answer: Answer,
    is_sent: bool,
}

impl Entry {
    fn error(is_sent: bool, why: &str) -> LinkError {
        if is_sent { LinkError::Lost(why.to_owned()) } else { LinkError::NotSent(why.to_owned()) }
    }
}

/// Requests that wait for their answer, by id.
///
/// Invariant: a request is put into a message only while its entry is here, and the entry says so
/// from then on.
#[derive(Default)]
struct Waiting([Mutex<HashMap<u64, Entry>>; SHARDS]);

impl Waiting {
    fn shard(&self, id: u64) -> &Mutex<HashMap<u64, Entry>> {
        &self.0[(id % SHARDS as u64) as usize]
    }

    /// Whether somebody still waits for `id`; if so, it counts as sent.
    fn send(&self, id: u64) -> bool {
        self.shard(id).lock().get_mut(&id).map(|entry| entry.is_sent = true).is_some()
    }

    /// Stops waiting for `id`; the error to report if it was not answered in between.
    fn give_up(&self, id: u64, why: &str) -> Option<LinkError> {
        let entry = self.shard(id).lock().remove(&id);
        entry.map(|entry| Entry::error(entry.is_sent, why))
    }

    fn fail_all(&self, why: &str) {
        for shard in &self.0 {
            for (_, entry) in shard.lock().drain() {
                let _ = entry.answer.send(Err(Entry::error(entry.is_sent, why)));
            }
        }
    }
}

/// A stream to one node.
pub(crate) struct NodeLink {
    pub address: String,
    requests: QueueSender<RangeRequest>,
    waiting: Arc<Waiting>,
    next: AtomicU64,
    is_down: Arc<AtomicBool>,
}

/// Forgets a request when its caller is dropped.
struct Forget<'a>(&'a Waiting, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.shard(self.1).lock().remove(&self.1);
    }
}

impl NodeLink {
    /// Starts to connect to `address`, meaning a node of `cluster` (0: of any).
    pub fn start(address: String, cluster: u64) -> Self {
        let (requests, queue) = queue(ByteBudget::new(QUEUE_BYTES_MAX));
        let (waiting, is_down) = (Arc::<Waiting>::default(), Arc::<AtomicBool>::default());
        let (to, table, down) = (address.clone(), waiting.clone(), is_down.clone());
        tokio::spawn(async move {
            let why = run(&to, cluster, queue, &table).await;
            // In this order: a request that was entered too late to be failed sees that it is down.
            down.store(true, Ordering::SeqCst);
            table.fail_all(&why);
        });
        Self { address, requests, waiting, next: AtomicU64::new(1), is_down }
    }

    /// Whether a new link is needed.
    pub fn is_down(&self) -> bool {
        self.is_down.load(Ordering::SeqCst)
    }

    /// Sends one request and waits for its answer.
    pub async fn send(
        &self,
        range_id: u64,
        version: u64,
        timeout: Duration,
        body: range_request::Body,
    ) -> Result<range_response::Body, LinkError> {
        let deadline = Instant::now() + timeout;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, mut answered) = oneshot::channel();
        self.waiting.shard(id).lock().insert(id, Entry { answer, is_sent: false });
        let _forget = Forget(&self.waiting, id);
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1);
        let request = RangeRequest { id, range_id, version, timeout_ms, body: Some(body) };
        let down = || LinkError::NotSent(format!("{}: the connection is down", self.address));
        let bytes = request.encoded_len();
        match self.requests.try_send(request, bytes) {
            Ok(()) => {}
            Err(QueueError::Full(request)) => {
                match timeout_at(deadline, self.requests.send(request, bytes)).await {
                    Ok(queued) => queued.map_err(|_| down())?,
                    Err(_) => {
                        let why = format!("{}: too many operations wait for it", self.address);
                        return Err(LinkError::NotSent(why));
                    }
                }
            }
            Err(QueueError::Closed) => return Err(down()),
        }
        let unanswered = if self.is_down() {
            // Perhaps entered after the table was failed: nobody would answer.
            format!("{}: the connection broke", self.address)
        } else {
            match timeout_at(deadline, &mut answered).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(_)) => return Err(LinkError::Lost("an answer without content".to_owned())),
                Err(_) => format!("{} did not answer in time", self.address),
            }
        };
        match self.waiting.give_up(id, &unanswered) {
            Some(error) => Err(error),
            // Taken out of the table by an answer, which is on its way through the channel.
            None => answered.await.unwrap_or(Err(LinkError::Lost(unanswered))),
        }
    }
}

/// What waits in `queue` as messages, once `opened`.
fn messages(
    queue: QueueReceiver<RangeRequest>,
    waiting: Arc<Waiting>,
    cluster_id: u64,
    opened: oneshot::Receiver<()>,
) -> impl Stream<Item = RangeRequests> {
    let gathered = gather(queue).filter_map(move |mut requests| {
        requests.retain(|request| waiting.send(request.id));
        std::future::ready((!requests.is_empty()).then_some(RangeRequests { requests, cluster_id }))
    });
    let gate = async move { opened.await.is_ok().then_some(gathered) };
    stream::once(gate).filter_map(std::future::ready).flatten()
}

/// Serves a link until it breaks; returns why.
async fn run(
    address: &str,
    cluster: u64,
    queue: QueueReceiver<RangeRequest>,
    waiting: &Arc<Waiting>,
) -> String {
    let channel = match connect(address).await {
        Ok(channel) => channel,
        Err(error) => return error.to_string(),
    };
    let broken = |why: &str| format!("{address}: {why}");
    let mut client = RangeServiceClient::new(channel)
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
    let (open, opened) = oneshot::channel();
    let mut answers = match client.stream(messages(queue, waiting.clone(), cluster, opened)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return broken(&status_text(&status)),
    };
    let _ = open.send(());
    loop {
        match answers.message().await {
            Ok(Some(message)) => {
                for response in message.responses {
                    let entry = waiting.shard(response.id).lock().remove(&response.id);
                    if let (Some(entry), Some(body)) = (entry, response.body) {
                        let _ = entry.answer.send(Ok(body));
                    }
                }
            }
            Ok(None) => return broken("closed by the node"),
            Err(status) => return broken(&status_text(&status)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::future::join_all;
    use isotherm_proto::internal::{WriteBatch, WriteOp, write_op};
    use isotherm_types::limits::VALUE_BYTES_MAX;

    fn large_write() -> range_request::Body {
        let put = write_op::Kind::Put(vec![b'v'; VALUE_BYTES_MAX].into());
        let op = WriteOp { key: "k".into(), kind: Some(put) };
        range_request::Body::Write(WriteBatch { ops: vec![op], ..WriteBatch::default() })
    }

    /// Nothing is read by this node: of what its callers want to send, so many bytes wait in the queue, and
    /// the rest with those who want to send it.
    #[tokio::test]
    async fn what_waits_for_a_node_is_bounded_in_bytes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = NodeLink::start(listener.local_addr().unwrap().to_string(), 0);
        // The last one begins below the limit.
        let fit = QUEUE_BYTES_MAX / (VALUE_BYTES_MAX + 256) + 1;
        let beyond = 5;
        let patience = Duration::from_millis(500);
        let writes = (0..fit + beyond).map(|_| link.send(1, 1, patience, large_write()));
        let errors: Vec<_> = join_all(writes).await.into_iter().map(Result::unwrap_err).collect();
        let has = |error: &&LinkError, text: &str| match error {
            LinkError::NotSent(why) => why.contains(text),
            LinkError::Lost(why) => panic!("nothing was sent: {why}"),
        };
        let queued = errors.iter().filter(|e| has(e, "did not answer in time")).count();
        let refused = errors.iter().filter(|e| has(e, "too many operations wait")).count();
        assert_eq!((queued, refused), (fit, beyond), "{errors:?}");
    }
}
